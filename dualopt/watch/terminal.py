"""A run on the terminal: for every group what was measured last, what was expected, and how both went."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from .stream import Watched
from .verdict import AGREE, BEYOND, MEANINGS, OFF, TITLES, TURN, WITHIN, Verdict, last, series, verdicts

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 16  # of a small plot
_SIGNS = {
    WITHIN: ("·", "green"),
    AGREE: ("+", "yellow"),
    TURN: ("−", "yellow"),
    BEYOND: ("!", "red"),
    OFF: ("?", "red"),
}


def view(watched: Watched) -> Group:
    """Everything, to be printed or shown live."""
    parts: list[Any] = [Text(_state(watched), style="bold")]
    used: dict[str, None] = {}
    for group in watched.header["groups"]:
        found = last(watched, group)
        parts += [Text(), _title(group, found)]
        if found is None:
            parts.append(Text("  nothing measured yet", style="dim"))
            continue
        judged = verdicts(group, found[1])
        used |= dict.fromkeys(one.meaning for one in judged if one.meaning)
        parts.append(_table(watched, group, judged))
    parts += [Text(), _legend(list(used))]
    parts += [Text(f"warning: {text}", style="yellow") for text in watched.header["warnings"]]
    return Group(*parts)


def _state(watched: Watched) -> str:
    header, records = watched.header, watched.records
    count, base = (records[-1]["count"] if records else 0), header["count"]["base"]
    share = f", {count / header['end']:.0%}" if header["end"] else ""
    return f"{count:,} of {header['end']:,} {base}{share}; {len(records)} updates measured"


def _title(group: Mapping[str, Any], found: tuple[int, Mapping[str, Any]] | None) -> Text:
    entries = f"{group['entries']:,} entries"
    some = "" if found is None or found[1]["parameters"] == group["parameters"] else f"{found[1]['parameters']} of "
    told = f": {group['optimizer']}, {some}{group['parameters']} parameters, {entries}"
    return Text.assemble((str(group["name"]), "bold"), told)


def _table(watched: Watched, group: Mapping[str, Any], judged: Sequence[Verdict]) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for i, column in enumerate(("", "measured", "expected", "ratio", "", "measured", "expected")):
        made.add_column(column, justify="left" if i in (0, 4, 5, 6) else "right", no_wrap=True)
    for one in judged:
        sign, style = _SIGNS[one.meaning] if one.meaning else ("", "")
        way = series(watched, group, one.quantity)
        low, high = _range([*way.measured, *way.expected], one.quantity)
        made.add_row(
            Text(TITLES[one.quantity]),
            Text(number(one.measured), style=style if one.flagged else ""),
            Text(number(one.expected)),
            Text("–" if one.ratio is None else f"{one.ratio:.2f}", style=style if one.flagged else ""),
            Text(sign, style=style),
            Text(sparkline(way.measured, low, high), style="cyan"),
            Text(sparkline(way.expected, low, high), style="dim"),
        )
    return made


def _legend(used: Sequence[str]) -> Text:
    """What the signs mean that are there."""
    lines = []
    for meaning in MEANINGS:
        if meaning in used:
            sign, style = _SIGNS[meaning]
            lines.append(Text.assemble((f"{sign} ", style), (MEANINGS[meaning], "dim")))
    return Text("\n").join(lines)


def number(x: float | None) -> str:
    """Three digits."""
    return "–" if x is None else "0" if x == 0 else f"{x:.3g}"


def _range(values: Sequence[float | None], name: str) -> tuple[float, float]:
    """The ends of the axis that both plots share; cosines have 0 in the middle of theirs."""
    known = [x for x in values if x is not None]
    if name in ("u_theta", "g_m"):
        most = max((abs(x) for x in known), default=0.0)
        return -most, most
    return min(known, default=0.0), max(known, default=0.0)


def sparkline(values: Sequence[float | None], low: float, high: float, width: int = WIDTH) -> str:
    """At most `width` blocks, each the mean of its part of the run; a space where nothing is known."""
    parts = min(width, len(values))
    found = []
    for i in range(parts):
        part = [x for x in values[i * len(values) // parts : (i + 1) * len(values) // parts] if x is not None]
        if not part:
            found.append(" ")
            continue
        height = (math.fsum(part) / len(part) - low) / (high - low) if high > low else 0.5
        found.append(BARS[min(len(BARS) - 1, max(0, int(height * len(BARS))))])
    return "".join(found)
