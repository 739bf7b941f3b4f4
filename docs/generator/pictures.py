"""Pictures of the coordinates, drawn by functions of the library; each in light and in dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import complement, half_life, retention, steady
from dualopt.analysis import of_updates, settled, walk
from dualopt.analysis.weights import read_back
from dualopt.schedules import Schedule

SHADES = {"light": "#24292f", "dark": "#d0d4d9"}  # of lines and letters; the ground is that of the page
COLOURS = {"light": ("#1f5fa8", "#c2500f", "#2f8f4e"), "dark": ("#6cb0ff", "#ff9d5c", "#6fd08c")}

SMALL, LARGE = 16_384, 131_072  # tokens in an update
BETA, MOMENTUM = 0.9, 0.95
LIFE = half_life(BETA, SMALL)
LR, DECAY = 1e-3, 0.4


def draw(name: str, shade: str, path: Path) -> None:
    """The picture `name` as an SVG file; the same bytes whenever the same is drawn."""
    import matplotlib
    from matplotlib.figure import Figure

    ink = SHADES[shade]
    style: Any = {
        "svg.hashsalt": "dualopt", "text.color": ink, "axes.labelcolor": ink, "axes.edgecolor": ink,
        "xtick.color": ink, "ytick.color": ink, "axes.titlesize": 11, "axes.labelsize": 10, "xtick.labelsize": 9,
        "ytick.labelsize": 9, "legend.fontsize": 9, "legend.frameon": False, "axes.spines.top": False,
        "axes.spines.right": False, "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True,
        "grid.alpha": 0.2,
        "grid.color": ink, "axes.facecolor": "none",
    }  # fmt: skip
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8.6, 3.3), layout="constrained")
        PICTURES[name](figure, COLOURS[shade])
        figure.savefig(path, format="svg", transparent=True, metadata={"Date": None})


def memory(figure: Any, colours: tuple[str, ...]) -> None:
    """What a token of the past weighs in a memory, at two batch sizes: with h fixed, and with β fixed."""
    left, right = figure.subplots(1, 2, sharey=True)
    for axis, title, lives in (
        (left, f"half-life {LIFE:,.0f} tokens", (LIFE, LIFE)),
        (right, f"β = {BETA} whatever the batch", (LIFE, half_life(BETA, LARGE))),
    ):
        for dtau, life, colour, width in zip((SMALL, LARGE), lives, colours, (2.6, 1.6), strict=False):
            updates = np.arange(int(1.2e6 // dtau) + 1)
            weights = complement(dtau, life) * retention(dtau, life) ** updates / dtau
            edges = np.append(updates, updates[-1] + 1) * dtau / 1e6
            axis.stairs(weights * 1e6, edges, color=colour, linewidth=width, label=f"batch of {dtau:,}", baseline=None)
        axis.set(title=title, xlabel="tokens ago, millions", xlim=(0, 1.0), ylim=(0, None))
        axis.legend()
    left.set_ylabel("weight per million tokens")


def shrink(figure: Any, colours: tuple[str, ...]) -> None:
    """A schedule of the step, what an update shrinks in either way, and what every update weighs at the end."""
    updates, schedule = np.arange(1, 20_001), Schedule("warmup-stable-decay", warmup=1_000, total=20_000, decay=8_000)
    life = half_life(1 - LR * DECAY, 1)
    q = np.array([schedule.q(float(t)) for t in updates])
    panels = figure.subplots(1, 3)
    panels[0].plot(updates, q * LR, color=colours[2])
    ways = (("half-life fixed", np.ones_like(q)), ("λ · lr", q))
    for i, ((label, share), colour) in enumerate(zip(ways, colours, strict=False)):
        lost = -np.expm1(share * np.log(retention(1, life)))
        left = of_updates(q * LR, lost)
        style = {"color": colour, "label": label, "linestyle": ("-", "--")[i]}
        panels[1].plot(updates, lost, **style)
        panels[2].plot(updates, left / left.mean(), **style)
    titles = ("step η", "share shrunk, 1 − a", "weight of an update at the end")
    for axis, title in zip(panels, titles, strict=True):
        axis.set(title=title, xlabel="updates, thousands", ylim=(0, None), xticks=(0, 10_000, 20_000))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value / 1e3:g}")
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    panels[1].set_ylim(0, 1.7 * LR * DECAY)
    panels[1].legend(loc="upper left")
    panels[2].axhline(1, color=colours[2], linewidth=0.8, linestyle=":")


def readout(figure: Any, colours: tuple[str, ...]) -> None:
    """What the last gradients weigh in what is read, for three readouts of one memory."""
    axis, past = figure.subplots(), np.arange(25)
    last = np.zeros(past.size)
    last[-1] = 1.0
    c = complement(1, half_life(MOMENTUM, 1))
    for i, (mu, label) in enumerate(((1.0, "μ = 1: the memory"), (MOMENTUM, "μ = β: Nesterov"), (0.8, "μ = 0.8"))):
        heights = read_back(last, mu, c)[::-1]
        axis.bar(past + 0.27 * (i - 1), heights, 0.25, color=colours[i], label=label)
    axis.set(
        title=f"memory with β = {MOMENTUM}",
        xlabel="updates ago",
        ylabel="weight of that gradient",
        xlim=(-0.6, 20),
        xticks=range(0, 21, 5),
    )
    axis.grid(axis="x", visible=False)
    axis.legend()


def settling(figure: Any, colours: tuple[str, ...]) -> None:
    """The RMS of weights on noise: the step sets where it settles, the half-life of the shrink also how fast."""
    axis, updates = figure.subplots(), np.arange(1, 6_001)
    c = complement(1, half_life(BETA, 1))
    ways = (("step η, half-life h", 1, 1), ("2 η, h", 2, 1), ("η, h/4", 1, 0.25))
    for (label, factor, shorter), colour in zip(ways, colours, strict=True):
        lost, eta = complement(1, shorter * 1_400), factor * LR
        moved = walk(np.full(updates.size, eta), lost, 1.0, c, start=0.015**2, square=1.0, sized="fixed")
        ends = settled(eta, 1.0, steady.linear(lost, 1.0, c), lost).norm
        axis.plot(updates, np.sqrt(moved.square), color=colour, label=label)
        axis.axhline(ends, color=colour, linewidth=0.9, linestyle=":")
    axis.set(title="RMS of weights on noise", xlabel="updates", ylim=(0, 0.36), xlim=(0, updates[-1]))
    axis.legend(loc="upper left", ncols=3)


PICTURES: dict[str, Callable[[Any, tuple[str, ...]], None]] = {
    "memory": memory,
    "readout": readout,
    "settling": settling,
    "shrink": shrink,
}
