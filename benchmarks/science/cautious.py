"""Cautious shrink keeps the minimum that standard shrink moves: on quadratics, in a valley, and on a small GPT.

    python -m benchmarks.science.cautious

Cautious shrink (arXiv 2510.12402) multiplies by a only the weights that the update does not move away from 0: uθ <= 0.

*A quadratic*, f = Σ h (x − x*)²/2 with h = (1, 4) and x* = (1, −2): gradient descent with η = 0.1 settles with
standard shrink where hη(x* − x) = (1 − a) x, at hηx*/(hη + 1 − a), and should settle at x* with cautious shrink. *A
valley*, f = (x₁ + x₂ − 1)²/2 from (2, −1): all of x₁ + x₂ = 1 is a minimum, and nothing can be made smaller without
making something else larger between (1, 0) and (0, 1), the Pareto front. Cautious shrink should slide along the
valley to that front, and stay in the valley. *A small GPT*: AdamW with standard, cautious and no shrink; every
combination of step, on a grid of factors of 2 that is extended while the best is at an end, and of half-life.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Recipe
from dualopt.counts import half_life
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.workload.text import load_text

from . import claims, sweeps
from .claims import Claim
from .gpt import Array
from .runs import Setting, Store, measured
from .sweeps import Measure, Sweep

SOURCE = "arXiv 2510.12402"
NONE, STANDARD, CAUTIOUS = "none", "standard", "cautious"
FORMS = {NONE: {}, STANDARD: {}, CAUTIOUS: {"shrink": "cautious"}}
ETA = 0.1
CURVATURE, TARGET, KEPT = np.array([1.0, 4.0]), np.array([1.0, -2.0]), 0.99  # of the quadratic
START, SLIDING = np.array([2.0, -1.0]), 0.995  # of the valley
SETTLED, SHOWN = 20_000, (100, 1_000, 3_000, 20_000)  # updates
CLOSE = 1e-9  # to where an iteration settles whose slowest mode decays by 0.91 or less an update
IN_VALLEY = 1e-3  # the distance that counts as in it; standard shrink ends 2e-2 away
ROUNDED = ": where a gradient rounds to 0 the mask, which has <=, lets both weights shrink"
LIVES = sweeps.TOKENS * 2, sweeps.TOKENS / 2, sweeps.TOKENS / 8
FACTORS = 0.5, 1.0, 2.0
Losses = Mapping[str, Mapping[float, Sweep]]  # form -> half-life -> sweep


def descent(gradient: Callable[[Array], Array], start: Array, form: str, kept: float, updates: int) -> Array:
    """(updates + 1, 2): gradient descent with the shrink of `form`, in float64."""
    options: dict[str, Any] = {"step": ETA, "memory_half_life": 1.0, "readout": 0.0, **FORMS[form]}
    if form != NONE:
        options["shrink_half_life"] = half_life(kept, 1)
    recipe = Recipe.from_dict({"group": [{"optimizer": "sgdm", **options}]})
    plan, execute = Plan(recipe, {"x": start.shape}, float64=True), executor(np)
    (planned,) = plan.groups
    x, state = start.copy(), planned.start(np, "x", start)
    path = [x]
    for _ in range(updates):
        proposal = plan.propose(1, ["x"])
        moved = execute(planned, {"x": x}, {"x": state}, {"x": {"gradient": gradient(x)}}, proposal.scalars)
        x, state = moved["x"]
        plan.commit(proposal)
        path.append(x)
    return np.array(path)


def bowl(x: Array) -> Array:
    return np.asarray(CURVATURE * (x - TARGET))


def valley(x: Array) -> Array:
    return np.full(2, x.sum() - 1)


def biased() -> Array:
    """Where standard shrink settles in the bowl."""
    return np.asarray(CURVATURE * ETA * TARGET / (CURVATURE * ETA + 1 - KEPT))


def found(tokens: int, measure: Measure) -> dict[str, dict[float, dict[float, Array]]]:
    """The sweeps of every form and half-life; without shrink there is one.

    Those of cautious shrink have the best point of standard shrink in them.
    """

    def start(form: str, life: float) -> Recipe:
        group = {**sweeps.ADAMW[0], **FORMS[form], "shrink_half_life": life}
        return sweeps.recipe("adamw", tokens, group=[group])

    lives = {form: (math.inf,) if form == NONE else LIVES for form in FORMS}
    makes: dict[str, Callable[[float], Recipe]] = {
        f"{form} {life}": partial(sweeps.scaled, start(form, life)) for form in FORMS for life in lives[form]
    }
    every = sweeps.swept(makes, FACTORS, measure)
    losses = {form: {life: every[f"{form} {life}"] for life in lives[form]} for form in FORMS}
    life, factor = best(losses[STANDARD])
    losses[CAUTIOUS][life].setdefault(factor, measure([makes[f"{CAUTIOUS} {life}"](factor)])[0])
    return losses


def best(by_life: Mapping[float, Sweep]) -> tuple[float, float]:
    """(half-life, factor of the step) that did best."""
    life = min(by_life, key=lambda life: float(sweeps.least(by_life[life]).mean()))
    return life, sweeps.best_of(by_life[life])


def judged(bowls: Mapping[str, Array], valleys: Mapping[str, Array], losses: Losses) -> list[Claim]:
    """What the source says, and what came out."""
    off = {form: float(np.abs(bowls[form][-1] - TARGET).max()) for form in (STANDARD, CAUTIOUS)}
    settled = float(np.abs(bowls[STANDARD][-1] - biased()).max())
    end = valleys[CAUTIOUS][SHOWN[2]]
    away = {form: abs(float(valleys[form][SHOWN[2]].sum()) - 1) for form in (STANDARD, CAUTIOUS)}
    drift = float(np.abs(valleys[CAUTIOUS][-1] - end).max())
    life, factor = best(losses[STANDARD])
    same = losses[CAUTIOUS][life][factor]
    standard, none = losses[STANDARD][life][factor], losses[NONE][math.inf][best(losses[NONE])[1]]
    tuned = losses[CAUTIOUS][best(losses[CAUTIOUS])[0]][best(losses[CAUTIOUS])[1]]
    apart = sweeps.least(losses[CAUTIOUS][min(LIVES)]) - sweeps.least(losses[STANDARD][min(LIVES)])
    noise = sweeps.noise([standard, none, tuned])
    return [
        Claim(
            SOURCE,
            "standard shrink is biased: hηx*/(hη + 1 − a)",
            f"({biased()[0]:.6f}, {biased()[1]:.6f})",
            f"({bowls[STANDARD][-1][0]:.6f}, {bowls[STANDARD][-1][1]:.6f}), off by {settled:.0e}",
            settled < CLOSE < off[STANDARD],
        ),
        Claim(
            SOURCE,
            "cautious shrink is unbiased: it settles at the minimum",
            f"({TARGET[0]:g}, {TARGET[1]:g})",
            f"off by {off[CAUTIOUS]:.0e}",
            off[CAUTIOUS] < CLOSE,
        ),
        Claim(
            SOURCE,
            "in a valley of minima it slides to the Pareto front and stays in the valley, which standard shrink leaves",
            f"within {IN_VALLEY:g} of the valley and on the front after {SHOWN[2]:,} updates",
            f"({end[0]:.4f}, {end[1]:.4f}), {away[CAUTIOUS]:.0e} from the valley; standard {away[STANDARD]:.1e}",
            bool(away[CAUTIOUS] < IN_VALLEY < away[STANDARD] and (end >= -IN_VALLEY).all()),
        ),
        Claim(
            SOURCE,
            "on the front it stays where it is",
            f"moves by less than {IN_VALLEY:g} from update {SHOWN[2]:,} to {SETTLED:,}",
            f"{drift:.3f}{ROUNDED if drift >= IN_VALLEY else ''}",
            drift < IN_VALLEY,
        ),
        Claim(
            SOURCE,
            "small GPT, with the knobs that are best for standard shrink: cautious shrink has the lower loss",
            f"below standard in the mean by more than seed noise, {noise:.3f}",
            f"{float((same - standard).mean()):+.3f} ({_seeds(same - standard)})",
            float((standard - same).mean()) > noise,
        ),
        Claim(
            SOURCE,
            "small GPT, each with its best step and half-life: cautious shrink has the lowest loss",
            f"below standard and none in the mean by more than seed noise, {noise:.3f}",
            f"− standard {float((tuned - standard).mean()):+.3f} ({_seeds(tuned - standard)}), "
            f"− none {float((tuned - none).mean()):+.3f} ({_seeds(tuned - none)})",
            float(min((standard - tuned).mean(), (none - tuned).mean())) > noise,
        ),
        Claim(
            "ours: the mask lets a part of the weights shrink",
            f"small GPT: too strong a shrink, a half-life of {min(LIVES):,.0f} tokens, costs less if it is cautious",
            f"below standard, each with its best step, by more than seed noise, {noise:.3f}",
            f"{float(apart.mean()):+.3f} ({_seeds(apart)})",
            float(apart.mean()) < -noise,
        ),
    ]


def _seeds(gaps: Array) -> str:
    return f"{gaps.min():+.3f} … {gaps.max():+.3f}"


def table(bowls: Mapping[str, Array], valleys: Mapping[str, Array], losses: Losses) -> str:
    """Points over the updates, and losses."""
    point = lambda x: f"({x[0]:.4f}, {x[1]:.4f})"  # noqa: E731
    head = ("shrink", "bowl", *(f"valley: update {t:,}" for t in SHOWN))
    points = [(form, point(bowls[form][-1]), *(point(valleys[form][t]) for t in SHOWN)) for form in FORMS]
    rows = []
    for form, by_life in losses.items():
        for life, sweep in by_life.items():
            losing = sweeps.least(sweep)
            step = f"{float(sweeps.ADAMW[0]['step']) * sweeps.best_of(sweep):.3g}"
            told = "–" if life == math.inf else f"{life:,.0f}"
            rows.append((form, told, step, f"{losing.mean():.3f} ({losing.min():.3f} … {losing.max():.3f})"))
    runs = claims.markdown(("shrink", "half-life, tokens", "best step", "loss"), rows)
    return f"{claims.markdown(head, points)}\n\n{runs}"


def picture(valleys: Mapping[str, Array], losses: Losses, path: Path) -> None:
    """Paths in the valley, and losses over the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {NONE: "#7a7a7a", STANDARD: "#d1495b", CAUTIOUS: "#1b6ca8"}
    line = np.array([-0.1, 2.1])
    left.plot(line, 1 - line, color="black", alpha=0.3, linewidth=1, label="minima")
    left.plot([0, 1], [1, 0], color="black", alpha=0.25, linewidth=6, solid_capstyle="butt", label="Pareto front")
    for form in (STANDARD, CAUTIOUS):
        until = valleys[form][: SHOWN[2] + 1]
        left.plot(until[:, 0], until[:, 1], color=colours[form], linewidth=1.6)
        left.plot(*until[-1], "o", color=colours[form], label=f"{form}, after {SHOWN[2]:,} updates")
    left.plot(*START, "x", color="black", label="start; without shrink also the end")
    left.set_xlabel("x₁")
    left.set_ylabel("x₂")
    left.legend(frameon=False, fontsize=8)
    left.set_title("f = (x₁ + x₂ − 1)²/2", fontsize=10)
    shown: set[float] = set()
    for form, by_life in losses.items():
        for (life, sweep), style in zip(by_life.items(), ("-", "--", ":"), strict=False):
            factors = sorted(sweep)
            steps = [float(sweeps.ADAMW[0]["step"]) * f for f in factors]
            label = form if life == math.inf else f"{form}, half-life {life:,.0f}"
            means = [float(sweep[f].mean()) for f in factors]
            shown.update(steps)
            right.plot(steps, means, style, marker="o", markersize=4, color=colours[form], label=label)
    right.set_xscale("log", base=2)
    right.set_xticks(sorted(shown), [f"{step:.3g}" for step in sorted(shown)])
    right.set_xlabel("peak step")
    right.set_ylabel("validation loss (nats per byte)")
    right.set_title("AdamW on the small GPT", fontsize=10)
    right.legend(frameon=False, fontsize=8)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    setting = Setting(load_text(), sweeps.TOKENS)
    losses = found(sweeps.TOKENS, partial(measured, setting=setting, store=Store(asked.out / "cautious.jsonl")))
    bowls = {form: descent(bowl, np.zeros(2), form, KEPT, SHOWN[2]) for form in FORMS}
    valleys = {form: descent(valley, START, form, SLIDING, SETTLED) for form in FORMS}
    picture(valleys, losses, asked.out / "cautious.png")
    shown, judgement = table(bowls, valleys, losses), judged(bowls, valleys, losses)
    told = (
        f"Gradient descent has a = {KEPT:g} in the bowl, from 0, and {SLIDING:g} in the valley. {setting.told} Updates "
        f"are of {sweeps.PER_UPDATE:,} tokens. Seed noise is twice the standard error of a difference of two means "
        "over the seeds."
    )
    text = f"{claims.opening(__doc__)}\n\n{told}\n\n![paths in the valley, and losses](cautious.png)"
    claims.finish("cautious", text, shown, judgement, {"losses": sweeps.plain(losses)}, asked.out)


if __name__ == "__main__":
    main()
