"""What a coefficient set makes of the singular values of noise, and of any: how far polar factors are off.

The eigenvalues λ of X Xᵀ/max(m, n), for an (m, n) matrix X of independent entries of variance 1, have the density

    √((b − λ)(λ − a)) / (2π y λ)     a, b = (1 ∓ √y)²     y = min(m, n)/max(m, n)     (Marchenko and Pastur)

for large matrices, and the moments

    E λ = 1        E λ² = 1 + y        E λ⁴ = 1 + 6 y + 6 y² + y³

With k = min(m, n) the input of the iteration has the singular values

    frobenius   √(λ/k)                  moment   √λ / (k E λ²)^¼        eighth_moment   √λ / (k E λ⁴)^⅛
    aol         √(λ / (1 + (k − 1) √(2/(π max(m, n)))))
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from ..directions.norm_balls import SpectralBall
from ..directions.normuon import RMS, PolarRows, RowScaled
from ..directions.polar import SETS, Coefficients, Way
from ..directions.polar.sets import AOL, EIGHTH, FROBENIUS, MOMENT
from ..directions.symmetry import AFTER, Spectral
from ..recursion import Row, Shape

NODES = 512  # of the midpoint rule in φ, λ = 1 + y − 2√y cos φ, where the integrand is smooth


def spread(row: Row, shape: Shape) -> tuple[float, float, float]:
    """(least, that of noise, largest) RMS of the singular values that a row gives its updates, over those predicted.

    All are 1 for exact factors, and where the length of the update does not depend on them. The ends are those of any
    gradient whose singular values, scaled, are from the set's `least` to 1; large matrices of noise have smaller ones.
    """
    found = _iterated(row)
    if found is None or len(shape) < 2 or 0 in shape:
        return 1.0, 1.0, 1.0
    method, way = found
    if method not in SETS:
        return 1.0, 1.0, 1.0
    chosen = SETS[method] if way.steps is None else SETS[method].taking(way.steps)
    low, high = chosen.range
    noise = of_noise(chosen, way.normalise or chosen.normalise, shape[-2], shape[-1])
    return min(low, noise), noise, max(high, noise)


@lru_cache(maxsize=256)
def of_noise(chosen: Coefficients, normalise: str, m: int, n: int) -> float:
    """The RMS of the singular values of an (m, n) matrix of noise after the iteration."""
    k, y = min(m, n), min(m, n) / max(m, n)
    if k == 1:
        return abs(chosen.response(1.0))
    phi = (np.arange(NODES) + 0.5) * (math.pi / NODES)
    eigen = 1 + y - 2 * math.sqrt(y) * np.cos(phi)
    weights = np.sin(phi) ** 2 / eigen
    scale = {
        FROBENIUS: 1 / k,
        MOMENT: (k * (1 + y)) ** -0.5,
        EIGHTH: (k * (1 + 6 * y + 6 * y**2 + y**3)) ** -0.25,
        AOL: 1 / (1 + (k - 1) * math.sqrt(2 / (math.pi * max(m, n)))),
    }[normalise]
    out = np.array([chosen.response(math.sqrt(min(1.0, scale * x))) for x in eigen.tolist()])
    return math.sqrt(float(np.sum(weights * out**2) / np.sum(weights)))


def _iterated(row: Row) -> tuple[str, Way] | None:
    """(method, way) of the polar factor whose length is that of the update."""
    geometry: Any = getattr(row.direction, "geometry", None)
    if isinstance(geometry, SpectralBall) or (isinstance(geometry, Spectral) and geometry.rows != AFTER):
        return geometry.method, geometry.way
    if isinstance(row.direction, RowScaled) and row.direction.scale != RMS and isinstance(row.memory, PolarRows):
        return row.memory.method, row.memory.way
    return None
