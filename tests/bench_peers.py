"""Peers that do what no peer should, for `test_bench`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.subject import Subject, Task, UnavailableError


def _subject(task: Task, step: Callable[[dict[str, Any]], None]) -> Subject:
    held = dict(task.parameters())
    return Subject(lambda: lambda: step(held), lambda: [x.reshape(-1).copy() for x in held.values()])


def idle(task: Task) -> Subject:
    """Moves the first parameter alone."""

    def step(held: dict[str, Any]) -> None:
        next(iter(held.values()))[:] += 1

    return _subject(task, step)


def nan(task: Task) -> Subject:
    def step(held: dict[str, Any]) -> None:
        for x in held.values():
            x[:] = np.nan

    return _subject(task, step)


def breaks(task: Task) -> Subject:
    def step(held: dict[str, Any]) -> None:
        1 / 0  # noqa: B018

    return _subject(task, step)


def absent(task: Task) -> Subject:
    raise UnavailableError("not on a Sunday")


def needs(task: Task) -> Subject:
    import no_such_package  # type: ignore[import-not-found]

    return _subject(task, no_such_package)
