"""Motions on a sphere: W = R Ŵ, ‖Ŵ‖_rms = 1, and R = ‖W_0‖_rms for ever. Only the direction Ŵ is trained.

    D = u − mean(u ∘ Ŵ) Ŵ       U = D / ‖D‖_rms       Ŵ ← cos φ Ŵ + sin φ U

so mean(Ŵ_t ∘ Ŵ_{t+1}) = cos φ and U ⊥ Ŵ; D = 0 leaves W as it is. There is no shrink: the constrained flow
Ẇ = −G + λW has λ = <G, W>/‖W‖², so shrink is the multiplier of the constraint (`steady.multiplier`), not a knob.
The last division by ‖Ŵ‖_rms takes back rounding only.

A unit is a matrix: of a stack each has its own R, kept as (..., 1, 1). Zero matrices stay zero. Everything is
computed on vectors of length 1, which differ from those of RMS 1 by √(mn).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from ..clock import Clock
from ..counts import complement
from ..part import Stage
from ..recursion import Action, Array, Arrays, Namespace, Scalars, Shape
from ..scaling import length, unit
from ..signal import AMBIENT
from .tangent import MATRIX, tangent


def entries_root(theta: Array) -> float:
    """√(mn) of matrices (..., m, n), and 1 for empty ones."""
    return math.sqrt(theta.shape[-2] * theta.shape[-1]) or 1.0


@dataclass(frozen=True)
class Sphere(Stage):
    """Keeps ‖W‖_rms at R; subclasses say how the direction turns."""

    local: ClassVar[bool] = False
    pools: ClassVar[bool] = False

    @property
    def apart(self) -> tuple[str, ...]:
        return ("radius",)

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        if 0 in theta.shape:
            return {"radius": xp.zeros((*theta.shape[:-2], 1, 1), dtype=theta.dtype)}
        return {"radius": (1 / entries_root(theta)) * length(xp, theta, MATRIX)}

    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays:
        return {}

    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]:
        w, along = unit(xp, theta, MATRIX), unit(xp, u[AMBIENT], MATRIX)
        turned, moving = self.turn(xp, w, along, k)
        moved = (entries_root(theta) * s["radius"]) * unit(xp, turned, MATRIX)
        return xp.where(moving, moved, theta), s

    def turn(self, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
        """(the new direction, of any length; whether it is another one, (..., 1, 1)). Both of length 1 or 0."""
        raise NotImplementedError

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        return theta


def moves(xp: Namespace, x: Array) -> Array:
    """Which matrices of x are not 0."""
    return xp.sum(xp.abs(x), axis=MATRIX, keepdims=True) > 0


@dataclass(frozen=True)
class Geodesic(Sphere):
    """Along the great circle by an angle φ, as cos φ = 1 − c_turn and s_turn = sin φ."""

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"c_turn": ("step",), "s_turn": ("step",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        phi = self.angle(action, clock)
        return {"c_turn": 2 * math.sin(phi / 2) ** 2, "s_turn": math.sin(phi)}

    def angle(self, action: Action, clock: Clock) -> float:
        """φ of this update, in radians."""
        return float(clock.q * action["step"])

    def turn(self, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
        d = self.ahead(xp, w, along)
        return w + (k["s_turn"] * d - k["c_turn"] * w), moves(xp, d)

    def ahead(self, xp: Namespace, w: Array, along: Array) -> Array:
        """D/‖D‖."""
        # Projected twice: where little of u is tangent, the rounding of the first is a visible part of D.
        return unit(xp, tangent(xp, tangent(xp, along, w, MATRIX), w, MATRIX), MATRIX)


@dataclass(frozen=True)
class SingleHalfLife(Geodesic):
    """One half-life h for memory and direction: q = 2^(−Δτ/h) is the retention of m and the cosine of the step.

    φ = arccos q ≈ √(2 ln2 · Δτ/h). Along random tangents the correlation of Ŵ with Ŵ_0 decays as q^t, so h is
    the count after which half of a direction is forgotten. The memory_half_life of the row is this h.

    A schedule scales the angle, φ = s(τ) arccos q, and leaves the memory alone.

    Source: JiHa-Kim's note on RMS spheres; other directions than the memory's own are its ULMO variant.
    """

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(super().needs, ("memory_half_life",))

    def angle(self, action: Action, clock: Clock) -> float:
        forgotten = complement(clock.dtau, action["memory_half_life"])  # 1 − q = 2 sin²(φ/2)
        return 2 * clock.q * math.asin(math.sqrt(forgotten / 2))


@dataclass(frozen=True)
class Hyperball(Sphere):
    """Ŵ ← rmsnorm(Ŵ + η rmsnorm(u)), η = q · step: u is not projected, and the angle at most arcsin η.

    Source: JiHa-Kim, the successor of ScionC. `Geodesic` turns by the angle η instead, along the tangent part of
    u. Where u cancels Ŵ to 0 (η = 1) there is no direction, and W stays.
    """

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return {"eta": ("step",)}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return {"eta": clock.q * action["step"]}

    def turn(self, xp: Namespace, w: Array, along: Array, k: Scalars) -> tuple[Array, Array]:
        turned = w + k["eta"] * along
        return turned, moves(xp, turned) & moves(xp, along)
