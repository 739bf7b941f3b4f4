"""Hugging Face's Trainer: `python examples/huggingface_trainer.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import toy
import typer
from torch.optim.lr_scheduler import LRScheduler
from transformers import (
    EarlyStoppingCallback,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

import dualopt
from dualopt_torch import Optimizer

RECIPE = dualopt.Recipe.load(Path(__file__).with_name("recipe.toml"))


class Counting(TrainerCallback):
    """Tells the optimizer the tokens of every update, as Trainer has counted them."""

    seen = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen = int(state.num_input_tokens_seen)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        seen = int(state.num_input_tokens_seen)
        optimizer.optimizer.advance(seen - self.seen)  # Trainer has wrapped it, and calls step() without arguments
        self.seen = seen

    def on_evaluate(self, args: Any, state: Any, control: Any, optimizer: Any, **kwargs: Any) -> None:
        optimizer.train()  # Trainer has called eval(); checkpoints are of the training


class OfRecipe(LRScheduler):
    """For Trainer, which must have a scheduler: leaves lr to the recipe's [schedule], and reports it."""

    def get_lr(self) -> list[float]:
        return [group["lr"] for group in self.optimizer.param_groups]


def collated(documents: list[list[int]]) -> dict[str, torch.Tensor]:
    """Padded on the right, and the padding left out of the loss."""
    length = max(map(len, documents))
    tokens = torch.tensor([tokens + [0] * (length - len(tokens)) for tokens in documents])
    mask = torch.tensor([[i < len(tokens) for i in range(length)] for tokens in documents])
    return {"input_ids": tokens, "attention_mask": mask.long(), "labels": tokens.masked_fill(~mask, -100)}


def train(
    out: Path = Path("runs/huggingface_trainer"), epochs: int = 3, patience: int = 2, scheduler: str = ""
) -> Optimizer:
    """By the recipe's schedule, or, with a name such as cosine, by Trainer's scheduler in its place."""
    set_seed(0)
    config = LlamaConfig(
        vocab_size=toy.VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.1,
    )
    model = LlamaForCausalLM(config)
    opt = dualopt.optimizer(model, replace(RECIPE, schedule=dualopt.Schedule()) if scheduler else RECIPE)
    trainer = Trainer(
        model,
        TrainingArguments(
            str(out),
            num_train_epochs=epochs,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            include_num_input_tokens_seen="non_padding",
            max_grad_norm=0,  # clipping is on by default; most directions have a length of their own
            lr_scheduler_type=scheduler or "linear",
            eval_strategy="steps",
            eval_steps=3,
            save_steps=3,
            save_total_limit=2,
            logging_steps=3,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            report_to="none",
            use_cpu=True,
        ),
        data_collator=collated,
        train_dataset=toy.documents(27, seed=1),
        eval_dataset=toy.documents(16, seed=2),
        optimizers=(opt, None if scheduler else OfRecipe(opt)),
        callbacks=[Counting(), EarlyStoppingCallback(patience)],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.exists() else None)
    with opt.evaluating():
        trainer.save_model(str(out / "final"))
    return opt


if __name__ == "__main__":
    typer.run(train)
