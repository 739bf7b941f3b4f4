"""The training loop, the same for every backend; a backend supplies a `Trainer`.

A run can be interrupted anywhere (Ctrl-C saves first) and resumed: update n sees batch n - 1 of the
seed, so that the resumed run has the same bits as an uninterrupted one on the same framework.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, Protocol

import numpy as np

from dualopt.checkpoint import Snapshot, require
from dualopt.errors import CheckpointError
from dualopt.series import Series
from dualopt.workload.gradients import Recording
from dualopt.workload.model import GPTConfig, parameter_shapes
from dualopt.workload.run import Run
from dualopt.workload.settings import Settings
from dualopt.workload.text import Batch, Text, batch, validation

Array = np.ndarray[Any, Any]

_UPDATE = re.compile("[0-9]{1,18}")


class Trainer(Protocol):
    """What a backend supplies: the model of ``config``, its optimizer, and their state as numpy arrays."""

    @property
    def config(self) -> GPTConfig: ...

    def update(self, inputs: Array, targets: Array, count: int) -> float:
        """One update on int32 (batch, context) arrays that advances the count; the loss before it."""

    def gradients(self) -> dict[str, Array]:
        """The gradients of the last update, float32, not shared with the framework."""

    def evaluate(self, inputs: Array, targets: Array) -> float:
        """The loss of a validation batch, at the averaged weights where there are some; changes nothing."""

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...

    def describe(self) -> dict[str, Any]:
        """framework, version, device, threads (or None where the framework does not say)."""


class Progress(Protocol):
    """Called after every update; ``validation`` is the validation loss when there is a new one."""

    def __call__(self, update: int, updates: int, loss: float, validation: float | None) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """Where a run stopped: updates done, cumulative count, and whether Ctrl-C stopped it."""

    update: int
    count: int
    interrupted: bool


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=2)


def train(
    trainer: Trainer,
    text: Text,
    settings: Settings,
    run: Run,
    *,
    progress: Progress | None = None,
    digest: Callable[[Snapshot], str] | None = None,
    tell: Callable[[str], None] = _warn,
) -> Outcome:
    """Train until ``settings.updates``, from the newest intact checkpoint of ``run`` if it has one.

    ``digest``: a hexadecimal digest of a snapshot, logged with every update (it costs a snapshot each).
    ``tell``: called with what is wrong with a checkpoint that is passed over.
    Raises: DataError for a too short text, CheckpointError for a checkpoint of another model, a directory that
    cannot be written or that another process trains in, and what the trainer raises; the last checkpoint is kept.
    """
    with run.alone():
        return _train(trainer, text, settings, run, progress, digest, tell)


def _train(
    trainer: Trainer,
    text: Text,
    settings: Settings,
    run: Run,
    progress: Progress | None,
    digest: Callable[[Snapshot], str] | None,
    tell: Callable[[str], None],
) -> Outcome:
    config = trainer.config
    held_out = validation(text, settings.validation_batches, settings.batch, config.context)
    recording = Recording(run.gradients, settings.record_gradients)
    increment = settings.increment(config.context)
    checkpoints = Series(run.checkpoint, settings.keep_checkpoints)
    done, earlier = _restore(trainer, run, checkpoints, recording, tell)
    start = time.perf_counter() - earlier

    def log(update: int, **values: float | str) -> None:
        elapsed = round(time.perf_counter() - start, 3)
        run.log({"update": update, "count": update * increment, **values, "elapsed": elapsed})

    if done == 0:
        log(0, validation_loss=_evaluate(trainer, held_out))
    with _interruption() as interrupted:
        for update in range(done + 1, settings.updates + 1):
            inputs, targets = batch(text, settings.seed, update - 1, settings.batch, config.context)
            loss = trainer.update(inputs, targets, increment)
            done = update
            log(update, loss=loss, **({"digest": digest(trainer.snapshot())} if digest else {}))
            if update <= settings.record_gradients:
                recording.add(trainer.gradients())
            last = update == settings.updates
            score = None
            if last or update % settings.evaluate_every == 0:
                score = _evaluate(trainer, held_out)
                log(update, validation_loss=score)
            stop = interrupted.is_set()
            if stop or last or update % settings.checkpoint_every == 0:
                recording.save()
                _save(trainer, run, checkpoints, update)
            if progress:
                progress(update, settings.updates, loss, score)
            if stop:
                break
    return Outcome(done, done * increment, done < settings.updates)


def _save(trainer: Trainer, run: Run, checkpoints: Series, update: int) -> None:
    run.sync()
    metadata = {"update": str(update), "recipe": run.manifest["recipe"]["digest"]}
    checkpoints.save(trainer.snapshot(), metadata=metadata)


def _restore(
    trainer: Trainer, run: Run, checkpoints: Series, recording: Recording, tell: Callable[[str], None]
) -> tuple[int, float]:
    """Updates already done and the seconds they took. The metrics after the checkpoint are dropped."""
    run.sweep()
    found = checkpoints.load(tell)
    if found is None:
        run.truncate(-1)
        return 0, 0.0
    snapshot, metadata = found
    update = metadata.get("update", "")
    if not _UPDATE.fullmatch(update) or metadata.get("recipe") != run.manifest["recipe"]["digest"]:
        raise CheckpointError(f"{run.path}: the newest checkpoint is not one of this run; restore the right file")
    require(snapshot, parameter_shapes(trainer.config), where=f"{run.path}: the newest checkpoint")
    recording.restart(int(update))
    trainer.restore(snapshot)
    run.truncate(int(update))
    rows = run.rows()
    return int(update), float(rows[-1].get("elapsed", 0.0)) if rows else 0.0


def _evaluate(trainer: Trainer, batches: list[Batch]) -> float:
    return sum(trainer.evaluate(inputs, targets) for inputs, targets in batches) / len(batches)


@contextlib.contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C sets; a second one interrupts as usual."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals belong to the main thread
        return
    previous = signal.getsignal(signal.SIGINT) or signal.SIG_DFL  # None: not installed from Python

    def handler(number: int, frame: FrameType | None) -> None:
        event.set()
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handler)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)
