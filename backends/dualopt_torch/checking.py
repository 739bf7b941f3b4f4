"""Are gradients fit for an update: of the right shape, kind and device, and finite?"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from dualopt.errors import GradientError, NonFiniteError
from dualopt.plan import Plan
from dualopt.planned import check_gradient

Tensors = Mapping[str, torch.Tensor]


def check_fit(gradients: Tensors, parameters: Tensors, plan: Plan) -> None:
    """GradientError for the first gradient that does not fit its parameter, or the plan."""
    for name, g in gradients.items():
        kind = "sparse" if g.layout != torch.strided else "complex" if g.is_complex() else "real"
        kind = kind if kind != "real" or g.is_floating_point() else str(g.dtype)
        p, stored = parameters[name], plan.groups[plan.group_of[name]].views[name].stored
        if tuple(p.shape) != stored:
            raise GradientError(f"{name!r} has shape {tuple(p.shape)}, but was {stored} at the start")
        check_gradient(name, stored, tuple(g.shape), kind)
        if g.device != p.device:
            raise GradientError(f"gradient of {name!r} is on {g.device}, its parameter on {p.device}")


def all_finite(gradients: Tensors, plan: Plan) -> bool:
    """False for gradients that the recipe skips; NonFiniteError if it says to raise instead."""
    suspects = [n for n, total in _squares(gradients).items() if not math.isfinite(total)]
    bad = [n for n in suspects if not _bounded(gradients[n], plan.largest(n))]  # a finite sum may overflow
    if bad and plan.recipe.nonfinite == "raise":
        raise NonFiniteError(
            f"the gradient of {bad[0]!r} holds NaN, infinity or numbers too large to square "
            f"({len(bad)} of {len(gradients)} gradients do); "
            "nothing was changed. Find the cause, or set nonfinite = 'skip' in the recipe"
        )
    return not bad


def _squares(gradients: Tensors) -> dict[str, float]:
    """The sum of squares of every gradient: not finite if an element is not. One transfer per device."""
    found: dict[str, float] = {}
    for device in {g.device for g in gradients.values()}:
        here = [name for name, g in gradients.items() if g.device == device]
        norms = torch._foreach_norm([gradients[name] for name in here])
        squares = torch.stack([x.to(torch.float32) for x in norms]).square()
        found.update(zip(here, squares.tolist(), strict=True))
    return found


def _bounded(g: torch.Tensor, largest: float) -> bool:
    """True if every element is finite and at most `largest` in magnitude."""
    return bool((torch.isfinite(g) & (g.abs() <= largest)).all())
