"""Directions that commute with the symmetries of the layer that a matrix belongs to.

M is the readout (m, n), ε = `eps`, C = I − 11ᵀ/m subtracts the mean of the rows (`centred`; else C is the
identity), and

    rows(X)_i = X_i / (‖X_i‖ + ε)                 columns(X) = rows(Xᵀ)ᵀ
    orth(X)   = X (XᵀX + εI)^(−1/2)               ν(X) = max(<X, orth(X)>, ε),  <X, orth(X)> = Σ σ²/√(σ² + ε)

    Lines           u = −C rows(C M),  or  −columns(M)
    Spectral        u = −C ν(X)^α orth(X),        X = C M
      rows before   the same of                   X = C rows(C M)
      rows after    u = −C rows(ν(X)^α orth(X)),  X = C M

orth(X) = U diag(σ/√(σ² + ε)) Vᵀ = (XXᵀ + εI)^(−1/2) X: right- and left-spectral updates are one matrix, and the
symmetry class, not the formula, is one-sided. It is a block of the polar factor of [X; √ε I] (tall; [X, √ε I] if
wide), whose Gram matrix is XᵀX + εI on the smaller side, so every polar method serves.

    symmetry of the layer                         class of updates
    rows permute, columns rotate (embedding)      Spectral, Lines, and both in either order
    and a shift common to all rows (LM head,      the same, centred: 1ᵀu = 0, and M + 1cᵀ gives the same u
      router)
    hidden neurons permute (gate, up; down)       Lines over rows; over columns

ε is in the units of M, and of M² in a Gram matrix. With α > 0 u has a unit, too: η is per unit of ν^α. ν is one
number for all matrices of a parameter (experts), and for each block apart. Zero rows, columns and matrices stay 0.

Source: Lau and Su, arXiv 2605.18106, and its authors' code, which centres at the start alone. Ours: the augmented
matrix, the scaling by powers of two, which rounds nothing, and columns without detour.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import unit
from .polar import PLAIN, POLAR_EXPRESS, Way, polar

POWERS: dict[str, Callable[[Namespace, Array], Array]] = {
    "0": lambda xp, nu: xp.ones_like(nu),
    "0.5": lambda xp, nu: xp.sqrt(nu),
    "1": lambda xp, nu: nu,
}
BEFORE, AFTER = "row_then_polar", "polar_then_row"
ORDERS = (BEFORE, AFTER)


def centred(xp: Namespace, x: Array) -> Array:
    """C x: x (..., m, n) less the mean of its rows."""
    return x - xp.sum(x * (1 / x.shape[-2]), axis=-2, keepdims=True)


def damped(xp: Namespace, x: Array, root_eps: float | Array) -> Array:
    """[x; √ε I] of a tall x (..., m, n), [x, √ε I] of a wide one, from √ε."""
    m, n = x.shape[-2:]
    side = min(m, n)
    corner = xp.zeros_like(x[..., :side, :side])
    ragged = xp.concat(
        [xp.ones_like(corner[..., :1]), corner], axis=-1
    )  # its rows, one after another, are I and a tail
    flat = xp.reshape(ragged, (*x.shape[:-2], side * (side + 1)))[..., : side * side]
    damping = root_eps * xp.reshape(flat, corner.shape)
    return xp.concat([x, damping], axis=-2 if m >= n else -1)


def damped_polar(xp: Namespace, x: Array, root_eps: float | Array, method: str, way: Way = PLAIN) -> Array:
    """x (xᵀx + εI)^(−1/2) for x (..., m, n), from √ε."""
    m, n = x.shape[-2:]
    return polar(xp, damped(xp, x, root_eps), method, way)[..., :m, :n]


def nuclear(xp: Namespace, x: Array, orth: Array, least: float | Array, power: str) -> Array:
    """ν(x)^α, (..., 1, 1, 1) for x (..., k, m, n); one number for a matrix alone."""
    axes = (-3, -2, -1) if x.ndim > 2 else (-2, -1)
    slope = xp.sum(x * orth, axis=axes, keepdims=True)
    floor = xp.zeros_like(slope) + least
    return POWERS[power](xp, xp.where(slope > floor, slope, floor))


@dataclass(frozen=True)
class Lines(Stage):
    """Rows (axis −1; centred or not) or columns (axis −2) over their length plus ε."""

    axis: int = -1
    centred: bool = False

    local: ClassVar[bool] = False
    linear: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eps": ("eps",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eps": float(action["eps"])}

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        if self.centred:
            return -centred(xp, unit(xp, centred(xp, z), self.axis, k["eps"]))
        return -unit(xp, z, self.axis, k["eps"])


@dataclass(frozen=True)
class Spectral(Stage):
    """ν^α orth, of rows of length 1 or with rows brought to length 1, if `rows` says so; centred or not."""

    method: str = POLAR_EXPRESS.name
    power: str = "1"  # α, a key of POWERS
    centred: bool = False
    rows: str | None = None  # one of ORDERS
    way: Way = PLAIN

    local: ClassVar[bool] = False
    whole: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eps": ("eps",), "root_eps": ("eps", "polar")}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eps": float(action["eps"]), "root_eps": math.sqrt(action["eps"])}

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        centre = centred if self.centred else _same
        x = centre(xp, z)
        if self.rows == BEFORE:
            x = centre(xp, unit(xp, x, -1, k["eps"]))
        orth = self.orth(xp, x, k)
        u = nuclear(xp, x, orth, k["eps"], self.power) * orth
        if self.rows == AFTER:
            u = unit(xp, u, -1, k["eps"])
        return -centre(xp, u)

    def orth(self, xp: Namespace, x: Array, k: Scalars) -> Array:
        """orth(x)."""
        return damped_polar(xp, x, k["root_eps"], self.method, self.way)


def _same(xp: Namespace, x: Array) -> Array:
    return x
