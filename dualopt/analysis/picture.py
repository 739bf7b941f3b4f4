"""prediction.png: weights and angles over a run, what its end remembers, and the schedules, a line for every group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..durable import atomic
from .prediction import Curves, Outlook, Prediction

_COLOURS = (
    "#1f5fa8", "#d1571c", "#2f8f4e", "#7a4fa3", "#b8860b", "#c2327a",
    "#1f9aa8", "#6b6b6b", "#8a3d1f", "#55761f", "#3f4fb5", "#a0548a",
)  # fmt: skip
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)))
MOST = 5.0  # of a linear axis: beyond it one group remembers little, and the others would lie on the axis
_GREY = "#777777"
_NOTHING = "nothing to show: it depends on the size of the gradients"


def predicted_plot(path: str | Path, found: Prediction) -> None:
    """Write the PNG. Raises: ImportError without matplotlib."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    columns = min(4, max(1, len(found.groups)))
    lines = -(-len(found.groups) // columns)
    figure = Figure(figsize=(11.5, 7.2 + 0.22 * lines), dpi=130, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    axes = figure.subplots(2, 3)
    uneven = max(float(np.max(g.curves.weight)) for g in found.groups) > MOST
    panels: tuple[tuple[str, str, Callable[[Curves], Any]], ...] = (
        ("RMS of the weights", "log", lambda c: c.rms),
        ("Angle of an update, radians", "log", lambda c: c.angle),
        ("Weight of each batch at the end, 1: all alike", "log" if uneven else "linear", lambda c: c.weight),
        ("Step η", "log", lambda c: c.step),
        ("Share that one update shrinks, 1 − a", "log", lambda c: c.lost),
    )
    for axis, (title, scale, pick) in zip(axes.flat, panels, strict=False):
        drawn = [_line(axis, i, group, pick(group.curves), scale) for i, group in enumerate(found.groups)]
        axis.set_title(title, fontsize=10, loc="left")
        if any(drawn):
            axis.set_yscale(scale)
            _limits(axis, scale, [pick(group.curves) for group in found.groups])
        else:
            axis.set_yticks([])
            axis.text(0.5, 0.5, "none" if "shrinks" in title else _NOTHING, transform=axis.transAxes, ha="center")
        axis.grid(alpha=0.25, linewidth=0.6)
    axes[0, 2].axhline(1, color=_GREY, linewidth=0.8, linestyle=":")
    _bars(axes[1, 2], found.groups)
    for axis in axes.flat[:5]:
        axis.set_xlim(0, found.end)
        axis.xaxis.set_major_formatter(lambda value, _: _short(value))
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set_xlabel(found.base, fontsize=9)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    handles = [
        axes[0, 2].plot([], [], color=_colour(i), linestyle=_dash(i), linewidth=2)[0] for i in range(len(found.groups))
    ]
    figure.legend(
        handles,
        [f"{g.name} ({g.optimizer})" for g in found.groups],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png")


def _colour(i: int) -> str:
    return _COLOURS[i % len(_COLOURS)]


def _dash(i: int) -> Any:
    return _DASHES[(i // len(_COLOURS)) % len(_DASHES)]


def _line(axis: Any, i: int, group: Outlook, values: Any, scale: str) -> bool:
    """Draw a curve, as far as it has a place on the axis; False if nowhere."""
    if values is None:
        return False
    shown = np.where(values > 0, values, np.nan) if scale == "log" else values
    if not np.isfinite(shown).any():
        return False
    # Groups that agree lie on one another: later lines are thinner and let the earlier ones show.
    axis.plot(group.curves.count, shown, color=_colour(i), linestyle=_dash(i), linewidth=max(1.2, 2.8 - 0.4 * i))
    return True


def _limits(axis: Any, scale: str, curves: list[Any]) -> None:
    """At least a factor of 4, and down to 1/300 of every peak: a step that ends at 0 falls out of the picture."""
    low, high = axis.get_ylim()
    if scale == "linear":
        axis.set_ylim(0, max(high, 1.5))
    elif high / low < 4:
        middle = (low * high) ** 0.5
        axis.set_ylim(middle / 2, middle * 2)
    else:
        peaks = [float(np.max(x)) for x in curves if x is not None]
        axis.set_ylim(max(low, min(x for x in peaks if x > 0) / 300), high)


def _bars(axis: Any, groups: tuple[Outlook, ...]) -> None:
    """What is left of the initial weights, and of what the first quarter of the run taught."""
    at = np.arange(len(groups))[::-1]
    for i, (y, group) in enumerate(zip(at, groups, strict=True)):
        axis.barh(y + 0.2, group.left, 0.36, color=_colour(i))
        axis.barh(y - 0.2, group.early, 0.36, color=_colour(i), alpha=0.45)
    axis.axvline(0.25, color=_GREY, linewidth=0.8, linestyle=":")
    axis.set_xlim(0, 1.02)
    axis.set_yticks(at, [_cut(g.name) for g in groups])
    axis.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axis.set_title("Initial weights left; pale: first quarter's share", fontsize=10, loc="left")
    axis.set_xlabel("of the initial weights; of what was added (fair: 25 %)", fontsize=9)


def _cut(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _short(value: float) -> str:
    """1.5 M for 1,500,000."""
    for size, letter in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}".replace(" ", "\u2009")
    return f"{value:g}"
