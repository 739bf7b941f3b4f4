"""watch.html: the same panels with the numbers of the last measurement, in one file that needs no network.

Drawings are SVG in the page, and colours those of the reader's scheme, light or dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..durable import atomic
from .panels import Panel, panels, short
from .stream import Watched
from .verdict import MEANINGS, TITLES, last, number, state, title, verdicts

WIDTH, HEIGHT = 260, 150  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 24, 22  # around its axes
_STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1b1b1b; --faint: #666; --line: #d8d8d8;
  --measured: #1f5fa8; --outside: #c8501a; --predicted: #6b6b6b; --band: #6b6b6b33; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --ink: #e6e6e6; --faint: #a0a0a0; --line: #3a3d42;
  --measured: #6aa9f0; --outside: #f2945c; --predicted: #b0b0b0; --band: #b0b0b033; } }
body { background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto;
  max-width: 84rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0; } h2 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
p { margin: .3rem 0; } .faint { color: var(--faint); } .outside { color: var(--outside); }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: .4rem 1rem; }
.panels svg { width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin-top: .5rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, th:last-child, td:last-child { text-align: left; }
td:last-child { white-space: normal; }
svg { font: 10px system-ui, sans-serif; fill: var(--ink); }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .tick { fill: var(--faint); }
svg .band { fill: var(--band); } svg .predicted { fill: none; stroke: var(--predicted); stroke-width: 1.4; }
svg .line { fill: none; stroke: var(--measured); stroke-width: 1; } svg .dot { fill: var(--measured); }
svg circle.outside { fill: var(--outside); }
"""


def watched_page(path: str | Path, watched: Watched) -> None:
    """Write the page. Raises: OSError."""
    with atomic(Path(path)) as file:
        file.write(written(watched).encode())


def written(watched: Watched) -> str:
    """The page."""
    header = watched.header
    end = float(max([header["end"], 1, *(r["count"] for r in watched.records[-1:])]))
    groups = "\n".join(_group(watched, group, end) for group in header["groups"])
    warnings = "\n".join(f'<p class="outside">warning: {escape(text)}</p>' for text in header["warnings"])
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>dualopt watch</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(state(watched))}</h1>
<p class="faint">schedule: {escape(header["schedule"])}</p>
{_legend()}
{groups}
{warnings}
</body>
</html>
"""


def _legend() -> str:
    keys = (
        ('<path class="line" d="M0 6h26"/><circle class="dot" cx="13" cy="6" r="2.5"/>', "measured"),
        ('<circle class="outside" cx="13" cy="6" r="3"/>', "measured, outside of the band"),
        (
            '<path class="band" d="M0 0h26v12h-26z"/><path class="predicted" d="M0 6h26"/>',
            "predicted, of gradients without a mean, and its band",
        ),
    )
    parts = (f'<svg width="26" height="12" aria-hidden="true">{drawn}</svg> {text}' for drawn, text in keys)
    return f'<p class="faint">{" &emsp; ".join(parts)}</p>'


def _group(watched: Watched, group: Mapping[str, Any], end: float) -> str:
    found = last(watched, group)
    drawn = "\n".join(_panel(panel, end) for panel in panels(watched, group))
    return f"""<section>
<h2>{escape(title(group, found))}</h2>
<div class="panels">
{drawn}
</div>
{_table(group, found)}
</section>"""


def _table(group: Mapping[str, Any], found: tuple[int, Mapping[str, Any]] | None) -> str:
    if found is None:
        return '<p class="faint">nothing measured yet</p>'
    rows = []
    for one in verdicts(group, found[1]):
        ends = "–" if one.ends is None else f"{number(one.ends[0])} … {number(one.ends[1])}"
        style = ' class="outside"' if one.flagged else ""
        cells = (number(one.measured), number(one.expected), "–" if one.ratio is None else f"{one.ratio:.3g}", ends)
        rest = "".join(f"<td>{x}</td>" for x in cells)
        said = MEANINGS[one.meaning] if one.meaning else ""
        rows.append(f"<tr><td>{TITLES[one.quantity]}</td>{rest}<td{style}>{said}</td></tr>")
    columns = ("", "measured", "expected", "ratio", "band", f"at {found[0]:,}")
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f'<div class="scroll"><table>\n<tr>{head}</tr>\n' + "\n".join(rows) + "\n</table></div>"


def _panel(panel: Panel, end: float) -> str:
    def x(count: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * count / end

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - panel.place(value))

    parts = [f'<text x="4" y="13">{escape(panel.title)}</text>']
    for value in panel.ticks:
        parts.append(f'<path class="grid" d="M{LEFT} {y(value):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 4}" y="{y(value) + 3:.1f}" text-anchor="end">{short(value)}</text>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        text = short(share * end)
        parts.append(
            f'<text class="tick" x="{x(share * end):.1f}" y="{HEIGHT - 7}" text-anchor="{anchor}">{text}</text>'
        )
    if panel.empty:
        return _svg(panel, [*parts, f'<text class="tick" x="{WIDTH / 2}" y="{HEIGHT / 2}">not measured</text>'])
    if panel.band:
        there = [(x(count), y(high)) for count, _, high in panel.band]
        back = [(x(count), y(low)) for count, low, _ in reversed(panel.band)]
        parts.append(f'<path class="band" d="{_way([*there, *back])}z"/>')
        parts.append(f'<path class="predicted" d="{_way([(x(a), y(b)) for a, b in panel.curve])}"/>')
    parts.append(f'<path class="line" d="{_way([(x(a), y(b)) for a, b in panel.measured])}"/>')
    outside = set(panel.outside)
    for point in panel.measured:
        style, told = "outside" if point in outside else "dot", f"{number(point[1])} at {point[0]:,.0f}"
        place = f'cx="{x(point[0]):.1f}" cy="{y(point[1]):.1f}"'
        parts.append(f'<circle class="{style}" {place} r="2"><title>{told}</title></circle>')
    return _svg(panel, parts)


def _svg(panel: Panel, parts: Sequence[str]) -> str:
    box = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg {box} role="img" aria-label="{escape(panel.title)}">\n' + "\n".join(parts) + "\n</svg>"


def _way(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)
