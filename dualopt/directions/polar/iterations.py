"""Newton–Schulz iterations in two forms, and how their input is scaled.

*Standard*: X ← a X + (b A + c A²) X with A = X Xᵀ, 3 products a step, of which two are with X.

*Gram*: only the small square matrix is iterated. With Z = b R + c R², R = X Xᵀ,

    Q ← (a I + Z) Q,      R ← (a I + Z) R (a I + Z),      X ← Q X at a restart and at the end

which in exact arithmetic is the same. It pays from an aspect ratio of 3/2 on, and squares the condition, so that R
is formed anew from X (a restart) after every second step while two or more are left: without it rounding grows
without bound on ill-conditioned matrices. Q is multiplied on the side away from X; the other order doubles the error.
Source: Dao-AILab, Gram Newton–Schulz (2025).

*Scales*: all singular values must start in [0, 1].

    frobenius       X/‖X‖_F
    moment          X/s, s = ‖XXᵀ‖_F^½ = (Σσ⁴)^¼, which bounds σ₁ more closely
    eighth_moment   X/s, s = ‖(XXᵀ)²‖_F^¼ = (Σσ⁸)^⅛, still more closely
    aol             S X with S = diag(Σ_j |XXᵀ|_ij)^−½, the polar factor of S X and not of X    (one product)

*Bounds are free*: the first step needs XXᵀ, and R² if it is not the last of its kind, so s is found on the way. With
d = 1/s and R = d² XXᵀ (and R² = d⁴ (XXᵀ)² for the eighth moment) the first step is X ← d (a I + Z) X in both forms, and
X itself is never scaled, but for the power of two that keeps squares in range.

The type that an iteration works in is in `work`; scales are made in float32. Zero matrices, and zero rows, stay 0.
"""

from __future__ import annotations

from ...recursion import Array, Namespace
from ...scaling import levelled, unit
from .sets import AOL, BOUNDS, MOMENT, Quintic
from .work import FLOAT32, Work, working

FORMS = STANDARD, GRAM = "standard", "gram"
GRAM_FROM = 1.5  # aspect ratio: below, the standard form takes fewer operations


def tall(x: Array) -> bool:
    """Is the small side the last one?"""
    return bool(x.shape[-2] > x.shape[-1])


def gram(xp: Namespace, x: Array, work: str = FLOAT32) -> Array:
    """The smaller one of X Xᵀ and Xᵀ X."""
    at, xt = working(xp, work), xp.matrix_transpose(x)
    return at.product(xt, x) if tall(x) else at.product(x, xt)


def onto(at: Work, q: Array, x: Array) -> Array:
    """q x, or x q of a tall x."""
    return at.product(x, q) if tall(x) else at.product(q, x)


def bounded(xp: Namespace, x: Array, step: Quintic, bound: str, safety: float, work: str) -> tuple[Array, Array, Array]:
    """The first step on x (..., m, n) of any size: d (a I + Z), R and Z, with R = d² X Xᵀ and 1/d = s · safety."""
    at, (a, b, c) = working(xp, work), step
    r = gram(xp, x, work)
    if bound == MOMENT:
        d2 = over(xp, safety**2 * squared(xp, at.widen(r), bound))
        r = at.times(d2, r)
        z = at.sum(b, r, r, r, c)
    else:
        rr = at.product(r, r)
        d2 = over(xp, safety**2 * squared(xp, at.widen(rr), bound))
        r, rr = at.times(d2, r), at.times(d2 * d2, rr)
        z = at.mixed(b, r, c, rr)
    return at.shifted(a, z, xp.sqrt(d2)), r, z


def newton_schulz(
    xp: Namespace,
    x: Array,
    steps: tuple[Quintic, ...],
    work: str = FLOAT32,
    bound: str | None = None,
    safety: float = 1.0,
) -> Array:
    """The standard form on x (..., m, n), kept as `work` keeps it.

    ‖x‖_op <= 1; with a `bound`, one of `BOUNDS`, x is of any size and the iteration is that of x/(s · safety).
    """
    at = working(xp, work)
    if bound is not None:
        q, _, _ = bounded(xp, x, steps[0], bound, safety, work)
        x, steps = onto(at, q, x), steps[1:]
    for a, b, c in steps:
        r = gram(xp, x, work)
        p = at.sum(b, r, r, r, c)
        x = at.sum(a, x, x, p) if tall(x) else at.sum(a, x, p, x)
    return x


def restarts(steps: int) -> tuple[int, ...]:
    """The steps before which the Gram form restarts: every second one, with two or more to go."""
    return tuple(range(2, steps - 1, 2))


def gram_newton_schulz(
    xp: Namespace,
    x: Array,
    steps: tuple[Quintic, ...],
    work: str = FLOAT32,
    bound: str | None = None,
    safety: float = 1.0,
) -> Array:
    """The Gram form of the same."""
    at, right, starts = working(xp, work), tall(x), (0, *restarts(len(steps)))
    for start, end in zip(starts, (*starts[1:], len(steps)), strict=True):
        (a, b, c), *further = steps[start:end]
        if bound is not None and start == 0:
            q, r, z = bounded(xp, x, steps[0], bound, safety, work)
        else:
            r = gram(xp, x, work)
            z = at.sum(b, r, r, r, c)
            q = at.shifted(a, z)
        for step in further:
            rz = at.sum(a, r, r, z)
            r = at.sum(a, rz, z, rz)
            a, b, c = step
            z = at.sum(b, r, r, r, c)
            q = at.sum(a, q, q, z) if right else at.sum(a, q, z, q)
        x = onto(at, q, x)
    return x


def scaled(xp: Namespace, z: Array, normalise: str) -> Array:
    """z (..., m, n) with all singular values in [0, 1]."""
    if normalise in BOUNDS:
        x = levelled(xp, z)
        r = gram(xp, x)
        return x * over(xp, xp.sqrt(squared(xp, r if normalise == MOMENT else xp.matmul(r, r), normalise)))
    x = unit(xp, z, (-2, -1))
    if normalise == AOL:
        lines = xp.sqrt(xp.sum(xp.abs(gram(xp, x)), axis=-2 if tall(x) else -1, keepdims=True))
        return x * over(xp, lines)
    return x


def squared(xp: Namespace, r: Array, bound: str) -> Array:
    """s² (..., 1, 1) from XXᵀ, or from its square for the eighth moment."""
    length = xp.sqrt(xp.sum(r * r, axis=(-2, -1), keepdims=True))
    return length if bound == MOMENT else xp.sqrt(length)


def over(xp: Namespace, d: Array) -> Array:
    """1/d, and 1 for 0."""
    one = xp.ones_like(d)
    return one / xp.where(d == 0, one, d)
