"""mlx.optimizers: AdamW, Lion, SGD and Muon, eager or compiled as its documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.optimizers
import numpy as np

from ..rules import RULES, knobs
from ..subject import Subject, Task, UnavailableError


class Held:
    """Parameters and gradients of a task as {name: array}."""

    def __init__(self, task: Task) -> None:
        dtype = getattr(mx, task.dtype)
        self.named: dict[str, Any] = {name: mx.array(x).astype(dtype) for name, x in task.parameters()}
        self.gradients: dict[str, Any] = {name: mx.array(x).astype(dtype) for name, x in task.gradients()}
        self._sampled = task.sampled
        mx.eval(self.named, self.gradients)

    def values(self) -> list[Any]:
        return looked_at(self.named, self._sampled)


def looked_at(named: dict[str, Any], sampled: int) -> list[Any]:
    """Some elements of each, evenly spread."""
    found = []
    for x in named.values():
        flat = x.reshape(-1)
        found.append(np.array(flat[:: max(1, flat.size // sampled)][:sampled].astype(mx.float32)))
    return found


def optimizer(rule: str) -> Any:
    """MLX's optimizer for a rule."""
    if rule == "adamw":
        return mlx.optimizers.AdamW(learning_rate=RULES[rule]["lr"], **_rest(rule), bias_correction=True)
    known = {"lion": mlx.optimizers.Lion, "sgdm": mlx.optimizers.SGD, "muon": mlx.optimizers.Muon}
    if rule not in known:
        raise UnavailableError(f"mlx.optimizers has no {rule}")
    return known[rule](learning_rate=RULES[rule]["lr"], **_rest(rule))


def _rest(rule: str) -> dict[str, Any]:
    rest = knobs(rule, "lr")
    return {knob: list(value) if isinstance(value, tuple) else value for knob, value in rest.items()}


def make(task: Task) -> Subject:
    held = Held(task)

    def start() -> Callable[[], object]:
        made = optimizer(task.rule)
        made.init(held.named)
        state = [held.named, made.state]

        def update(gradients: dict[str, Any]) -> None:
            made.update(held.named, gradients)

        run = partial(mx.compile, inputs=state, outputs=state)(update) if task.options.get("compiled") else update

        def step() -> None:
            run(held.gradients)
            mx.eval(held.named, made.state)

        return step

    return Subject(start, held.values)
