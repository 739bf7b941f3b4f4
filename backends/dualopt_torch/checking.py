"""Are gradients fit for an update: of the right shape, kind and device, and finite?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch

from dualopt.buckets import joined
from dualopt.errors import GradientError, NonFiniteError
from dualopt.plan import Plan
from dualopt.planned import check_gradient

from .placing import flat

Tensors = Mapping[str, torch.Tensor]


def check_fit(gradients: Tensors, parameters: Tensors, plan: Plan) -> None:
    """GradientError for the first gradient that does not fit its parameter, or the plan."""
    for name, g in gradients.items():
        p, stored = parameters[name], plan.shapes[name]
        alike = g.shape == stored == p.shape and g.device == p.device
        if alike and g.layout is torch.strided and g.is_floating_point():
            continue
        kind = "sparse" if g.layout != torch.strided else "complex" if g.is_complex() else "real"
        kind = kind if kind != "real" or g.is_floating_point() else str(g.dtype)
        if tuple(p.shape) != stored:
            raise GradientError(f"{name!r} has shape {tuple(p.shape)}, but was {stored} at the start")
        check_gradient(name, stored, tuple(g.shape), kind)
        if g.device != p.device:
            raise GradientError(f"gradient of {name!r} is on {g.device}, its parameter on {p.device}")


def all_finite(gradients: Tensors, plan: Plan) -> bool:
    """False for gradients that the recipe skips; NonFiniteError if it says to raise instead."""
    bad = [n for n in suspects(gradients, plan.harmless) if not bounded(gradients[n], plan.largest(n))]
    if bad and plan.recipe.nonfinite == "raise":
        raise NonFiniteError(
            f"the gradient of {bad[0]!r} holds NaN, infinity or numbers too large to square "
            f"({len(bad)} of {len(gradients)} gradients do); "
            "nothing was changed. Find the cause, or set nonfinite = 'skip' in the recipe"
        )
    return not bad


def suspects(gradients: Tensors, harmless: float) -> list[str]:
    """The names of gradients longer than `harmless`, which all are that have an entry beyond it, or NaN.

    One transfer per device. Short gradients are joined first, and looked at one by one only if together too long.
    """
    found: list[str] = []
    buckets = _buckets(tuple([(name, g.numel(), g.dtype, g.device) for name, g in gradients.items()]))
    for device in {g.device for g in gradients.values()}:
        here = [names for names in buckets if gradients[names[0]].device == device]
        lengths = _lengths([flat([gradients[name] for name in names]) for names in here])
        for names, length in zip(here, lengths, strict=True):
            if not length <= harmless:
                alone = _lengths([gradients[name] for name in names])
                found += [name for name, own in zip(names, alone, strict=True) if not own <= harmless]
    return sorted(found, key=list(gradients).index) if len(found) > 1 else found


@lru_cache(maxsize=64)
def _buckets(arrays: tuple[tuple[str, int, torch.dtype, torch.device], ...]) -> tuple[tuple[str, ...], ...]:
    sizes = {name: size for name, size, _, _ in arrays}
    return joined(sizes, {name: (dtype, device) for name, _, dtype, device in arrays})


def _lengths(tensors: list[torch.Tensor]) -> list[float]:
    """The lengths of tensors on one device; infinite where squares overflow."""
    norms = torch._foreach_norm(tensors) if tensors else ()
    return torch.stack([x.to(torch.float32) for x in norms]).tolist() if norms else []


def bounded(g: torch.Tensor, largest: float) -> torch.Tensor:
    """0-d: whether every element is finite and at most `largest` in magnitude."""
    return (torch.isfinite(g) & (g.abs() <= largest)).all()
