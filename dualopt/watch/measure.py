"""What is measured of one update of one parameter: sums over its entries, in any namespace.

    theta    Σ θ²               moved    Σ d²      d = θ+ − θ, what the update did
    u        Σ u²               along    Σ d θ
    u_theta  Σ u θ              gradient Σ g²      as measured
    g        Σ g²               g_m      Σ g m     g in the coordinates of the memory m, which is that before the update
    m        Σ m²

u is worked out by the core from θ, state, evidence and scalars, so it is that of every row, whatever a backend makes of
the update; d is what the backend has made of it. Where the motion averages, z stands for θ: it is the point that moves.
Sums are in the working type: angles come from d, not from the product of θ and θ+, in which small ones are lost.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..microbatches import GRADIENT
from ..part import key
from ..recursion import Array, Arrays, Namespace, Row, Scalars, propose
from ..signal import AMBIENT

SUMS = ("theta", "gradient", "u", "u_theta", "g", "m", "g_m", "moved", "along")


def before(
    xp: Namespace, row: Row, theta: Array, state: Arrays, evidence: Arrays, k: Scalars, *, point: Array
) -> Arrays:
    """The sums that are known before the update, 0-d; arguments as `recursion.step`, and the `point` that moves.

    Of what a row does not have there is no sum: u in the coordinates of θ, m.
    """
    g, _, u = propose(xp, row, theta, state, evidence, k)
    found = {"theta": dot(xp, point, point), "gradient": dot(xp, evidence[GRADIENT], evidence[GRADIENT])}
    if AMBIENT in u:
        found |= {"u": dot(xp, u[AMBIENT], u[AMBIENT]), "u_theta": dot(xp, u[AMBIENT], point)}
    both = [(x, state[key("m", channel)]) for channel, x in g.items() if key("m", channel) in state]
    if both:
        found["g"] = _total([dot(xp, x, x) for x, _ in both])
        found["m"] = _total([dot(xp, m, m) for _, m in both])
        found["g_m"] = _total([dot(xp, x, m) for x, m in both])
    return found


def after(xp: Namespace, point: Array, moved: Array) -> Arrays:
    """The sums of the displacement of the point that moves, 0-d."""
    d = moved - point
    return {"moved": dot(xp, d, d), "along": dot(xp, d, point)}


def dot(xp: Namespace, x: Array, y: Array) -> Array:
    """Σ x y, 0-d."""
    return xp.sum(x * y)


def _total(parts: Sequence[Array]) -> Array:
    first, *others = parts
    for x in others:
        first = first + x
    return first
