"""Functions of singular values on noise: how large polar factors by an iteration are, and how long they agree.

The eigenvalues λ of X Xᵀ/max(m, n), for an (m, n) matrix X of independent entries of variance 1, have the density

    √((b − λ)(λ − a)) / (2π y λ)     a, b = (1 ∓ √y)²     y = min(m, n)/max(m, n)     (Marchenko and Pastur)

for large matrices, and the moments

    E λ = 1        E λ² = 1 + y        E λ⁴ = 1 + 6 y + 6 y² + y³

With k = min(m, n) the input of the iteration has the singular values

    frobenius   √(λ/k)                  moment   √λ / (k E λ²)^¼        eighth_moment   √λ / (k E λ⁴)^⅛
    aol         √(λ / (1 + (k − 1) √(2/(π max(m, n)))))

*Two readouts* X and Y whose entries have the correlation ρ give factors U and V, with singular values h of the same
function, and E tr Uᵀ V/E tr Uᵀ U is

    f(ρ) = Σ_j b_j² ρ^(2j+1) / Σ_j b_j²
    b_j = (2/π) ∫₀^π h λ^(−½) sin φ sin((j + 1) φ) dφ        λ = 1 + y + 2√y cos φ

λ times its density is a semicircle around 1 + y, for which the polynomials of Chebyshev in (λ − 1 − y)/2√y are
orthogonal; times X they are what free probability has in the place of Hermite's polynomials, words X Xᵀ X ... X of
2j + 1 letters, each of which a correlation of ρ multiplies by ρ. The polar factor of a square matrix has
b_j = ± (8/π)(j + 1)/((2j + 1)(2j + 3)). With ρ_k = r β^k (`steady`) the amplification is

    A = 1 + 2 Σ_k a^k f(ρ_k) = 1 + 2 Σ_j (b_j²/Σ b²) r^n aβ^n/(1 − aβ^n)        n = 2j + 1

which is `steady.linear` for h ~ √λ, where all but b_0 vanish, and less for all others. Ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .. import steady
from ..directions.norm_balls import SpectralBall
from ..directions.normuon import RMS, PolarRows, RowScaled
from ..directions.polar import EXACT, SETS, Coefficients
from ..directions.polar.sets import AOL, EIGHTH, FROBENIUS, MOMENT
from ..directions.schatten import Freon
from ..directions.symmetry import AFTER, Spectral
from ..recursion import Row, Shape
from .recurrence import Floats

NODES = 2048  # of the midpoint rule in φ, and of b_j: terms beyond are a relative 2e-4 of Σ b² at most


@dataclass(frozen=True)
class Response:
    """A function of singular values on noise of one shape.

    Attributes:
        least, square, largest: the least singular value that it returns, the mean square on noise, and the largest; 1
            for exact factors, and where the length of the update does not depend on them. The ends are those of any
            gradient whose singular values, scaled, are from the set's `least` to 1; large matrices of noise have
            smaller ones.
        shares: b_j²/Σ b², (j,).
    """

    least: float
    square: float
    largest: float
    shares: Floats

    def amplification(self, c_a: float, mu: float, c: float) -> float:
        """A to all orders in 1 − a; arguments are complements, as of `steady.linear`."""
        n = 2.0 * np.arange(self.shares.size) + 1
        exponent = math.log1p(-c_a) + n * (math.log1p(-c) if c < 1 else -math.inf)
        agreeing = self.shares * min(steady.overlap(mu, c), 1.0) ** n * np.exp(exponent) / -np.expm1(exponent)
        return float(1 + 2 * np.sum(agreeing))


def response_of(row: Row, shape: Shape) -> Response | None:
    """Of a row whose direction is a polar factor, on a parameter of this logical shape; None for others."""
    found = _factor(row)
    if found is None or len(shape) < 2 or 0 in shape:
        return None
    chosen, normalise, sized = found
    m, n = _matrix(row, shape)
    square, shares = of_noise(chosen, normalise, m, n)
    if chosen is None or not sized:
        return Response(1.0, 1.0, 1.0, shares)
    low, high = _ends(chosen)
    return Response(min(low, math.sqrt(square)), square, max(high, math.sqrt(square)), shares)


@lru_cache(maxsize=256)
def of_noise(chosen: Coefficients | None, normalise: str, m: int, n: int) -> tuple[float, Floats]:
    """(mean square of the singular values, shares b_j²/Σ b²) of an (m, n) matrix of noise after the iteration.

    `chosen` is None for the polar factor itself.
    """
    k, y = min(m, n), min(m, n) / max(m, n)
    phi = (np.arange(NODES) + 0.5) * (math.pi / NODES)
    eigen = 1 + y + 2 * math.sqrt(y) * np.cos(phi)
    out = np.ones(NODES)
    if chosen is not None and k == 1:
        out *= abs(chosen.response(1.0))
    elif chosen is not None:
        scale = {
            FROBENIUS: 1 / k,
            MOMENT: (k * (1 + y)) ** -0.5,
            EIGHTH: (k * (1 + 6 * y + 6 * y**2 + y**3)) ** -0.25,
            AOL: 1 / (1 + (k - 1) * math.sqrt(2 / (math.pi * max(m, n)))),
        }[normalise]
        inputs: Any = np.sqrt(np.minimum(1.0, scale * eigen))
        out = np.asarray(chosen.response(inputs))
    weighed = out / np.sqrt(eigen) * np.sin(phi)
    b = _sines(weighed) ** 2
    return float(np.sum(weighed**2) * 2 / NODES), b / np.sum(b)


@lru_cache
def _ends(chosen: Coefficients) -> tuple[float, float]:
    return chosen.range


def _sines(x: Floats) -> Floats:
    """Σ_i x_i sin((j + 1) φ_i) at φ_i = (i + ½) π/N, for j = 0 ... N − 1."""
    n = x.size
    turned = np.fft.fft(np.concatenate([x, -x[::-1]]))[1 : n + 1]  # Σ x_i 2 sin at 2N points, half a point off
    return np.asarray(-(np.exp(-0.5j * math.pi / n * np.arange(1, n + 1)) * turned).imag / 2)


def _factor(row: Row) -> tuple[Coefficients | None, str, bool] | None:
    """(coefficient set, how its input is scaled, whether its length is that of the update) of a polar factor."""
    geometry: Any = getattr(row.direction, "geometry", None)
    if isinstance(geometry, Freon) and geometry.exponent == 0.5:
        return None, FROBENIUS, False
    if isinstance(geometry, SpectralBall | Spectral):
        method, way = geometry.method, geometry.way
        sized = isinstance(geometry, SpectralBall) or geometry.rows != AFTER
    elif isinstance(row.direction, RowScaled) and isinstance(row.memory, PolarRows):
        method, way, sized = row.memory.method, row.memory.way, row.direction.scale != RMS
    else:
        return None
    if method == EXACT:
        return None, FROBENIUS, False
    chosen = SETS[method] if way.steps is None else SETS[method].taking(way.steps)
    return chosen, way.normalise or chosen.normalise, sized


def _matrix(row: Row, shape: Shape) -> tuple[int, int]:
    geometry: Any = getattr(row.direction, "geometry", None)
    if isinstance(geometry, SpectralBall) and geometry.scaling == "√(out/in)/k":  # (out, in, *kernel)
        return shape[0], math.prod(shape[1:])
    return shape[-2], shape[-1]
