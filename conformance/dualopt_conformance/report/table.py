"""A verdict arranged in tables, for every format alike: sides, tallies, matrices, bounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..verdict import FAIL, SHOWN, Check, Side, Verdict
from .words import CLOSED, measure, outcome, pairs, share

Place = tuple[str, str]  # (variant, situation)


def place(check: Check) -> Place:
    """Row and column of a check in a matrix; the closed loop is a column of its own, whatever its seeds."""
    if check.experiment == CLOSED:
        parts = [part for part in check.case.split("/") if part != CLOSED]
        return (parts or [CLOSED])[0], "closed loop"
    variant, _, situation = check.case.partition("/")
    return variant, situation or "–"


def entry_of(variant: str) -> str:
    """``adamw.cautious`` is a variant of ``adamw``."""
    return variant.partition(".")[0]


def facts(sides: Iterable[Side]) -> list[tuple[str, list[str], bool]]:
    """(name, value of each side or "", whether they differ) of every fact, in the order of the first side."""
    sides = list(sides)
    names = dict.fromkeys(name for side in sides for name in side.facts)
    found = [(name, [side.facts.get(name, "") for side in sides]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in found]


@dataclass(frozen=True)
class Tally:
    """Counts over the checks of a pair in a tier. `worst` is the largest share of a budget, in words."""

    pair: tuple[str, str]
    tier: str
    checks: int
    failing: int
    shown: int
    compared: int
    differing: int
    flushed: int
    ties: int
    worst: str


def tallies(verdict: Verdict) -> list[Tally]:
    found: dict[tuple[tuple[str, str], str], list[Check]] = defaultdict(list)
    for pair in pairs(verdict):
        for check in verdict.checks:
            if check.sides == pair:
                found[pair, check.tier].append(check)
    return [_tally(pair, tier, checks) for (pair, tier), checks in found.items()]


def _tally(pair: tuple[str, str], tier: str, checks: list[Check]) -> Tally:
    judged = [check for check in checks if check.status != SHOWN]
    in_units = [check for check in judged if check.experiment != CLOSED and check.worst != 0 and check.budget > 0]
    return Tally(
        pair,
        tier,
        len(checks),
        sum(check.status == FAIL for check in checks),
        len(checks) - len(judged),
        sum(check.compared for check in judged),
        sum(check.differing for check in judged),
        sum(check.flushed for check in judged),
        sum(check.ties for check in judged),
        measure([max(in_units, key=share)]) if in_units else "–",
    )


class Key(NamedTuple):
    """Where a cell stands: which sides in which tier, which variant in which situation."""

    pair: tuple[str, str]
    tier: str
    variant: str
    situation: str


@dataclass(frozen=True)
class Cell:
    """The checks of a case in one tier: their most severe status, and what was found there."""

    status: str
    text: str
    checks: tuple[Check, ...]


def cells(verdict: Verdict) -> dict[Key, Cell]:
    """By pair, then by tier; variants stand below the entry that they vary."""
    found: dict[Key, list[Check]] = defaultdict(list)
    for check in verdict.checks:
        found[Key(check.sides, check.tier, *place(check))].append(check)
    order, tiers = pairs(verdict), list(dict.fromkeys(key.tier for key in found))
    entries = list(dict.fromkeys(entry_of(key.variant) for key in found))

    def rank(key: Key) -> tuple[int, int, int, bool]:
        entry = entry_of(key.variant)
        return order.index(key.pair), tiers.index(key.tier), entries.index(entry), key.variant != entry

    return {key: Cell(*outcome(found[key]), tuple(found[key])) for key in sorted(found, key=rank)}


@dataclass(frozen=True)
class Bound:
    """Of one row of the catalogue, tier and experiment: the check that took the largest share of its budget."""

    row: str
    tier: str
    experiment: str
    check: Check

    @property
    def share(self) -> float:
        return share(self.check)


def bounds(verdict: Verdict) -> list[Bound]:
    """By row of the catalogue. What is judged by bits or by losses has no budget in E, and is not here."""
    found: dict[tuple[str, str, str], Check] = {}
    for check in verdict.checks:
        if check.status == SHOWN or check.budget <= 0 or check.experiment == CLOSED:
            continue
        key = entry_of(place(check)[0]), check.tier, check.experiment
        if key not in found or share(check) > share(found[key]):
            found[key] = check
    order = list(dict.fromkeys(row for row, _, _ in found))
    return [Bound(*key, found[key]) for key in sorted(found, key=lambda key: order.index(key[0]))]
