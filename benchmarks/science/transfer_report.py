"""What the runs of `transfer` say: distances to the retuned step, what is recommended, claims, tables, a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Recipe
from dualopt.catalog import FAMILIES
from dualopt.convert.transfer import ALL, LARGER, MEMORIES, RADIUS, RAW, RULES, SECOND, SMALLER, SQRT

from . import claims, sweeps
from .claims import Claim
from .gpt import Array
from .sweeps import TITLES, Sweep

PAGE = "docs/science/transfer.md"
Way = tuple[str, str]  # memories, rule


@dataclass(frozen=True)
class Cell:
    """One target batch: losses by seed of every rule, and of every step by memories."""

    rules: Mapping[Way, Array]
    sweeps: Mapping[str, Sweep]

    @property
    def tuned(self) -> tuple[str, float]:
        """The memories and the factor of the step that did best of all."""
        steps = {kept: sweeps.best_of(sweep) for kept, sweep in self.sweeps.items()}
        kept = min(steps, key=lambda kept: float(self.sweeps[kept][steps[kept]].mean()))
        return kept, steps[kept]

    @property
    def retuned(self) -> Array:
        kept, factor = self.tuned
        return self.sweeps[kept][factor]

    def gap(self, way: Way) -> Array:
        """Loss above the retuned one, by seed: the seeds see the same tokens."""
        return self.rules[way] - self.retuned

    def above(self, way: Way) -> float:
        """The mean loss above that of the best rule."""
        return float(self.rules[way].mean() - min(float(x.mean()) for x in self.rules.values()))

    def least(self, memories: str) -> float:
        """The mean loss with these memories and the best step."""
        return min(float(x.mean()) for x in self.sweeps[memories].values())


@dataclass(frozen=True)
class Found:
    """One optimizer: its tuned recipe, the sweep that tuned it, and the cell of every ratio."""

    optimizer: str
    base: Recipe
    sweep: Sweep
    cells: Mapping[float, Cell]

    @property
    def noise(self) -> float:
        """Twice the standard error of a difference of two means over the seeds."""
        return sweeps.noise([cell.retuned for cell in self.cells.values()])

    def of(self, direction: str) -> dict[float, Cell]:
        return {r: cell for r, cell in self.cells.items() if (r > 1) == (direction == LARGER)}

    def best(self, direction: str) -> tuple[Way, float]:
        """The choice whose largest distance to the best one of a cell is smallest, and that distance."""
        cells = self.of(direction).values()
        worst = {way: max(cell.above(way) for cell in cells) for way in next(iter(cells)).rules}
        way = min(worst, key=worst.__getitem__)
        return way, worst[way]

    def near(self, direction: str) -> list[Way]:
        """The choices within seed noise of the best one in every cell."""
        cells = list(self.of(direction).values())
        return [way for way in cells[0].rules if all(cell.above(way) <= self.noise for cell in cells)]


def recommended(every: Sequence[Found]) -> list[dict[str, Any]]:
    """What `dualopt convert --batch` recommends: a choice within seed noise of the best in all cells."""
    entries = []
    for found in every:
        family = next(name for name, rows in FAMILIES.items() if any(row.name == found.optimizer for row in rows))
        for direction in (SMALLER, LARGER):
            (memories, rule), apart = found.best(direction)
            if apart <= found.noise:
                entries.append(
                    {
                        "family": family,
                        "direction": direction,
                        "memories": memories,
                        "rule": rule,
                        "measured": f"with {found.optimizer} at {ratios(found.of(direction))} the batch, {PAGE}",
                    }
                )
    return entries


def ratios(cells: Mapping[float, Cell]) -> str:
    return " and ".join(f"{r:g}x" for r in sorted(cells))


def judged(every: Sequence[Found]) -> list[Claim]:
    """What sources say about batch sizes, and what came out."""
    found = []
    for one in every:
        title, noise = TITLES[one.optimizer], f"within seed noise, {one.noise:.3f}"
        apart = {r: cell.least(ALL) - cell.least(RAW) for r, cell in one.cells.items()}
        found.append(
            Claim(
                "half-lives in counts",
                f"{title}: every half-life in tokens is at least as good as raw betas, each with its best step",
                f"no loss above raw's, {noise}",
                _listed(apart),
                max(apart.values()) <= one.noise,
            )
        )
        if one.optimizer == "adamw":
            found += _of_adam(one)
        keeps = {
            r: float(cell.rules[ALL, RADIUS].mean()) - min(float(cell.rules[ALL, rule].mean()) for rule in RULES)
            for r, cell in one.cells.items()
        }
        found.append(
            Claim(
                "steady states (`dualopt.steady`)",
                f"{title}: with every half-life in tokens, the step that keeps the radius is the best of the rules",
                f"no loss above the best rule's, {noise}",
                _listed(keeps),
                max(keeps.values()) <= one.noise,
            )
        )
        for direction in (SMALLER, LARGER):
            way, worst = one.best(direction)
            found.append(
                Claim(
                    "ours",
                    f"{title}: one choice does for all {direction} batches",
                    f"no loss above the best rule's, {noise}",
                    f"{' + '.join(way)}: {worst:+.3f} at most",
                    worst <= one.noise,
                )
            )
    return found


def _of_adam(one: Found) -> list[Claim]:
    noise = f"within seed noise, {one.noise:.3f}"
    fewer = {r: cell.least(SECOND) - cell.least(RAW) for r, cell in one.of(SMALLER).items()}
    root = {r: float(cell.gap((ALL, SQRT)).mean()) for r, cell in one.cells.items()}
    return [
        Claim(
            "arXiv 2507.07101",
            "AdamW: at a smaller batch the second memory keeps its half-life in tokens, and the first its β₁",
            f"no loss above raw's, each with its best step, {noise}",
            _listed(fewer),
            max(fewer.values()) <= one.noise,
        ),
        Claim(
            "arXiv 2205.10287",
            "Adam: memories keep their half-lives, and the step goes with the root of the batch",
            f"no loss above the retuned step's, {noise}",
            _listed(root),
            max(root.values()) <= one.noise,
        ),
    ]


def _listed(by_ratio: Mapping[float, float]) -> str:
    return ", ".join(f"{r:g}x: {x:+.3f}" for r, x in sorted(by_ratio.items()))


def tables(every: Sequence[Found]) -> str:
    """Distances of all rules, tuned steps, and what is recommended."""
    parts = []
    for one in every:
        order = sorted(one.cells)
        rows = [
            (*way, *(_shown(one, one.cells[r], way) for r in order))
            for way in ((k, s) for k in MEMORIES for s in RULES)
        ]
        head = ("memories", "step", *(f"{r:g}x the batch" for r in order))
        tuned = ", ".join(f"{one.cells[r].retuned.mean():.3f} at {r:g}x (`{one.cells[r].tuned[0]}`)" for r in order)
        parts.append(
            f"## {TITLES[one.optimizer]}\n\nLoss above the retuned step's, mean and range over seeds; bold: within "
            f"seed noise, {one.noise:.3f}, of the best rule of its column. Retuned: {tuned}; at the base batch "
            f"{one.sweep[sweeps.best_of(one.sweep)].mean():.3f}.\n\n{claims.markdown(head, rows)}\n\n"
            f"How much the best step grew, by memories (the vertex of a parabola through the best of the grid and its "
            f"neighbours, at either batch), beside what `radius` says:\n\n{_steps(one)}"
        )
    return "\n\n".join([*parts, f"## What is recommended\n\n{_advice(every)}"])


def _shown(one: Found, cell: Cell, way: Way) -> str:
    gap = cell.gap(way)
    if not np.isfinite(gap).all():
        return "diverged"
    told = f"{gap.mean():+.3f} ({gap.min():+.3f} … {gap.max():+.3f})"
    return f"**{told}**" if cell.above(way) <= one.noise else told


def _steps(one: Found) -> str:
    from .transfer import moved

    order, rows = sorted(one.cells), []
    before = sweeps.optimum(one.sweep) - math.log2(sweeps.best_of(one.sweep))
    for kept in MEMORIES:
        best = [f"x{2 ** (sweeps.optimum(one.cells[r].sweeps[kept]) - before):.2g}" for r in order]
        radius = [_factors(one.base, moved(one.base, r, kept, RADIUS)) for r in order]
        rows.append((kept, *(f"{b} ({said})" for b, said in zip(best, radius, strict=True))))
    return claims.markdown(("memories", *(f"{r:g}x the batch" for r in order)), rows)


def _factors(before: Recipe, after: Recipe) -> str:
    factors = [
        float(b.options["step"]) / float(a.options["step"]) for a, b in zip(before.groups, after.groups, strict=True)
    ]
    low, high = (f"x{x:.2g}" for x in (min(factors), max(factors)))
    return low if low == high else f"{low} … {high}"


def _advice(every: Sequence[Found]) -> str:
    rows = []
    for one in every:
        for direction in (SMALLER, LARGER):
            way, worst = one.best(direction)
            told = f"at most {worst:.3f} above the best" if worst > 0 else "the best"
            if worst <= one.noise:
                others = [" + ".join(other) for other in one.near(direction) if other != way]
                told += f"; {', '.join(others) or 'no other choice'} would do as well"
                rows.append((TITLES[one.optimizer], direction, *way, told))
            else:
                own = "; ".join(f"{r:g}x: {_leaders(one, cell)}" for r, cell in sorted(one.of(direction).items()))
                rows.append((TITLES[one.optimizer], direction, "–", "–", f"none does in all cells. Best are, at {own}"))
    return claims.markdown(("optimizer", "batches", "memories", "step", "why"), rows)


def _leaders(one: Found, cell: Cell) -> str:
    return ", ".join(" + ".join(way) for way in cell.rules if cell.above(way) <= one.noise)


def picture(every: Sequence[Found], path: Path) -> None:
    """The gap to the retuned step over the ratio: a panel per optimizer, colours for memories, strokes for steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, len(every), sharey=True, squeeze=False)[0]
    colours = dict(zip(MEMORIES, ("#1b6ca8", "#d1495b", "#7a7a7a"), strict=True))
    strokes = dict(zip(RULES, (("-", "o"), ("--", "^"), ("-.", "s"), (":", "D")), strict=True))
    for axis, one in zip(axes, every, strict=True):
        order = sorted([*one.cells, 1.0])
        for (kept, rule), colour in (((k, s), colours[k]) for k in MEMORIES for s in RULES):
            gaps = [0.0 if r == 1 else float(one.cells[r].gap((kept, rule)).mean()) for r in order]
            line, marker = strokes[rule]
            axis.plot(order, gaps, line, marker=marker, markersize=5, color=colour, linewidth=1.4, alpha=0.9)
        axis.axhspan(0, one.noise, color="black", alpha=0.08, linewidth=0)
        axis.set_xscale("log", base=2)
        axis.set_xticks(order, [f"{r:g}x" for r in order])
        axis.set_yscale("symlog", linthresh=0.05)
        axis.set_yticks([0, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2], ["0", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"])
        axis.set_ylim(bottom=-0.02)
        axis.set_title(TITLES[one.optimizer])
        axis.set_xlabel("batch size over the one that was tuned")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("loss above the retuned step's (nats per byte)")
    for kept, colour in colours.items():
        axes[-1].plot([], [], color=colour, linewidth=3, label=f"memories: {kept}")
    for rule, (line, marker) in strokes.items():
        axes[-1].plot([], [], line, marker=marker, color="black", label=f"step: {rule}")
    axes[-1].fill_between([], [], color="black", alpha=0.08, label="seed noise")
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path, dpi=110)
