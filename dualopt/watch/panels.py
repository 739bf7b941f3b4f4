"""What a picture of a run shows, whoever draws it: a row of panels for every group."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .stream import Watched
from .verdict import TITLES, series, verdict

LOG, LINEAR, COSINE = "log", "linear", "cosine"
SHOWN = {"rms": LOG, "update": LOG, "angle": LOG, "shrink": LINEAR, "u_theta": COSINE, "g_m": COSINE}
DECADES = 3.0  # of a logarithmic axis below the largest number: a step that ends at 0 falls out of it

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Panel:
    """A quantity of a group over the run; points are (count, value).

    Attributes:
        low, high: the ends of the axis; of the logarithms if `scale` is "log".
        band: (count, low, high) around the curve, as far as they are on the axis.
        outside: the measured points that are not in their band.
    """

    quantity: str
    title: str
    scale: str
    low: float
    high: float
    measured: Points
    curve: Points
    band: tuple[tuple[float, float, float], ...]
    outside: Points

    @property
    def empty(self) -> bool:
        return not self.measured

    def place(self, y: float) -> float:
        """Where y is between low and high, from 0 to 1; at an end if it is beyond."""
        x = (math.log10(y) if y > 0 else -math.inf) if self.scale == LOG else y
        return min(1.0, max(0.0, (x - self.low) / (self.high - self.low)))

    @property
    def ticks(self) -> tuple[float, ...]:
        """Two to four round numbers on the axis."""
        if self.scale == LOG:
            return _log_ticks(self.low, self.high)
        return _ticks(self.low, self.high)


def panels(watched: Watched, group: Mapping[str, Any]) -> list[Panel]:
    """Of a group of the header, one for every quantity of `SHOWN`."""
    return [_panel(watched, group, name, scale) for name, scale in SHOWN.items()]


def _panel(watched: Watched, group: Mapping[str, Any], name: str, scale: str) -> Panel:
    way = series(watched, group, name)
    known = _points(way.counts, way.measured, scale)
    curve = _points(*way.curve, scale)
    ends = [(x, *way.band.ends(y)) for x, y in curve] if way.band else []
    outside = []
    for record in watched.records:
        found = record["groups"].get(group["name"])
        judged = None if found is None else verdict(group, found, name)
        if judged is not None and judged.flagged:
            outside.append((float(record["count"]), judged.measured))
    values = [y for _, y in (*known, *curve)]
    if scale == LINEAR:
        values += [y for _, *both in ends for y in both]
    low, high = _axis(values, scale)
    return Panel(name, TITLES[name], scale, low, high, known, curve, tuple(ends), _points(*_apart(outside), scale))


def _apart(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _points(counts: Sequence[float], values: Sequence[float | None], scale: str) -> Points:
    """As far as they have a place on the axis."""
    pairs = zip(counts, values, strict=False)
    return tuple((float(x), float(y)) for x, y in pairs if y is not None and (y > 0 or scale != LOG))


def _axis(values: Sequence[float], scale: str) -> tuple[float, float]:
    if scale == LOG:
        if not values:
            return 0.0, 1.0
        high = math.log10(max(values))
        low = max(min(map(math.log10, values)), high - DECADES)
        middle, half = (low + high) / 2, max((high - low) / 2 * 1.1, 0.3)  # a factor of 4 at least
        return middle - half, middle + half
    most = max(map(abs, values), default=0.0) or 1.0
    if scale == COSINE:
        most = min(1.0, max(1.15 * most, 0.05))
        return -most, most
    return min(0.0, 1.15 * min(values, default=0.0)), 1.3 * most


def _log_ticks(low: float, high: float) -> tuple[float, ...]:
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8)):
        found = [m * 10.0**e for e in range(math.floor(low), math.ceil(high) + 1) for m in steps]
        found = [x for x in found if low <= math.log10(x) <= high]
        if len(found) >= 2:
            return tuple(found[:: -(-len(found) // 4)])
    return ()


def _ticks(low: float, high: float) -> tuple[float, ...]:
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 5, 10) if m * size >= 0.7 * rough)
    first = math.ceil(low / step)
    return tuple(i * step for i in range(first, math.floor(high / step) + 1))


def short(x: float) -> str:
    """1.5 M for 1,500,000; small numbers with two digits."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(x) >= size:
            return f"{x / size:.3g}\u2009{letter}"
    if x == 0 or abs(x) >= 0.01:
        return f"{x:.3g}".replace("-", "−")
    mantissa, exponent = f"{x:.1e}".split("e")
    mantissa = mantissa.removesuffix(".0").replace("-", "−")
    return f"{mantissa}e{int(exponent)}".replace("e-", "e−")
