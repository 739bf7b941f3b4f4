"""Measured against expected: how far apart, whether the prediction says as much, and what that means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .forecast import Band
from .reading import QUANTITIES
from .stream import Watched

TITLES = {
    "rms": "RMS of the weights",
    "update": "RMS of the update",
    "angle": "angle, radians",
    "shrink": "share that shrinks, 1 − a",
    "u_theta": "cos of update and weights",
    "g_m": "cos of gradient and memory",
    "gradient": "RMS of the gradient",
}
WITHIN, AGREE, TURN, BEYOND, OFF = "within", "agree", "turn", "beyond", "off"
MEANINGS = {
    WITHIN: "what gradients without a mean give, within the band of the prediction",
    AGREE: "outside, towards gradients that agree: longer weights and updates, smaller angles",
    TURN: "outside, towards gradients that turn back: updates undo one another",
    BEYOND: "larger than any gradients can make it with this recipe",
    OFF: "outside, and no gradients explain it: the run is not what the recipe says, or weights are rounded away",
}
_MORE = {"rms": AGREE, "update": AGREE, "angle": TURN, "shrink": OFF, "u_theta": AGREE, "g_m": AGREE}
_LESS = {"rms": TURN, "update": TURN, "angle": AGREE, "shrink": OFF, "u_theta": TURN, "g_m": TURN}
_CEILING = 1e-3  # relative: rounding of a largest value


@dataclass(frozen=True)
class Verdict:
    """One quantity of a group in the last update that was measured.

    Attributes:
        ratio: measured over expected; None where nothing is expected, or 0.
        ends: of the band around what is expected.
        meaning: a key of `MEANINGS`; None where nothing is expected.
    """

    quantity: str
    measured: float
    expected: float | None
    ratio: float | None
    ends: tuple[float, float] | None
    meaning: str | None

    @property
    def flagged(self) -> bool:
        return self.meaning not in (None, WITHIN)


def verdict(group: Mapping[str, Any], found: Mapping[str, Any], name: str) -> Verdict | None:
    """Of one quantity, from the header's group and a record's; None if it was not measured."""
    measured = found["measured"].get(name)
    if measured is None:
        return None
    expected, band = found["expected"].get(name), group["bands"].get(name)
    if expected is None or band is None:
        return Verdict(name, measured, None, None, None, None)
    low, high = ends = Band(*band).ends(expected)
    meaning = WITHIN if low <= measured <= high else (_MORE if measured > high else _LESS)[name]
    most = group["most"].get(name)
    if meaning == AGREE and most is not None and measured > most * (1 + _CEILING):
        meaning = BEYOND
    ratio = measured / expected if expected and name not in ("u_theta", "g_m") else None
    return Verdict(name, measured, expected, ratio, ends, meaning)


def verdicts(group: Mapping[str, Any], found: Mapping[str, Any]) -> list[Verdict]:
    """Of all quantities of a group that were measured."""
    return [one for name in QUANTITIES if (one := verdict(group, found, name)) is not None]


@dataclass(frozen=True)
class Series:
    """A quantity of a group over the run: measured and expected at the measured counts, and the predicted curve."""

    counts: list[int]
    measured: list[float | None]
    expected: list[float | None]
    curve: tuple[list[float], list[float | None]]
    band: Band | None


def series(watched: Watched, group: Mapping[str, Any], name: str) -> Series:
    """Of one quantity of a group of the header."""
    rows = [(r["count"], r["groups"][group["name"]]) for r in watched.records if group["name"] in r["groups"]]
    band = group["bands"].get(name)
    return Series(
        counts=[count for count, _ in rows],
        measured=[row["measured"].get(name) for _, row in rows],
        expected=[row["expected"].get(name) for _, row in rows],
        curve=(group["counts"], group["curves"].get(name, [])),
        band=None if band is None else Band(*band),
    )


def last(watched: Watched, group: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]] | None:
    """(count, what was found) in the last record of a group."""
    rows = ((r["count"], r["groups"][group["name"]]) for r in reversed(watched.records) if group["name"] in r["groups"])
    return next(rows, None)


def state(watched: Watched) -> str:
    """How far the run has come."""
    header, records = watched.header, watched.records
    count, base = (records[-1]["count"] if records else 0), header["count"]["base"]
    share = f", {count / header['end']:.0%}" if header["end"] else ""
    updates = f"{len(records)} update{'' if len(records) == 1 else 's'} measured"
    return f"{count:,} of {header['end']:,} {base}{share}; {updates}"


def title(group: Mapping[str, Any], found: tuple[int, Mapping[str, Any]] | None) -> str:
    """A group, and how many of its parameters moved when it was measured last."""
    some = "" if found is None or found[1]["parameters"] == group["parameters"] else f"{found[1]['parameters']} of "
    many = "" if group["parameters"] == 1 else "s"
    told = f"{some}{group['parameters']} parameter{many}, {group['entries']:,} entries"
    return f"{group['name']}: {group['optimizer']}, {told}"


def number(x: float | None) -> str:
    """Three digits in at most nine characters."""
    if x is None:
        return "–"
    return "0" if x == 0 else (f"{x:.2e}" if abs(x) < 1e-3 else f"{x:.3g}").replace("-", "−")
