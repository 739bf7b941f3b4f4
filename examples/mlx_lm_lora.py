"""LoRA fine-tuning by mlx-lm's trainer: `python examples/mlx_lm_lora.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import toy
import typer
from mlx.utils import tree_flatten
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.tuner import trainer
from mlx_lm.tuner.callbacks import TrainingCallback
from mlx_lm.tuner.datasets import CacheDataset, load_local_dataset
from mlx_lm.tuner.utils import linear_to_lora_layers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import dualopt
from dualopt.series import Series
from dualopt_mlx import Optimizer

RECIPE = Path(__file__).with_name("lora.toml")
EVERY = 4  # batches between checkpoints, and between looks at held-out text
FOLDED = 2  # batches of an update


def counted(opt: Optimizer, done: int) -> Callable[..., Iterator[Any]]:
    """mlx-lm's batches behind the first `done`, and before those that end an update its tokens for the optimizer.

    Order and dropout are functions of the position, so that a resumed run has those of an uninterrupted one.
    """

    def iterate(
        dataset: Any, batch_size: int, max_seq_length: int, loop: bool = False, **options: Any
    ) -> Iterator[Any]:
        def epoch(seed: int | None) -> Iterator[Any]:
            return trainer.iterate_batches(dataset, batch_size, max_seq_length, seed=seed, **options)

        if not loop:  # held-out text
            yield from epoch(None)
            return
        batches = itertools.chain.from_iterable(map(epoch, itertools.count()))
        tokens = 0
        for i, (batch, lengths) in enumerate(itertools.islice(batches, done, None), start=done + 1):
            tokens += lengths[:, 1].sum().item()
            if i % FOLDED == 0:
                opt.advance(tokens)
                tokens = 0
            mx.random.seed(i)
            yield batch, lengths

    return iterate


class StopEarlyError(Exception):
    """Held-out text gets no better."""


class Saving(TrainingCallback):
    """What mlx-lm leaves to its caller: to save more than the adapters, and to stop early."""

    def __init__(self, opt: Optimizer, checkpoints: Series, patience: int, at: dict[str, Any]) -> None:
        self.opt, self.checkpoints, self.patience = opt, checkpoints, patience
        self.before, self.at = at["batches"], at

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        if val_info["iteration"] == 0 and self.before:
            return  # mlx-lm begins by a look, also where a run goes on
        better = val_info["val_loss"] < self.at["best"]
        self.at |= {"best": val_info["val_loss"], "waited": 0} if better else {"waited": self.at["waited"] + 1}

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        self.at["batches"] = self.before + train_info["iteration"]
        self.checkpoints.save(self.opt.snapshot(), metadata={"at": json.dumps(self.at)})
        if self.at["waited"] >= self.patience:
            raise StopEarlyError


def train(out: Path = Path("runs/mlx_lm_lora"), batches: int = 40, patience: int = 3) -> Optimizer:
    """`batches`: of the whole run, before and after it was interrupted."""
    data, adapters = out / "data", out / "adapters.safetensors"
    data.mkdir(parents=True, exist_ok=True)
    for name, number, seed in (("train", 24, 1), ("valid", 8, 2)):
        texts = [{"text": " ".join(map(str, tokens))} for tokens in toy.documents(number, seed)]
        (data / f"{name}.jsonl").write_text("\n".join(map(json.dumps, texts)))
    words = Tokenizer(models.WordLevel({str(i): i for i in range(toy.VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="0")
    texts, held_out, _ = load_local_dataset(data, tokenizer, SimpleNamespace())

    mx.random.seed(0)
    model = Model(ModelArgs("llama", 32, 1, 64, 2, 1e-5, toy.VOCABULARY))  # in place of mlx_lm.load("...")
    model.freeze()
    linear_to_lora_layers(model, 1, {"rank": 4, "scale": 8.0, "dropout": 0.1})
    opt = dualopt.optimizer(model, RECIPE)

    checkpoints = Series(out / "checkpoint.safetensors")
    at: dict[str, Any] = {"batches": 0, "best": float("inf"), "waited": 0}
    if found := checkpoints.load(tell=print):
        opt.restore(found[0])
        at = json.loads(found[1]["at"])
    done = at["batches"]
    if done < batches and at["waited"] < patience:
        args = trainer.TrainingArgs(
            batch_size=4,
            iters=batches - done,
            val_batches=-1,
            steps_per_report=EVERY,
            steps_per_eval=EVERY,
            steps_per_save=batches + 1,
            adapter_file=str(adapters),
            grad_accumulation_steps=FOLDED,
        )
        try:
            trainer.train(
                model,
                opt,
                CacheDataset(texts),
                CacheDataset(held_out),
                args=args,
                iterate_batches=counted(opt, done),
                training_callback=Saving(opt, checkpoints, patience, at),
            )
        except StopEarlyError:
            print("stopped early")
    mx.save_safetensors(str(adapters), dict(tree_flatten(model.trainable_parameters())))
    return opt


if __name__ == "__main__":
    typer.run(train)
