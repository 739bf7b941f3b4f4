"""A learnable gain per row beside weights whose rows have fixed length.

Rotation and spheres train the direction of a weight and keep its length. Where the network is not invariant to
that length, the length is a parameter of its own: the layer uses W_eff = g ∘ W, one g per row (output), g = 1 at the
start. Source: Kosson et al. (arXiv 2305.17212).
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from dualopt.errors import RecipeError


class Gain(nn.Module):
    """A module whose ``weight`` (rows, ...) is multiplied by ``gain`` (rows,) whenever it is called."""

    gain: nn.Parameter

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        weight = inner.weight
        if not isinstance(weight, Tensor) or weight.ndim < 2:
            raise RecipeError("a gain belongs to a module with a weight of two or more dimensions")
        self.inner = inner
        self.gain = nn.Parameter(torch.ones(weight.shape[0], dtype=weight.dtype, device=weight.device))

    @property
    def weight(self) -> Tensor:
        """g ∘ W, as the layer uses it."""
        w: Tensor = self.inner.weight  # type: ignore[assignment]
        return self.gain.reshape(-1, *(1,) * (w.ndim - 1)) * w

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return torch.func.functional_call(self.inner, {"weight": self.weight}, args, kwargs)


def with_gains(model: nn.Module, match: str | Iterable[str] = "*") -> nn.Module:
    """`model` with a `Gain` around every module whose weight's dotted name matches one of the globs, in place.

    A weight ``a.weight`` becomes ``a.inner.weight``, beside ``a.gain``; make the optimizer afterwards. Returns the
    model, or the `Gain` around it if it is such a module itself. Raises: RecipeError if nothing matches.
    """
    globs = (match,) if isinstance(match, str) else tuple(match)
    wrapped = {id(module.inner) for module in model.modules() if isinstance(module, Gain)}
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(w := module._parameters.get("weight"), Tensor)
        and w.ndim >= 2
        and id(module) not in wrapped
        and any(fnmatchcase(f"{name}.weight" if name else "weight", glob) for glob in globs)
    ]
    if not found:
        raise RecipeError(f"no weight of two or more dimensions matches {', '.join(globs)}")
    for name in found:
        if not name:
            return Gain(model)
        parent, _, last = name.rpartition(".")
        holder = model.get_submodule(parent)
        setattr(holder, last, Gain(holder.get_submodule(last)))
    return model
