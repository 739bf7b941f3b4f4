"""Schedules by which every batch weighs the same in the final weights: do they, and what does it cost or gain?

    python -m benchmarks.science.equal_weight

Unrolled, θ_t = A(0, t) θ_0 − Σ_j w_j g_j for gradients as updates, w_j = η_j A(j, t) and A(j, t) the shrink after
update j. All w_j are one number exactly if a_j = η_j/η_{j−1}; Su (kexue.fm 11459) states such schedules for a = 1 − λη
and e^(−λη), with λ constant (16, 14) and λ in proportion to η (17); with a constant half-life η falls with it.

*Weights* are measured, not computed: parameter j gets the gradient 1 in update j and 0 in all others, so that after t
updates it is −w_j. They are reported as t w_j/Σw: 1 where all weigh the same. *Losses* are those of AdamW on a small
GPT at equal budget. Every schedule has its step tuned on a grid of factors of 2, which is extended while its best is at
an end, at three half-lives of the shrink, and the best counts. Seed noise is twice the standard error of a difference
of two means over the seeds, with the variance pooled over schedules.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Recipe
from dualopt.analysis.weights import of_gradients
from dualopt.counts import complement
from dualopt.replay import drive
from dualopt.schedules import Schedule
from dualopt.workload.text import load_text

from . import claims, sweeps
from .claims import Claim
from .gpt import Array
from .runs import Setting, Store, measured
from .sweeps import Measure, Sweep

SOURCE = "kexue.fm 11459"
EQUAL = {
    "equal-weight": "h_a stays",
    "equal-weight-14": "a = e^(−λη), λ stays (14)",
    "equal-weight-16": "a = 1 − λη, λ stays (16)",
    "equal-weight-17": "a = e^(−λη), λ ∝ η (17)",
}
OTHER = {"cosine": "cosine", "warmup-stable-decay": "constant, then linear to 0"}
SHAPES = {**EQUAL, **OTHER}
UPDATES, HALF_LIFE, BETA = 256, 64.0, 0.9  # of the weights
ROUNDING = 1e-12  # 256 updates of float64, of 2⁻⁵³ each, are 3e-14
LIVES = sweeps.TOKENS * 2, sweeps.TOKENS / 2, sweeps.TOKENS / 8
FACTORS = 0.5, 1.0, 2.0
Losses = Mapping[str, Mapping[float, Sweep]]  # shape -> half-life -> sweep


def schedule(shape: str, total: float) -> dict[str, Any]:
    """The shape over a run of `total`; others than the equal weights warm up for a sixteenth of it."""
    if shape in EQUAL:
        return {"shape": shape}
    decay = {"decay": total / 3} if shape == "warmup-stable-decay" else {}
    return {"shape": shape, "warmup": total / 16, "total": total, **decay}


def weights(shape: str, beta: float = 0.0) -> Array:
    """(UPDATES, UPDATES): the weight of gradient j after t updates in row t − 1, measured; 0 beyond."""
    life = 1.0 / -math.log2(beta) if beta else 1.0
    group = {"optimizer": "sgdm", "step": 1.0, "memory_half_life": life, "readout": float(beta > 0)}
    group["shrink_half_life"] = HALF_LIFE
    table = {"count": {"unit": "samples"}, "schedule": schedule(shape, UPDATES), "group": [group]}
    recipe = Recipe.from_dict(table)
    impulses = ({"w": row} for row in np.eye(UPDATES))
    return np.array(
        [-moment.params["w"] for moment in drive(recipe, {"w": np.zeros(UPDATES)}, impulses, dtype="float64")]
    )


def relative(weights: Array, t: int) -> Array:
    """t w_j/Σw of the first t gradients after t updates."""
    here = weights[t - 1, :t]
    return np.asarray(t * here / here.sum()) + 0.0  # no −0


def predicted(shape: str, t: int) -> Array:
    """The same, by `dualopt.analysis`."""
    found = Schedule(**schedule(shape, UPDATES))
    pairs = [found.at(tau, 1.0, HALF_LIFE, 1.0) for tau in range(1, t + 1)]
    lost = [complement(1.0, HALF_LIFE / shrink) for _, shrink in pairs]
    return np.asarray(t * of_gradients([q for q, _ in pairs], lost, 0.0, 1.0))


def uneven(weights: Array) -> float:
    """The largest deviation of a weight from 1, after a quarter, half and all of the updates."""
    return max(float(np.abs(relative(weights, t) - 1).max()) for t in (UPDATES // 4, UPDATES // 2, UPDATES))


def found(tokens: int, measure: Measure) -> dict[str, dict[float, dict[float, Array]]]:
    """The sweeps of every shape and half-life."""

    def start(shape: str, life: float) -> Recipe:
        group = {**sweeps.ADAMW[0], "shrink_half_life": life}
        return sweeps.recipe("adamw", tokens, schedule=schedule(shape, tokens), group=[group])

    makes: dict[str, Callable[[float], Recipe]] = {
        f"{shape} {life}": partial(sweeps.scaled, start(shape, life)) for shape in SHAPES for life in LIVES
    }
    every = sweeps.swept(makes, FACTORS, measure)
    return {shape: {life: every[f"{shape} {life}"] for life in LIVES} for shape in SHAPES}


def best(by_life: Mapping[float, Sweep]) -> tuple[float, Array]:
    """The half-life that did best, and its losses at the best step."""
    life = min(by_life, key=lambda life: float(sweeps.least(by_life[life]).mean()))
    return life, sweeps.least(by_life[life])


def judged(memoryless: Mapping[str, Array], remembering: Mapping[str, Array], losses: Losses) -> list[Claim]:
    """What the source says, and what came out."""
    off = {shape: uneven(memoryless[shape]) for shape in EQUAL}
    apart = {s: float(np.abs(relative(memoryless[s], UPDATES) - predicted(s, UPDATES)).max()) for s in OTHER}
    wide = {s: relative(memoryless[s], UPDATES) for s in OTHER}
    age = max(_age(remembering[shape]) for shape in EQUAL)
    tuned = {shape: best(losses[shape])[1] for shape in SHAPES}
    noise = sweeps.noise(list(tuned.values()))
    equal, other = (min(shapes, key=lambda s: float(tuned[s].mean())) for shapes in (EQUAL, OTHER))
    gap = float((tuned[equal] - tuned[other]).mean())
    return [
        Claim(
            SOURCE,
            "every batch weighs 1/t, whatever t: a_j = η_j/η_{j−1}",
            f"deviation below {ROUNDING:g} after a quarter, half and all of {UPDATES} updates, of all four",
            f"at most {max(off.values()):.1e}",
            max(off.values()) < ROUNDING,
        ),
        Claim(
            "`dualopt.analysis.weights`",
            "batches do not weigh the same under cosine and under a linear fall, and how much is known beforehand",
            f"measured as predicted within {ROUNDING:g}",
            "; ".join(f"{s}: {wide[s].min():.2f} … {wide[s].max():.2f}, off by {apart[s]:.1e}" for s in OTHER),
            max(apart.values()) < ROUNDING,
        ),
        Claim(
            SOURCE,
            f"a memory (β = {BETA:g}) changes the weights near the end only",
            f"by more than 1/e within 1/(1 − β) = {1 / (1 - BETA):.0f} updates of it",
            f"within {age}",
            age <= round(1 / (1 - BETA)),
        ),
        Claim(
            SOURCE,
            "at equal budget the best equal-weight schedule is at least as good as cosine and constant with a fall",
            f"no loss above the better of the two, within seed noise, {noise:.3f}",
            f"{equal} {tuned[equal].mean():.3f}, {other} {tuned[other].mean():.3f}: {gap:+.3f}",
            gap <= noise,
        ),
    ]


def _age(weights: Array) -> int:
    """How many updates before the end the oldest gradient was whose weight is off by more than 1/e."""
    off = np.abs(relative(weights, UPDATES) / np.median(relative(weights, UPDATES)) - 1) > 1 / math.e
    return UPDATES - int(np.argmax(off)) if off.any() else 0


def table(memoryless: Mapping[str, Array], losses: Losses) -> str:
    """Weights and losses of every schedule."""
    rows = []
    for shape, title in SHAPES.items():
        w = relative(memoryless[shape], UPDATES)
        life, tuned = best(losses[shape])
        sweep = losses[shape][life]
        q = _left(shape, life)
        weight = f"{w.min():.4f} … {w.max():.4f}"
        step = f"{float(sweeps.ADAMW[0]['step']) * sweeps.best_of(sweep):.3g}"
        others = ", ".join(f"{x:,.0f}: {sweeps.least(s).mean():.3f}" for x, s in losses[shape].items())
        spread = f"{tuned.mean():.3f} ({tuned.min():.3f} … {tuned.max():.3f})"
        rows.append((f"`{shape}`", title, weight, spread, step, f"{life:,.0f}", f"{q:.2f}", others))
    head = ("schedule", "", "t w_j/Σw", "loss", "step", "half-life", "η at the end over its peak", "half-life: loss")
    return claims.markdown(head, rows)


def _left(shape: str, life: float) -> float:
    found = Schedule(**schedule(shape, sweeps.TOKENS))
    return found.at(sweeps.TOKENS, sweeps.PER_UPDATE, life, sweeps.PER_UPDATE)[0]


def picture(memoryless: Mapping[str, Array], remembering: Mapping[str, Array], losses: Losses, path: Path) -> None:
    """Weights of batches, without and with a memory, and losses over the step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4.2), layout="constrained")
    axes = figure.subplots(1, 3)
    colours = dict(zip(SHAPES, ("#1b6ca8", "#3fa7d6", "#59a14f", "#9c6ade", "#d1495b", "#222222"), strict=True))
    styles = dict(zip(SHAPES, ("-", "--", "-.", ":", "-", "-"), strict=True))
    for axis, weights, title in zip(
        axes, (memoryless, remembering), ("gradients as updates", f"a memory, β = {BETA:g}"), strict=False
    ):
        for shape in SHAPES:
            axis.plot(np.arange(1, UPDATES + 1), relative(weights[shape], UPDATES), styles[shape], color=colours[shape])
        axis.set_title(f"weight of a batch: {title}", fontsize=10)
        axis.set_xlabel("update of the batch")
        axis.set_ylabel("t w_j / Σ w")
    shown: set[float] = set()
    for shape in SHAPES:
        life, _ = best(losses[shape])
        sweep = losses[shape][life]
        factors = sorted(sweep)
        means = [float(sweep[f].mean()) for f in factors]
        steps = [float(sweeps.ADAMW[0]["step"]) * f for f in factors]
        shown.update(steps)
        axes[2].plot(steps, means, styles[shape], marker="o", markersize=4, color=colours[shape], label=shape)
    axes[2].set_xscale("log", base=2)
    axes[2].set_xticks(sorted(shown), [f"{step:.3g}" for step in sorted(shown)])
    axes[2].set_title("AdamW on the small GPT", fontsize=10)
    axes[2].set_xlabel("peak step")
    axes[2].set_ylabel("validation loss (nats per byte)")
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(*axes[2].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    setting = Setting(load_text(), sweeps.TOKENS)
    losses = found(sweeps.TOKENS, partial(measured, setting=setting, store=Store(asked.out / "equal_weight.jsonl")))
    memoryless, remembering = ({shape: weights(shape, beta) for shape in SHAPES} for beta in (0.0, BETA))
    picture(memoryless, remembering, losses, asked.out / "equal_weight.png")
    shown = table(memoryless, losses)
    judgement = judged(memoryless, remembering, losses)
    lives = ", ".join(f"{x:,.0f}" for x in LIVES)
    told = (
        f"Weights are of {UPDATES} updates at a half-life of {HALF_LIFE:g}. {setting.told} Updates are of "
        f"{sweeps.PER_UPDATE:,} tokens, half-lives of the shrink {lives} tokens; the schedules other than those of "
        "equal weights warm up for a sixteenth of the run."
    )
    text = f"{claims.opening(__doc__)}\n\n{told}\n\n![weights of batches, and losses](equal_weight.png)"
    claims.finish("equal_weight", text, shown, judgement, {"losses": sweeps.plain(losses)}, asked.out)


if __name__ == "__main__":
    main()
