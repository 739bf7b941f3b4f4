"""The tables of the page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

from ..mutation_table import Mutation
from ..verdict import FAIL, FLUSHED, ORACLE, PASS, SHOWN, Check, Verdict
from . import table
from .markup import Markup, joined, tag
from .words import COUNTING, derived, first_caught, pairs, status, units, versus, word

Column = tuple[tuple[str, str], str]  # (sides, tier)
SYMBOLS = {PASS: "✓", FAIL: "✗", FLUSHED: "≈", SHOWN: "○", "nothing": "?"}
MEANINGS = {
    PASS: "within its budget",
    FAIL: "beyond it",
    FLUSHED: "differs only in subnormal numbers",
    SHOWN: "not judged",
    "nothing": "nothing was compared",
}


def scrolling(name: str, body: Markup) -> Markup:
    """A box that scrolls sideways by itself, with a finger or with the keyboard."""
    return tag("div", body, class_="scroll", tabindex=0, role="region", aria_label=name)


def sides(verdict: Verdict) -> Markup | None:
    """Facts by sides; those that differ are marked."""
    if not verdict.sides:
        return None
    head = tag("tr", tag("td"), *(tag("th", side.label, scope="col") for side in verdict.sides))

    def named(name: str, differ: bool) -> Markup:  # beside the name, which a narrow screen shows
        return tag("th", name, tag("span", " ≠", class_="differs") if differ else "", scope="row")

    rows = [
        tag("tr", named(name, differ), *(tag("td", value or "–") for value in values))
        for name, values, differ in table.facts(verdict.sides)
    ]
    said = "≠ marks facts that differ." if len(verdict.sides) > 1 else ""
    if any(ORACLE in check.sides for check in verdict.checks):
        said += (
            " The oracle is no machine: it is numpy's exact tier where bits and drift are compared, "
            "and float64 arithmetic where a bound is derived."
        )
    found = tag("table", tag("thead", head), tag("tbody", *rows), class_="facts")
    return joined([tag("p", said.strip()) if said else "", scrolling("Sides", found)])


def matrix(cells: Mapping[table.Key, table.Cell], ids: Mapping[str, str]) -> Markup | None:
    """Variants by sides and tiers, grouped by situation: what one situation does to all rows stands together."""
    if not cells:
        return None
    every = {cell.status for cell in cells.values()}
    used = [key for key in SYMBOLS if key in every]
    keys = [tag("li", tag("b", SYMBOLS[key], class_=key), f" {MEANINGS[key]}") for key in used]
    said = "A cell shows the most severe of all experiments with its case: what differs, or E and its budget there."
    columns = list(dict.fromkeys((key.pair, key.tier) for key in cells))
    groups: dict[str, list[str]] = {}
    for key in cells:
        groups.setdefault(key.situation, []).append(key.variant)
    bodies = []
    for situation, variants in groups.items():
        title = tag("tr", tag("th", situation, scope="rowgroup"), tag("td", colspan=len(columns)))
        rows = (_row(variant, situation, columns, cells, ids) for variant in dict.fromkeys(variants))
        bodies.append(tag("tbody", title, *rows))
    found = tag("table", _heads(columns), *bodies, class_="matrix")
    return joined([tag("p", said), tag("ul", *keys, class_="legend"), scrolling("Cases", found)])


def _heads(columns: Sequence[Column]) -> Markup:
    """The pairs of sides, and below them their tiers."""
    together = [(pair, [tier for _, tier in group]) for pair, group in groupby(columns, key=lambda column: column[0])]
    sides = (tag("th", versus(pair), colspan=len(tiers), scope="colgroup", class_="start") for pair, tiers in together)
    tiers = (
        tag("th", tier, scope="col", class_="start" if i == 0 else None)
        for _, each in together
        for i, tier in enumerate(each)
    )
    return tag("thead", tag("tr", tag("td"), *sides), tag("tr", tag("td"), *tiers))


def _row(
    variant: str,
    situation: str,
    columns: Sequence[Column],
    cells: Mapping[table.Key, table.Cell],
    ids: Mapping[str, str],
) -> Markup:
    found = []
    for before, column in zip((None, *columns), columns, strict=False):
        cell = cells.get(table.Key(*column, variant, situation))
        found.append(_cell(cell, ids, before is None or before[0] != column[0]))
    return tag("tr", _variant(variant), *found)


def _variant(name: str) -> Markup:
    entry = table.entry_of(name)
    if name == entry:
        return tag("th", tag("b", name), scope="row")
    return tag("th", tag("span", entry, class_="entry"), name.removeprefix(entry), scope="row")


def _cell(cell: table.Cell | None, ids: Mapping[str, str], starts: bool) -> Markup:
    """`starts`: it is the first of a pair of sides."""
    start = "start" if starts else None
    if cell is None:
        return tag("td", class_=start)
    check = next(check for check in cell.checks if status(check) == cell.status)
    return tag(
        "td",
        tag("a", f"{SYMBOLS[cell.status]} {cell.text}", href=f"#{ids[check.case]}"),
        class_=" ".join(filter(None, (cell.status, start))),
    )


def bounds(found: Sequence[table.Bound], ids: Mapping[str, str]) -> Markup | None:
    """Derived, budget and observed, with a bar for the share of the budget."""
    if not found:
        return None
    names = ("row", "tier", "experiment", "derived bound", "budget", "observed maximum", "of the budget", "at")
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    bodies = []
    for row, group in groupby(found, key=lambda b: b.row):
        together = list(group)
        first = tag("th", tag("b", row), scope="rowgroup", rowspan=len(together))
        lines = (tag("tr", first if i == 0 else "", *_bound(b, ids)) for i, b in enumerate(together))
        bodies.append(tag("tbody", *lines))
    said = "Of each row of the catalogue and experiment, the check that took the largest share of its budget. "
    said += "In its bar the box is the budget and the stroke the derived bound."
    return joined([tag("p", said), scrolling("Bounds and budgets", tag("table", head, *bodies, class_="bounds"))])


def _bound(bound: table.Bound, ids: Mapping[str, str]) -> Iterable[Markup]:
    check = bound.check
    yield tag("td", bound.tier)
    yield tag("td", bound.experiment)
    for number in (derived(check), units(check.budget), units(check.worst)):
        yield tag("td", number, class_="number")
    yield tag("td", _bar(bound.share, check.derived / check.budget), class_=check.status)
    yield tag("td", tag("a", check.case, href=f"#{ids[check.case]}"), f", {versus(check.sides)}")


def _bar(share: float, derived: float) -> Markup:
    """The box is the budget, the filling what was observed, the stroke the derived bound."""
    filled, stroke = (round(100 * min(1.0, x), 1) for x in (share, derived))  # 1 for what is no number
    return tag(
        "svg",
        tag("title", f"{100 * share:.3g} % of the budget"),
        tag("rect", class_="box", width=100, height=8),
        tag("rect", class_="filling", width=str(filled), height=8),
        tag("path", class_="stroke", d=f"M{stroke} 0V8"),
        viewBox="0 0 100 8",
        role="img",
        class_="bar",
    )


def mutants(found: Sequence[Mutation]) -> Markup:
    names = ("mutant", "part of the recursion", "what is wrong", "first caught by", "error", "budget", "verdict")
    rows = [
        tag(
            "tr",
            tag("th", m.name, scope="row"),
            tag("td", m.part),
            tag("td", f"{m.what} (legitimate)" if m.legitimate else m.what, class_="prose"),
            tag("td", first_caught(m)),
            tag("td", units(m.error), class_="number"),
            tag("td", units(m.budget), class_="number"),
            tag("td", f"{'✓' if m.right else '✗'} {m.outcome}", class_=PASS if m.right else FAIL),
        )
        for m in found
    ]
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return scrolling("Mutations", tag("table", head, tag("tbody", *rows), class_="mutants"))


def checks(verdict: Verdict, ids: Mapping[str, str]) -> Markup | None:
    """All numbers of all checks, by case: where the cells of the matrix lead."""
    if not verdict.checks:
        return None
    order = pairs(verdict)
    errors = ("derived", "budget", "observed E")
    names = ("check", "sides", "status", "elements", "differing", *errors, "flushed", "ties", "note")
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    by_case: dict[str, list[Check]] = {}
    for check in verdict.checks:
        by_case.setdefault(check.case, []).append(check)
    bodies = []
    for case, together in by_case.items():
        title = tag("tr", tag("th", tag("b", case), scope="rowgroup", colspan=3), tag("td", colspan=len(names) - 3))
        lines = map(_check, sorted(together, key=lambda check: order.index(check.sides)))
        bodies.append(tag("tbody", title, *lines, id=ids[case]))
    return scrolling("Every check", tag("table", head, *bodies, class_="checks"))


def _check(check: Check) -> Markup:
    kind, measured = status(check), check.budget > 0 or check.worst != 0
    errors = (derived(check), units(check.budget), units(check.worst)) if measured else ("–",) * 3
    counted = check.experiment in COUNTING or check.differing
    numbers = [
        f"{check.compared:,}",
        f"{check.differing:,}" if counted else "–",
        *errors,
        f"{check.flushed:,}",
        f"{check.ties:,}",
    ]
    return tag(
        "tr",
        tag("th", f"{check.tier} {check.experiment}", scope="row"),
        tag("td", versus(check.sides), class_="sides"),
        tag("td", f"{SYMBOLS[kind]} {word(check)}", class_=kind),
        *(tag("td", number, class_="number") for number in numbers),
        tag("td", check.note, class_="prose"),
    )
