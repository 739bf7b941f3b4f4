"""A learnable gain per row beside weights whose rows have fixed length: the twin of `dualopt_torch.gain`.

The layer uses W_eff = g ∘ W, one g per row (output), g = 1 at the start. Source: Kosson et al. (arXiv 2305.17212).
"""

# mlx.nn has no annotations:
# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_unflatten

from dualopt.errors import RecipeError


class Gain(nn.Module):
    """A module whose ``weight`` (rows, ...) is multiplied by ``gain`` (rows,) whenever it is called."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        weight = inner.get("weight")
        if not isinstance(weight, mx.array) or weight.ndim < 2:
            raise RecipeError("a gain belongs to a module with a weight of two or more dimensions")
        self.inner = inner
        self.gain = mx.ones(weight.shape[:1], weight.dtype)

    @property
    def weight(self) -> mx.array:
        """g ∘ W, as the layer uses it."""
        w: mx.array = self.inner["weight"]
        return mx.reshape(self.gain, (-1, *(1,) * (w.ndim - 1))) * w

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = self.inner["weight"]
        self.inner["weight"] = self.weight
        try:
            return self.inner(*args, **kwargs)
        finally:
            self.inner["weight"] = own


def with_gains(model: nn.Module, match: str | Iterable[str] = "*") -> nn.Module:
    """`model` with a `Gain` around every module whose weight's dotted name matches one of the globs, in place.

    A weight ``a.weight`` becomes ``a.inner.weight``, beside ``a.gain``; make the optimizer afterwards. Returns the
    model, or the `Gain` around it if it is such a module itself. Raises: RecipeError if nothing matches.
    """
    globs = (match,) if isinstance(match, str) else tuple(match)
    wrapped = {id(module["inner"]) for _, module in model.named_modules() if isinstance(module, Gain)}
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(w := module.get("weight"), mx.array)
        and w.ndim >= 2
        and id(module) not in wrapped
        and any(fnmatchcase(f"{name}.weight" if name else "weight", glob) for glob in globs)
    }
    if not found:
        raise RecipeError(f"no weight of two or more dimensions matches {', '.join(globs)}")
    if "" in found:
        return Gain(model)
    model.update_modules(tree_unflatten([(name, Gain(module)) for name, module in found.items()]))
    return model
