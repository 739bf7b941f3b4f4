"""Neurons in front of a batch norm on noise: do they settle where, and turn as fast as, the analysis says?

    python -m benchmarks.science.random_walk [--updates N] [--seed N]

The system of appendix J and figure 8 of Kosson et al. (arXiv 2305.17212),

    f(X) = γ_out ⊙ BN(W (γ_in ⊙ X))         B = 32 samples, 128 inputs, 128 neurons

with X ~ N(0, 1) and ∂L/∂f ~ N(0, 1/(128 B)²) drawn anew in every update, so that gradients are noise, whose size is
set by the γ of a neuron. Trained are the rows of W, in float64, by AdamW (λ = 0.1) and by Adam with a penalty (λ =
1e-3), with γ = 1 and with γ ~ N(0, 1). Norms and angles are means over the last third of the run. What is predicted
takes nothing from the runs of AdamW; of those with a penalty it takes every neuron's E‖g‖²‖ω‖², as measured.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Group, Recipe
from dualopt.analysis import equilibria
from dualopt.convert import Knobs, source, to_action
from dualopt.executor import executor
from dualopt.plan import Plan

from . import claims
from .claims import Claim

Array = np.ndarray[Any, np.dtype[np.float64]]

SOURCE = "arXiv 2305.17212, figure 8"
SAMPLES, INPUTS, NEURONS = 32, 128, 128
UPDATES, LR, BETAS = 30_000, 1e-3, (0.9, 0.999)
DECAY = {"adamw": 0.1, "adam": 1e-3}
TITLES = {"adamw": "AdamW", "adam": "Adam + penalty"}
EPS = 1e-5  # of the batch norm
KEPT = 100  # updates between two points of a curve
WITHIN, WIDE, LIKE = 0.01, 0.2, 0.99  # claims: at the prediction, a spread, the order of neurons


@dataclass(frozen=True)
class Walked:
    """One run: curves (points, neurons), and means over its last third by neuron."""

    optimizer: str
    gains: str
    norms: Array
    angles: Array
    norm: Array
    angle: Array
    slope: Array  # E‖g‖²‖ω‖²

    @property
    def label(self) -> str:
        return f"{TITLES[self.optimizer]}, γ {'= 1' if self.gains == 'one' else '~ N(0, 1)'}"

    def predicted(self) -> tuple[Array, Array]:
        """(norm, angle) of every neuron."""
        decay = DECAY[self.optimizer]
        if self.optimizer == "adamw":
            found = [equilibria.adamw(LR, decay, BETAS[0], INPUTS)] * NEURONS
        else:
            found = [equilibria.adam_l2(LR, decay, BETAS[0], INPUTS, s) for s in self.slope]
        return np.array([x.norm for x in found]), np.array([x.angle for x in found])


def gradients(rng: np.random.Generator, gains: str) -> Iterator[Any]:
    """Functions W -> ∂L/∂W, one per update."""
    drawn = (rng.standard_normal(INPUTS), rng.standard_normal(NEURONS))
    inner, outer = drawn if gains == "normal" else (np.ones(INPUTS), np.ones(NEURONS))
    while True:
        x = rng.standard_normal((SAMPLES, INPUTS)) * inner
        dy = rng.standard_normal((SAMPLES, NEURONS)) / (NEURONS * SAMPLES) * outer

        def gradient(w: Array, x: Array = x, dy: Array = dy) -> Array:
            y = x @ w.T
            centred = y - y.mean(axis=0)
            sigma = np.sqrt((centred**2).mean(axis=0) + EPS)
            normed = centred / sigma
            back = (dy - dy.mean(axis=0) - normed * (dy * normed).mean(axis=0)) / sigma
            return np.asarray(back.T @ x)

        yield gradient


def walked(optimizer: str, gains: str, updates: int, seed: int) -> Walked:
    """Carry one run out."""
    rng = np.random.default_rng(seed)
    knobs = Knobs(source(f"torch-{optimizer}"), lr=LR, betas=BETAS, weight_decay=DECAY[optimizer])
    group: Group = to_action(knobs, 1)
    plan, execute = Plan(Recipe((group,)), {"w": (NEURONS, INPUTS)}, float64=True), executor(np)
    (planned,) = plan.groups
    w = rng.uniform(-1, 1, (NEURONS, INPUTS)) / np.sqrt(INPUTS)
    state = planned.start(np, "w", w)
    norms, angles, sums, count = [], [], np.zeros((3, NEURONS)), 0
    for t, gradient in zip(range(1, updates + 1), gradients(rng, gains), strict=False):
        before, length, g = w, np.linalg.norm(w, axis=1), gradient(w)
        proposal = plan.propose(1, ["w"])
        w, state = execute(planned, {"w": w}, {"w": state}, {"w": {"gradient": g}}, proposal.scalars)["w"]
        plan.commit(proposal)
        after = np.linalg.norm(w, axis=1)
        half = np.linalg.norm(w / after[:, None] - before / length[:, None], axis=1) / 2
        angle = 2 * np.arcsin(half)
        if t > updates - updates // 3:
            sums += np.stack([after, angle**2, (g**2).sum(axis=1) * length**2])
            count += 1
        if t % KEPT == 0 or t == 1:
            norms.append(after)
            angles.append(angle)
        if t % 1000 == 0 and sys.stderr.isatty():
            print(f"\r\x1b[K{TITLES[optimizer]}, {gains}: {t}/{updates}", end="", file=sys.stderr, flush=True)
    norm, square, slope = sums / count
    return Walked(optimizer, gains, np.array(norms), np.array(angles), norm, np.sqrt(square), slope)


def spread(x: Array) -> float:
    """Standard deviation over mean."""
    return float(x.std() / x.mean())


def judged(runs: dict[tuple[str, str], Walked]) -> list[Claim]:
    """What the source says, and what came out."""
    same, wide = runs["adamw", "one"], runs["adam", "normal"]
    norm, angle = (float(x[0]) for x in same.predicted())
    off = abs(same.norm.mean() / norm - 1), abs(same.angle.mean() / angle - 1)
    order = np.corrcoef(wide.norm, wide.predicted()[0])[0, 1], np.corrcoef(wide.angle, wide.predicted()[1])[0, 1]
    ratio = spread(wide.norm) / spread(runs["adamw", "normal"].norm)
    return [
        Claim(
            SOURCE,
            "AdamW: neurons have one norm",
            f"{norm:.4f}, the mean within {WITHIN:.0%}, spread below {WITHIN:.0%}",
            f"{same.norm.mean():.4f}, spread {spread(same.norm):.2%}",
            bool(off[0] < WITHIN and spread(same.norm) < WITHIN),
        ),
        Claim(
            SOURCE,
            "AdamW: neurons turn at one speed",
            f"{angle:.3e} per update, the mean within {WITHIN:.0%}, spread below {WITHIN:.0%}",
            f"{same.angle.mean():.3e}, spread {spread(same.angle):.2%}",
            bool(off[1] < WITHIN and spread(same.angle) < WITHIN),
        ),
        Claim(
            SOURCE,
            "Adam with a penalty: norms depend on the gradient of the neuron",
            f"spread above {WIDE:.0%}",
            f"spread {spread(wide.norm):.0%}, {ratio:.0f} times that of AdamW",
            spread(wide.norm) > WIDE,
        ),
        Claim(
            SOURCE,
            "they are those of the cubic",
            f"correlation over neurons above {LIKE}",
            f"{order[0]:.4f} of norms, {order[1]:.4f} of angles",
            bool(order[0] > LIKE),
        ),
    ]


def overview(runs: dict[tuple[str, str], Walked]) -> str:
    """Measured and predicted, of all runs."""
    rows = []
    for run in runs.values():
        predicted = run.predicted()
        cells = [run.label]
        for x, p in zip((run.norm, run.angle), predicted, strict=True):
            cells += [f"{x.mean():.4g}", f"{x.min():.4g} … {x.max():.4g}", f"{spread(x):.2%}", f"{p.mean():.4g}"]
            cells.append(f"{np.median(np.abs(x / p - 1)):.2%}")
        rows.append(cells)
    quantity = ["mean", "range", "spread", "predicted", "off"]
    head = ["run", *(f"{what}: {q}" for what in ("norm", "angle") for q in quantity)]
    return claims.markdown(head, rows)


def picture(runs: dict[tuple[str, str], Walked], path: Path) -> None:
    """Norms and angles over the run: four neurons of small to large gradients, the mean of all, the prediction."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    shown = [runs["adamw", "normal"], runs["adam", "normal"]]
    slopes = runs["adam", "normal"].slope  # the same gains in both
    neurons = [int(np.argsort(slopes)[int(q * (NEURONS - 1))]) for q in (0.05, 0.35, 0.65, 0.95)]
    colours = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(neurons)))
    figure, axes = plt.subplots(2, 2, figsize=(9, 6), sharex=True, sharey="row", layout="constrained")
    for column, run in enumerate(shown):
        for row, (curve, predicted) in enumerate(zip((run.norms, run.angles), run.predicted(), strict=True)):
            ax = axes[row][column]
            at = np.concatenate([[1], KEPT * np.arange(1, len(curve))])
            for n, colour in zip(neurons, colours, strict=True):
                ax.plot(at, curve[:, n], color=colour, linewidth=1)
                ax.axhline(predicted[n], color=colour, linestyle=":", linewidth=1)
            ax.plot(at, curve.mean(axis=1), color="black", label="mean of all neurons")
            ax.axhline(predicted.mean(), color="crimson", linestyle="--", label="predicted mean")
            ax.set_yscale("log")
            ax.grid(alpha=0.3)
        axes[0][column].set_title(run.label)
        axes[1][column].set_xlabel("update")
    axes[0][0].set_ylabel("norm of a neuron")
    axes[1][0].set_ylabel("angle per update")
    axes[0][0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--updates", type=int, default=UPDATES)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    runs = {(o, g): walked(o, g, asked.updates, asked.seed) for o in DECAY for g in ("one", "normal")}
    asked.out.mkdir(parents=True, exist_ok=True)
    picture(runs, asked.out / "random_walk.png")
    text = f"{claims.opening(__doc__)}\n\n![norms and angles over the run](random_walk.png)"
    data = {
        run.label: {
            "norm": float(run.norm.mean()),
            "angle": float(run.angle.mean()),
            "spread of norms": spread(run.norm),
        }
        for run in runs.values()
    }
    claims.finish("random_walk", text, overview(runs), judged(runs), {"runs": data}, asked.out)


if __name__ == "__main__":
    main()
