"""Many small GPTs trained at once, for experiments that compare recipes over seeds.

The model, its text and its initial values are those of `dualopt.workload`; gains stay at one, so that every parameter
is a matrix. Members differ in recipe and seed. A parameter of all of them is one array (recipes, seeds, m, n): the
passes run over members by `torch.func.vmap`, and the core's own `executor` updates the arrays, with scalars of shape
(recipes, 1, 1, 1) where a single training has numbers. No member meets another, so its loss is that of training alone
but for the last bits of batched products. At small batches most of the cost is that of calls, which members share.

Seed s draws the windows of s, in one order whatever the batch size: runs of a seed see the same tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from dualopt import Recipe
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.recursion import Arrays
from dualopt.workload.model import GPTConfig, initial, parameter_shapes
from dualopt.workload.text import Batch, Text, batch, validation
from dualopt_torch.gpt import GPT
from dualopt_torch.namespace import FAST

CONFIG = GPTConfig(layers=1, width=48, heads=2, context=32)
HELD_OUT = 4, 64  # validation batches, windows in each
MEMBERS = 36  # at once

Array = np.ndarray[Any, np.dtype[np.float64]]
Tick = Callable[[int, int], None]  # (updates done, of)


def trained_shapes(config: GPTConfig) -> dict[str, tuple[int, ...]]:
    """Of the matrices."""
    return {name: shape for name, shape in parameter_shapes(config).items() if len(shape) == 2}


def size(config: GPTConfig = CONFIG) -> int:
    """How many parameters are trained."""
    return sum(math.prod(shape) for shape in trained_shapes(config).values())


class Members:
    """The parameters of all members, {name: (recipes, seeds, m, n)}, and their states.

    Args:
        config: of the model.
        recipes: of the same rows for the same parameters; what differs are numbers.
        seeds: of initial values.
    """

    def __init__(self, config: GPTConfig, recipes: Sequence[Recipe], seeds: Sequence[int]) -> None:
        drawn = [initial(config, seed) for seed in seeds]
        self.base = GPT(config, drawn[0]).requires_grad_(False)
        self.many = len(recipes), len(seeds)
        stacked = {name: np.stack([[one[name] for one in drawn]] * len(recipes)) for name in trained_shapes(config)}
        self.values = {name: torch.from_numpy(value).requires_grad_() for name, value in stacked.items()}
        shapes = {name: tuple(value.shape) for name, value in self.values.items()}
        self.plans = [Plan(_of_stacks(recipe), shapes) for recipe in recipes]
        first = self.plans[0]
        if any([g.row for g in plan.groups] != [g.row for g in first.groups] for plan in self.plans):
            raise ValueError("members that train together have the same rows")
        self.execute = executor(FAST)
        with torch.no_grad():
            self.state: dict[str, Arrays] = {
                name: first.groups[first.group_of[name]].start(FAST, name, value) for name, value in self.values.items()
            }

    def losses(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """(recipes, seeds) of tokens (seeds, batch, length)."""
        return self._losses(self.values, inputs, targets)

    def scores(self, batches: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """(recipes, seeds): the mean over batches, at the weights that are evaluated."""
        plan = self.plans[0]
        with torch.no_grad():
            values = {
                name: plan.groups[plan.group_of[name]].row.evaluate(FAST, value, self.state[name], {})
                for name, value in self.values.items()
            }
            return torch.stack([self._losses(values, *one) for one in batches]).mean(0)

    def _losses(self, values: Mapping[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        flat = {name: value.flatten(0, 1) for name, value in values.items()}
        x, y = (tokens.repeat(self.many[0], 1, 1) for tokens in (inputs, targets))
        found: Tensor = vmap(self._one)(flat, x, y)
        return found.reshape(self.many)

    def _one(self, values: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        logits = functional_call(self.base, values, (inputs,))
        return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def update(self, gradients: Mapping[str, Tensor]) -> None:
        """One update of all members."""
        proposals = [plan.propose(None, list(self.values)) for plan in self.plans]
        with torch.no_grad():
            for cohorts in zip(*(proposal.cohorts for proposal in proposals), strict=True):
                names = cohorts[0].names
                numbers = torch.tensor([list(cohort.scalars.values()) for cohort in cohorts]).T[..., None, None, None]
                k = dict(zip(cohorts[0].scalars, numbers, strict=True))
                moved = self.execute(
                    self.plans[0].groups[cohorts[0].group],
                    {name: self.values[name].detach() for name in names},
                    {name: self.state[name] for name in names},
                    {name: {"gradient": gradients[name]} for name in names},
                    dict.fromkeys(names, k),
                )
                for name, (value, state) in moved.items():
                    self.values[name], self.state[name] = value.requires_grad_(), state
        for plan, proposal in zip(self.plans, proposals, strict=True):
            plan.commit(proposal)


def _of_stacks(recipe: Recipe) -> Recipe:
    """The recipe for parameters with the axes of members in front."""
    return dataclasses.replace(recipe, groups=tuple(dataclasses.replace(g, view="stack") for g in recipe.groups))


def losses(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    tokens: int,
    text: Text,
    *,
    config: GPTConfig = CONFIG,
    tick: Tick | None = None,
) -> Array:
    """Validation losses (recipes, seeds) after `tokens`, in nats per byte; ∞ where a run diverged.

    Args:
        recipes: of the same rows, with one count in tokens, which sets the batch.
        seeds: of initial values and batches.
        tokens: a multiple of the tokens of an update.
        text: to train on.
        config: of the model.
        tick: called after every update.
    """
    return courses(recipes, seeds, (tokens,), text, config=config, tick=tick)[..., 0]


def courses(
    recipes: Sequence[Recipe],
    seeds: Sequence[int],
    at: Sequence[int],
    text: Text,
    *,
    config: GPTConfig = CONFIG,
    tick: Tick | None = None,
) -> Array:
    """The same after each of so many tokens, (recipes, seeds, at), in order; of averaged rows those of the mean."""
    per_update, context = recipes[0].count.per_update, config.context
    for tokens in at:
        if per_update % context or tokens % per_update:
            raise ValueError(f"{tokens} tokens are no whole number of updates of {per_update}, in windows of {context}")
    members, updates = Members(config, recipes, seeds), at[-1] // per_update
    held_out = [_stacked([one] * len(seeds)) for one in validation(text, *HELD_OUT, context)]
    alive, every = torch.ones(members.many, dtype=torch.bool), []
    for done in range(1, updates + 1):
        drawn = [batch(text, seed, done - 1, per_update // context, context) for seed in seeds]
        found = members.losses(*_stacked(drawn))
        alive &= found.isfinite()
        gradients = torch.autograd.grad(found.sum(), list(members.values.values()))
        members.update({name: g.nan_to_num(0, 0, 0) for name, g in zip(members.values, gradients, strict=True)})
        if done * per_update in at:
            scores = members.scores(held_out)
            every.append(torch.where(alive & scores.isfinite(), scores, math.inf))
        if tick:
            tick(done, updates)
    return torch.stack(every, -1).double().numpy()  # type: ignore[no-any-return]


def _stacked(drawn: Sequence[Batch]) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*drawn, strict=True)
    return torch.from_numpy(np.stack(inputs)).long(), torch.from_numpy(np.stack(targets)).long()
