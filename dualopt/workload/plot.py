"""loss.png: the losses of one or several runs against the training count."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dualopt.durable import atomic
from dualopt.errors import DataError
from dualopt.workload.run import Run, compare_text

_COLOURS = ("#1f5fa8", "#d1571c", "#2f8f4e", "#7a4fa3", "#8a6d1f", "#4a4a4a")
_GREY = "#555555"

Array = np.ndarray[Any, Any]


def loss_plot(path: str | Path, runs: Sequence[Run]) -> None:
    """Write a PNG with the training and validation losses and the unigram entropy to compare them with.

    For two runs a second panel shows how far apart they are at equal counts. Raises: DataError for no
    run, different texts or units, CheckpointError for damaged metrics, ImportError without matplotlib.
    """
    from matplotlib.figure import Figure

    if not runs:
        raise DataError("no run to plot: name at least one run directory")
    compare_text({str(run.path): run.manifest for run in runs})
    units = sorted({str(run.manifest["settings"].get("unit")) for run in runs})
    if len(units) > 1:
        raise DataError(f"the runs count in different units ({', '.join(units)}); plot each by itself")
    panels = 2 if len(runs) == 2 else 1
    figure = Figure(figsize=(8, 4.8 if panels == 1 else 7.2), dpi=150, layout="constrained")
    ratios = [5, 3][:panels]
    axes = figure.subplots(panels, 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    _losses(axes[0], runs)
    if panels == 2:
        _difference(axes[1], *runs)
    axes[-1].set_xlabel(f"training count ({units[0]})")
    axes[-1].xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    with atomic(Path(path)) as file:
        figure.savefig(file, format="png")


def _losses(axis: Any, runs: Sequence[Run]) -> None:
    alike = len({run.label for run in runs}) < len(runs)
    for i, run in enumerate(runs):
        label = f"{run.path.name}: {run.label}" if alike else run.label
        colour = _COLOURS[i % len(_COLOURS)]
        # Runs that agree lie on one another: dashes and small markers let the earlier ones show through.
        style: Any = "-" if i == 0 else (0, (3, 3))
        axis.plot(*_series(run, "loss"), linestyle=style, color=colour, alpha=0.5, linewidth=1)
        axis.plot(
            *_series(run, "validation_loss"),
            linestyle=style,
            color=colour,
            linewidth=2,
            marker="os^D"[i % 4],
            markersize=8 if i == 0 else 4.5,
            label=f"{label}, validation",
        )
        axis.plot([], [], linestyle=style, color=colour, alpha=0.5, linewidth=1, label=f"{label}, training")
    entropy = runs[0].manifest["text"].get("unigram_entropy")
    if isinstance(entropy, float):
        label = f"unigram entropy, {entropy:.2f}"
        axis.axhline(entropy, color=_GREY, linestyle=":", linewidth=1.5, label=label)
    axis.set_ylabel("loss (nats per byte)")
    axis.set_title(f"Losses on {runs[0].manifest['text'].get('name')}", fontsize=11)
    axis.legend(frameon=False, fontsize=9)


def _difference(axis: Any, one: Run, other: Run) -> None:
    drawn = False
    for key, colour, label, marker in (
        ("loss", _GREY, "training", ""),
        ("validation_loss", "black", "validation", "o"),
    ):
        counts, a, b = _common(_series(one, key), _series(other, key))
        distance = np.abs(a - b)
        shown = distance > 0  # equal losses have no place on a logarithmic axis
        drawn |= bool(shown.any())
        axis.plot(counts[shown], distance[shown], color=colour, linewidth=1.2, marker=marker, label=label)
    if drawn:
        axis.set_yscale("log")
        axis.legend(frameon=False, fontsize=9)
    else:
        axis.set_yticks([])
        axis.text(0.5, 0.5, "equal at every count", transform=axis.transAxes, ha="center", va="center")
    axis.set_ylabel("|difference| (nats)")


def _series(run: Run, key: str) -> tuple[Array, Array]:
    """Counts and losses, each (n,); a loss that is NaN leaves a gap."""
    rows = [row for row in run.rows() if key in row]
    return np.array([row.get("count", 0) for row in rows]), np.array([row[key] for row in rows], np.float64)


def _common(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array, Array]:
    counts, i, j = np.intersect1d(one[0], other[0], return_indices=True)
    return counts, one[1][i], other[1][j]
