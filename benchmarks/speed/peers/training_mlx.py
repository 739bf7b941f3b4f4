"""A step of training the GPT of `dualopt.workload` on MLX, compiled as a whole: loss, gradients and the optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from dualopt import Recipe
from dualopt.workload.model import GPTConfig, initial
from dualopt.workload.text import batch, load_text
from dualopt_mlx import Optimizer
from dualopt_mlx.gpt import GPT, loss

from ..rules import group
from ..subject import Subject, Task
from .mlx_optim import looked_at, optimizer

BATCH, BATCHES = 8, 4


def make(task: Task) -> Subject:
    """Options: `model`, the arguments of `GPTConfig`, and `optimizer`: "ours", "mlx" or "none"."""
    config = GPTConfig(**task.options["model"])
    model = GPT(config, initial(config, 0))
    text, tokens = load_text(None), BATCH * config.context
    cut = [batch(text, 0, i, BATCH, config.context) for i in range(BATCHES)]
    batches = [tuple(mx.array(x) for x in pair) for pair in cut]
    fed = itertools.cycle(batches)
    derived = nn.value_and_grad(model, lambda inputs, targets: loss(model, inputs, targets))
    mx.eval(model.parameters(), batches)

    def start() -> Callable[[], object]:
        chosen = task.options["optimizer"]
        if chosen == "ours":
            told = {"count": {"unit": "tokens", "per_update": tokens}, "group": [dict(group(task.rule, tokens))]}
            ours = Optimizer(model, Recipe.from_dict(told))

            def update(inputs: Any, targets: Any, **count: int) -> Any:
                value, gradients = derived(inputs, targets)
                ours.update(model, gradients, **count)
                return value

            compiled = ours.compile(update)
            return lambda: mx.eval(compiled(*next(fed), count=tokens), model.parameters(), ours.state)
        if chosen == "none":
            run = mx.compile(derived, inputs=model.state, outputs=model.state)  # which `derived` puts back
            return lambda: mx.eval(run(*next(fed)))
        made = optimizer(task.rule)
        made.init(model.trainable_parameters())
        state = [model.state, made.state]

        @partial(mx.compile, inputs=state, outputs=state)
        def stepped(inputs: Any, targets: Any) -> Any:
            value, gradients = derived(inputs, targets)
            made.update(model, gradients)
            return value

        return lambda: mx.eval(stepped(*next(fed)), state)

    def facts() -> dict[str, Any]:
        return {"loss": sum(float(loss(model, *pair)) for pair in batches) / len(batches)}

    moves = task.options["optimizer"] != "none"
    return Subject(
        start, lambda: looked_at(dict(tree_flatten(model.parameters())), task.sampled), facts=facts, moves=moves
    )
