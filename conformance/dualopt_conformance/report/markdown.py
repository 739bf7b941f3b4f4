"""The report as Markdown, to paste into a pull request."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Sequence

from ..mutation_table import Mutation
from ..verdict import FAIL, Check, Verdict
from . import table
from .words import (
    UNITS,
    caught,
    cleaned,
    counts,
    derived,
    differing,
    first_caught,
    overall,
    scope,
    sides_compared,
    units,
    versus,
    word,
)

LIMIT = 60_000  # characters; a comment on GitHub holds 65,536
FAILURES = 50  # that are written out
FOLDED = 12  # rows, above which a table is folded

_SPECIAL = re.compile(r"[\\`*_\[\]|~$]")
_SIMPLE = re.compile(r"[^`|\\<&]+")


def text(x: str) -> str:
    """Nothing in it is markup, and no name or number after @ or # becomes a mention."""
    escaped = _SPECIAL.sub(lambda found: f"&#{ord(found[0])};", html.escape(x, quote=False))
    return escaped.replace("@", "@<!-- -->").replace(" #", " #<!-- -->")


def code(x: str) -> str:
    """`x` in a fixed-width font; in tables too."""
    if not x:
        return ""
    if _SIMPLE.fullmatch(x):
        return f"`{x}`"
    return f"<code>{text(x)}</code>"


def markdown(verdict: Verdict, mutants: Sequence[Mutation] | None = None) -> str:
    """The report; the verdict is its first line. A part for which there is no room is left out, and says so."""
    verdict = cleaned(verdict)
    parts: list[tuple[str, Callable[[], str]]] = [
        ("Warnings", lambda: _warnings(verdict)),
        ("Failures", lambda: _failures(verdict)),
        ("Sides", lambda: _sides(verdict)),
        ("Counts", lambda: _tallies(verdict)),
        ("Mutations", lambda: _mutations([cleaned(m) for m in mutants or ()])),
        ("Cases", lambda: _matrices(verdict)),
        ("Bounds and budgets", lambda: _bounds(verdict)),
        ("Units", lambda: " ".join(UNITS)),
    ]
    compared = "; ".join(map(text, sides_compared(verdict))) or "no checks"
    out = f"## {overall(verdict)}: {counts(verdict)}; {compared}\n\n{text(scope(verdict))}\n"
    for title, make in parts:
        body = make()
        if not body:
            continue
        if len(out) + len(body) > LIMIT:
            body = "Too long for a comment; `report.html` has it."
        out += f"\n### {title}\n\n{body}\n"
    return out


def _warnings(verdict: Verdict) -> str:
    return "\n".join(f"- {text(warning)}" for warning in verdict.warnings)


def _failures(verdict: Verdict) -> str:
    failures = verdict.failures
    lines = [_failure(check) for check in failures[:FAILURES]]
    if len(failures) > FAILURES:
        lines.append(f"- and {len(failures) - FAILURES:,} more: `report.html` has all of them")
    return "\n".join(lines)


def _failure(check: Check) -> str:
    where = f"{code(check.case)}, {text(check.tier)} {text(check.experiment)}, "
    lines = [f"- **{word(check)}** {where}{code(check.sides[0])} vs {code(check.sides[1])}"]
    if check.first:
        lines.append(f"  - {code(str(check.first))}")
    found = f"{differing(check)}; largest E {units(check.worst)}, "
    lines.append(f"  - {found}budget {units(check.budget)}, derived {derived(check)}")
    if check.note:
        lines.append(f"  - {text(check.note)}")
    return "\n".join(lines)


def _sides(verdict: Verdict) -> str:
    rows = [
        [f"**{text(name)}**" if differ else text(name), *map(code, values)]
        for name, values, differ in table.facts(verdict.sides)
    ]
    if not verdict.sides:
        return ""
    return _table(["fact (bold: differs)", *(code(side.label) for side in verdict.sides)], rows)


def _tallies(verdict: Verdict) -> str:
    header = "pair|tier|checks|failing|shown|elements|differing|nearest to its budget|flushed|ties"
    rows = [
        [
            f"{code(t.pair[0])} vs {code(t.pair[1])}",
            text(t.tier),
            *(f"{n:,}" for n in (t.checks, t.failing, t.shown, t.compared, t.differing)),
            t.worst,
            *(f"{n:,}" for n in (t.flushed, t.ties)),
        ]
        for t in table.tallies(verdict)
    ]
    return _table(header.split("|"), rows, numbers_from=2) if rows else ""


def _matrices(verdict: Verdict) -> str:
    found: dict[tuple[tuple[str, str], str], dict[table.Place, table.Cell]] = {}
    for key, cell in table.cells(verdict).items():
        found.setdefault((key.pair, key.tier), {})[key.variant, key.situation] = cell
    return "\n\n".join(_matrix(pair, tier, cells) for (pair, tier), cells in found.items())


def _matrix(pair: tuple[str, str], tier: str, cells: dict[table.Place, table.Cell]) -> str:
    variants, situations = (list(dict.fromkeys(each)) for each in zip(*cells, strict=True))

    def shown(at: table.Place) -> str:
        if at not in cells:
            return ""
        cell = cells[at]
        return f"**{cell.text}**" if cell.status in {FAIL, "nothing"} else cell.text

    rows = [[code(variant), *(shown((variant, situation)) for situation in situations)] for variant in variants]
    failing = sum(cell.status == FAIL for cell in cells.values())
    title = f"{text(versus(pair))}, {text(tier)} tier: {failing} of {len(cells)} cases failing"
    return _folded(title, ["", *situations], rows)


def _bounds(verdict: Verdict) -> str:
    rows = [
        [
            code(b.row),
            f"{text(b.tier)} {text(b.experiment)}",
            derived(b.check),
            units(b.check.budget),
            units(b.check.worst),
            code(b.check.case),
        ]
        for b in table.bounds(verdict)
    ]
    if not rows:
        return ""
    header = ["row", "experiment", "derived bound", "budget", "observed maximum", "at"]
    return _folded("Of each row and experiment, the check nearest to its budget", header, rows)


def _mutations(mutants: Sequence[Mutation]) -> str:
    if not mutants:
        return ""
    rows = [
        [
            code(m.name),
            text(m.part),
            text(m.what),
            text(first_caught(m)),
            units(m.error),
            units(m.budget),
            m.outcome if m.right else f"**{m.outcome}**",
        ]
        for m in mutants
    ]
    header = ["mutant", "part of the recursion", "what is wrong", "first caught by", "error", "budget", "verdict"]
    return _folded(caught(mutants), header, rows)


def _folded(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table under its title, folded if it is long."""
    found = _table([header[0], *map(text, header[1:])], rows)
    if len(rows) <= FOLDED:
        return f"{title}\n\n{found}"
    return f"<details><summary>{title}</summary>\n\n{found}\n\n</details>"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers_from: int | None = None) -> str:
    rule = ["---" if numbers_from is None or i < numbers_from else "---:" for i in range(len(header))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
