"""Trees of MLX arrays under dotted names: models, gradients, and what an update gives back."""

# mlx.nn has no annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from dualopt.errors import GradientError, RecipeError, nearest
from dualopt.planned import check_gradient
from dualopt.recursion import Shape

Named = dict[str, mx.array]
Tree = Mapping[str, Any]  # an nn.Module, nested dicts and lists, or {dotted name: array}

HALF = {mx.bfloat16: "BF16", mx.float16: "F16"}


def flatten(tree: Tree) -> dict[str, Any]:
    """{dotted name: leaf}, in the order of the tree; a leaf that is None is left out."""
    pairs: Any = tree_flatten(dict(tree))
    return {name: leaf for name, leaf in pairs if leaf is not None}


def tree_of(model: Tree) -> Tree:
    """All parameters of a module; any other tree as it is."""
    return model.parameters() if isinstance(model, nn.Module) else model


def trained(model: Tree) -> tuple[Named, dict[str, str]]:
    """({name: array}, {second name of a tied parameter: first name}) of what is trained.

    Arrays are tied if they are the same object. Every gradient of `nn.value_and_grad` makes new objects,
    so make the optimizer before the first gradient.

    Raises:
        RecipeError: a leaf that cannot be trained.
    """
    leaves = flatten(model.trainable_parameters() if isinstance(model, nn.Module) else model)
    for name, leaf in leaves.items():
        if not isinstance(leaf, mx.array):
            raise RecipeError(f"parameter {name!r} is a {type(leaf).__qualname__}, not an mlx.core.array")
        if leaf.dtype != mx.float32 and leaf.dtype not in HALF:
            raise RecipeError(
                f"parameter {name!r} is {dtype_name(leaf)}: trained are float32, bfloat16 and float16; "
                "freeze it, begin its name with '_', or cast it"
            )
    first: dict[int, str] = {}
    tied = {name: first[id(x)] for name, x in leaves.items() if first.setdefault(id(x), name) != name}
    return {name: x for name, x in leaves.items() if name not in tied}, tied


def shapes_of(model: Tree) -> tuple[dict[str, Shape], dict[str, str]]:
    """({name: shape}, {second name of a tied parameter: first name}) of the trainable parameters."""
    named, tied = trained(model)
    return {name: tuple(x.shape) for name, x in named.items()}, tied


def traced(arrays: Iterable[mx.array]) -> bool:
    """True if any of these depends on a function that is being traced; evaluates them otherwise.

    MLX has no other sign of tracing: an array made inside the function looks, and is, ordinary.
    """
    try:
        mx.eval(list(arrays))
    except ValueError as error:
        if "function transformations" not in str(error):
            raise
        return True
    return False


def dtype_name(x: mx.array) -> str:
    """``float32``, ``bfloat16``, ..."""
    return str(x.dtype).rpartition(".")[2]


def working(x: mx.array) -> mx.array:
    """x in float32, the type that it is computed in."""
    return x if x.dtype == mx.float32 else x.astype(mx.float32)


def narrowed(x: mx.array, like: mx.array) -> mx.array:
    """x in the type of `like`, in which it is stored."""
    return x if x.dtype == like.dtype else x.astype(like.dtype)


def gradients_of(tree: Tree, shapes: Mapping[str, Shape], tied: Mapping[str, str]) -> Named:
    """The gradients by first name, in float32; those of tied parameters are added.

    Raises:
        GradientError: an unknown name, another shape, or something else than real floating point.
    """
    found: Named = {}
    for name, g in flatten(tree).items():
        first = tied.get(name, name)
        if first not in shapes:
            raise GradientError(
                f"gradient of {name!r}: no such parameter{nearest(name, shapes)}; "
                "what is frozen when the optimizer is made is not trained"
            )
        check_gradient(name, shapes[first], tuple(getattr(g, "shape", ())), _kind(g))
        found[first] = found[first] + working(g) if first in found else working(g)
    return found


def _kind(g: Any) -> str:
    if not isinstance(g, mx.array):
        return f"a {type(g).__qualname__}"
    if mx.issubdtype(g.dtype, mx.complexfloating):
        return "complex"
    return "real" if mx.issubdtype(g.dtype, mx.floating) else dtype_name(g)


def values_of(tree: Tree, names: Mapping[str, Any], shapes: Mapping[str, Shape]) -> Named:
    """The parameters called `names`, as they are.

    Raises:
        GradientError: one is missing, or is not what the optimizer was made for.
    """
    leaves = flatten(tree)
    for name in names:
        x = leaves.get(name)
        if not isinstance(x, mx.array) or tuple(x.shape) != shapes[name]:
            found = f"has shape {tuple(x.shape)}" if isinstance(x, mx.array) else "is missing"
            raise GradientError(f"parameter {name!r} {found}; the optimizer was made for one of shape {shapes[name]}")
    return {name: leaves[name] for name in names}


def replaced(tree: Any, new: Mapping[str, mx.array], prefix: str = "") -> Any:
    """The branches of `tree` that hold a name of `new`, with the new arrays; None if there are none.

    Lists keep their length: entries without a new array stay as they are.
    """
    if isinstance(tree, Mapping):
        branches = {key: replaced(branch, new, f"{prefix}{key}.") for key, branch in tree.items()}
        return {key: branch for key, branch in branches.items() if branch is not None} or None
    if isinstance(tree, list | tuple):
        entries = [replaced(branch, new, f"{prefix}{i}.") for i, branch in enumerate(tree)]
        if all(entry is None for entry in entries):
            return None
        return type(tree)(old if entry is None else entry for old, entry in zip(tree, entries, strict=True))
    return new.get(prefix.removesuffix("."))


def merge(tree: Any, new: Any) -> None:
    """Put the arrays of `new`, from `replaced`, into the dicts and lists of `tree`."""
    for key, branch in new.items() if isinstance(new, Mapping) else enumerate(new):
        if isinstance(branch, mx.array):
            tree[key] = branch
        else:
            merge(tree[key], branch)
