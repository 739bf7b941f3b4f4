"""How the loss falls with the number of random features, by what a rule makes of curvature: float64, in closed form.

Inputs x have independent coordinates of variance λ_k = k^(−1−s), k = 1 ... d, and the target is w·x with all w_k = 1.
N features F x, F (N, d) of independent entries, are trained on the population loss, whose Hessian and slope at 0 are

    K = F Λ Fᵀ        b = F Λ w        L(θ) = wᵀΛw − 2 bᵀθ + θᵀKθ

With a preconditioner P that does not change, T updates from 0 reach θ = P^½ (1 − r(M)) M⁻¹ P^½ b, M = P^½ K P^½, where
r is what is left of an eigenvector of M. η is half of what the largest eigenvalue stands (`stability`):

    rule         P            r(e), relative to the largest e
    gd           1            (1 − e)^T
    momentum     1            of m+ = β m + (1 − β) g, η (1 + β)/(1 − β) times as large
    diagonal     diag(K)⁻¹    (1 − e)^T                            Adam's kind
    sign         K^(−½)       (1 − e)^T                            the matrix sign's kind: Muon, Shampoo
    natural      K⁻¹          0

The exponent is α in L ~ N^(−α). Were features the first N coordinates themselves, L would be

    Σ_{k≤N} λ_k r(λ_k)² + Σ_{k>N} λ_k

(`of_coordinates`), which gives α ≈ s where all N are learnt within T updates, and 0 where N is beyond what is: rules
that flatten the spectrum learn more of it. Source: arXiv 2605.29387, whose definitions are not public; these are ours,
so that its order of rules can be tried, but not its numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .recurrence import Floats

GD, MOMENTUM, DIAGONAL, SIGN, NATURAL = "gd", "momentum", "diagonal", "sign", "natural"
RULES = GD, MOMENTUM, DIAGONAL, SIGN, NATURAL
BETA = 0.9
Left = Callable[[Floats], Floats]


def spectrum(s: float, d: int) -> Floats:
    """λ_k = k^(−1−s), (d,)."""
    return np.arange(1.0, d + 1) ** -(1 + s)


def left(rule: str, updates: int, beta: float = BETA) -> Left:
    """r after so many updates, of eigenvalues relative to the largest; for `sign` they are those of M."""
    if rule == NATURAL:
        return np.zeros_like
    if rule != MOMENTUM:
        return lambda e: np.asarray((1 - e) ** updates)

    def swinging(e: Floats) -> Floats:
        r, m = np.ones_like(e), np.zeros_like(e)
        for _ in range(updates):
            m = beta * m + (1 - beta) * e * r
            r = r - (1 + beta) / (1 - beta) * m
        return r

    return swinging


def risk(rule: str, features: Any, eigenvalues: Floats, updates: int) -> float:
    """L after so many updates of a rule, for features F (N, d) and λ (d,)."""
    f = np.asarray(features, np.float64)
    k, b = (f * eigenvalues) @ f.T, f @ eigenvalues
    half = np.diag(k) ** -0.5 if rule == DIAGONAL else np.ones(len(k))  # P^½, if diagonal
    e, q = np.linalg.eigh(half[:, None] * k * half)
    e = np.maximum(e, np.finfo(float).tiny)
    relative = e / e[-1]
    gone = left(rule, updates)(np.sqrt(relative) if rule == SIGN else relative)
    theta = half * (q @ ((1 - gone) / e * (q.T @ (half * b))))
    return float(np.sum(eigenvalues) - 2 * b @ theta + theta @ k @ theta)


def of_coordinates(rule: str, n: int, eigenvalues: Floats, updates: int) -> float:
    """L of the first n coordinates themselves, for rules whose P is a power of K."""
    learnt = eigenvalues[:n]
    relative = learnt / eigenvalues[0]
    gone = left(rule, updates)(np.sqrt(relative) if rule == SIGN else relative)
    return float(np.sum(learnt * gone**2) + np.sum(eigenvalues[n:]))


def exponent(sizes: Sequence[int], losses: Sequence[float]) -> float:
    """α of the straight line through log L over log N."""
    return float(-np.polyfit(np.log(sizes), np.log(losses), 1)[0])
