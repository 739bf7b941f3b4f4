"""Which tensors of a torch model a recipe is about, under which names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from dualopt.errors import RecipeError
from dualopt.recursion import Shape

Named = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Found:
    """`parameters` by first name; `tied` maps every further name of a shared parameter to its first; `frozen`
    are those that required no gradients and stay out."""

    parameters: Named
    tied: dict[str, str]
    frozen: Named


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The user's module inside `torch.compile` and data-parallel wrappers, whose prefixes are no names."""
    while True:
        inner = model._modules.get("_orig_mod") or (model._modules.get("module") if _parallel(model) else None)
        if inner is None:
            return model
        model = inner


def _parallel(model: torch.nn.Module) -> bool:
    return isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel)


def _all(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> Found:
    pairs: list[tuple[str, torch.Tensor]]
    if isinstance(model, torch.nn.Module):
        pairs = list(unwrapped(model).named_parameters(remove_duplicate=False))
    else:
        pairs = [(str(name), x) for name, x in model.items()]
    first: dict[int, str] = {}
    tied = {name: first[id(x)] for name, x in pairs if first.setdefault(id(x), name) != name}
    return Found({name: x for name, x in pairs if name not in tied}, tied, {})


def named_parameters(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> Found:
    """The parameters to optimize: those that require gradients now. Frozen ones stay out, as in MLX.

    Raises:
        RecipeError: no parameters, a tensor that is no leaf, one that is not real floating point, or
            float64 parameters beside others.
    """
    found = _all(model)
    chosen, frozen = {}, {}
    for name, x in found.parameters.items():
        if not isinstance(x, torch.Tensor):
            raise RecipeError(f"{name!r} is a {type(x).__name__}, not a tensor")
        if not x.requires_grad:
            frozen[name] = x
            continue
        if not x.is_leaf:
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
    double = [name for name, x in chosen.items() if x.dtype == torch.float64]
    if 0 < len(double) < len(chosen):
        raise RecipeError(f"{double[0]!r} is float64 and others are not: a recipe is carried out in one working type")
    return Found(chosen, {other: name for other, name in found.tied.items() if name in chosen}, frozen)


def shapes_of(model: torch.nn.Module | Mapping[str, torch.Tensor]) -> tuple[dict[str, Shape], dict[str, str]]:
    """({name: shape}, {second name: first name}) of all parameters that require gradients."""
    found = named_parameters(model)
    return {name: tuple(x.shape) for name, x in found.parameters.items()}, found.tied
