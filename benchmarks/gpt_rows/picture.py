"""Validation losses of all reported runs in one picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dualopt.workload.run import Run


def curves(path: Path, runs: Sequence[tuple[str, str, Run]]) -> None:
    """One panel per framework; AdamW is the thick black line, the others are in the order of their last loss.

    Args:
        path: of the PNG.
        runs: (row, framework, run), best first.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    frameworks = list(dict.fromkeys(framework for _, framework, _ in runs))
    figure = Figure(figsize=(9, 4.6 * len(frameworks)), dpi=150, layout="constrained")
    axes = figure.subplots(len(frameworks), 1, squeeze=False)[:, 0]
    colours = colormaps["tab20"].colors  # type: ignore[attr-defined]
    order = {row: i for i, row in enumerate(dict.fromkeys(row for row, _, _ in runs))}
    for axis, framework in zip(axes, frameworks, strict=True):
        for row, here, run in runs:
            if here != framework:
                continue
            points = [
                (r["count"], r["validation_loss"]) for r in run.rows() if "validation_loss" in r and r["count"] > 0
            ]
            style = (
                {"color": "black", "linewidth": 2.5, "zorder": 3}
                if row == "adamw"
                else {"color": colours[order[row] % 20], "linewidth": 1.4}
            )
            axis.plot(*zip(*points, strict=True), label=f"{row}  {points[-1][1]:.3f}", **style)
        axis.set_title(f"{framework}: validation loss (nats per byte), last value beside the name", fontsize=10)
        axis.set_xlabel("training count (tokens)")
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.savefig(path, format="png")
