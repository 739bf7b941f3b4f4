"""A step of training the GPT of `dualopt.workload` on torch: loss, gradients and the optimizer.

The rule is AdamW's for all parameters, or "muon": Muon's for the matrices of the blocks and AdamW's for the rest.
Without an optimizer (the floor) it is loss and gradients.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch

from dualopt import Recipe
from dualopt.workload.model import GPTConfig, initial
from dualopt.workload.text import batch, load_text
from dualopt_torch import Optimizer
from dualopt_torch.gpt import GPT, loss

from ..rules import group
from ..subject import Subject, Task
from .torch_arrays import looked_at
from .torch_optim import optimizer

BATCH, BATCHES = 8, 4


def split(rule: str) -> list[tuple[str, dict[str, Any]]]:
    """[(rule, what of its group is not the rule's)], first match first."""
    hidden = [("muon", {"name": "hidden", "match": ["blocks.*.weight"], "ndim": 2})] if rule == "muon" else []
    return [*hidden, ("adamw", {"name": "rest"})]


def recipe(rule: str, per_update: int) -> Recipe:
    """The rule for the names of the GPT."""
    groups = [dict(group(part, per_update, **more)) for part, more in split(rule)]
    return Recipe.from_dict({"count": {"unit": "tokens", "per_update": per_update}, "group": groups})


def make(task: Task) -> Subject:
    """Options: `model`, the arguments of `GPTConfig`, and `optimizer`: "ours", "torch" or "none"."""
    config = GPTConfig(**task.options["model"])
    model = GPT(config, initial(config, 0))
    text, tokens = load_text(None), BATCH * config.context
    cut = [batch(text, 0, i, BATCH, config.context) for i in range(BATCHES)]
    batches = [tuple(torch.from_numpy(x).to(torch.int64) for x in pair) for pair in cut]
    fed = itertools.cycle(batches)
    chosen = task.options["optimizer"]

    def stepper() -> Callable[[], object]:
        if chosen == "ours":
            ours = Optimizer(model, recipe(task.rule, tokens))
            return lambda: ours.step(count=tokens)
        if chosen == "none":
            return lambda: None
        named = dict(model.named_parameters())
        matrices = [x for name, x in named.items() if name.startswith("blocks") and x.ndim == 2]
        parts = {"muon": matrices} if task.rule == "muon" else {}
        taken = {id(x) for xs in parts.values() for x in xs}
        rest = optimizer("adamw", [x for x in named.values() if id(x) not in taken], fused=True)
        all_of_them = [*(optimizer(rule, xs) for rule, xs in parts.items()), rest]
        return lambda: [one.step() for one in all_of_them]

    def start() -> Callable[[], object]:
        advance = stepper()

        def step() -> None:
            inputs, targets = next(fed)
            model.zero_grad()
            loss(model, inputs, targets).backward()  # type: ignore[no-untyped-call]
            advance()

        return step

    def facts() -> dict[str, Any]:
        with torch.no_grad():
            return {"loss": sum(float(loss(model, *pair)) for pair in batches) / len(batches)}

    moves = chosen != "none"
    return Subject(start, lambda: looked_at(model.parameters(), task.sampled), facts=facts, moves=moves)
