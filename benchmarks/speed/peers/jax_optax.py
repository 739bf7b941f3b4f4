"""optax, under jax.jit with parameters and state donated."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

from ..rules import RULES
from ..subject import Subject, Task, UnavailableError


def transformation(rule: str) -> optax.GradientTransformation:
    """optax's optimizer for a rule."""
    k = RULES.get(rule, {})
    if rule == "adamw":
        (b1, b2), eps = k["betas"], k["eps"]
        return optax.adamw(k["lr"], b1=b1, b2=b2, eps=eps, weight_decay=k["weight_decay"])
    if rule == "lion":
        b1, b2 = k["betas"]
        return optax.lion(k["lr"], b1=b1, b2=b2, weight_decay=k["weight_decay"])
    if rule == "sgdm":
        return optax.sgd(k["lr"], momentum=k["momentum"])
    if rule == "muon":
        return optax.contrib.muon(k["lr"], beta=k["momentum"], weight_decay=k["weight_decay"])
    raise UnavailableError(f"optax is not timed for {rule}")


def make(task: Task) -> Subject:
    dtype = jnp.dtype(task.dtype)
    named: list[Any] = [{name: jnp.asarray(x, dtype) for name, x in task.parameters()}]
    gradients = {name: jnp.asarray(x, dtype) for name, x in task.gradients()}
    sampled = task.sampled

    def start() -> Callable[[], object]:
        made = transformation(task.rule)
        state = [made.init(named[0])]

        @partial(jax.jit, donate_argnums=(0, 1))
        def update(parameters: Any, state: Any, gradients: Any) -> Any:
            moves, state = made.update(gradients, state, parameters)
            return optax.apply_updates(parameters, moves), state

        def step() -> None:
            named[0], state[0] = jax.block_until_ready(update(named[0], state[0], gradients))

        return step

    def values() -> list[Any]:
        whole = [np.asarray(named[0][name], np.float32).reshape(-1) for name in task.shapes]  # JAX sorts keys
        return [x[:: max(1, x.size // sampled)][:sampled].copy() for x in whole]

    return Subject(start, values)
