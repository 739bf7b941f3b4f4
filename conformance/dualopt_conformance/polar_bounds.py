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
by polynomials in a crude ‖D_i‖, which takes the largest slope of every single step, so the result holds to
all orders. It is useful while ‖D_i‖ ≪ 1. Where it allows more than that all singular values are anything up to 2, which
no rounding makes them exceed, it says nothing, and is ∞.

The Gram form rounds otherwise. There r_i is that of all steps between two restarts together, entry by entry, and it
grows away from X_i no faster than the sum of the magnitudes of all terms. The map of `kaon` is a quintic, too:
4.1 (σ − 2 σ³ + σ⁵).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np

from dualopt.directions.polar import EXACT, GRAM, PLAIN, SETS, Quintic, Way, newton_schulz
from dualopt.directions.polar.iterations import GRAM_FROM, gram_newton_schulz, restarts, scaled

from .arithmetic import Array, U
from .bounded import Bounded
from .bounds import Bounds
from .factorised import MARGIN, derivative, frobenius, live, off, polar_factor
from .origins import MOST

Advance = Callable[[Bounded], Bounded]


def polar_bound(xp: Bounds, z: Bounded, method: str, way: Way = PLAIN) -> Bounded:
    """`dualopt.directions.polar.polar` of z, with its bound."""
    if method == EXACT:
        return polar_factor(xp, z)
    chosen = SETS[method] if way.steps is None else SETS[method].taking(way.steps)
    start = scaled(xp, z, way.normalise or chosen.normalise) * (1 / chosen.safety)
    steps = tuple((xp.number(a), xp.number(b), xp.number(c)) for a, b, c in chosen.steps)
    elongated = max(z.shape[-2:]) >= GRAM_FROM * min(z.shape[-2:])
    if way.form == GRAM and elongated:
        ends = (0, *restarts(len(steps)), len(steps))
        parts = [steps[a:b] for a, b in pairwise(ends)]
        return iterated(xp, z, start, parts, [partial(_carried, gram_newton_schulz, xp, part) for part in parts])
    parts = [(step,) for step in steps]
    return iterated(xp, z, start, parts, [partial(_carried, newton_schulz, xp, part) for part in parts])


def _carried(form: Callable[..., Bounded], xp: Bounds, steps: tuple[Quintic, ...], x: Bounded) -> Bounded:
    return form(xp, x, steps)


def iterated(
    xp: Bounds, z: Bounded, start: Bounded, parts: Sequence[tuple[Quintic, ...]], advances: Sequence[Advance]
) -> Bounded:
    """From `start`, made of z, by `advances`, each of which carries out the steps of one part at once."""
    x, rounding, iterates = start.x, [], [start.x]
    for advance in advances:
        moved = advance(xp.exact(x))
        x = moved.x
        rounding.append(off(moved))
        iterates.append(x)
    norm = _deviation(parts, iterates, rounding, off(start))
    limit = frobenius(x) + MOST * np.sqrt(min(x.shape[-2:]))
    none = np.zeros((len(xp.arithmetics), *x.shape))
    return Bounded(xp, x, np.abs(x) + live(z), none, norm=np.where(norm <= limit, norm, np.inf))


def _deviation(
    parts: Sequence[tuple[Quintic, ...]], iterates: list[Array], rounding: list[Array], first: Array
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
    following = [np.ones_like(sigma[0])]  # d σ_end / d σ_i
    for slope in reversed(slopes):
        following.insert(0, slope * following[0])
    count = len(steps)
    start = np.stack(sigma[:-1] + sigma[:-1])
    end = np.stack([sigma[-1]] * count + sigma[1:])
    norms = derivative(start, end, np.stack(following[:-1] + slopes))
    onward, single = norms[:count], norms[count:]
    deviation, total = first, onward[0] * first
    share = 5 * (max(iterates[0].shape[-2:]) + 4) * U  # of the magnitudes that one step rounds away, four products deep
    i = 0
    for part, x, rounded in zip(parts, iterates, rounding, strict=False):
        before, length = deviation, frobenius(x)
        for j, step in enumerate(part):
            largest = sigma[i].max(axis=-1)[..., None, None]
            added = _second_order(step, largest, deviation)
            if j == len(part) - 1:
                added = added + rounded + len(part) ** 2 * share * _growth(part, length, before)
            total = total + (onward[i + 1] if i + 1 < count else 1.0) * added
            deviation = single[i] * deviation + added
            i += 1
    return np.asarray(MARGIN * total)


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
