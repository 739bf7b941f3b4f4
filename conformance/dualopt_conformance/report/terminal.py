"""The report for a terminal: plain text, the verdict first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

from dualopt.plaintext import aligned

from ..mutation_table import Mutation
from ..verdict import Check, Verdict
from . import table
from .words import (
    caught,
    cleaned,
    counts,
    derived,
    differing,
    first_caught,
    overall,
    pairs,
    scope,
    sides_compared,
    units,
    versus,
    word,
)

WIDTH = 100
FAILURES = 10  # that are written out


def terminal(verdict: Verdict, mutants: Sequence[Mutation] | None = None) -> str:
    """At most `WIDTH` columns, no colours."""
    verdict = cleaned(verdict)
    out = [*_wrapped(f"{overall(verdict)}: {counts(verdict)}")]
    if verdict.checks:
        out += _wrapped(f"{'; '.join(sides_compared(verdict))}; {scope(verdict)}")
    for warning in verdict.warnings:
        out += _wrapped(f"warning: {warning}")
    for side in verdict.sides:
        out += ["", *_wrapped(side.label)]
        out += _wrapped("; ".join(f"{name} {value}" for name, value in side.facts.items() if value), 2)
    out += _tallies(verdict)
    failures = verdict.failures
    for check in failures[:FAILURES]:
        out += ["", *_failure(check)]
    if len(failures) > FAILURES:
        out += ["", f"and {len(failures) - FAILURES:,} more failures"]
    if mutants:
        out += ["", *mutation_table(mutants).splitlines()]
    return "\n".join(out) + "\n"


def _tallies(verdict: Verdict) -> Iterable[str]:
    found = table.tallies(verdict)
    for pair in pairs(verdict):
        rows = [["tier", "checks", "failing", "shown", "elements", "differing", "nearest to budget", "flushed", "ties"]]
        for t in found:
            if t.pair == pair:
                counted = (t.checks, t.failing, t.shown, t.compared, t.differing)
                numbers = [*(f"{n:,}" for n in counted), t.worst, f"{t.flushed:,}", f"{t.ties:,}"]
                rows.append([textwrap.shorten(t.tier, 12), *numbers])
        yield from ("", *_wrapped(versus(pair)), *(f"  {line}" for line in aligned(rows).splitlines()))


def _failure(check: Check) -> Iterable[str]:
    yield from _wrapped(f"{word(check)} {check.case}, {check.tier} {check.experiment}, {versus(check.sides)}")
    if check.first:
        yield from _wrapped(str(check.first), 2)
    yield from _wrapped(
        f"{differing(check)}; largest E {units(check.worst)}, budget {units(check.budget)}, derived {derived(check)}", 2
    )
    if check.note:
        yield from _wrapped(check.note, 2)


def mutation_table(mutants: Sequence[Mutation]) -> str:
    """What became of each mutant, and how many were caught."""
    out = []
    for m in map(cleaned, mutants):
        out += _wrapped(f"{m.outcome:8s}  {m.name}: {m.what}", hanging=10)
        out += _wrapped(f"{m.part}; {first_caught(m)}; error {units(m.error)}, budget {units(m.budget)}", 10)
    return "\n".join([*_wrapped(caught(mutants)), *out])


def _wrapped(text: str, indent: int = 0, hanging: int = 2) -> list[str]:
    """Lines of at most `WIDTH`; words longer than that are broken, hexadecimal numbers are not."""
    first = " " * indent
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=first + " " * hanging, break_on_hyphens=False
    )
