"""Steepest descent in a norm: u = argmin_{‖v‖ ≤ 1} <z, v>, so ‖u‖ = 1 and <z, u> = −‖z‖_*.

Every ball is u = −scale · atom(z). The atom is the direction in the unscaled norm ("gauge"), the scale
depends on the shape alone and turns the gauge into an operator norm between RMS-normed spaces. m is the
number of outputs (rows), n that of inputs (columns), k the number of kernel positions.

    name           scale               atom                   declared norm ‖·‖
    spectral       √(m/n)              U Vᵀ                   √(n/m) ‖·‖_op   (RMS → RMS)
    spectral_max   max(1, √(m/n))      U Vᵀ
    spectral_in    √m                  U Vᵀ                   one-hot inputs
    spectral_conv  √(out/in) / k       U Vᵀ of out × in·k     (‖·‖ of one kernel position, summed)
    sign           1/n                 sign(z)                n max |·|       (1 → ∞ per input)
    sign_in        1                   sign(z)                max |·|
    column         √m                  columns of length 1    max_j ‖col_j‖ / √m
    column_in      √m / n              columns of length 1
    row            1/√n                rows of length 1       √n max_i ‖row_i‖  (RMS → ∞)
    row_in         1                   rows of length 1       max_i ‖row_i‖
    bias_rms       √n                  z / ‖z‖₂               RMS of a vector
    frobenius      1                   z / ‖z‖_F              Frobenius

Zero rows, columns, vectors and matrices give zero. The atoms do not depend on the scale of z: there is
no ε in a norm. Sources: Pethick et al., Scion (arXiv 2502.07529) and its code; Frobenius is ours.
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
from .polar import PLAIN, QUINTIC, Way, polar

MATRIX = (-2, -1)


def aspect(shape: Shape) -> float:
    """√(m/n) of a matrix (..., m, n)."""
    return math.sqrt(shape[-2] / shape[-1])


SCALES: dict[str, Callable[[Shape], float]] = {
    "1": lambda shape: 1.0,
    "√(m/n)": aspect,
    "max(1, √(m/n))": lambda shape: max(1.0, aspect(shape)),
    "√m": lambda shape: math.sqrt(shape[-2]),
    "√m/n": lambda shape: math.sqrt(shape[-2]) / shape[-1],
    "1/n": lambda shape: 1 / shape[-1],
    "1/√n": lambda shape: 1 / math.sqrt(shape[-1]),
    "√n": lambda shape: math.sqrt(shape[-1]),
    "0.2 √(mn)": lambda shape: 0.2 * math.sqrt(shape[-2] * shape[-1]),
    "0.2 √max(m, n)": lambda shape: 0.2 * math.sqrt(max(shape[-2:])),
    "√(out/in)/k": lambda shape: math.sqrt(shape[0] / shape[1]) / math.prod(shape[2:]),  # (out, in, *kernel)
}


@dataclass(frozen=True)
class Ball(Stage):
    """A norm ball: its scale, and what its subclasses say of atom, gauge and dual gauge."""

    scaling: str = "1"  # a key of SCALES

    local: ClassVar[bool] = False
    unit: ClassVar[bool] = True
    degree: ClassVar[float | None] = 0.0
    shaped: ClassVar[bool] = True
    least_ndim: ClassVar[int] = 2  # of the parameters it is meant for

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"scale": ("norm",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"scale": self.scale(shape)}

    def scale(self, shape: Shape) -> float:
        """The length of an atom in the unscaled norm, for a parameter of this logical shape (1 if it is empty)."""
        return 1.0 if 0 in shape else SCALES[self.scaling](shape)

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array:
        return self.along(self.atom(xp, z), k)

    def along(self, atom: Array, k: Scalars) -> Array:
        """u of an atom."""
        return -(k["scale"] * atom)

    def atom(self, xp: Namespace, z: Array) -> Array:
        """The unscaled direction of ascent, of gauge 1 (0 where z is 0)."""
        raise NotImplementedError

    def gauge(self, xp: Namespace, x: Array) -> Array:
        """The unscaled norm of x (..., m, n), shape (...)."""
        raise NotImplementedError

    def dual_gauge(self, xp: Namespace, x: Array) -> Array:
        """The dual of the gauge: max of <x, v> over gauge(v) <= 1."""
        raise NotImplementedError

    def norm(self, xp: Namespace, x: Array, shape: Shape) -> Array:
        """The declared norm, in which every u has length 1."""
        return self.gauge(xp, x) * (1 / self.scale(shape))

    def dual_norm(self, xp: Namespace, x: Array, shape: Shape) -> Array:
        """‖x‖_*: the slope −<x, u> of the steepest descent."""
        return self.dual_gauge(xp, x) * self.scale(shape)

    def initial(self, xp: Namespace, sample: Array, shape: Shape, radius: float = 1.0) -> Array:
        """Weights on the sphere ‖θ‖ = radius, in the direction of a random `sample`."""
        return (radius * self.scale(shape)) * self.atom(xp, sample)


def _length(xp: Namespace, x: Array, axis: int | tuple[int, ...]) -> Array:
    return xp.sqrt(xp.sum(x * x, axis=axis))


@dataclass(frozen=True)
class SpectralBall(Ball):
    """Polar factor by the named method; gauge ‖·‖_op, dual the nuclear norm (both need an SVD)."""

    method: str = QUINTIC.name
    named_by: str = "norm"  # the coordinate that chose the scale
    way: Way = PLAIN

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"scale": (self.named_by, "polar")}

    def atom(self, xp: Namespace, z: Array) -> Array:
        return polar(xp, z, self.method, self.way)

    def gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.max(xp.linalg.svdvals(x), axis=-1)

    def dual_gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.sum(xp.linalg.svdvals(x), axis=-1)


@dataclass(frozen=True)
class SignBall(Ball):
    """Signs; gauge max |·|, dual Σ |·|."""

    local: ClassVar[bool] = True

    def atom(self, xp: Namespace, z: Array) -> Array:
        return xp.sign(z)

    def gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.max(xp.abs(x), axis=MATRIX)

    def dual_gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.sum(xp.abs(x), axis=MATRIX)


@dataclass(frozen=True)
class LineBall(Ball):
    """Columns (axis −2) or rows (axis −1) of length 1; gauge the longest line, dual the sum of lengths."""

    axis: int = -1

    linear: ClassVar[bool] = True

    def atom(self, xp: Namespace, z: Array) -> Array:
        return unit(xp, z, self.axis)

    def gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.max(_length(xp, x, self.axis), axis=-1)

    def dual_gauge(self, xp: Namespace, x: Array) -> Array:
        return xp.sum(_length(xp, x, self.axis), axis=-1)


@dataclass(frozen=True)
class EuclideanBall(Ball):
    """z / ‖z‖₂ over the given axes; self-dual gauge."""

    axes: tuple[int, ...] = MATRIX

    linear: ClassVar[bool] = True

    def atom(self, xp: Namespace, z: Array) -> Array:
        return unit(xp, z, self.axes)

    def gauge(self, xp: Namespace, x: Array) -> Array:
        return _length(xp, x, self.axes)

    dual_gauge = gauge


@dataclass(frozen=True)
class VectorBall(EuclideanBall):
    """The same over the last axis: a vector."""

    axes: tuple[int, ...] = (-1,)
    least_ndim: ClassVar[int] = 1


@dataclass(frozen=True)
class PlainSignBall(SignBall):
    """Signs without a shape-dependent scale, so for arrays of any shape."""

    least_ndim: ClassVar[int] = 0


def ball(name: str, method: str = QUINTIC.name, way: Way = PLAIN) -> Ball:
    """The ball called `name`; `method` is the polar method of the spectral ones, iterated in that `way`."""
    found = _BALLS[name]
    return SpectralBall(found.scaling, method, way=way) if isinstance(found, SpectralBall) else found


_BALLS: dict[str, Ball] = {
    "spectral": SpectralBall("√(m/n)"),
    "spectral_max": SpectralBall("max(1, √(m/n))"),
    "spectral_in": SpectralBall("√m"),
    "spectral_conv": SpectralBall("√(out/in)/k"),
    "sign": SignBall("1/n"),
    "sign_in": PlainSignBall(),
    "column": LineBall("√m", -2),
    "column_in": LineBall("√m/n", -2),
    "row": LineBall("1/√n", -1),
    "row_in": LineBall("1", -1),
    "bias_rms": VectorBall("√n"),
    "frobenius": EuclideanBall(),
}
NORMS = tuple(_BALLS)
MUON_SCALES = {"naive": "1", "keller_jordan": "max(1, √(m/n))", "mup": "√(m/n)", "moonlight": "0.2 √max(m, n)"}
