"""dualopt on torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch

from dualopt_torch import Optimizer

from ..subject import Subject, Task
from .ours import counts, recipe
from .torch_arrays import Held


def make(task: Task) -> Subject:
    """Options: those of `ours.recipe`, `compiled` as that of the optimizer, and `keywords`, more of its arguments."""
    told, count = recipe(task.rule, task.options), counts(task.options)
    keywords = {"compiled": task.options.get("compiled"), **task.options.get("keywords", {})}
    held = Held(task, stay=bool(keywords.get("flat")))
    after_first = [0]

    def start() -> Callable[[], object]:
        optimizer = Optimizer(held.named, told, **keywords)
        steps = itertools.count()

        def step() -> None:
            optimizer.step(count=count())
            if next(steps) == 0:
                after_first[0] = graphs()

        return step

    return held.subject(start, facts=lambda: {"recompiles": graphs() - after_first[0]})


def graphs() -> int:
    """How many graphs torch has compiled in this process."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])
