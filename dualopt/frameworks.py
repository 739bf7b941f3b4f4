"""From a user's model to the backend of its framework, without importing either."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import MissingFrameworkError, RecipeError
from .recipe import Recipe
from .recursion import Shape

_BACKENDS = {"torch": "dualopt_torch", "mlx": "dualopt_mlx"}


def framework_of(model: object) -> str | None:
    """``"torch"``, ``"mlx"`` or None, from the classes of a model or of the values of a mapping."""
    if isinstance(model, Mapping | list | tuple) and not _roots(model) & _BACKENDS.keys():
        found = {framework_of(value) for value in (model.values() if isinstance(model, Mapping) else model)}
        return found.pop() if len(found) == 1 else None
    return next((name for name in _BACKENDS if name in _roots(model)), None)


def _roots(value: object) -> set[str]:
    return {cls.__module__.split(".")[0] for cls in type(value).__mro__}


def backend_module(name: str) -> Any:
    """The backend package of a framework; MissingFrameworkError names the extra that brings it."""
    try:
        return importlib.import_module(_BACKENDS[name])
    except ImportError as error:
        raise MissingFrameworkError(
            f"{name} is not installed ({error}); run: pip install 'dualopt-optim[{name}]'"
        ) from error


def as_recipe(recipe: Recipe | Mapping[str, Any] | str | Path) -> Recipe:
    """A recipe from itself, its tables, or the path of its file."""
    if isinstance(recipe, Recipe):
        return recipe
    return Recipe.from_dict(recipe) if isinstance(recipe, Mapping) else Recipe.load(recipe)


def optimizer(model: Any, recipe: Recipe | Mapping[str, Any] | str | Path, *, tier: str = "fast") -> Any:
    """A native optimizer that carries out `recipe` on `model`.

    Args:
        model: a torch module, an MLX module, or a mapping of dotted names to parameters of either.
        recipe: a `Recipe`, its tables, or the path of a TOML file.
        tier: ``"fast"`` (default) or ``"exact"`` (the same bits on every framework).

    Returns:
        A ``torch.optim.Optimizer`` with ``step(closure=None, *, count=None)``, or an
        ``mlx.optimizers.Optimizer`` with ``update(model, grads, count=None)``.

    Raises:
        RecipeError: the recipe is invalid or does not fit the model.
        MissingFrameworkError: the framework is not installed.
    """
    checked = as_recipe(recipe)
    name = framework_of(model)
    if name is None:
        kind = type(model).__module__ + "." + type(model).__qualname__
        raise RecipeError(
            f"cannot tell the framework of a {kind}: give a torch or MLX module, or named parameters of one of them"
        )
    return backend_module(name).Optimizer(model, checked, tier=tier)


def shapes_of(model: Any) -> tuple[dict[str, Shape], dict[str, str]]:
    """({parameter name: shape}, {second name of a tied parameter: first name}) of a model or of given shapes."""
    name = framework_of(model)
    if name is not None:
        shapes, tied = backend_module(name).shapes_of(model)
        return shapes, tied
    if not isinstance(model, Mapping):
        raise RecipeError(f"parameters are a model or a mapping of names to shapes, got {type(model).__qualname__}")
    given: Mapping[str, Any] = model
    return {name: tuple(int(n) for n in getattr(shape, "shape", shape)) for name, shape in given.items()}, {}
