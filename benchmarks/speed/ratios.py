"""Medians and quartiles of ratios within rounds, and what they say of goals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from .goals import BEST, EVERY, FACT, MEAN, SECONDS, TIME, Goal
from .record import OK, Measured, Record, Side

POLAR = ("polar wide", "polar square")  # cases whose facts are the errors of ways to the polar factor
LEAST = 3  # rounds that decide a goal
BFLOAT16 = ("torch", "pytorch-optimizer", "emerging-optimizers", "heavyball")  # families whose Muon multiplies in it
STRETCH, REACHED, MISSED, UNKNOWN = "beyond", "reached", "missed", "undecided"


@dataclass(frozen=True)
class Spread:
    """A number that was measured `times` times: its median and quartiles."""

    low: float
    middle: float
    high: float
    times: int = 1

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, _, high = quantiles(values, n=4, method="inclusive")
        return cls(low, median(values), high, len(values))

    def __str__(self) -> str:
        spread = f" ({digits(self.low)} … {digits(self.high)})" if self.times > 1 else ", once"
        return digits(self.middle) + spread


def digits(x: float) -> str:
    """Two or three digits, which is what a time has."""
    return f"{x:.2f}" if x < 9.995 else f"{x:.1f}" if x < 99.95 else f"{x:,.0f}"


def ratio(own: Measured | None, peer: Measured | None) -> Spread | None:
    """Time of `own` over time of `peer`, round by round; None unless both had all of their turns."""
    if own is None or peer is None or own.status != OK or peer.status != OK or not own.turns:
        return None
    return Spread.of([a / b for a, b in zip(own.turns, peer.turns, strict=True)])


def phase(peer: Measured | None, key: str) -> Spread | None:
    """Seconds of a phase over all builds."""
    if peer is None or peer.status != OK or not peer.phases:
        return None
    return Spread.of([built[key] for built in peer.phases])


def relative(peer: Measured, key: str, unit: Measured | None, unit_key: str) -> Spread | None:
    """Seconds of a phase over those of a phase of another peer, build by build."""
    if unit is None or unit.status != OK or peer.status != OK:
        return None
    found = [a[key] / b[unit_key] for a, b in zip(peer.phases, unit.phases, strict=False)]
    return Spread.of(found) if found else None


def best(side: Side) -> Measured | None:
    """The fastest peer that is neither dualopt nor a floor."""
    others = [p for p in side.peers if p.family not in ("dualopt", "floor") and p.status == OK and p.turns]
    return min(others, key=lambda p: median(p.turns), default=None)


@dataclass(frozen=True)
class Verdict:
    """A goal and what was measured.

    Attributes:
        peer: the name of the peer; of the best one, where the goal is to be beside it.
        value: None if it was not measured, and `note` says why.
        word: STRETCH, REACHED, MISSED or UNKNOWN.
        close: the goal lies within the quartiles, so that another run may say otherwise.
        note: what else there is to say.
    """

    goal: Goal
    peer: str
    value: Spread | None
    word: str
    close: bool = False
    note: str = ""


def judged(goal: Goal, record: Record) -> Verdict:
    """What a record says of a goal."""
    side = record.case(goal.case)
    if side is None:
        return Verdict(goal, goal.peer, None, UNKNOWN, note="the case was left out")
    own = side.peer(goal.ours)
    peer = best(side) if goal.peer == BEST else side.peer(goal.peer)
    name = goal.peer if peer is None else peer.name
    value = _value(goal, own, peer)
    if value is None:
        return Verdict(goal, name, None, UNKNOWN, note=_why(goal, own, peer))
    if goal.of == TIME and value.times < LEAST:
        return Verdict(goal, name, value, UNKNOWN, note=f"{value.times} of the {LEAST} rounds that it takes")
    if _emulated(side, peer):
        return Verdict(goal, name, value, UNKNOWN, note="it multiplies in bfloat16, which this processor only emulates")
    word = STRETCH if value.middle <= goal.stretch < goal.goal else REACHED if value.middle <= goal.goal else MISSED
    within, note = _accuracy(goal, record)
    word = word if within else MISSED
    return Verdict(goal, name, value, word, value.low < goal.goal < value.high, note)


def _emulated(side: Side, peer: Measured | None) -> bool:
    """Is the peer slow for the reason alone that the processor has no instructions for the type that it works in?"""
    floor = side.floor
    chosen = peer is not None and peer.family in BFLOAT16 and side.rule == "muon"
    return chosen and floor is not None and floor.facts.get("work") == "float32"


def _value(goal: Goal, own: Measured | None, peer: Measured | None) -> Spread | None:
    if goal.of == SECONDS:
        return phase(own, goal.key)
    if goal.of == FACT:
        known = own is not None and own.status == OK and goal.key in own.facts
        return Spread.of([float(own.facts[goal.key])]) if known and own is not None else None
    return ratio(own, peer)


def _why(goal: Goal, own: Measured | None, peer: Measured | None) -> str:
    for name, found in ((goal.ours, own), (goal.peer, peer)):
        if name and found is None:
            return f"{name} was left out"
        if found is not None and found.status != OK:
            return f"{found.name}: {found.reason}"
    return "no turns"


def _accuracy(goal: Goal, record: Record) -> tuple[bool, str]:
    """Whether the error of the way of the same name is at most the peer's, and how that is said."""
    if not goal.accurate:
        return True, ""
    ratios: list[float] = []
    for name in POLAR:
        side = record.case(name)
        own, peer = (side.peer(n) if side else None for n in (goal.ours, goal.peer))
        if own is None or peer is None or not own.facts or not peer.facts:
            return True, "error not measured"
        ratios += [own.facts[spectrum][1] / peer.facts[spectrum][1] for spectrum in peer.facts]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    value = {EVERY: max(ratios), MEAN: mean}[goal.accurate]
    words = {EVERY: "at worst", MEAN: "in geometric mean"}[goal.accurate]
    return value <= 1, f"error {digits(value)} × {words} of {len(ratios)} spectra"
