"""Newton–Schulz iterations in two forms, and how their input is scaled.

*Standard*: X ← a X + (b A + c A²) X with A = X Xᵀ, 3 products a step, of which two are with X.

*Gram*: only the small square matrix is iterated. With Z = b R + c R², R = X Xᵀ,

    Q ← (a I + Z) Q,      R ← (a I + Z) R (a I + Z),      X ← Q X at a restart and at the end

which in exact arithmetic is the same. It pays from an aspect ratio of 3/2 on, and squares the condition, so that R
is formed anew from X (a restart) after every second step while two or more are left: without it rounding grows
without bound on ill-conditioned matrices. Q is multiplied on the side away from X; the other order doubles the error.
Source: Dao-AILab, Gram Newton–Schulz (2025).

*Scales*: all singular values must start in [0, 1].

    frobenius    X/‖X‖_F
    moment       X/‖X‖_F over ‖XXᵀ‖_F^½ = (Σσ⁴)^¼, which bounds σ₁ more closely    (one product)
    aol          S X with S = diag(Σ_j |XXᵀ|_ij)^−½, the polar factor of S X and not of X    (one product)

The type that an iteration works in is in `work`; scales are made in float32. Zero matrices, and zero rows, stay 0.
"""

from __future__ import annotations

from ...recursion import Array, Namespace
from ...scaling import unit
from .sets import AOL, MOMENT, Quintic
from .work import FLOAT32, working

GRAM_FROM = 1.5  # aspect ratio: below, the standard form takes fewer operations


def tall(x: Array) -> bool:
    """Is the small side the last one?"""
    return bool(x.shape[-2] > x.shape[-1])


def gram(xp: Namespace, x: Array, work: str = FLOAT32) -> Array:
    """The smaller one of X Xᵀ and Xᵀ X."""
    at, xt = working(xp, work), xp.matrix_transpose(x)
    return at.product(xt, x) if tall(x) else at.product(x, xt)


def newton_schulz(xp: Namespace, x: Array, steps: tuple[Quintic, ...], work: str = FLOAT32) -> Array:
    """The standard form on x (..., m, n) with ‖x‖_op <= 1, kept as `work` keeps it."""
    at = working(xp, work)
    for a, b, c in steps:
        r = gram(xp, x, work)
        p = at.sum(b, r, r, r, c)
        x = at.sum(a, x, x, p) if tall(x) else at.sum(a, x, p, x)
    return x


def restarts(steps: int) -> tuple[int, ...]:
    """The steps before which the Gram form restarts: every second one, with two or more to go."""
    return tuple(range(2, steps - 1, 2))


def gram_newton_schulz(xp: Namespace, x: Array, steps: tuple[Quintic, ...], work: str = FLOAT32) -> Array:
    """The Gram form on x (..., m, n) with ‖x‖_op <= 1, kept as `work` keeps it."""
    at, right, starts = working(xp, work), tall(x), (0, *restarts(len(steps)))
    for start, end in zip(starts, (*starts[1:], len(steps)), strict=True):
        (a, b, c), *further = steps[start:end]
        r = gram(xp, x, work)
        z = at.sum(b, r, r, r, c)
        q = at.shifted(a, z)
        for step in further:
            rz = at.sum(a, r, r, z)
            r = at.sum(a, rz, z, rz)
            a, b, c = step
            z = at.sum(b, r, r, r, c)
            q = at.sum(a, q, q, z) if right else at.sum(a, q, z, q)
        x = at.product(x, q) if right else at.product(q, x)
    return x


def scaled(xp: Namespace, z: Array, normalise: str) -> Array:
    """z (..., m, n) with all singular values in [0, 1]."""
    x = unit(xp, z, (-2, -1))
    if normalise == MOMENT:
        r = gram(xp, x)
        fourth = xp.sqrt(xp.sum(r * r, axis=(-2, -1), keepdims=True))  # of a number in [1/k, 1]
        return x * _over(xp, xp.sqrt(fourth))
    if normalise == AOL:
        lines = xp.sqrt(xp.sum(xp.abs(gram(xp, x)), axis=-2 if tall(x) else -1, keepdims=True))
        return x * _over(xp, lines)
    return x


def _over(xp: Namespace, d: Array) -> Array:
    one = xp.ones_like(d)
    return one / xp.where(d == 0, one, d)
