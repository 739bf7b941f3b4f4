"""A piece of work for the trainers: recipe, text, model and settings, checked before anything is loaded."""

from __future__ import annotations

import importlib
import math
import shutil
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from ..digest import snapshot_digest
from ..errors import MissingFrameworkError, RecipeError
from ..frameworks import backend_module
from ..namespace import installed
from ..recipe import Recipe
from ..watch import Monitor
from ..watch.board import INSTALL, board
from ..watch.stream import NAME as MONITORED
from ..workload import train as loop
from ..workload.model import GPTConfig
from ..workload.run import Run, manifest
from ..workload.settings import Settings
from ..workload.text import Text, load_text
from .output import warn

FRAMEWORKS = ("torch", "mlx")


@dataclass(frozen=True)
class Work:
    """What every framework does alike."""

    recipe: Recipe
    recipe_text: str
    text: Text
    config: GPTConfig
    settings: Settings
    tier: str = "fast"
    device: str | None = None

    @property
    def increment(self) -> int:
        """Δτ of one update, in the recipe's base unit."""
        return self.settings.increment(self.config.context)

    @property
    def overrun(self) -> int:
        """How many updates come after the recipe's schedule has brought the step to 0."""
        if self.recipe.schedule.floor > 0:
            return 0
        return max(self.settings.updates - (_end(self.recipe, self.increment) or self.settings.updates), 0)


@dataclass(frozen=True)
class Trained:
    """A run and where it stopped."""

    framework: str
    run: Run
    outcome: loop.Outcome

    def last(self, key: str) -> float:
        """The last value of ``loss``, ``validation_loss`` or ``elapsed`` in the metrics; NaN without one."""
        return next((float(row[key]) for row in reversed(self.run.rows()) if key in row), math.nan)


def read_recipe(path: Path | None) -> tuple[Recipe, str]:
    """A recipe and its text; None for the small GPT's own."""
    if path is not None:
        recipe = Recipe.load(path)
        return recipe, path.read_text(encoding="utf-8")
    text = resources.files("dualopt.workload").joinpath("gpt.toml").read_text(encoding="utf-8")
    return Recipe.from_dict(tomllib.loads(text)), text


def prepare(
    recipe: Path | None,
    data: Path | None,
    config: GPTConfig,
    *,
    updates: int | None,
    batch: int,
    seed: int,
    record: int = 0,
    tier: str = "fast",
    device: str | None = None,
) -> Work:
    """The work of a command's options. Without `updates` a recipe with an end is trained to its end.

    Raises: DualoptError for a bad recipe, text or number.
    """
    checked, written = read_recipe(recipe)
    settings = Settings(batch=batch, seed=seed, unit=checked.count.base, record_gradients=record)
    end = _end(checked, settings.increment(config.context))
    settings = replace(settings, updates=updates or end or settings.updates)
    return Work(checked, written, load_text(None if data is None else str(data)), config, settings, tier, device)


def _end(recipe: Recipe, increment: int) -> int | None:
    """The update that reaches the end of the recipe's schedule, if it has one."""
    total = recipe.schedule.total
    return None if total is None else math.ceil(recipe.count.to_base(total) / increment)


def chosen(framework: str) -> tuple[str, ...]:
    """The frameworks that a --framework option means, each of them loaded.

    Raises: RecipeError for an unknown name, MissingFrameworkError for one that is not installed.
    """
    if framework == "all":
        there = installed()
        found = tuple(name for name in FRAMEWORKS if name in there)
        if not found:
            raise MissingFrameworkError(
                "neither torch nor mlx is installed; run: pip install 'dualopt-optim[torch]' or 'dualopt-optim[mlx]'"
            )
        return found
    if framework not in FRAMEWORKS:
        raise RecipeError(f"--framework is {', '.join(FRAMEWORKS)} or all, got {framework!r}")
    backend_module(framework)
    return (framework,)


@dataclass(frozen=True)
class Watch:
    """What a monitor does: see `dualopt.Monitor`; `tensorboard`: it writes for that too, where it is installed."""

    every: int | None = None
    tensorboard: bool = False


def _watched(watch: Watch, optimizer: Any, work: Work, run: Run, *, resume: bool) -> None:
    file, events = run.path / MONITORED, run.path / "tensorboard"
    if not resume:
        file.unlink(missing_ok=True)
        shutil.rmtree(events, ignore_errors=True)
    writer = board(events) if watch.tensorboard else None
    if watch.tensorboard and writer is None:
        warn(f"TensorBoard is not installed, so nothing is written for it: {INSTALL}. {file.name} has all numbers")
    end = work.settings.updates * work.increment
    Monitor(optimizer, file, every=watch.every, end=end, per_update=work.increment, writer=writer)


def carry_out(
    work: Work,
    framework: str,
    path: Path,
    *,
    resume: bool,
    show: loop.Progress,
    digests: bool = True,
    tell: Callable[[str], None] = warn,
    watch: Watch | None = None,
) -> Trained:
    """Train on one framework in the run directory `path`, watched or not; with `digests` the log has those of updates.

    ``tell``: as of `loop.train`.

    Raises: DualoptError.
    """
    make: Callable[..., Any] = importlib.import_module(f"dualopt_{framework}.trainer").trainer
    options = {} if work.device is None else {"device": work.device}
    try:
        trainer = make(work.config, work.recipe, seed=work.settings.seed, tier=work.tier, **options)
    except (RuntimeError, AssertionError) as error:  # what torch raises for a device that it does not have
        if work.device is None:
            raise
        raise RecipeError(f"{framework} cannot use the device {work.device!r}: {str(error).splitlines()[0]}") from error
    told = manifest(
        recipe=work.recipe_text,
        digest=work.recipe.digest(),
        tier=work.tier,
        config=work.config,
        settings=work.settings,
        text=work.text,
        framework=trainer.describe(),
    )
    run = Run.resume(path, told) if resume else Run.create(path, told)
    if watch is not None:
        _watched(watch, trainer.optimizer, work, run, resume=resume)
    recorder = snapshot_digest if digests else None
    done = loop.train(trainer, work.text, work.settings, run, progress=show, digest=recorder, tell=tell)
    return Trained(framework, run, done)
