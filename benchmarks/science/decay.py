"""Steps are swept while the half-life of the shrink stays, or λ does: how far does the best step move?

    python -m benchmarks.science.decay

AdamW trains a small GPT over a grid of steps η, at several strengths of the shrink. *Direct*: an update keeps a =
2^(−Δτ/h_a) of a weight, and h_a stays along the sweep. *Coupled*, as torch has it: a = 1 − λη, and λ stays, so that a
larger step shrinks more too. Both go through the same recipe at factor 1 of the step; a strength multiplies 1 − a
there. Grids are of factors of 2, and extended while the best is at an end; the best step of a seed, and of the mean, is
the vertex of a parabola through the best of the grid and its neighbours.

If the loss were a sum of a function of η and one of 1 − a, the best step with direct shrink would not move. With λ
fixed it would go down where λ goes up: as 1/λ if all depended on 1 − a, which alone sets how fast weights turn in
equilibrium (`dualopt.steady`), and not at all if nothing did. If the loss were a function of the radius of the weights,
which in equilibrium goes with η/√(1 − a²), the best step with direct shrink would go up with √(1 − a²). Sensitivity is
the curvature of the parabola: the loss, in nats per byte, of a step that is a factor of 2 off.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Recipe
from dualopt.counts import complement
from dualopt.workload.text import load_text

from . import claims, sweeps
from .claims import Claim
from .runs import Setting, Store, measured
from .sweeps import Measure, Sweep

STRENGTHS = 0.25, 1.0, 4.0, 16.0
FACTORS = 0.25, 0.5, 1.0, 2.0
DIRECT, COUPLED = "direct", "coupled"
TITLES = {DIRECT: "direct: h_a stays", COUPLED: "coupled: λ stays"}
Sweeps = Mapping[str, Mapping[float, Sweep]]  # kind -> strength -> sweep


def shrinking(base: Recipe, strength: float) -> Recipe:
    """`base` with 1 − a times `strength`."""
    groups = []
    for group in base.groups:
        life = sweeps.shrunk(float(group.options["shrink_half_life"]), strength, base)
        groups.append(dataclasses.replace(group, options={**group.options, "shrink_half_life": life}))
    return dataclasses.replace(base, groups=tuple(groups))


def of_radius(strength: float) -> float:
    """The step that keeps the radius, but for a factor: √(1 − a²)."""
    lost = strength * complement(sweeps.PER_UPDATE, sweeps.SHRINK["shrink_half_life"])
    return math.sqrt(lost * (2 - lost))


def found(base: Recipe, measure: Measure) -> dict[str, dict[float, dict[float, Any]]]:
    """Both sweeps at every strength."""
    makes: dict[str, Callable[[float], Recipe]] = {
        f"{kind} {strength:g}": partial(sweeps.scaled, shrinking(base, strength), coupled=kind == COUPLED)
        for kind in TITLES
        for strength in STRENGTHS
    }
    every = sweeps.swept(makes, FACTORS, measure)
    return {kind: {s: every[f"{kind} {s:g}"] for s in STRENGTHS} for kind in TITLES}


def moves(by_strength: Mapping[float, Sweep], seed: int | None = None) -> float:
    """How far the best step moves over all strengths, in octaves; of the mean over seeds, or of one seed."""
    best = [sweeps.optimum(of_seed(sweep, seed)) for sweep in by_strength.values()]
    return max(best) - min(best)


def of_seed(sweep: Sweep, seed: int | None) -> Sweep:
    return sweep if seed is None else {factor: losses[seed : seed + 1] for factor, losses in sweep.items()}


def sensitivity(sweep: Sweep) -> float:
    """The loss of a factor of 2, by the parabola through the best and its neighbours."""
    factors = sorted(sweep)
    i = min(max(factors.index(sweeps.best_of(sweep)), 1), len(factors) - 2)
    low, here, high = (float(np.mean(sweep[f])) for f in factors[i - 1 : i + 2])
    return (low + high) / 2 - here


def judged(every: Sweeps) -> list[Claim]:
    """What sources say about shrink and step, and what came out."""
    seeds = range(len(next(iter(every[DIRECT][1.0].values()))))
    far = {kind: moves(every[kind]) for kind in TITLES}
    each = {kind: [moves(every[kind], seed) for seed in seeds] for kind in TITLES}
    wide = {kind: float(np.mean([sensitivity(s) for s in every[kind].values()])) for kind in TITLES}
    least = {s: float(min(x.mean() for x in every[DIRECT][s].values())) for s in STRENGTHS}
    octaves = math.log2(max(STRENGTHS) / min(STRENGTHS))
    out, up = ([sweeps.optimum(every[kind][s]) for s in STRENGTHS] for kind in (DIRECT, COUPLED))
    radius = math.log2(of_radius(max(STRENGTHS)) / of_radius(min(STRENGTHS)))
    return [
        Claim(
            "arXiv 1711.05101; half-lives",
            "with direct shrink the best step depends less on the strength of the shrink than with λ",
            f"moves less over {octaves:g} octaves of strength, in every seed",
            "; ".join(f"{kind} {far[kind]:.1f} octaves ({_range(each[kind])})" for kind in TITLES),
            far[DIRECT] < far[COUPLED] and all(d < c for d, c in zip(each[DIRECT], each[COUPLED], strict=True)),
        ),
        Claim(
            "arXiv 2305.17212",
            "with λ fixed a stronger λ wants a smaller step, since λη sets the speed at which weights turn",
            f"the best step falls, by 0 … {octaves:g} octaves",
            f"{up[-1] - up[0]:+.1f} octaves from the weakest to the strongest",
            up[-1] < up[0],
        ),
        Claim(
            "steady states (`dualopt.steady`)",
            "with direct shrink a stronger one wants a larger step, which keeps the radius of the weights",
            f"the best step rises by {radius:.1f} octaves, within one, the spacing of the grid",
            f"{out[-1] - out[0]:+.1f} octaves from the weakest to the strongest",
            abs(out[-1] - out[0] - radius) <= 1,
        ),
        Claim(
            "steady states (`dualopt.steady`)",
            "with direct shrink a wrong step costs less, since it does not change the speed of equilibrium",
            "a factor of 2 costs less",
            "; ".join(f"{kind} {wide[kind]:.3f}" for kind in TITLES)
            + f"; best losses {_range(list(least.values()), 3)}",
            wide[DIRECT] < wide[COUPLED],
        ),
    ]


def _range(values: list[float], digits: int = 1) -> str:
    return f"{min(values):.{digits}f} … {max(values):.{digits}f}"


def table(every: Sweeps) -> str:
    """Best steps and losses at every strength."""
    rows = []
    for strength in STRENGTHS:
        cells = [f"{strength:g}"]
        for kind in TITLES:
            sweep = every[kind][strength]
            seeds = range(len(next(iter(sweep.values()))))
            each = [2 ** sweeps.optimum(of_seed(sweep, seed)) for seed in seeds]
            cells += [
                f"x{2 ** sweeps.optimum(sweep):.2g} ({_range(each, 2)})",
                f"{min(float(x.mean()) for x in sweep.values()):.3f}",
                f"{sensitivity(sweep):.3f}",
            ]
        rows.append(cells)
    head = [
        "strength",
        *(f"{kind}: {what}" for kind in TITLES for what in ("best step", "loss", "cost of a factor of 2")),
    ]
    return claims.markdown(head, rows)


def picture(every: Sweeps, path: Path) -> None:
    """Loss over the step, a panel for each way to shrink, a colour for each strength; marks at the best step."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True, sharex=True)
    colours = colormaps["viridis"](np.linspace(0.05, 0.85, len(STRENGTHS)))
    lows = [min(float(x.mean()) for x in sweep.values()) for kind in every.values() for sweep in kind.values()]
    for axis, (kind, title) in zip(axes, TITLES.items(), strict=True):
        for (strength, sweep), colour in zip(every[kind].items(), colours, strict=True):
            factors = sorted(sweep)
            seen = np.array([sweep[f] for f in factors])
            axis.plot(factors, seen.mean(axis=1), "o-", color=colour, markersize=4, label=f"{strength:g}")
            axis.fill_between(factors, seen.min(axis=1), seen.max(axis=1), color=colour, alpha=0.15, linewidth=0)
            axis.axvline(2 ** sweeps.optimum(sweep), color=colour, linestyle=":", linewidth=1.4)
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_title(title)
        axis.set_xlabel("step over that of the base recipe")
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylim(min(lows) - 0.05, min(lows) + 1.0)
    axes[0].set_ylabel("validation loss (nats per byte)")
    axes[1].legend(title="strength of the shrink\n(dotted: best step)", frameon=False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    setting = Setting(load_text(), sweeps.TOKENS)
    measure = partial(measured, setting=setting, store=Store(asked.out / "decay.jsonl"))
    base = sweeps.recipe("adamw", sweeps.TOKENS)
    every = found(base, measure)
    picture(every, asked.out / "decay.png")
    told = f"{setting.told} AdamW: {sweeps.told(base)}"
    text = f"{claims.opening(__doc__)}\n\n{told}\n\n![loss over the step](decay.png)"
    claims.finish("decay", text, table(every), judged(every), {"losses": sweeps.plain(every)}, asked.out)


if __name__ == "__main__":
    main()
