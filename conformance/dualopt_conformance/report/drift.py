"""Drift curves: the largest E of all tensors against the update, on logarithmic axes, as one small SVG per case."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..verdict import FAIL, Check
from .markup import Markup, joined, tag
from .words import units, versus

WIDTH, HEIGHT = 260, 150
LEFT, RIGHT, TOP, BOTTOM = 34, 6, 8, 20
COLOURS = 6  # of lines; more pairs of sides take them again
Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Plot:
    """The checks of one case, tier and experiment; `lines` numbers their pairs of sides over the whole page."""

    case: str
    tier: str
    experiment: str
    checks: tuple[Check, ...]
    lines: tuple[int, ...]


def plots(checks: Sequence[Check], pairs: Sequence[tuple[str, str]]) -> tuple[list[Plot], int]:
    """(those in which a curve leaves zero, how many are flat): a flat one says no more than its row in a table."""
    found: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        if check.curve:
            found.setdefault((check.case, check.tier, check.experiment), []).append(check)
    moving = {key: cs for key, cs in found.items() if any(e != 0 for c in cs for _, e in c.curve)}
    drawn = [Plot(*key, tuple(cs), tuple(pairs.index(c.sides) for c in cs)) for key, cs in moving.items()]
    return drawn, len(found) - len(moving)


@dataclass(frozen=True)
class Axes:
    """Logarithmic in both directions; E = 0 lies on the lower edge, ∞ and NaN on the upper one."""

    updates: tuple[float, float]  # log10 of the ends
    errors: tuple[int, int]

    def x(self, update: float) -> float:
        low, high = self.updates
        return LEFT + (math.log10(max(update, 1)) - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, error: float) -> float:
        low, high = self.errors
        if error <= 0:
            return HEIGHT - BOTTOM
        part = 1.0 if not math.isfinite(error) else (math.log10(error) - low) / (high - low)
        room = HEIGHT - TOP - BOTTOM
        return TOP + (1 - min(max(part, 0), 1)) * 0.88 * room  # what is not zero stays clear of the lower edge

    def path(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(t):.1f} {self.y(e):.1f}" for t, e in points)


def axes(curves: Sequence[Points]) -> Axes:
    """Whole decades of E that hold all points."""
    last = max(t for curve in curves for t, _ in curve)
    sizes = [math.log10(e) for curve in curves for _, e in curve if e > 0 and math.isfinite(e)] or [0.0]
    low, high = math.floor(min(sizes)), math.ceil(max(sizes))
    return Axes((0.0, max(math.log10(max(last, 1)), 0.3)), (low, max(high, low + 1)))


def drawing(plot: Plot) -> Markup:
    """The SVG. Its title says in words what it shows."""
    curves = [check.curve for check in plot.checks]
    # Several pairs usually share an envelope: it is drawn once.
    envelopes = [points for points in dict.fromkeys(check.envelope for check in plot.checks) if points]
    ax = axes([*curves, *envelopes])
    said = "; ".join(f"{versus(c.sides)}: {_last(c)}" for c in plot.checks)
    lines = [_line(ax, check.curve, n) for check, n in zip(plot.checks, plot.lines, strict=True)]
    return tag(
        "svg",
        tag("title", f"{plot.case}, {plot.tier} {plot.experiment}: {said}"),
        _grid(ax),
        *(tag("path", class_="envelope", d=ax.path(points)) for points in envelopes),
        *lines,
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        role="img",
        class_="drift",
    )


def ending(plot: Plot) -> str:
    """The largest E of the plot and its budget, in a few characters."""
    failing = "FAIL " if any(check.status == FAIL for check in plot.checks) else ""
    return failing + _last(max(plot.checks, key=lambda check: check.curve[-1][1]))


def _last(check: Check) -> str:
    allowed = f" of {units(check.envelope[-1][1])}" if check.envelope else ""
    return f"{units(check.curve[-1][1])}{allowed}"


def legend_mark(line: int) -> Markup:
    """A piece of the line, for a legend."""
    stroke = tag("path", d="M0 5L24 5", class_=f"curve line-{line % COLOURS}")
    return tag("svg", stroke, _mark(12, 5, line), viewBox="0 0 24 10", class_="key", aria_hidden="true")


def envelope_mark() -> Markup:
    stroke = tag("path", d="M0 5L24 5", class_="envelope")
    return tag("svg", stroke, viewBox="0 0 24 10", class_="key", aria_hidden="true")


def _line(ax: Axes, points: Points, line: int) -> Markup:
    marks = (_mark(ax.x(t), ax.y(e), line) for t, e in points)
    return joined([tag("path", class_=f"curve line-{line % COLOURS}", d=ax.path(points)), *marks])


def _mark(x: float, y: float, line: int) -> Markup:
    """Shapes tell lines apart where colours do not."""
    shape = (
        f"M{x - 2:.1f} {y:.1f}a2 2 0 1 0 4 0a2 2 0 1 0 -4 0",
        f"M{x - 1.8:.1f} {y - 1.8:.1f}h3.6v3.6h-3.6z",
        f"M{x:.1f} {y - 2.4:.1f}l2.3 4h-4.6z",
    )[line % 3]
    return tag("path", class_=f"mark line-{line % COLOURS}", d=shape)


def _grid(ax: Axes) -> Markup:
    found = [tag("path", class_="axis", d=f"M{LEFT} {HEIGHT - BOTTOM}L{WIDTH - RIGHT} {HEIGHT - BOTTOM}")]
    low, high = ax.errors
    for k in range(low, high + 1, max(1, math.ceil((high - low) / 3))):
        y = ax.y(10.0**k)
        found.append(tag("path", class_="rule", d=f"M{LEFT} {y:.1f}L{WIDTH - RIGHT} {y:.1f}"))
        found.append(_label(_power(k), LEFT - 4, y + 3.5, "end"))
    if ax.y(10.0**low) < HEIGHT - BOTTOM - 9:
        found.append(_label("0", LEFT - 4, HEIGHT - BOTTOM + 3.5, "end"))
    last = int(ax.updates[1] + 1e-9)
    for k in range(last + 1):
        x = ax.x(10.0**k)
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        found.append(_label(_power(k), min(x, WIDTH - RIGHT), HEIGHT - BOTTOM + 13, anchor))
    return joined(found)


def _power(k: int) -> str:
    """10^k in few characters."""
    return f"{10.0**k:g}" if -3 < k < 4 else f"1e{k}"


def _label(text: str, x: float, y: float, anchor: str) -> Markup:
    return tag("text", text, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor)
