"""How much curvature a step stands: above λ*, along a direction of curvature λ, weights swing with period 2 and grow.

For m+ = β m + (1 − β) g, z = μ m+ + (1 − μ) g, θ+ = a θ − η z on the quadratic of curvature λ (g = λθ)

    λ* = ((1 + a)/η) (1 + β)/(1 + β − 2 μ β)

where the larger of the two eigenvalues of the update passes −1. λ is of the Hessian, and of P⁻¹H for a direction
P⁻¹z: for Adam with the root of v for P. Directions of one size (signs, polar factors) have no threshold; they swing
by η around a minimum, however flat or steep it is.

    GD, RMSProp                       2/η
    EMA heavy ball, Adam (μ = 1)      (2/η)(1 + β)/(1 − β)                     38/η at β = 0.9
    EMA Nesterov, NAdam (μ = β)       (2/η)(1 + β)/((1 − β)(1 + 2β))
    Polyak's buffer: η/(1 − β) for η  heavy ball 2(1 + β)/η, Nesterov (2/η)(1 + β)/(1 + 2β)

Sources: Cohen et al. (arXiv 2207.14484), 2605.06821 for the rows; the general form, and `rod`, are ours.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def threshold(eta: float, mu: float, c: float, lost: float = 0.0) -> float:
    """λ*; inf for η = 0. c = 1 − β, lost = 1 − a.

    >>> threshold(0.1, 1.0, 0.1) == 2 / 0.1 * 1.9 / 0.1
    True
    """
    if eta == 0:
        return math.inf
    beta = 1 - c
    left = (1 - mu) * (1 + beta) + mu * c  # 1 + β − 2μβ, without cancellation: (1 − μ)(1 + β) + μ(1 − β)
    return math.inf if left == 0 else (2 - lost) / eta * (1 + beta) / left


def update_matrix(curvature: float, eta: float, mu: float, c: float, lost: float = 0.0) -> Any:
    """The update of (θ, m) on the quadratic, (2, 2). Stable while no eigenvalue is beyond the unit circle."""
    beta, a = 1 - c, 1 - lost
    read = mu * c + (1 - mu)  # of g in z
    return np.array([[a - eta * read * curvature, -eta * mu * beta], [c * curvature, beta]])


def rod(linear: float, cubic: float, eta: float) -> float:
    """Σ*, the mean square swing of gradient descent around 0 beyond its threshold, where L′ = S w − Q w³.

    The rod's ends ±δ map onto each other, 2δ = η L′(δ): Σ* = S/Q − 2/(ηQ). 0 while S <= 2/η. It is where the
    exact identity δ′² − δ² = (η²/4)(L′₊² + L′₋²) − 2δ² is at rest.
    """
    return max(0.0, (linear - 2 / eta) / cubic)
