"""Which tensors of a torch model a recipe is about, under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dualopt.errors import RecipeError
from dualopt.recipe import Recipe
from dualopt.recursion import Shape

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """`parameters` by first name; `tied` maps every further name of a shared parameter to its first."""

    parameters: Named
    tied: dict[str, str]


def _all(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> Found:
    if isinstance(model, torch.nn.Module):
        pairs: list[tuple[str, torch.Tensor]] = list(model.named_parameters(remove_duplicate=False))
    else:
        pairs = [(str(name), x) for name, x in model.items()]
    first: dict[int, str] = {}
    tied = {name: first[id(x)] for name, x in pairs if first.setdefault(id(x), name) != name}
    return Found({name: x for name, x in pairs if name not in tied}, tied)


def named_parameters(model: torch.nn.Module | Mapping[str, torch.Tensor], recipe: Recipe) -> Found:
    """The parameters to optimize: those that require gradients, and frozen ones that a group matches.

    A frozen parameter that nothing matches stays out (adapters over a frozen model); one that a group
    matches may be unfrozen later and then starts at a count of 0.

    Raises:
        RecipeError: no parameters, a tensor that is no leaf, or one that is not real floating point.
    """
    found = _all(model)
    chosen: Named = {}
    for name, x in found.parameters.items():
        matched = any(g.matches(name, tuple(x.shape)) for g in recipe.groups)
        if not x.requires_grad and not (matched and x.is_floating_point()):
            continue
        if not isinstance(x, torch.Tensor) or not x.is_leaf:
            raise RecipeError(
                f"{name!r} is the result of an operation, not a parameter: only leaf tensors can be optimized"
            )
        if not x.is_floating_point():
            raise RecipeError(
                f"{name!r} is {x.dtype}: parameters are real floating-point tensors; view complex ones as real"
            )
        chosen[name] = x
    if not chosen:
        raise RecipeError("the model has no parameters that require gradients")
    return Found(chosen, {other: name for other, name in found.tied.items() if name in chosen})


def shapes_of(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> tuple[dict[str, Shape], dict[str, str]]:
    """({name: shape}, {second name: first name}) of all parameters."""
    found = _all(model)
    return {name: tuple(x.shape) for name, x in found.parameters.items()}, found.tied
