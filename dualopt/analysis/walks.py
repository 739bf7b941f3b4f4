"""How the size of weights changes over a run whose gradients are noise: exact second moments, update by update.

Per entry, gradients are independent with mean 0 and mean square σ². With m+ = β m + (1 − β) g, z = μ m+ + (1 − μ) g
and θ+ = a θ − η z three numbers suffice, V = E m², Q = E θm and P = E θ²:

    V+ = β² V + (1 − β)² σ²
    Q+ = a β Q − η E z m+                    E z m+ = μ V+ + (1 − μ)(1 − β) σ²
    P+ = a² P − 2 a η μ β Q + η² E z²        E z²   = μ² V+ + 2 μ (1 − μ)(1 − β) σ² + (1 − μ)² σ²

They hold for any schedules, increments and ages, start at V = Q = 0, and end at `steady.radius` with `steady.linear`
when nothing changes any more. A row whose direction brings its readout to a fixed size c_u² divides η by
√(E z²/c_u²), for Adam E z²/c_u² is E g² and its correction for age multiplies; P is then P of that walk.

Directions that are not linear (signs) have no finite recursion. With a, η and A that change little within a memory

    P+ = a² P + η² c_u² A                    A of `steady`, at this a                   (`slow`)

which for AdamW, whose c_u² A is 1 to first order in 1 − a, is ρ+ = a² ρ + η² (Su, kexue.fm 11307 and 11404). Between
the two and closed forms is the mean field, dρ/dt = −2λη ρ + η²: see `mean_field`. The exact moments are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .recurrence import Floats, floats, forward

FIXED, GRADIENT = "fixed", "gradient"  # what the length of a direction follows


@dataclass(frozen=True)
class Walk:
    """The mean squares of the entries of θ and of u, after and in every update, (t,)."""

    square: Floats
    update: Floats


def walk(
    eta: Any, lost: Any, mu: float, c: Any, *, start: float = 0.0, square: float = 1.0, sized: str = GRADIENT
) -> Walk:
    """E θ² after every update, of a direction that is linear in its readout.

    Args:
        eta, lost, c: η, 1 − a and 1 − β of each update, (t,) or numbers. A correction for age is part of η.
        mu: μ of the readout.
        start: E θ_0².
        square: per entry, E g² (`sized` = "gradient"), or c_u² of a direction of one size ("fixed").
    """
    eta, lost, c = np.broadcast_arrays(floats(eta), floats(lost), floats(c))
    eta, a, beta = np.atleast_1d(eta), np.atleast_1d(1 - lost), np.atleast_1d(1 - c)
    c = 1 - beta
    unit = square if sized == GRADIENT else 1.0
    v = forward(beta**2, c**2 * unit)
    zz = mu**2 * v + (2 * mu * (1 - mu) * c + (1 - mu) ** 2) * unit
    zm = mu * v + (1 - mu) * c * unit
    step = eta if sized == GRADIENT else eta * np.sqrt(square / zz)
    q = forward(a * beta, -step * zm)
    before = np.append(0.0, q[:-1])
    p = forward(a**2, step**2 * zz - 2 * a * step * mu * beta * before, start)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(eta > 0, step / eta, 0.0)
    return Walk(p, scale**2 * zz)


def slow(eta: Any, lost: Any, total: Any, *, start: float = 0.0) -> Floats:
    """E θ² after every update, from P+ = a² P + η² E‖u_tot‖²; `total` is c_u² A per entry, 1 for AdamW."""
    eta, lost, total = np.broadcast_arrays(floats(eta), floats(lost), floats(total))
    return forward((1 - lost) ** 2, eta**2 * total, start)


def mean_field(kappa: float, nu: float, start: float = 0.0) -> float:
    """ρ = e^(−2κ) ρ_0 + (1 − e^(−2κ)) ν/(2κ), with κ = ∫ λη dt and ν = ∫ η² dt. ρ is a mean square, not its root.

    Exact where η/λ is constant; for a schedule that falls, too large, as it weighs early steps like late ones.
    """
    if kappa == 0:
        return start + nu
    forgotten = -math.expm1(-2 * kappa)
    return start * (1 - forgotten) + forgotten * nu / (2 * kappa)


def linear_integrals(first: float, last: float, t: float, decay: float) -> tuple[float, float]:
    """(κ, ν) of η from `first` to `last` in a line over t updates, at the raw weight decay λ."""
    return decay * (first + last) * t / 2, (first**2 + first * last + last**2) * t / 3


def cosine_integrals(peak: float, floor: float, t: float, decay: float) -> tuple[float, float]:
    """(κ, ν) of half a cosine from `peak` to `floor` over t updates."""
    return decay * (peak + floor) * t / 2, (3 * floor**2 + 2 * floor * peak + 3 * peak**2) * t / 8


def stable_integrals(peak: float, warmup: float, stable: float, t: float, decay: float) -> tuple[float, float]:
    """(κ, ν) of a linear rise until `warmup`, `peak` until `stable`, and a linear fall to 0 at t (WSD)."""
    return decay * peak * (t + stable - warmup) / 2, peak**2 * (t + 2 * stable - 2 * warmup) / 3


def with_signal(snr: float, eta: float, lost: float, t: float) -> float:
    """E θ² per entry of AdamW from 0, of gradients that are part signal: SNR = (E g)²/Var g.

    (1 − a^t)² η² (SNR + (1 − a)(1 + a^t)/(2(1 − a^t))) / ((1 − a)² (SNR + 1)), exact in t to first order in 1 − a.
    The first term is the ball that a constant direction fills, the second the walk.
    """
    if lost == 0:
        return eta**2 * (snr * t**2 + t) / (snr + 1)
    gone = -math.expm1(t * math.log1p(-lost))  # 1 − a^t
    return (gone * eta / lost) ** 2 * (snr + lost * (2 - gone) / (2 * gone)) / (snr + 1)


def update_rms(snr: float, amplification: float) -> float:
    """RMS of Adam's update: √((SNR + 1/S)/(SNR + 1)). Without signal and at β₁ = 0.9 the 0.23 behind "0.2 RMS"."""
    return math.sqrt((snr + 1 / amplification) / (snr + 1))
