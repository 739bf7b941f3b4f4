"""Lightning: `python examples/lightning_trainer.py`. Run it again after a kill, and it goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
import toy
import typer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

import dualopt
from dualopt.workload.model import GPTConfig, initial
from dualopt_torch import Optimizer
from dualopt_torch.gpt import GPT, loss

RECIPE = dualopt.Recipe.load(Path(__file__).with_name("recipe.toml"))
CONFIG = GPTConfig(layers=1, width=32, heads=2, context=toy.CONTEXT, vocabulary=toy.VOCABULARY)


class Model(lightning.LightningModule):
    """Counts the tokens of an update, whatever `accumulate_grad_batches` is, and tells the optimizer."""

    def __init__(self, recipe: dualopt.Recipe, scheduler: bool) -> None:
        super().__init__()
        self.gpt, self.recipe, self.scheduler = GPT(CONFIG, initial(CONFIG, seed=0)), recipe, scheduler
        self.tokens = 0

    def configure_optimizers(self) -> Any:
        opt = dualopt.optimizer(self, self.recipe)
        if not self.scheduler:
            return opt
        falls = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": falls, "interval": "step"}}

    def on_train_batch_start(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.tokens += batch[:, 1:].numel()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        optimizer.step(closure=optimizer_closure, count=self.tokens)
        self.tokens = 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        value = loss(self.gpt, batch[:, :-1], batch[:, 1:])
        self.log("loss", value, prog_bar=True)
        return value

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.log("held_out", loss(self.gpt, batch[:, :-1], batch[:, 1:]), prog_bar=True)

    def on_validation_start(self) -> None:  # validate the averaged weights of rows that average
        if not self.trainer.sanity_checking:
            self.optimizers().eval()

    def on_validation_end(self) -> None:
        if not self.trainer.sanity_checking:
            self.optimizers().train()


class Loader(toy.Batches):
    """Whose place in the data Lightning saves, since it has a `state_dict`."""

    def __iter__(self) -> Any:
        return map(torch.from_numpy, super().__iter__())


def train(
    out: Path = Path("runs/lightning_trainer"), epochs: int = 3, patience: int = 2, scheduler: bool = False
) -> Optimizer:
    """By the recipe's schedule, or by a scheduler of torch in its place."""
    model = Model(replace(RECIPE, schedule=dualopt.Schedule()) if scheduler else RECIPE, scheduler)
    checkpoints = ModelCheckpoint(out, save_last=True, every_n_train_steps=2)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=2,
        accelerator="cpu",
        callbacks=[checkpoints, EarlyStopping("held_out", patience=patience), LearningRateMonitor()],
        logger=CSVLogger(out),
        log_every_n_steps=1,
        enable_model_summary=False,
    )
    last = out / "last.ckpt"
    trainer.fit(
        model,
        Loader(toy.rows(26, seed=1), size=2),
        torch.utils.data.DataLoader(torch.from_numpy(toy.rows(16, seed=2)), batch_size=16),
        ckpt_path=last if last.exists() else None,
    )
    return trainer.optimizers[0]


if __name__ == "__main__":
    typer.run(train)
