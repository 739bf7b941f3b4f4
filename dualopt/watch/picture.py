"""watch.png: a row of panels for every group; points as measured, on the curve that was predicted and its band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..durable import atomic
from .panels import LOG, Panel, panels, short
from .stream import Watched
from .verdict import last, state, title

BLUE, ORANGE, GREY = "#1f5fa8", "#d1571c", "#6b6b6b"


def watched_plot(path: str | Path, watched: Watched) -> None:
    """Write the PNG. Raises: ImportError without matplotlib, OSError."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    groups = watched.header["groups"]
    rows = [panels(watched, group) for group in groups]
    size = (16, 0.9 + 2.3 * len(groups))
    figure = Figure(figsize=size, dpi=120, layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08))
    parts = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for part, group, row in zip(parts, groups, rows, strict=True):
        part.suptitle(title(group, last(watched, group)), x=0.008, ha="left", fontsize=11, fontweight="bold")
        for axis, panel in zip(part.subplots(1, len(row)), row, strict=True):
            _draw(axis, panel, watched)
    handles = [
        Line2D([], [], color=BLUE, marker="o", markersize=3.5, linewidth=1, label="measured"),
        Line2D([], [], color=ORANGE, marker="o", markersize=4.5, linewidth=0, label="measured, outside of the band"),
        Line2D([], [], color=GREY, linewidth=1.4, label="predicted, of gradients without a mean"),
        Patch(color=GREY, alpha=0.22, linewidth=0, label="band of the prediction"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9, title=state(watched))
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png")


def _draw(axis: Any, panel: Panel, watched: Watched) -> None:
    axis.set_title(panel.title, fontsize=9, loc="left")
    axis.set_xlim(0, _end(watched))
    if panel.scale == LOG:
        axis.set_yscale("log")
        axis.set_ylim(10**panel.low, 10**panel.high)
        axis.minorticks_off()
    else:
        axis.set_ylim(panel.low, panel.high)
    axis.set_yticks(panel.ticks, [short(y) for y in panel.ticks], fontsize=8)
    ends = [0.0, _end(watched) / 2, _end(watched)]
    axis.set_xticks(ends, [short(x) for x in ends], fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.2, linewidth=0.6)
    if panel.empty:
        axis.text(0.5, 0.5, "not measured", transform=axis.transAxes, ha="center", color=GREY, fontsize=9)
        return
    if panel.band:
        counts, low, high = zip(*panel.band, strict=True)
        axis.fill_between(counts, low, high, color=GREY, alpha=0.22, linewidth=0)
        axis.plot(*zip(*panel.curve, strict=True), color=GREY, linewidth=1.4)
    axis.plot(*zip(*panel.measured, strict=True), color=BLUE, marker="o", markersize=2.4, linewidth=0.8)
    if panel.outside:
        axis.plot(*zip(*panel.outside, strict=True), color=ORANGE, marker="o", markersize=3.4, linewidth=0)


def _end(watched: Watched) -> float:
    """The end of the axis of counts."""
    return float(max([watched.header["end"], 1, *(r["count"] for r in watched.records[-1:])]))
