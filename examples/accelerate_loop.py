"""Accelerate: `accelerate launch examples/accelerate_loop.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import toy
import typer
from accelerate import Accelerator, DataLoaderConfiguration

import dualopt
from dualopt.workload.model import GPTConfig, initial
from dualopt_torch import Optimizer
from dualopt_torch.gpt import GPT, loss

RECIPE = dualopt.Recipe.load(Path(__file__).with_name("recipe.toml"))
CONFIG = GPTConfig(layers=1, width=32, heads=2, context=toy.CONTEXT, vocabulary=toy.VOCABULARY)


@dataclass
class At:
    """Where the run is: Accelerate saves it with the rest."""

    epoch: int = 0
    batch: int = 0
    best: float = float("inf")
    waited: int = 0

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def train(
    out: Path = Path("runs/accelerate_loop"), epochs: int = 3, patience: int = 2, scheduler: bool = False
) -> Optimizer:
    """By the recipe's schedule, or by a scheduler of torch in its place."""
    accelerator = Accelerator(
        gradient_accumulation_steps=2, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True), cpu=True
    )
    torch.manual_seed(0)  # of the order of the rows
    model = GPT(CONFIG, initial(CONFIG, seed=0))
    opt = dualopt.optimizer(model, replace(RECIPE, schedule=dualopt.Schedule()) if scheduler else RECIPE)
    data = torch.utils.data.DataLoader(torch.from_numpy(toy.rows(26, seed=1)), batch_size=2, shuffle=True)
    held_out = torch.from_numpy(toy.rows(16, seed=2))
    model, prepared, data = accelerator.prepare(model, opt, data)
    falls = accelerator.prepare(torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)) if scheduler else None

    at = At()
    accelerator.register_for_checkpointing(at)
    if complete := sorted(out.glob("after_*")):
        accelerator.load_state(str(complete[-1]))

    def save() -> None:  # under its name when it is complete, since a run may be killed while it saves
        accelerator.save_state(str(out / "saving"))
        if accelerator.is_main_process:
            (out / "saving").rename(out / f"after_{opt.plan.tau:012}_{at.epoch}")
            for old in sorted(out.glob("after_*"))[:-2]:
                shutil.rmtree(old)

    tokens = 0
    while at.epoch < epochs and at.waited < patience:
        data.set_epoch(at.epoch)
        for batch in accelerator.skip_first_batches(data, at.batch):
            with accelerator.accumulate(model):
                value = loss(model, batch[:, :-1], batch[:, 1:])
                accelerator.backward(value)
                tokens += batch[:, 1:].numel()
                if accelerator.sync_gradients:  # step() of what Accelerate prepared takes no count
                    opt.advance(int(accelerator.reduce(torch.tensor(tokens, device=accelerator.device))))
                    tokens = 0
                prepared.step()
                if falls:
                    falls.step()
                prepared.zero_grad()
            at.batch += 1
            if accelerator.sync_gradients and at.batch % 6 == 0:
                save()
        with opt.evaluating(), torch.no_grad():
            now = loss(model, held_out[:, :-1], held_out[:, 1:]).item()
        accelerator.print(f"{opt.plan.tau:5} tokens   loss {value.item():.3f}   held out {now:.3f}")
        at.best, at.waited = (now, 0) if now < at.best else (at.best, at.waited + 1)
        at.epoch, at.batch = at.epoch + 1, 0
        save()
    accelerator.end_training()
    return opt


if __name__ == "__main__":
    typer.run(train)
