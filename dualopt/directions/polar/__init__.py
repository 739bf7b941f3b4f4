"""The polar factor U Vᵀ of a matrix Z = U Σ Vᵀ, exactly or by an odd polynomial iteration.

    X ← a X + (b A + c A²) X,   A = X Xᵀ          (wide; a tall X uses A = Xᵀ X on the right)

acts on every singular value as x ← a x + b x³ + c x⁵ and leaves the singular vectors alone. Singular
values that are exactly 0 stay 0: null directions are dropped. The coefficients are in `sets`, each with its
error; forms of the iteration and scalings of its input in `iterations`; the type it is carried out in in `work`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ...factorise import svd
from ...recursion import Array, Namespace
from ...scaling import unit
from .iterations import FORMS, GRAM, GRAM_FROM, STANDARD, gram_newton_schulz, newton_schulz, scaled
from .presets import ACCURATE, FAST, PRESETS
from .sets import (
    AOL_SET,
    BOUNDS,
    CANS,
    EIGHTH,
    EXACT,
    EXPRESS_4,
    FIVE,
    FROBENIUS,
    POLAR_EXPRESS,
    QUINTIC,
    SETS,
    Coefficients,
    Quintic,
)
from .work import BFLOAT16, FLOAT32, WORKS, working

NORMALISES = (FROBENIUS, *BOUNDS)

__all__ = [
    "ACCURATE",
    "AOL_SET",
    "BFLOAT16",
    "BOUNDS",
    "CANS",
    "EIGHTH",
    "EXACT",
    "EXPRESS_4",
    "FAST",
    "FIVE",
    "FLOAT32",
    "FORMS",
    "NORMALISES",
    "PLAIN",
    "POLAR_EXPRESS",
    "PRESETS",
    "QUINTIC",
    "SETS",
    "STANDARD",
    "WORKS",
    "Coefficients",
    "Quintic",
    "Way",
    "form_of",
    "gram_newton_schulz",
    "kept",
    "newton_schulz",
    "polar",
    "weighted",
]


@dataclass(frozen=True)
class Way:
    """How a set is iterated.

    Attributes:
        form: "standard", or "gram" for matrices of an aspect ratio of 3/2 and more.
        normalise: None: as the set has it.
        steps: None: as the set has it (see `Coefficients.taking`).
        work: "float32", or "bfloat16" (see `work`).
    """

    form: str = STANDARD
    normalise: str | None = None
    steps: int | None = None
    work: str = FLOAT32

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Way:
        """The one that the coordinates of a recipe, or a preset, state."""
        steps = options.get("iterations")
        return cls(
            options.get("polar_form", STANDARD),
            options.get("polar_scaling"),
            None if steps is None else int(steps),
            options.get("polar_work", FLOAT32),
        )


PLAIN = Way()


def kept(xp: Namespace, sigma: Array, shape: tuple[int, ...]) -> Array:
    """Which singular values (..., k) of a matrix (..., m, n) are not 0: σ > max(m, n) ε σ_max."""
    floor = max(shape[-2:]) * float(xp.finfo(sigma.dtype).eps) * xp.max(sigma, axis=-1, keepdims=True)
    return sigma > floor


def weighted(xp: Namespace, u: Array, weights: Array, vh: Array) -> Array:
    """U diag(w) Vᵀ."""
    return xp.matmul(u * weights[..., None, :], vh)


def factorised(xp: Namespace, z: Array) -> Array:
    """U Vᵀ of z (..., m, n) by an SVD, null directions (σ <= max(m, n) ε σ_max) dropped."""
    u, sigma, vh = svd(xp, unit(xp, z, (-2, -1)))
    one = xp.ones_like(sigma)
    return weighted(xp, u, xp.where(kept(xp, sigma, z.shape), one, xp.zeros_like(one)), vh)


def polar(xp: Namespace, z: Array, method: str, way: Way = PLAIN) -> Array:
    """The polar factor of z (..., m, n) by a named set or by `EXACT`; does not depend on the scale of z."""
    if method == EXACT:
        return factorised(xp, z)
    chosen = SETS[method] if way.steps is None else SETS[method].taking(way.steps)
    normalise = way.normalise or chosen.normalise
    if normalise not in BOUNDS:
        return iterated(xp, scaled(xp, z, normalise) * (1 / chosen.safety), chosen, way)
    at = working(xp, way.work)
    return at.leave(form_of(z, way)(xp, at.level(z), chosen.steps, way.work, normalise, chosen.safety))


def iterated(xp: Namespace, x: Array, chosen: Coefficients, way: Way) -> Array:
    """x (..., m, n), scaled for the set, after its steps."""
    at = working(xp, way.work)
    return at.leave(form_of(x, way)(xp, at.narrow(x), chosen.steps, way.work))


def form_of(x: Array, way: Way) -> Callable[..., Array]:
    """The form in which x (..., m, n) is iterated."""
    elongated = max(x.shape[-2:]) >= GRAM_FROM * min(x.shape[-2:])
    return gram_newton_schulz if way.form == GRAM and elongated else newton_schulz
