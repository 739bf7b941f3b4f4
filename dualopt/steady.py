"""Where shrinking weights settle when gradients are noise: host arithmetic in float64.

A random walk with shrink, θ+ = a θ + η u, reaches a steady state. With u_tot all that one gradient does to θ
over all time, in units of η, and gradients that are independent of one another,

    E‖θ‖² = η² E‖u_tot‖² / (1 − a²)        E‖u_tot‖² = c_u² A        c_u² = E‖u‖²
    η_r²  = E‖η u‖² / E‖θ‖² = (1 − a²) / A

so the angle η_r by which weights turn per update depends on the half-life of the shrink and on the memory, never
on η; η sets the radius alone. The amplification A says how far successive u point the same way:

    A = 1 + 2 Σ_{k≥1} a^k c_k       c_k the autocorrelation of u

For a direction that is linear in its readout z = μ m+ + (1 − μ) g the c_k are those of z, ρ_k = r β^k, and the sum
is closed (`linear`); for a → 1 it is S(μ, β) = 1/Σ W_k², W_k the weights of past gradients in z (`readout`). For
signs of Gaussian readouts c_k = (2/π) arcsin ρ_k (`arcsine`); where all ρ_k are small that is (2/π) S, the rule of
rotational Lion, which is up to 5 % too large a norm for β₁ = β₂ = 0.9. For polar factors steps that are derived here
take S, as their source does, which is an upper estimate: A/S is about 0.76 for square matrices (`SQUARE_POLAR`) and
0.92 to 0.97 at aspect ratio 4. What a recipe does to weights is predicted with their own A (`analysis.spectra`).

Arguments are complements, as everywhere: c = 1 − β of the memory, c_a = 1 − a, lost = 1 − a². Sources: Kosson et
al. (arXiv 2305.17212), Chou (arXiv 2512.08217), JiHa-Kim's notes on steady states; the general μ and the finite-a
sums are ours.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from .errors import RecipeError

HEAD = 1024  # terms of the arcsine sum that are added one by one
SQUARE_POLAR = 0.76
SMALL_SIGNS = 2 / math.pi  # (2/π) arcsin ρ ≈ (2/π) ρ


def readout(mu: float, c: float) -> float:
    """S(μ, β) = (1+β) / ((1−μβ)²(1+β) + (μβ)²(1−β)), c = 1 − β.

    >>> round(readout(1.0, 0.05), 9)
    39.0
    """
    newest, kept = (1 - mu) + mu * c, mu * (1 - c)  # 1 − μβ, μβ
    return (2 - c) / (newest**2 * (2 - c) + kept**2 * c)


def lion_nu0(beta1: float, beta2: float) -> float:
    """ν₀ = (1−β₁)² + β₁²(1−β₂)/(1+β₂) = 1/S of Lion's readout μ = β₁/β₂ of a memory β₂."""
    return 1 / readout(beta1 / beta2, 1 - beta2)


def overlap(mu: float, c: float) -> float:
    """r, with ρ_k = r β^k the autocorrelation of the readout at lag k ≥ 1; 1 for a plain memory."""
    return readout(mu, c) * mu * c * (1 - mu * (1 - c) / (2 - c))


def linear(c_a: float, mu: float, c: float) -> float:
    """A = 1 + 2 r aβ / (1 − aβ) of a direction linear in its readout; S(μ, β) for a = 1."""
    product = (1 - c_a) * (1 - c)
    return 1 + 2 * overlap(mu, c) * product / (c_a + c - c_a * c)


@lru_cache(maxsize=4096)
def arcsine(c_a: float, mu: float, c: float) -> float:
    """A = 1 + (4/π) Σ_{k≥1} a^k arcsin(r β^k) of signs of a Gaussian readout.

    The first terms are added. The rest f(k), if there is one, is ∫ f from the last midpoint K plus f′(K)/24: the
    next term of the midpoint rule is below 7/5760 |f‴(K)| < 1e-10 of a sum over 400. The integral is Gauss's, on
    panels that double, since f is √k-like at 0.
    """
    if c >= 1 or mu == 0:
        return 1.0
    r, fall, shrink = min(overlap(mu, c), 1.0), -math.log1p(-c), -math.log1p(-c_a)
    k = np.arange(1.0, HEAD + 1)
    total = float(np.sum(np.exp(-shrink * k) * np.arcsin(r * np.exp(-fall * k))))
    end = 40 / (fall + shrink)  # e^-40 of the weight is left
    if end > HEAD:
        begin = HEAD + 0.5
        edges = np.append(begin * 2.0 ** np.arange(math.ceil(math.log2(end / begin))), end)
        nodes, weights = np.polynomial.legendre.leggauss(32)
        half = (edges[1:] - edges[:-1])[:, None] / 2
        at = edges[:-1, None] + half * (1 + nodes)
        total += float(np.sum(half * weights * np.exp(-shrink * at) * np.arcsin(r * np.exp(-fall * at))))
        x = r * math.exp(-fall * begin)
        slope = -math.exp(-shrink * begin) * (shrink * math.asin(x) + fall * x / math.sqrt(1 - x * x))
        total += slope / 24
    return float(1 + 4 / math.pi * total)


def angle(lost: float, amplification: float) -> float:
    """η_r = √((1 − a²) / A): the angle of one update in the steady state, in radians for small ones."""
    return math.sqrt(lost / amplification)


def radius(eta: float, square: float, amplification: float, lost: float) -> float:
    """√E‖θ‖² = η √(c_u² A / (1 − a²)); the RMS if `square` is c_u² per entry."""
    return eta * math.sqrt(square * amplification / lost)


def step_for(rms: float, square: float, amplification: float, lost: float) -> float:
    """The η whose steady state has this RMS, `square` being c_u² per entry: the inverse of `radius`."""
    return rms * math.sqrt(lost / (square * amplification))


def transient(start: float, limit: float, a: float, updates: float) -> float:
    """E‖θ‖² after `updates` from `start`, on the way to `limit`: a^(2t) start + (1 − a^(2t)) limit."""
    kept = math.pow(a, 2 * updates)
    return limit + (start - limit) * kept


def adam_l2(eta: float, l2: float, entries: int, slope: float) -> float:
    """‖ω‖² in the steady state of Adam with a penalty λ, for a scale-invariant ω of `entries` entries.

    The one positive root x of 4λ²x³ − Cη²λ²x² − Cη²g̃² = 0, where slope = g̃² is E‖g‖²‖ω‖², of all entries of ω.

    Raises:
        RecipeError: not all arguments are positive.
    """
    if not (eta > 0 and l2 > 0 and entries > 0 and slope > 0):
        raise RecipeError("the steady state of adam_l2 needs η, λ, C and g̃² above 0")
    b = entries * eta**2 / 4
    x = b + (b * slope) ** (1 / 3) / l2 ** (2 / 3)  # above the root, from where Newton's iteration falls
    for _ in range(100):
        value, slope_at = (x - b) * x**2 - b * slope / l2**2, (3 * x - 2 * b) * x
        step = value / slope_at
        x -= step
        if abs(step) <= 1e-16 * x:
            break
    return float(x)


def multiplier(theta: Any, gradient: Any) -> float:
    """<∇f, θ> / ‖θ‖²: the shrink that would hold ‖θ‖ along −∇f, and λ_u of the effective decay λ + λ_u."""
    w, g = np.asarray(theta, np.float64), np.asarray(gradient, np.float64)
    return float(np.sum(g * w) / np.sum(w * w))
