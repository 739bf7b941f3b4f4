"""dualopt on MLX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from dualopt_mlx import Optimizer

from ..subject import Subject, Task
from .mlx_optim import Held
from .ours import counts, recipe


def make(task: Task) -> Subject:
    """Options: those of `ours.recipe`, and `compiled`: the whole step by `Optimizer.compile`."""
    held, told, count = Held(task), recipe(task.rule, task.options), counts(task.options)
    compiled, traces = bool(task.options.get("compiled")), [0]

    def start() -> Callable[[], object]:
        optimizer = Optimizer(held.named, told)

        def update(gradients: dict[str, Any], **told: int) -> None:
            traces[0] += 1
            optimizer.update(held.named, gradients, **told)

        run: Callable[..., Any] = optimizer.compile(update) if compiled else update

        def step() -> None:
            run(held.gradients, count=count())
            mx.eval(held.named, optimizer.state)

        return step

    return Subject(start, held.values, facts=lambda: {"recompiles": traces[0] - 1} if compiled else {})
