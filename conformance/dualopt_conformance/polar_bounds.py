"""Bounds of directions that are iterated: what elementwise propagation alone cannot give.

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
by polynomials in ‖D_i‖, which is bounded likewise by what follows up to step i, so the result holds to all orders. It
is useful while ‖D_i‖ ≪ 1. Where it allows more than that all singular values are anything up to 2, which no rounding
makes them exceed, it says nothing, and is ∞.

The Gram form rounds otherwise. There r_i is that of all steps between two restarts together, entry by entry, and it
grows away from X_i no faster than the sum of the magnitudes of all terms. Work in bfloat16 adds the roundings of what
is kept, 2^-8 of it each, to those of the operations: the bound of one step is some hundredths of the result, that of
two half of it, and of more it says nothing. The map of `kaon` is a quintic, too: 4.1 (σ − 2 σ³ + σ⁵).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from dualopt.directions.polar import BFLOAT16, BOUNDS, EXACT, PLAIN, SETS, Quintic, Way, form_of, newton_schulz
from dualopt.directions.polar.iterations import gram_newton_schulz, restarts, scaled
from dualopt.directions.polar.work import LEAST, Work, working
from dualopt.exact import Overlay

from .arithmetic import Array, U
from .bounded import Bounded
from .bounds import Bounds
from .factorised import MARGIN, derivative, frobenius, live, off, polar_factor
from .origins import MOST

Advance = Callable[[Bounded], Bounded]
HALF = 2.0**-8  # half a spacing of bfloat16, of the number


def polar_bound(xp: Bounds, z: Bounded, method: str, way: Way = PLAIN) -> Bounded:
    """`dualopt.directions.polar.polar` of z, with its bound."""
    if method == EXACT:
        return polar_factor(xp, z)
    chosen = SETS[method] if way.steps is None else SETS[method].taking(way.steps)
    steps = tuple((xp.number(a), xp.number(b), xp.number(c)) for a, b, c in chosen.steps)
    by_gram = form_of(z, way) is gram_newton_schulz
    ends = (0, *restarts(len(steps)), len(steps)) if by_gram else tuple(range(len(steps) + 1))
    form = gram_newton_schulz if by_gram else newton_schulz
    parts = [steps[a:b] for a, b in pairwise(ends)]
    tier = Overlay(xp, "bounds", bfloat16_work=Kept)
    advances = [partial(_carried, form, tier, part, way.work) for part in parts]
    at, narrow, normalise = working(tier, way.work), way.work == BFLOAT16, way.normalise or chosen.normalise
    if normalise in BOUNDS:  # the bound is found in the first part, of what is kept of z
        start = scaled(tier, at.level(z), normalise) * (1 / chosen.safety)
        advances[0] = partial(_carried, form, tier, parts[0], way.work, bound=normalise, safety=chosen.safety)
    else:
        start = at.narrow(scaled(xp, z, normalise) * (1 / chosen.safety))
    return iterated(xp, z, start, parts, advances, narrow, normalise in BOUNDS)


class Kept(Work):
    """Rounds what is kept to bfloat16: by half a spacing, 2^-8 of the number at most."""

    def narrow(self, x: Bounded) -> Bounded:
        size = np.abs(x.x) + x.e
        e = x.e + np.maximum(HALF * size, np.minimum(size, LEAST))
        return Bounded(x.xp, x.x, x.s, e, unsure=x.unsure, norm=None if x.norm is None else (1 + HALF) * x.norm)


def _carried(
    form: Callable[..., Bounded], xp: Any, steps: tuple[Quintic, ...], work: str, x: Bounded, **bound: Any
) -> Bounded:
    return form(xp, x, steps, work, **bound)


def iterated(
    xp: Bounds,
    z: Bounded,
    start: Bounded,
    parts: Sequence[tuple[Quintic, ...]],
    advances: Sequence[Advance],
    narrow: bool = False,
    bounded: bool = False,
) -> Bounded:
    """From `start`, made of z, by `advances`, each of which carries out the steps of one part at once.

    `narrow`: they keep their results in bfloat16. `bounded`: the first one scales its input.
    """
    x, rounding, iterates = start.x, [], [start.x]
    for advance in advances:
        moved = advance(xp.exact(x))
        x = moved.x
        rounding.append(off(moved))
        iterates.append(x)
    norm = _deviation(parts, iterates, rounding, off(start), narrow, bounded)
    limit = frobenius(x) + MOST * np.sqrt(min(x.shape[-2:]))
    none = np.zeros((len(xp.arithmetics), *x.shape))
    return Bounded(xp, x, np.abs(x) + live(z), none, norm=np.where(norm <= limit, norm, np.inf))


def _deviation(
    parts: Sequence[tuple[Quintic, ...]],
    iterates: list[Array],
    rounding: list[Array],
    first: Array,
    narrow: bool,
    bounded: bool,
) -> Array:
    """‖D_end‖, (arithmetics, ..., 1, 1), from the iterates after each part, ‖r_i‖ at them and ‖D_0‖."""
    steps = [step for part in parts for step in part]
    sigma = [np.linalg.svd(iterates[0], compute_uv=False)]
    slopes = []
    for a, b, c in steps:
        x = sigma[-1]
        square = x * x
        sigma.append(x * (a + square * (b + square * c)))
        slopes.append(a + square * (3 * b + square * (5 * c)))
    passed = _passed(sigma, slopes)
    share = 5 * (max(iterates[0].shape[-2:]) + 4) * U  # of the magnitudes that one step rounds away, four products deep
    deviation, added = [first], [np.zeros_like(first)]
    for part, x, rounded in zip(parts, iterates, rounding, strict=False):
        before, length = deviation[-1], frobenius(x)
        lost = len(part) ** 2 * share + (kept_share(part, bounded and part is parts[0]) if narrow else 0.0)
        for j, step in enumerate(part):
            i = len(deviation)
            new = _second_order(step, sigma[i - 1].max(axis=-1)[..., None, None], deviation[-1])
            if j == len(part) - 1:
                new = new + rounded + lost * _growth(part, length, before)
            added.append(new)
            each = [passed[0, i] * first, *(passed[k, i] * added[k] for k in range(1, i)), new]
            deviation.append(np.minimum(sum(each), passed[i - 1, i] * deviation[-1] + new))
    return np.asarray(MARGIN * deviation[-1])


def _passed(sigma: list[Array], slopes: list[Array]) -> dict[tuple[int, int], Array]:
    """{(i, j): how much of a deviation of X_i is left in X_j}, i < j, for singular values and the slopes between."""
    pairs, through = [], []
    for i in range(len(slopes)):
        slope = np.ones_like(sigma[0])
        for j in range(i, len(slopes)):
            slope = slope * slopes[j]
            pairs.append((i, j + 1))
            through.append(slope)
    start, end = (np.stack([sigma[pair[k]] for pair in pairs]) for k in (0, 1))
    return dict(zip(pairs, derivative(start, end, np.stack(through)), strict=True))


def kept_share(part: tuple[Quintic, ...], bounded: bool = False) -> float:
    """The share of the magnitudes that the steps of one part lose where they keep results in bfloat16.

    What is kept is a sum of terms with factors 1 + δ, |δ| <= 2^-8; n is the largest number of them in a term. A part
    that finds the bound on the way (`bounded`) also keeps R and Q after they have been scaled.
    """
    r, z, q = 1 + bounded, 1, 1
    for j in range(len(part)):
        r = r if j == 0 else 2 * z + r + 4  # R Z, a R + R Z, and the same with Z again
        z = 2 * r + 2
        q = z + 1 if j == 0 else q + z + 2
    n = q + 1 + bounded
    return n * HALF / (1 - n * HALF) if n * HALF < 1 else math.inf


def _second_order(step: Quintic, largest: Array, d: Array) -> Array:
    """‖f(X + D) − f(X) − Df(X)[D]‖ for ‖X‖_op = `largest` and ‖D‖ <= d."""
    _, b, c = step
    cubic = 3 * largest + d
    quintic = 10 * largest**3 + d * (10 * largest**2 + d * (5 * largest + d))
    return np.asarray(d * d * (abs(b) * cubic + abs(c) * quintic))


def _growth(part: tuple[Quintic, ...], length: Array, d: Array) -> Array:
    """What the sum of the magnitudes of all terms can grow by from ‖X‖_F = `length`, d further: of one step

    |a| d + |b| ((‖X‖_F + d)³ − ‖X‖_F³) + ...
    """
    near, far = length, length + d
    for a, b, c in part:
        near, far = (abs(a) * x + abs(b) * x**3 + abs(c) * x**5 for x in (near, far))
    return np.asarray(far - near)
