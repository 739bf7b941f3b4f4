"""Bounds of directions that are normalised or iterated: what elementwise propagation alone cannot give.

Newton–Schulz maps X_i to X_{i+1} = f_i(X_i) + (rounding), f_i odd polynomials of the singular values σ that keep
the singular vectors. Followed entry by entry through products a bound explodes; in the Frobenius norm it does not.
With D_i the deviation from the exact iterates X_i, r the rounding of one step and R the terms of second order,

    D_{i+1} = Df_i(X_i)[D_i] + R_i + r_i
    ‖D_end‖ <= G_0 ‖D_0‖ + Σ_i G_{i+1} (‖R_i‖ + ‖r_i‖)

G_i is the norm of the derivative, at X_i, of everything that follows: of a function that takes σ_i to σ_end, namely
the largest of

    |σ_end,j − σ_end,k| / |σ_i,j − σ_i,k|,      |σ_end,j| / σ_i,j,      |derivative| where these are 0/0

(the derivative of a function of singular values is diagonal in the basis of u_j v_kᵀ ± u_k v_jᵀ; the antisymmetric
entries (y_j + y_k)/(σ_j + σ_k) lie between the ratios y/σ). ‖R_i‖ and the growth of r_i away from X_i are bounded
by polynomials in a crude ‖D_i‖, which takes the largest slope of every single step, so the result holds to
all orders. It is useful while ‖D_i‖ ≪ 1, and capped where it is not: whatever is rounded, no singular value
that the iteration returns exceeds 2.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dualopt.directions import Descent
from dualopt.directions.norm_balls import MATRIX, Ball, EuclideanBall, LineBall, SpectralBall
from dualopt.directions.polar import EXACT, SETS, Quintic, newton_schulz
from dualopt.recursion import Row
from dualopt.scaling import unit

from .arithmetic import Array, U
from .bounded import Bounded
from .bounds import Bounds

MARGIN = 1.01  # for singular values and slopes in float64
CLOSE = 1e-8  # singular values nearer than this count as equal
MOST = 2.0  # no evaluation of a normalised entry, or of a singular value that is returned, is larger


@dataclass(frozen=True)
class WithinBall(Ball):
    """The atom of another ball, of which every entry has magnitude at most 1 (and a little for rounding)."""

    inner: Ball = field(default_factory=EuclideanBall)

    def atom(self, xp: Bounds, z: Any) -> Bounded:
        return xp.at_most(self.inner.atom(xp, z), MOST)


@dataclass(frozen=True)
class PolarBall(SpectralBall):
    """The polar factor by a coefficient set, with the bound of the module's docstring."""

    def atom(self, xp: Bounds, z: Any) -> Bounded:
        if self.method == EXACT:
            raise ValueError("polar = 'exact' is a library's factorisation: no bound is derived for it")
        chosen = SETS[self.method]
        start = unit(xp, z, MATRIX) * (1 / chosen.safety)
        steps = tuple((xp.number(a), xp.number(b), xp.number(c)) for a, b, c in chosen.steps)
        x, rounding = start.x, []
        iterates = [x]
        for step in steps:
            moved = newton_schulz(xp, xp.exact(x), (step,))
            x = moved.x
            rounding.append(_frobenius(moved.e))
            iterates.append(x)
        norm = _deviation(steps, iterates, rounding, _frobenius(start.e))
        limit = _frobenius(x) + MOST * np.sqrt(min(x.shape[-2:]))
        loose = ~(norm <= limit)
        unsure = np.broadcast_to(loose, (len(xp.arithmetics), *x.shape)) if loose.any() else None
        norm = np.where(loose, limit, norm)
        return Bounded(xp, x, np.abs(x), np.zeros((len(xp.arithmetics), *x.shape)), norm=norm, unsure=unsure)


def bounding(row: Row) -> Row:
    """The row with directions that `Bounds` can follow; the same function otherwise."""
    direction = row.direction
    if not isinstance(direction, Descent):
        return row
    geometry = direction.geometry
    if isinstance(geometry, SpectralBall):
        changed: Ball = PolarBall(geometry.scaling, geometry.method, geometry.named_by)
    elif isinstance(geometry, LineBall | EuclideanBall):
        changed = WithinBall(geometry.scaling, geometry)
    else:
        return row
    return replace(row, direction=replace(direction, geometry=changed))


def _frobenius(x: Array) -> Array:
    """‖x‖_F of each matrix, (..., 1, 1)."""
    return np.asarray(np.sqrt(np.sum(x * x, axis=MATRIX, keepdims=True)))


def _deviation(steps: tuple[Quintic, ...], iterates: list[Array], rounding: list[Array], first: Array) -> Array:
    """‖D_end‖, (arithmetics, ..., 1, 1), from the iterates, ‖r_i‖ at them and ‖D_0‖."""
    sigma = [np.linalg.svd(iterates[0], compute_uv=False)]
    slopes = []
    for a, b, c in steps:
        x = sigma[-1]
        square = x * x
        sigma.append(x * (a + square * (b + square * c)))
        slopes.append(a + square * (3 * b + square * (5 * c)))
    following = [np.ones_like(sigma[0])]  # d σ_end / d σ_i
    for slope in reversed(slopes):
        following.insert(0, slope * following[0])
    count = len(steps)
    start = np.stack(sigma[:-1] + sigma[:-1])
    end = np.stack([sigma[-1]] * count + sigma[1:])
    norms = _derivative(start, end, np.stack(following[:-1] + slopes))
    onward, single = norms[:count], norms[count:]
    deviation, total = first, onward[0] * first
    share = 5 * (max(iterates[0].shape[-2:]) + 4) * U  # of the magnitudes that one step rounds away, four products deep
    for i, step in enumerate(steps):
        length, largest = _frobenius(iterates[i]), sigma[i].max(axis=-1)[..., None, None]
        added = rounding[i] + _second_order(step, largest, deviation) + share * _growth(step, length, deviation)
        total = total + (onward[i + 1] if i + 1 < count else 1.0) * added
        deviation = single[i] * deviation + added
    return np.asarray(MARGIN * total)


def _derivative(x: Array, y: Array, slope: Array) -> Array:
    """The norm of the derivative of a function that takes singular values x to y; all (..., r)."""
    tiny = x < CLOSE
    ratio = np.where(tiny, np.abs(slope), np.abs(y) / np.where(tiny, 1.0, x)).max(axis=-1)
    apart = np.abs(x[..., :, None] - x[..., None, :])
    equal = apart < CLOSE
    rise = np.abs(y[..., :, None] - y[..., None, :])
    steepest = np.where(equal, np.abs(slope)[..., None], rise / np.where(equal, 1.0, apart)).max(axis=MATRIX)
    return np.asarray(np.maximum(ratio, steepest)[..., None, None])


def _second_order(step: Quintic, largest: Array, d: Array) -> Array:
    """‖f(X + D) − f(X) − Df(X)[D]‖ for ‖X‖_op = `largest` and ‖D‖ <= d."""
    _, b, c = step
    cubic = 3 * largest + d
    quintic = 10 * largest**3 + d * (10 * largest**2 + d * (5 * largest + d))
    return np.asarray(d * d * (abs(b) * cubic + abs(c) * quintic))


def _growth(step: Quintic, length: Array, d: Array) -> Array:
    """|a| d + |b| ((‖X‖_F + d)³ − ‖X‖_F³) + ...: what the sum of the magnitudes of all terms can grow by."""
    a, b, c = step
    return np.asarray(abs(a) * d + abs(b) * ((length + d) ** 3 - length**3) + abs(c) * ((length + d) ** 5 - length**5))
