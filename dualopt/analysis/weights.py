"""What the weights remember: how much of every update, gradient and of the initial weights is left in θ_t.

Unrolled, with a_k the shrink of update k, η_k its step and z_i = μ m_i + (1 − μ) g_i the readout that it follows,

    θ_t = A(0, t) θ_0 − Σ_i η_i A(i, t) z_i                  A(i, t) = Π_{k=i+1..t} a_k
    m_i = Σ_{j≤i} c_j B(j, i) g_j,   c_j = 1 − β_j           B(j, i) = Π_{k=j+1..i} β_k

so the weight of update i is η_i A(i, t), and that of the gradient j

    β̄(j, t) = ((1 − μ) η_j A(j, t) + μ c_j Σ_{i≥j} η_i A(i, t) B(j, i)) / Σ_i η_i A(i, t)

exact for any schedule of η and a, for any increments (β_j = 2^(−Δτ_j/h)), and for directions that are linear in
their readout; for others it is the weight of the batch in what their updates point along. A readout that is corrected
for its age is one with η_i r_i in place of η_i. Σ_j β̄(j, t) <= 1: what is missing would be of gradients before the
first. With gradients themselves as updates (μ = 0), β̄ = 1/t for all j exactly if a_j = η_j/η_{j−1}.

Arrays are (t,), one number per update, in order. `lost` is 1 − a, `c` is 1 − β. Sources: Su, kexue.fm 11459
(equations 6-18, there with e^(−λη) for a); the exact form, the readout and varying increments are ours.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np

from ..counts import half_life
from .recurrence import Floats, backward, floats


def kept(lost: Any) -> Floats:
    """(A(0, t), A(1, t), ..., A(t, t) = 1): what is left at the end of what was there after each update, (t + 1,)."""
    with np.errstate(divide="ignore"):  # an update may lose everything
        logs = np.log1p(-floats(lost))
    return np.append(np.exp(np.cumsum(logs[::-1])[::-1]), 1.0)


def initial_left(lost: Any) -> Floats:
    """A(0, τ) after every update: the share of the initial weights that is left, (t,)."""
    with np.errstate(divide="ignore"):
        return np.exp(np.cumsum(np.log1p(-floats(lost))))  # type: ignore[no-any-return]


def of_updates(eta: Any, lost: Any) -> Floats:
    """η_i A(i, t): how far update i still moves θ_t."""
    moved, lost = np.broadcast_arrays(floats(eta), floats(lost))
    return moved * kept(lost)[1:]


def of_gradients(eta: Any, lost: Any, mu: float, c: Any) -> Floats:
    """β̄(j, t) for every gradient j; zeros if nothing moves."""
    moved = of_updates(eta, lost)
    return read_back(moved, mu, c) / (float(np.sum(moved)) or 1.0)


def read_back(moved: Any, mu: float, c: Any) -> Floats:
    """From the weights of updates, of any motion, to those of gradients: back through the readout and the memory."""
    w, c = np.broadcast_arrays(floats(moved), floats(c))
    return (1 - mu) * w + mu * c * backward(1 - c, w)  # type: ignore[no-any-return]


def of_mean(eta: Any, lost: Any, share: Any, pulled: float = 0.0) -> tuple[Floats, float]:
    """(the weights of updates, that of θ_0) in the mean x of the fast point z, which starts there like z.

        z+ = z − (1 − a) y + η u        y = (1 − β) z + β x        x+ = x + c_x (z+ − x)

    `share` is c_x, `pulled` is β of the point y that z shrinks in proportion to; 0: z itself. Then the weight of update
    i is η_i Σ_{k≥i} A(i, k) p_k, with p_k = c_k Π_{l>k} (1 − c_l) that of z_k in x.
    """
    eta, lost, share = np.broadcast_arrays(floats(eta), floats(lost), floats(share))
    found, of_z, of_x = np.empty(eta.size), 0.0, 1.0  # what z and x after an update weigh in the final x
    steps = zip(eta.tolist(), lost.tolist(), share.tolist(), strict=True)
    for i, (step, gone, c) in zip(range(eta.size - 1, -1, -1), reversed(list(steps)), strict=True):
        ahead = of_z + c * of_x
        found[i] = step * ahead
        of_z, of_x = ahead * (1 - gone * (1 - pulled)), (1 - c) * of_x - ahead * gone * pulled
    return found, of_z + of_x


def static(beta3: float, beta1: float, t: int) -> Floats:
    """w_j of equations 6-8 of kexue.fm 11459: constant η and a = β₃, μ = 1. Their sum tends to 1 with t.

    w_j = (1 − β₃)(1 − β₁) / ((1 − β₃^t)(β₃ − β₁)) (β₃^(t−j+1) − β₁^(t−j+1)), the same as `of_gradients`.
    """
    k = np.arange(t, 0, -1.0)
    scale = (1 - beta3) * (1 - beta1) / (-math.expm1(t * math.log(beta3)) * (beta3 - beta1))
    return scale * (beta3**k - beta1**k)


def period(share: float, half_life: float) -> float:
    """The count after which this share of an update's weight is left: h_a log₂(1/share), in the unit of h_a.

    Weights are a memory of updates that long. In raw knobs −ln share / −ln(1 − λη) ≈ −ln share/(λη) updates.
    """
    return half_life * -math.log2(share)


def reach(weights: Any, counts: Any, share: float = 0.5) -> float:
    """How far back from the end this share of the weights reaches, in counts; `counts` are the Δτ of the updates."""
    w, d = floats(weights)[::-1], floats(counts)[::-1]
    total = float(np.sum(w))
    if not total:
        return 0.0
    found = np.append(0.0, np.cumsum(w) / total)
    return float(np.interp(share, found, np.append(0.0, np.cumsum(d))))


def equalising(eta: Any, dtau: float) -> Floats:
    """The shrink half-lives with which all updates of a falling η weigh the same: h_a,j = Δτ/log₂(η_{j−1}/η_j).

    For j = 2...t, (t − 1,). With constant h_a the same condition reads η_t = η_0 a^t: η falls with half-life h_a.
    """
    eta = floats(eta)
    return np.array([half_life(after / before, dtau) for before, after in pairwise(eta)])
