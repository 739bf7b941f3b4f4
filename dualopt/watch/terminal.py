"""A run on the terminal: for every group what was measured last, what was expected, and how both went."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from ..plaintext import paragraph
from .stream import Watched
from .verdict import (
    AGREE,
    BEYOND,
    MEANINGS,
    OFF,
    TITLES,
    TURN,
    WITHIN,
    Verdict,
    last,
    number,
    series,
    state,
    title,
    verdicts,
)

BARS = "▁▂▃▄▅▆▇█"
NUMBERS = 62  # columns that the table takes without its small plots
LEAST, MOST = 8, 24  # of a small plot, whose title has 8; where there is less room there is none
_SIGNS = {
    WITHIN: ("·", "green"),
    AGREE: ("+", "yellow"),
    TURN: ("−", "yellow"),
    BEYOND: ("!", "red"),
    OFF: ("?", "red"),
}


def view(watched: Watched, width: int) -> Group:
    """Everything in so many columns, to be printed or shown live."""
    parts: list[Any] = [Text(paragraph(state(watched), width), style="bold")]
    used: dict[str, None] = {}
    for group in watched.header["groups"]:
        found = last(watched, group)
        parts += [Text(), Text(paragraph(title(group, found), width, hanging=2), style="bold")]
        if found is None:
            parts.append(Text("  nothing measured yet", style="dim"))
            continue
        judged = verdicts(group, found[1])
        used |= dict.fromkeys(one.meaning for one in judged if one.meaning)
        parts.append(_table(watched, group, judged, min(MOST, (width - NUMBERS) // 2)))
    parts.append(Text())
    for meaning in MEANINGS:
        if meaning in used:
            sign, style = _SIGNS[meaning]
            told = paragraph(MEANINGS[meaning], width - 2).replace("\n", "\n  ")
            parts.append(Text.assemble((f"{sign} ", style), (told, "dim")))
    warnings = watched.header["warnings"]
    parts += [Text(paragraph(f"warning: {text}", width, hanging=2), style="yellow") for text in warnings]
    return Group(*parts)


def _table(watched: Watched, group: Mapping[str, Any], judged: Sequence[Verdict], plot: int) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    columns = ["", "measured", "expected", "ratio", ""] + (["measured", "expected"] if plot >= LEAST else [])
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i in (1, 2, 3) else "left", no_wrap=True)
    for one in judged:
        sign, style = _SIGNS[one.meaning] if one.meaning else ("", "")
        marked = style if one.flagged else ""
        cells = [
            Text(TITLES[one.quantity]),
            Text(number(one.measured), style=marked),
            Text(number(one.expected)),
            Text("–" if one.ratio is None else f"{one.ratio:.3g}", style=marked),
            Text(sign, style=style),
        ]
        if plot >= LEAST:
            way = series(watched, group, one.quantity)
            low, high = _range([*way.measured, *way.expected], one.quantity)
            cells.append(Text(sparkline(way.measured, low, high, plot), style="cyan"))
            cells.append(Text(sparkline(way.expected, low, high, plot), style="dim"))
        made.add_row(*cells)
    return made


def _range(values: Sequence[float | None], name: str) -> tuple[float, float]:
    """The ends of the axis that both plots share; cosines have 0 in the middle of theirs."""
    known = [x for x in values if x is not None]
    if name in ("u_theta", "g_m"):
        most = max((abs(x) for x in known), default=0.0)
        return -most, most
    return min(known, default=0.0), max(known, default=0.0)


def sparkline(values: Sequence[float | None], low: float, high: float, width: int) -> str:
    """At most `width` blocks, each the mean of its part of the run; a space where nothing is known."""
    parts = min(width, len(values))
    found = []
    for i in range(parts):
        part = [x for x in values[i * len(values) // parts : (i + 1) * len(values) // parts] if x is not None]
        if not part:
            found.append(" ")
            continue
        height = (sum(part) / len(part) - low) / (high - low) if high > low else 0.5
        found.append(BARS[min(len(BARS) - 1, max(0, int(height * len(BARS))))])
    return "".join(found)
