"""The report as one page of HTML that loads nothing: its style is inline, its drawings are SVG, it has no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.resources import files

from ..mutation_table import Mutation
from ..verdict import FAIL, ORACLE, SHOWN, Check, Finding, Verdict
from . import drift, sheets, table
from .markup import Markup, joined, tag
from .words import (
    UNITS,
    caught,
    cleaned,
    derived,
    differing,
    overall,
    pairs,
    scope,
    sides_compared,
    status,
    units,
    versus,
)

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
SYMBOLS = {"PASS": "✓", "FAIL": "✗"}
UNFOLDED = 20  # failures
RARE = {"with nothing to compare", "only shown"}  # left out of the banner if there are none


def html(verdict: Verdict, mutants: Sequence[Mutation] | None = None) -> str:
    """The page. The verdict comes first, then the failures, then everything else."""
    verdict, mutants = cleaned(verdict), [cleaned(m) for m in mutants or ()]
    ids = {case: f"case-{i}" for i, case in enumerate(dict.fromkeys(check.case for check in verdict.checks))}
    sections = [
        ("warnings", "Warnings", tag("ul", *(tag("li", w) for w in verdict.warnings)) if verdict.warnings else None),
        ("failures", f"Failures ({len(verdict.failures):,})", _failures(verdict.failures, ids)),
        ("sides", "Sides", sheets.sides(verdict)),
        ("units", "What the numbers mean", tag("div", *(tag("p", sentence) for sentence in UNITS), class_="units")),
        ("matrix", "Cases", sheets.matrix(table.cells(verdict), ids)),
        ("budgets", "Bounds and budgets", sheets.bounds(table.bounds(verdict), ids)),
        ("drift", "Drift", _drift(verdict, ids)),
        ("mutations", "Mutations", joined([tag("p", caught(mutants)), sheets.mutants(mutants)]) if mutants else None),
        ("checks", "Every check", sheets.checks(verdict, ids)),
    ]
    present = [(key, title, body) for key, title, body in sections if body]
    links = (tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in present)
    body = [
        _banner(verdict),
        tag("nav", tag("ul", *links), aria_label="Contents"),
        tag("main", *(tag("section", tag("h2", title), body, id=key) for key, title, body in present)),
    ]
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    head = [
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{overall(verdict)}: {_compared(verdict)}"),
        tag("link", rel="icon", href="data:,"),
        tag("style", Markup(style)),
    ]
    page = tag("html", tag("head", joined(head, "\n")), "\n", tag("body", joined(body, "\n")), lang="en")
    return f"<!doctype html>\n{page}\n"


def _compared(verdict: Verdict) -> str:
    return "; ".join(sides_compared(verdict)) or "no checks"


def _banner(verdict: Verdict) -> Markup:
    word, checks = overall(verdict), verdict.checks
    judged = sum(check.status != SHOWN for check in checks)
    kind = {"PASS": "pass", "FAIL": "fail"}.get(word, "nothing")
    numbers = [
        ("elements compared", verdict.compared),
        ("flushed", sum(check.flushed for check in checks)),
        ("ties", sum(check.ties for check in checks)),
        ("with nothing to compare", sum(status(check) == "nothing" for check in checks)),
        ("only shown", len(checks) - judged),
    ]
    told = [("checks failing", f"{len(verdict.failures):,} of {judged:,}")]
    told += [(name, f"{n:,}") for name, n in numbers if n or name not in RARE]
    return tag(
        "header",
        tag("p", "dualopt conformance", class_="kicker"),
        tag("h1", tag("span", SYMBOLS.get(word, "?"), aria_hidden="true"), " ", word),
        tag("p", _compared(verdict), class_="compared"),
        tag("p", scope(verdict), class_="scope") if checks else "",
        tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in told), class_="numbers"),
        class_=f"banner {kind}",
    )


def _failures(failures: Sequence[Check], ids: dict[str, str]) -> Markup | None:
    if not failures:
        return None
    cards = [_failure(check, ids) for check in failures]
    found = tag("div", *cards[:UNFOLDED], class_="cards")
    if len(cards) <= UNFOLDED:
        return found
    rest = tag("summary", f"{len(cards) - UNFOLDED:,} more failures")
    return joined([found, tag("details", rest, tag("div", *cards[UNFOLDED:], class_="cards"))])


def _failure(check: Check, ids: dict[str, str]) -> Markup:
    """Everything that is needed to look for the cause."""
    title = tag("h3", tag("a", check.case, href=f"#{ids[check.case]}"))
    parts = [tag("p", f"FAIL · {check.tier} {check.experiment} · {versus(check.sides)}", class_="kicker"), title]
    if check.first:
        parts += _first(check.first, check.sides)
    found = f"Largest E {units(check.worst)}, budget {units(check.budget)}, derived bound {derived(check)}; "
    parts.append(tag("p", f"{found}{differing(check)}."))
    if check.note:
        parts.append(tag("p", check.note, class_="note"))
    return tag("article", *parts)


def _first(first: Finding, sides: tuple[str, str]) -> list[Markup]:
    where = joined(["Update ", tag("b", f"{first.update:,}"), ", ", tag("b", first.tensor), " at "])
    # Beside float64 arithmetic, what stands on the left is the reference: numpy's exact tier.
    left = "reference" if sides[0] == ORACLE else sides[0]
    values = [(left, first.left), (sides[1], first.right), (ORACLE, first.oracle)]
    shown = (
        tag("div", tag("dt", side), tag("dd", tag("code", value)), tag("dd", _decimal(value)))
        for side, value in values
        if value
    )
    error = joined(["Error ", tag("b", f"{first.error:.4g}"), ", budget ", tag("b", f"{first.budget:.4g}"), " there"])
    nearer = f"; nearer to the oracle: {first.nearer}." if first.nearer else "."
    place = tag("p", where, tag("code", str(list(first.index))))
    return [place, tag("dl", *shown, class_="values"), tag("p", error, nearer)]


def _decimal(value: str) -> str:
    """A hexadecimal number as people read it; "" if it is none."""
    try:
        found = float.fromhex(value)
    except (ValueError, OverflowError):
        return ""
    return f"{found:.9g}" if math.isfinite(found) else ""


def _drift(verdict: Verdict, ids: dict[str, str]) -> Markup | None:
    every = pairs(verdict)
    plots, flat = drift.plots(verdict.checks, every)
    if not plots:
        return tag("p", f"All {flat:,} curves stay at 0.") if flat else None
    used = dict.fromkeys(line for plot in plots for line in plot.lines)
    keys = [tag("li", drift.legend_mark(line), " ", versus(every[line])) for line in sorted(used)]
    keys.append(tag("li", drift.envelope_mark(), " envelope: what the budget allows"))
    said = "The largest E of all tensors against the update, both logarithmic, and the last E with its budget."
    if flat:
        said += f" {flat:,} curves that stay at 0 are not drawn."
    groups: dict[str, list[Markup]] = {}
    for plot in plots:
        row = table.entry_of(table.place(plot.checks[0])[0])
        groups.setdefault(row, []).append(_figure(plot, ids[plot.case]))
    drawn = (joined([tag("h3", row), tag("div", *figures, class_="plots")]) for row, figures in groups.items())
    return joined([tag("p", said), tag("ul", *keys, class_="legend"), *drawn])


def _figure(plot: drift.Plot, anchor: str) -> Markup:
    failing = any(check.status == FAIL for check in plot.checks)
    caption = tag(
        "figcaption",
        tag("a", plot.case, href=f"#{anchor}"),
        tag("br"),
        tag("span", f"{plot.tier} {plot.experiment}"),
        tag("span", drift.ending(plot), class_="fail" if failing else None),
    )
    return tag("figure", caption, drift.drawing(plot))
