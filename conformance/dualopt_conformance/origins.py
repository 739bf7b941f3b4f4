"""Where an array comes from, for as long as bounds can be tighter for it: products, lengths, transposes.

    Σ a b      |Σ (a + α)(b + β) − Σ a b|  <=  ‖a‖ ‖β‖ + ‖b‖ ‖α‖ + ‖α‖ ‖β‖            (Cauchy and Schwarz)
    y / ‖y‖    has length at most 1 in every evaluation, or y/(‖y‖ + ε), so that no entry deviates by more than 2

With y over its length an entry-by-entry bound loses sight of this: as soon as ‖y‖ may be 0, it is infinite.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .arithmetic import Array

if TYPE_CHECKING:
    from .bounded import Bounded

MOST = 2.0  # no evaluation of an entry of a vector of length 1 is larger


@dataclass(frozen=True, eq=False)
class Product:
    """a b, elementwise and of one shape; `rounded` is what e says of its own rounding."""

    a: Bounded
    b: Bounded
    rounded: Array

    @property
    def square(self) -> bool:
        return self.a is self.b


@dataclass(frozen=True, eq=False)
class Length:
    """‖y‖, or ‖y‖² (`power` 2), or 1/‖y‖ (−1); where ‖y‖ = 0, 1 may stand for it, and something may be added to it."""

    of: Bounded
    axes: tuple[int, ...]
    power: int


@dataclass(frozen=True, eq=False)
class Transposed:
    """The transpose of `of`."""

    of: Bounded


Origin = Product | Length | Transposed


def skew(x: Array, s: Array, e: Array) -> tuple[Array, Array]:
    """(s, e) of A − Aᵀ, whose diagonal is 0 in every evaluation."""
    aside = ~np.eye(x.shape[-1], dtype=bool)
    return s * aside, e * aside


def deviation(a: Bounded, axes: tuple[int, ...]) -> Array:
    """The most that the part of `a` along `axes` may be away from its value, in the Euclidean norm; axes stay."""
    found = np.sqrt(np.sum(a.e * a.e, axis=axes, keepdims=True))
    if a.norm is not None:
        beyond = tuple(i for i in axes if i < -2)
        found = found + np.sqrt(np.sum(a.norm * a.norm, axis=beyond, keepdims=True))
    return np.asarray(found)


def summed(product: Product, axes: tuple[int, ...]) -> Array:
    """What Σ a b over `axes` may be off by if sums do not round."""
    a, b = product.a, product.b
    lengths = [np.sqrt(np.sum(y.x * y.x, axis=axes, keepdims=True)) for y in (a, b)]
    off_a, off_b = deviation(a, axes), deviation(b, axes)
    rounded = np.sum(product.rounded, axis=axes, keepdims=True)
    return np.asarray(lengths[0] * off_b + lengths[1] * off_a + off_a * off_b + rounded)


def within_ball(
    y: Bounded, axes: tuple[int, ...], x: Array, e: Array, norm: Array | None
) -> tuple[Array, Array, Array]:
    """(e, norm, unsure) of x = y/‖y‖ over `axes`, of which no evaluation leaves the ball."""
    leading = e.shape[0]
    if norm is None:
        loose = ~(e <= MOST + np.abs(x))  # NaN, too
        return np.where(loose, MOST + np.abs(x), e), np.zeros(0), loose
    lines = math.prod(y.shape[-2:]) / math.prod(y.shape[i] for i in axes if i >= -2)
    most = np.sqrt(np.sum(x * x, axis=(-2, -1), keepdims=True)) + MOST * math.sqrt(lines)
    total = norm + np.sqrt(np.sum(e * e, axis=(-2, -1), keepdims=True))
    loose = ~(total <= most)
    norm = np.where(loose, most, norm)
    return np.where(loose, 0.0, e), norm, np.broadcast_to(loose, (leading, *x.shape))
