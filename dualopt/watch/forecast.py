"""What is expected of every group on gradients that are noise, update by update, and how far off that may be.

A band is low x − slack ... high x + slack around the prediction x. Factors are products of

    1 ± 4/√(2n)      of n entries that are drawn once: four standard errors of a root mean square
    σ_low ... σ_high of the coefficient set over that of noise, where polar factors are iterated (`analysis.spectra`)
    √(A' ... S')/A   of polar factors, where A is that of large matrices of noise: A' = A (1 − 0.12/√k) with k the rank,
                     as small ones agree for a shorter time, and S' that of a direction that is linear in its readout
    √0.76            where A is that upper estimate: weights are smaller by that, and turn faster
    1 + √(1 − a)     what is neglected of cautious shrink: weights are that much smaller, or larger by as little

and the slack is 4/√n of a cosine of independent vectors. Of angles it is what rounding turns: ε of the type that θ is
stored in, relative to the largest of a binade, and of sums in float32, whose d × θ is √(3 · 2⁻²⁰) |d| |θ| where it is
0. Of shrink it is four standard errors of such rounding along θ, that of equal weights in float32, and of the sums. A
cautious mask takes anything from 0 to 1 − a, as what it reads happens to point, and turns weights by up to (1 − a)/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..analysis.course import MOST_UPDATES
from ..analysis.following import Followed, followed
from ..analysis.motions import Life
from ..analysis.motions import sized as updates_of
from ..analysis.prediction import CURVE
from ..analysis.recurrence import Floats
from ..directions.elementwise import Identity, Rms, Sign
from ..directions.norm_balls import Ball, SpectralBall
from ..directions.schatten import Freon
from ..directions.symmetry import Lines
from ..explain import lines
from ..motion.additive import Additive
from ..motion.held import Held
from ..motion.targeted import Targeted
from ..plan import Plan
from ..planned import PlannedGroup
from ..shrink import Cautious
from ..steady import SQUARE_POLAR, linear
from ..storage import UNIT
from .reading import SIGNED, average

ROUNDING = 2.0**-20  # of a sum of products in float32, relative to that of their absolute values
ERRORS = 4.0
SMALL = 0.12  # 1 − A'/A of a 1x1 matrix is 0.11: A/S tends to ln 2 there, and to 0.777 for large square ones
ROUNDS = 4  # roundings of θ in a motion that is not a sum
PREDICTED = ("rms", "update", "angle", "shrink", "u_theta", "g_m")


@dataclass(frozen=True)
class Band:
    """From low x − slack to high x + slack."""

    low: float
    high: float
    slack: float = 0.0

    def ends(self, x: float) -> tuple[float, float]:
        """The least and the largest number around x."""
        return min(self.low * x, self.high * x) - self.slack, max(self.low * x, self.high * x) + self.slack


@dataclass(frozen=True)
class Forecast:
    """A group over its run.

    Attributes:
        dtau: Δτ of its updates.
        curves: quantity -> its value in every update, or before it (rms), (t,); of what is not known there is none.
        bands: quantity -> how far off that may be.
        most: that which no gradients can exceed: of rms over the run, and of `update` at the peak.
        eta: η of every update, where the motion has one, (t,).
    """

    dtau: int
    curves: Mapping[str, Floats]
    bands: Mapping[str, Band]
    most: Mapping[str, float]
    eta: Floats | None

    @property
    def updates(self) -> int:
        return next((x.size for x in self.curves.values()), 0)

    def at(self, count: int) -> dict[str, float]:
        """What is expected of the update that ends at `count`; nothing after the last or between two."""
        i, between = divmod(count, self.dtau)
        if between or not 0 < i <= self.updates:
            return {}
        return {name: float(x[i - 1]) for name, x in self.curves.items() if math.isfinite(x[i - 1])}

    def thinned(self) -> tuple[list[float], dict[str, list[float]]]:
        """(counts, curves) at some hundreds of points."""
        t = self.updates
        at = np.unique(np.round(np.linspace(0, t - 1, min(t, CURVE))).astype(np.int64))
        return ((at + 1.0) * self.dtau).tolist(), {name: x[at].tolist() for name, x in self.curves.items()}


def forecasts(plan: Plan, starts: Mapping[str, float], updates: int, dtypes: Mapping[str, str]) -> tuple[Forecast, ...]:
    """Of every group of `plan` over so many updates of the usual size; `starts` and `dtypes` as of `predict`.

    Runs of more than `MOST_UPDATES` are followed that far.
    """
    found, updates = list(lines(plan, plan.shapes, {})), max(1, min(updates, MOST_UPDATES))
    return tuple(
        forecast(
            planned,
            plan.recipe.count.per_update,
            list(
                followed(planned, plan, i, updates, [row for row in found if row.group == planned.group.name], starts)
            ),
            max((UNIT[dtypes.get(name, "float32")] for name in planned.names), default=0.0),
        )
        for i, planned in enumerate(plan.groups)
    )


def forecast(planned: PlannedGroup, dtau: int, members: Sequence[Followed], stored: float) -> Forecast:
    """A group from the ways of its parameters, which are rounded by at most `stored`, relative to themselves."""
    sized = [(n, one) for one in members if (n := len(one.row.names) * math.prod(one.row.shape))]
    if not sized:
        return Forecast(dtau, {}, {}, {}, None)
    entries = sum(n for n, _ in sized)
    curves: dict[str, Floats] = {}
    for name, pick in _PICKS.items():
        picked = [(n, pick(planned, one)) for n, one in sized]
        values = [(n, x) for n, x in picked if x is not None]
        if len(values) == len(sized):
            curves[name] = _averaged(name, values)
    if "c_m" in planned.row.needs:
        curves["g_m"] = np.zeros(sized[0][1].path.lost.size)
    life = sized[0][1].life
    return Forecast(
        dtau=dtau,
        curves=curves,
        bands=_bands(planned, sized, entries, curves, stored),
        most=_most(planned, sized),
        eta=life.eta if "eta" in planned.row.needs else None,
    )


def _averaged(name: str, values: Sequence[tuple[int, Floats]]) -> Floats:
    total = sum(n for n, _ in values)
    power = 1 if name in SIGNED else 2
    found: Floats = np.zeros(values[0][1].shape)
    for n, x in values:
        found = found + n / total * x**power
    return found if power == 1 else np.sqrt(found)


def _before(planned: PlannedGroup, one: Followed) -> Floats | None:
    rms = one.path.rms
    return None if rms is None else np.append(one.start, rms[:-1])


def _shrink(planned: PlannedGroup, one: Followed) -> Floats | None:
    """Of motions that shrink with a step of their own; the penalty of SGDM is part of u."""
    motion = planned.row.motion
    if not isinstance(motion, Additive) or isinstance(motion, Targeted):
        return None
    if isinstance(one.life.noise.geometry, Identity) and not isinstance(motion.shrink, Cautious):
        return one.run.k.get("c_a")
    return one.path.lost


def _alignment(planned: PlannedGroup, one: Followed) -> Floats | None:
    """cos(u, θ) from RMS+² = a² RMS² + 2a <u, θ> + RMS(u)², u times η, of motions that do nothing else."""
    motion, path = planned.row.motion, one.path
    if not isinstance(motion, Additive) or isinstance(motion, Held | Targeted) or isinstance(motion.shrink, Cautious):
        return None
    if path.rms is None or path.update is None:
        return None
    before, a = np.append(one.start, path.rms[:-1]), 1 - path.lost
    lengths = 2 * a * before * path.update
    cosine = np.full(lengths.shape, np.nan)  # of nothing there is none
    np.divide(path.rms**2 - (a * before) ** 2 - path.update**2, lengths, out=cosine, where=lengths > 0)
    return np.clip(cosine, -1.0, 1.0)


_PICKS: dict[str, Callable[[PlannedGroup, Followed], Floats | None]] = {
    "rms": _before,
    "update": lambda planned, one: one.path.update,
    "angle": lambda planned, one: one.path.angle,
    "shrink": _shrink,
    "u_theta": _alignment,
}


def _bands(
    planned: PlannedGroup,
    sized: Sequence[tuple[int, Followed]],
    entries: int,
    curves: Mapping[str, Floats],
    stored: float,
) -> dict[str, Band]:
    """See the module."""
    lost = max(float(one.path.lost.max()) for _, one in sized)
    error, least, largest = ERRORS / math.sqrt(2 * entries), *_singular(sized)
    shorter, longer = _agreeing(planned, sized, lost)
    low, high = (1 - error) * least, (1 + error) * largest
    angle = float(curves["angle"].max()) if "angle" in curves else 1.0
    turned = stored + math.sqrt(3 * ROUNDING) * lost
    moved = 0.0 if _steps(planned) or "rms" not in curves else ROUNDS * stored * float(curves["rms"].max())
    shrink = Band(1.0, 1.0, UNIT["float32"] + ERRORS * stored / math.sqrt(entries) + ROUNDING * angle)
    masked = 1.0
    if isinstance(getattr(planned.row.motion, "shrink", None), Cautious):
        whole = max(float(one.run.k["c_a"].max()) for _, one in sized)
        masked, turned = 1 + math.sqrt(whole), turned + whole / 2
        shrink = Band(0.0, whole / lost if lost else 1.0, shrink.slack)
    bands = {
        "rms": Band(low * math.sqrt(shorter) / masked, high * masked * math.sqrt(longer)),
        "update": Band(low, high, moved),
        "angle": Band(low / masked / math.sqrt(longer), high * masked / math.sqrt(shorter), turned),
        "shrink": shrink,
        "u_theta": Band(shorter, longer, ERRORS / math.sqrt(entries)),
        "g_m": Band(1.0, 1.0, ERRORS / math.sqrt(entries)),
    }
    return {name: Band(max(band.low, 0.0), band.high, band.slack) for name, band in bands.items() if name in curves}


def _steps(planned: PlannedGroup) -> bool:
    """Whether an update is told from what shrinks: where it is not, it is what has moved, roundings of θ among it."""
    return isinstance(planned.row.motion, Additive)


def _singular(sized: Sequence[tuple[int, Followed]]) -> tuple[float, float]:
    """(σ_low, σ_high) of all matrices, over that of noise."""
    found = [one.life.response for _, one in sized]
    ends = [(r.least / math.sqrt(r.square), r.largest / math.sqrt(r.square)) if r else (1.0, 1.0) for r in found]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _agreeing(planned: PlannedGroup, sized: Sequence[tuple[int, Followed]], lost: float) -> tuple[float, float]:
    """(A', S') over A, of all matrices."""
    ends = []
    for _, one in sized:
        if one.life.response is not None:
            k = min(planned.views[one.row.names[0]].logical[-2:])
            whole = 1.0 if lost >= 1 else linear(lost, one.life.mu, one.life.c)
            ends.append((1 - SMALL / math.sqrt(k), max(1.0, whole / one.life.total(lost))))
        else:
            ends.append((SQUARE_POLAR if _estimated(planned.row.direction, one.life) else 1.0, 1.0))
    return min(low for low, _ in ends), max(high for _, high in ends)


def _most(planned: PlannedGroup, sized: Sequence[tuple[int, Followed]]) -> dict[str, float]:
    """The largest root mean squares, at the peak of the step."""
    ends = [(n, one.path.most) for n, one in sized]
    known = [(n, max(most, one.start)) for (n, most), (_, one) in zip(ends, sized, strict=True) if most is not None]
    found = {"rms": average("rms", known)} if len(known) == len(sized) else {}
    updates = []
    for n, one in sized:
        shape = planned.views[one.row.names[0]].logical
        square = updates_of(planned, one.life, shape).most
        if square is not None and isinstance(planned.row.motion, Additive):
            updates.append((n, float(one.life.eta.max()) * math.sqrt(square)))
    if len(updates) == len(sized):
        found["update"] = average("update", updates)
    return {name: x for name, x in found.items() if x is not None}


def _estimated(direction: Any, life: Life) -> bool:
    """True for relatives of polar factors, whose A is an upper estimate; directions that nothing knows too."""
    g = life.noise.geometry
    exact = isinstance(g, Identity | Rms | Sign | Lines) or (isinstance(g, Ball) and not isinstance(g, SpectralBall))
    return not exact and not (isinstance(g, Freon) and g.exponent == 0)
