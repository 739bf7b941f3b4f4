"""Sums of an update, in float64 on the host, as what they mean; and the mean of that over the parameters of a group.

    rms       RMS(θ) before the update
    update    RMS(η u); of motions without a step of their own RMS(θ+ − θ)
    angle     between θ and θ+, radians
    shrink    1 − a, measured: (η Σ uθ − Σ dθ)/Σ θ²; cautious shrink weighs its mask by θ²
    u_theta   the cosine of u with θ: above 0 where updates lengthen the weights
    g_m       the cosine of the gradient with the memory before it
    gradient  RMS(g)

None: there is no such thing, or it is not finite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields

from ..motion.additive import Additive
from ..motion.targeted import Targeted
from ..planned import PlannedGroup
from ..recursion import Scalars
from ..shrink import Cautious


@dataclass(frozen=True)
class Reading:
    """See the module."""

    rms: float | None = None
    update: float | None = None
    angle: float | None = None
    shrink: float | None = None
    u_theta: float | None = None
    g_m: float | None = None
    gradient: float | None = None

    def items(self) -> Iterable[tuple[str, float | None]]:
        """(quantity, value), in order."""
        return ((name, getattr(self, name)) for name in QUANTITIES)


QUANTITIES = tuple(field.name for field in fields(Reading))
SIGNED = ("shrink", "u_theta", "g_m")  # averaged as they are; of all else the mean of squares


def reading(planned: PlannedGroup, sums: Mapping[str, float], entries: int, k: Scalars) -> Reading:
    """What the sums of a parameter mean, updated with the scalars k."""
    square, moved, along = sums["theta"], sums["moved"], sums["along"]
    update, shrink = math.sqrt(moved / entries), None
    motion = planned.row.motion
    if isinstance(motion, Targeted):  # solves η of the update for itself
        if not isinstance(motion.shrink, Cautious):
            lost = float(k["c_a"])  # η u = d + (1 − a) θ
            update = math.sqrt(max(moved + 2 * lost * along + lost**2 * square, 0.0) / entries)
    elif isinstance(motion, Additive) and "u" in sums:
        eta = float(k["eta"])
        update = eta * math.sqrt(sums["u"] / entries)
        shrink = _over(eta * sums["u_theta"] - along, square)
    return _finite(
        rms=math.sqrt(square / entries),
        update=update,
        angle=angle(square, moved, along),
        shrink=shrink,
        u_theta=_cosine(sums, "u_theta", "u", "theta"),
        g_m=_cosine(sums, "g_m", "g", "m"),
        gradient=math.sqrt(sums["gradient"] / entries),
    )


def angle(square: float, moved: float, along: float) -> float:
    """Between θ and θ + d, from Σ θ², Σ d² and Σ dθ; a right angle if only one of both is 0."""
    across = math.sqrt(max(moved * square - along * along, 0.0))
    if across == 0 and square + along == 0:
        return math.pi / 2 if moved > 0 else 0.0
    return math.atan2(across, square + along)


def mean(readings: Sequence[tuple[int, Reading]]) -> Reading:
    """Over all entries of (entries, reading): root mean squares, and means of what has a sign."""
    found: dict[str, float | None] = {}
    for name in QUANTITIES:
        known = [(n, x) for n, one in readings if (x := getattr(one, name)) is not None]
        found[name] = average(name, known)
    return Reading(**found)


def average(name: str, known: Sequence[tuple[int, float]]) -> float | None:
    """The mean of this quantity over (entries, value); None of nothing."""
    total = sum(n for n, _ in known)
    if not total:
        return None
    if name in SIGNED:
        return math.fsum(n * x for n, x in known) / total
    return math.sqrt(math.fsum(n * x * x for n, x in known) / total)


def _cosine(sums: Mapping[str, float], product: str, one: str, other: str) -> float | None:
    if product not in sums or not (sums[one] > 0 and sums[other] > 0):
        return None
    return sums[product] / (math.sqrt(sums[one]) * math.sqrt(sums[other]))


def _over(x: float, y: float) -> float | None:
    return x / y if y > 0 else None


def _finite(**found: float | None) -> Reading:
    return Reading(**{name: x if x is not None and math.isfinite(x) else None for name, x in found.items()})
