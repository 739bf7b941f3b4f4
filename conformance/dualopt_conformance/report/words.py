"""The words and numbers that every format of the report uses alike."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from ..mutation_table import Mutation
from ..verdict import FAIL, FLUSHED, ORACLE, PASS, SHOWN, Check, Verdict

T = TypeVar("T")

NOTHING = "NOTHING COMPARED"
STATUSES = (FAIL, "nothing", FLUSHED, PASS, SHOWN)  # the most severe first
WORDS = {FAIL: "FAIL", "nothing": NOTHING, FLUSHED: "FLUSHED", PASS: "PASS", SHOWN: "SHOWN"}
EXACT = "exact"  # the tier that judges bits, where a check has no budget
COUNTING = {"lockstep", "free"}  # the experiments that count differing elements
CLOSED = "closed"  # the experiment that judges losses, not E

UNITS = (
    "E is an error in scaled ULP: the distance of two numbers, in spacings of the storage type at the magnitude that "
    "they were computed from, so one correct rounding is at most 0.5; for rows that multiply matrices it is the norm "
    "of the difference over the norm of the reference, in half spacings at 1.",
    "The derived bound is what the roundings of a right implementation can add up to, the budget is what the gate "
    "allows, and observed is the largest E that was found; in the exact tier a single differing bit fails.",
    "Left out of the gate, and counted: flushed, subnormal numbers that one side turns to zero, and ties, elements "
    "whose sign or mask rounding alone decides.",
)

# Controls, lone surrogates, what no XML may contain, and marks that reverse the text around them.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def plain(text: str) -> str:
    """The text on one line, without characters that a terminal, a page or an XML reader would act on."""
    return _UNPRINTABLE.sub("\ufffd", " ".join(text.split()))


def cleaned(x: T) -> T:
    """A verdict or mutation, all its texts `plain`; other values stay."""
    found: Any = x
    if isinstance(x, str):
        found = plain(x)
    elif isinstance(x, tuple):
        found = tuple(map(cleaned, x))
    elif isinstance(x, Mapping):
        found = {plain(key): cleaned(value) for key, value in x.items()}
    elif is_dataclass(x) and not isinstance(x, type):
        found = replace(x, **{f.name: cleaned(getattr(x, f.name)) for f in fields(x)})
    kept: T = found
    return kept


def status(check: Check) -> str:
    """Its status; ``nothing`` if it passed without comparing anything."""
    empty = check.status in {PASS, FLUSHED} and check.compared == 0
    return "nothing" if empty else check.status


def word(check: Check) -> str:
    return WORDS[status(check)]


def overall(verdict: Verdict) -> str:
    """PASS, FAIL or NOTHING COMPARED."""
    if verdict.failures:
        return WORDS[FAIL]
    return WORDS[PASS] if verdict.holds else NOTHING


def counts(verdict: Verdict) -> str:
    """How much was judged and how much failed, e.g. ``2 of 512 checks failing, 1,234 elements compared``."""
    judged = sum(check.status != SHOWN for check in verdict.checks)
    shown, empty = len(verdict.checks) - judged, sum(status(check) == "nothing" for check in verdict.checks)
    parts = [f"{len(verdict.failures):,} of {judged:,} checks failing, {verdict.compared:,} elements compared"]
    if empty:
        parts.append(f"{empty:,} with nothing to compare")
    if shown:
        parts.append(f"{shown:,} only shown")
    return ", ".join(parts)


def pairs(verdict: Verdict) -> list[tuple[str, str]]:
    """(reference, other) of all checks; records with each other come first, then each with the oracle."""
    return sorted(dict.fromkeys(check.sides for check in verdict.checks), key=lambda pair: ORACLE in pair)


def versus(pair: tuple[str, str]) -> str:
    return " vs ".join(pair)


def sides_compared(verdict: Verdict) -> list[str]:
    """What stands against what, e.g. ``mine vs yours`` and ``each vs oracle``."""
    every = pairs(verdict)
    records = [versus(pair) for pair in every if ORACLE not in pair]
    alone = [pair for pair in every if ORACLE in pair]
    judged = {label for pair in alone for label in pair} - {ORACLE}
    if records and judged == {side.label for side in verdict.sides}:
        return [*records, f"each vs {ORACLE}"]
    return [*records, *map(versus, alone)]


def listed(items: Iterable[str], empty: str = "none") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    *most, last = list(dict.fromkeys(items)) or [empty]
    return f"{', '.join(most)} and {last}" if most else last


def scope(verdict: Verdict) -> str:
    """In which tiers and experiments, e.g. ``exact and fast tier; free and lockstep``."""
    return f"{listed(c.tier for c in verdict.checks)} tier; {listed(c.experiment for c in verdict.checks)}"


def units(x: float) -> str:
    """An E with three digits: ``0``, ``1.25``, ``13,525``, ``2.1e6``, ``∞``."""
    if math.isnan(x) or math.isinf(x):
        return "nan" if math.isnan(x) else "∞"
    if x == 0 or 0.001 <= abs(x) < 1000:
        return f"{x:.3g}"
    if 1000 <= abs(x) < 1e6:
        return f"{x:,.0f}"
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def differing(check: Check) -> str:
    """How many elements differ; the oracle and the closed loop do not count them."""
    counted = check.experiment in COUNTING or check.differing
    return f"{check.differing:,} of {check.compared:,} differ" if counted else f"{check.compared:,} compared"


def derived(check: Check) -> str:
    """The derived bound; only experiments of one update have one."""
    return units(check.derived) if check.derived else "–"


def share(check: Check) -> float:
    """How much of its budget the largest error takes; ∞ for an error that has no budget, or is no number."""
    if check.worst == 0:
        return 0.0
    found = check.worst / check.budget if check.budget > 0 else math.inf
    return math.inf if math.isnan(found) else found


def measure(checks: Sequence[Check]) -> str:
    """What was found, in a few characters: ``0 bits``, ``1.9 of 4``, ``12 differ``, ``loss``."""
    if all(check.experiment == CLOSED for check in checks):
        return "loss"
    bitwise = [check for check in checks if check.tier == EXACT and check.budget == 0]
    tightest = max(checks, key=share)
    differing = sum(check.differing for check in bitwise or checks)
    if not bitwise and tightest.worst != 0:
        allowed = f" of {units(tightest.budget)}" if tightest.budget > 0 else ""
        return f"{units(tightest.worst)}{allowed}"
    return f"{differing:,} differ" if differing else "0 bits"


def outcome(checks: Sequence[Check]) -> tuple[str, str]:
    """(status, text) of several checks of a case: the most severe status, and what was found there."""
    worst = min((status(check) for check in checks), key=STATUSES.index)
    those = [check for check in checks if status(check) == worst]
    if worst == "nothing":
        return worst, "nothing"
    if worst == FLUSHED:
        return worst, f"flushed {sum(check.flushed for check in those):,}"
    found = measure(those)
    if worst == FAIL:
        empty = all(check.worst == 0 and check.differing == 0 for check in those)
        return worst, "FAIL" if empty else f"FAIL {found}"
    return worst, f"shown {found}" if worst == SHOWN else found


def caught(mutants: Sequence[Mutation]) -> str:
    """A sentence on the mutation table."""
    wrong = [m for m in mutants if not m.legitimate]
    legitimate = [m for m in mutants if m.legitimate]
    return (
        f"{sum(m.right for m in wrong)} of {len(wrong)} wrong optimizers caught, "
        f"{sum(m.right for m in legitimate)} of {len(legitimate)} legitimate rewrites accepted"
    )


def first_caught(mutant: Mutation) -> str:
    """Case and tensor, if there are any."""
    return ", ".join(filter(None, (mutant.case, mutant.tensor))) or "–"
