"""Where weights settle, and how fast they turn there, in action coordinates and in the raw knobs of four optimizers.

In action coordinates there is one law for every row (`steady`): with 1 − a² lost per update, A the amplification of
its memory and c_u² the size of its direction,

    η_r² = (1 − a²)/A            ‖ω‖² = η² c_u² A/(1 − a²)            ‖ω_t‖² − ‖ω‖² ~ a^(2t), half-life h_a/2

η_r is the length of an update over that of ω. Part of it is along ω, where it makes up for what shrinks: the triangle
of ω, aω and ω+, whose sides are 1, a and η_r, has the angle `turned` at 0, a little less than η_r.

Choosing an angle is choosing a half-life of shrink, h_a ≈ 2 ln 2 Δτ/(A η_r²), and a step moves the norm alone. It
is within η/(1 − a) times the largest ‖u‖, the norm ball, whatever the gradients.

Weights that are not scale-invariant are pushed along themselves: with λ_u = E<ω, ∇L>/‖ω‖² (`steady.multiplier`) per
unit of η they behave as if 1 − a were 1 − a + η λ_u, the effective decay.

Sources: Kosson et al. (arXiv 2305.17212), table 1, equation 36 and appendix L; the law for all rows is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import steady
from ..counts import LN2


@dataclass(frozen=True)
class Equilibrium:
    """Of one scale-invariant ω: η_g = ‖Δ_g ω‖ per update, η_r the angle per update in radians, and ‖ω‖."""

    update: float
    angle: float
    norm: float


def lost_square(lost: Any) -> Any:
    """1 − a² from 1 − a."""
    return lost * (2 - lost)


def settled(eta: float, square: float, amplification: float, lost: float) -> Equilibrium:
    """The equilibrium of any row, in action coordinates: `square` is c_u² = E‖u‖² (or per entry, for RMS)."""
    double = lost_square(lost)
    angle, norm = steady.angle(double, amplification), steady.radius(eta, square, amplification, double)
    return Equilibrium(eta * math.sqrt(square), angle, norm)


def effective(lost: float, eta: float, multiplier: float) -> float:
    """1 − a_e = 1 − a + η λ_u: the shrink of weights that gradients push along themselves.

    For SGDM in Polyak's form η is η/(1 − α). Below 0 weights grow without end.
    """
    return lost + eta * multiplier


def shrink_for(angle: float, amplification: Callable[[float], float]) -> float:
    """1 − a of the shrink in whose steady state weights turn by `angle`: 1 − a² = η_r² A(1 − a).

    Also the shrink that a motion on a sphere acts like: what is left of a direction after an update. 1 for an angle
    so large that an update leaves nothing.
    """
    if angle == 0:
        return 0.0
    if angle >= 1:  # A is 1 where nothing is left
        return 1.0
    low, high = -40.0, 0.0  # of log(1 − a); both sides are monotonic in it
    for _ in range(60):
        middle = (low + high) / 2
        lost = math.exp(middle)
        low, high = (middle, high) if lost_square(lost) < angle**2 * amplification(lost) else (low, middle)
    return math.exp(high)


def turned(angle: float, lost: float) -> float:
    """φ, by which ω really turns in the steady state: sin²(φ/2) = (η_r² − (1 − a)²)/(4a). Ours."""
    if lost >= 1:
        return math.pi / 2
    return 2 * math.asin(math.sqrt(min(max(0.0, angle**2 - lost**2) / (4 * (1 - lost)), 1.0)))


def masked(lost: float, amplification: Callable[[float], float], *, signs: bool = False) -> float:
    """1 − a of a walk with cautious shrink: the part of `lost` that the mask u θ <= 0 leaves of E θ².

    θ and the Gaussian readout behind u have the correlation κ = (A − 1) √(1 − a²)/(2a √A), √(π/2) times that for signs,
    since E θu = η c_u² (A − 1)/(2a) in the steady state. Of θ² the mask then takes ½ − (arcsin κ + κ √(1 − κ²))/π,
    which is solved for by repetition. Half of it for a short memory, less for a long one, whose updates keep pointing
    where they have brought the weights. Ours; what the mask does to 2 E θ u, a relative √(1 − a), is neglected.
    """
    share = 0.5
    for _ in range(40):
        a_lost = share * lost
        total = amplification(a_lost)
        kappa = (total - 1) * math.sqrt(lost_square(a_lost)) / (2 * (1 - a_lost) * math.sqrt(total))
        kappa = min(kappa * (math.sqrt(math.pi / 2) if signs else 1.0), 1.0)
        share = (share + 0.5 - (math.asin(kappa) + kappa * math.sqrt(1 - kappa**2)) / math.pi) / 2
    return share * lost


def half_life_for(angle: float, amplification: float, dtau: float) -> float:
    """h_a = 2 ln 2 Δτ/(S η_r²), for small angles."""
    return 2 * LN2 * dtau / (amplification * angle**2)


def step_ratio(mu: float, c: float, c_after: float, lost: float, lost_after: float) -> float:
    """η*/η that keeps the radius of weights at another batch size r, √((1 − a^(2r)) S(μ, β)/((1 − a²) S(μ, β^r))).

    The complements before and after are of half-lives that stay. About r if the memory is long, √r without one.
    """
    before = steady.readout(mu, c) / lost_square(lost)
    return math.sqrt(lost_square(lost_after) / steady.readout(mu, c_after) * before)


# ---- in raw knobs: η = lr, λ = weight decay, C entries of ω


def sgdm(lr: float, decay: float, alpha: float, gradient: float, slope: float) -> Equilibrium:
    """SGD with Polyak's α and λ in the gradient; gradient = E‖g‖², slope = E‖g‖²‖ω‖²."""
    return Equilibrium(
        lr * math.sqrt(gradient / (1 - alpha**2)),
        math.sqrt(2 * lr * decay / (1 + alpha)),
        (lr * slope / (2 * decay * (1 - alpha) - lr * decay**2)) ** 0.25,
    )


def adamw(lr: float, decay: float, beta1: float, entries: int) -> Equilibrium:
    """AdamW on noise, for a → 1 in η_r."""
    s = steady.readout(1.0, 1 - beta1)
    norm = settled(lr, entries / s, s, lr * decay).norm
    return Equilibrium(lr * math.sqrt(entries / s), steady.angle(2 * lr * decay, s), norm)


def lion(lr: float, decay: float, beta1: float, beta2: float, entries: int) -> Equilibrium:
    """Lion by the linear rule (2/π) S, S = 1/ν₀, whose norm is 0.7 to 4.6 % below the arcsine sum (`steady`)."""
    s = steady.SMALL_SIGNS / steady.lion_nu0(beta1, beta2)
    return Equilibrium(
        lr * math.sqrt(entries), steady.angle(2 * lr * decay, s), settled(lr, entries, s, lr * decay).norm
    )


def adam_l2(lr: float, l2: float, beta1: float, entries: int, slope: float) -> Equilibrium:
    """Adam with λ in the gradient; slope = E‖g‖²‖ω‖². Neurons with other slopes turn at other speeds."""
    square = steady.adam_l2(lr, l2, entries, slope)
    penalty = (l2 * square) ** 2
    noise = slope / (slope + penalty)  # of g² + (λω)²; the rest of the update is the penalty's, and radial
    update = lr * math.sqrt(entries / steady.readout(1.0, 1 - beta1) * noise)
    return Equilibrium(update, update / math.sqrt(square), math.sqrt(square))
