"""Does the rule change the exponent by which loss falls with size? Random features, five rules, six spectra.

    python -m benchmarks.science.exponents

A linear target of inputs with variances k^(−1−s) is learnt from N random features by population gradients, in closed
form (`dualopt.analysis.exponents`): gradient descent, heavy-ball momentum, a diagonal preconditioner (Adam's kind), the
square root of the curvature (the matrix sign's kind) and natural gradient. The exponent α of L ~ N^(−α) is the slope
over five sizes after a fixed number of updates. The prediction has the first N coordinates themselves in the place of
the features, with no freedom left; for the diagonal rule there is none, as such a curvature is diagonal.

The source compares five variants on six spectra too, but how they are defined is not public: its order is tried here,
and its numbers stand beside ours without being expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

from dualopt.analysis.exponents import (
    DIAGONAL,
    GD,
    MOMENTUM,
    NATURAL,
    RULES,
    SIGN,
    exponent,
    of_coordinates,
    risk,
    spectrum,
)

from . import claims
from .claims import Claim
from .gpt import Array

SOURCE = "arXiv 2605.29387"
SPECTRA = 0.5, 0.75, 1.0, 1.25, 1.5, 2.0
SIZES, D, UPDATES, DRAWS = (16, 32, 64, 128, 256), 1024, 200, 12
TITLES = {
    GD: "gradient descent",
    MOMENTUM: "momentum",
    DIAGONAL: "diagonal",
    SIGN: "matrix sign",
    NATURAL: "natural gradient",
}
PUBLISHED, RATIO, PEAK = {NATURAL: 0.31, GD: 0.12}, 2.6, 1.5  # at s ≈ 1; where the gap is widest
CLOSE = 0.15  # of predicted exponents: what replacing random features by coordinates may cost
Exponents = Mapping[float, Mapping[str, Array]]  # s -> rule -> of every draw


def measured() -> dict[float, dict[str, Array]]:
    """α of every spectrum, rule and draw; draws share their features over all else."""
    drawn = [np.random.default_rng(seed).standard_normal((SIZES[-1], D)) for seed in range(DRAWS)]
    found = {}
    for s in SPECTRA:
        lam = spectrum(s, D)
        found[s] = {
            rule: np.array([exponent(SIZES, [risk(rule, f[:n], lam, UPDATES) for n in SIZES]) for f in drawn])
            for rule in RULES
        }
    return found


def predicted(s: float, rule: str) -> float | None:
    """α where features are coordinates."""
    if rule == DIAGONAL:
        return None
    return exponent(SIZES, [of_coordinates(rule, n, spectrum(s, D), UPDATES) for n in SIZES])


def judged(every: Exponents) -> list[Claim]:
    """What the source says, and what came out."""
    order = NATURAL, SIGN, DIAGONAL, GD
    pairs = list(pairwise(order))
    gaps = {s: float(np.min([of[a] - of[b] for a, b in pairs])) for s, of in every.items()}
    one = every[1.0]
    ratio = one[NATURAL] / one[GD]
    shift = {s: float(np.mean(of[NATURAL] - of[GD])) for s, of in every.items()}
    widest = max(shift, key=lambda s: shift[s])
    momentum = [of[MOMENTUM] - of[GD] for of in every.values()]
    off = {
        rule: max(
            (float(np.mean(of[rule])) - alpha for s, of in every.items() if (alpha := predicted(s, rule)) is not None),
            key=abs,
        )
        for rule in RULES
        if rule != DIAGONAL
    }
    natural = off.pop(NATURAL)
    told = "; ".join(f"{TITLES[rule]} {one[rule].mean():.2f} (there {at:.2f})" for rule, at in PUBLISHED.items())
    return [
        Claim(
            SOURCE,
            "the exponent depends on the optimizer: natural gradient > matrix sign > diagonal > gradient descent",
            "in this order, for every spectrum and draw",
            f"smallest gap of neighbours {min(gaps.values()):+.1e}, at s = {min(gaps, key=lambda s: gaps[s]):g}",
            bool(min(gaps.values()) > 0),
        ),
        Claim(
            SOURCE,
            f"at s ≈ 1 natural gradient's exponent is {RATIO:g} times that of gradient descent",
            f"{RATIO:g} within the range of draws",
            f"{ratio.mean():.2f} ({ratio.min():.2f} … {ratio.max():.2f}); {told}",
            bool(ratio.min() <= RATIO <= ratio.max()),
        ),
        Claim(
            SOURCE,
            f"the gap between natural gradient and gradient descent is widest near s = {PEAK:g}, and still wide at 2",
            f"widest at {PEAK:g}",
            "; ".join(f"{s:g}: {x:.2f}" for s, x in shift.items()),
            widest == PEAK,
        ),
        Claim(
            "`dualopt.analysis.exponents`",
            "momentum is a polynomial of the same curvature: it learns more than gradient descent, as a larger T does",
            "a larger exponent, for every spectrum and draw",
            f"larger by {np.min(momentum):+.3f} … {np.max(momentum):+.3f}",
            bool(np.min(momentum) > 0),
        ),
        Claim(
            "`dualopt.analysis.exponents`",
            "what all features can express falls like that of the first N coordinates: natural gradient's exponent",
            f"within {CLOSE:g} of a cut spectrum, mean over draws",
            f"at most {natural:+.2f}",
            abs(natural) <= CLOSE,
        ),
        Claim(
            "`dualopt.analysis.exponents`",
            "what a number of updates reaches of it falls like that of coordinates too: the exponents of other rules",
            f"within {CLOSE:g} of a cut spectrum, mean over draws",
            "at most " + ", ".join(f"{TITLES[rule]} {x:+.2f}" for rule, x in off.items()),
            max(map(abs, off.values())) <= CLOSE,
        ),
    ]


def table(every: Exponents) -> str:
    """Exponents, mean and range over draws, and predictions."""
    rows = []
    for s, of in every.items():
        cells = [f"{s:g}"]
        for rule in RULES:
            alpha = predicted(s, rule)
            expected = "" if alpha is None else f"; {alpha:.2f}"
            cells.append(f"{of[rule].mean():.2f} ({of[rule].min():.2f} … {of[rule].max():.2f}{expected})")
        rows.append(cells)
    return claims.markdown(["s", *(TITLES[rule] for rule in RULES)], rows)


def picture(every: Exponents, path: Path) -> None:
    """Losses over size at s = 1, and exponents over s."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = dict(zip(RULES, ("#d1495b", "#e08e45", "#59a14f", "#1b6ca8", "#222222"), strict=True))
    f, lam = np.random.default_rng(0).standard_normal((SIZES[-1], D)), spectrum(1.0, D)
    for rule, colour in colours.items():
        losses = [risk(rule, f[:n], lam, UPDATES) for n in SIZES]
        left.plot(SIZES, losses, "o-", color=colour, markersize=4, label=TITLES[rule])
        means = [float(every[s][rule].mean()) for s in SPECTRA]
        right.plot(SPECTRA, means, "o-", color=colour, markersize=4)
        low, high = ([float(end(every[s][rule])) for s in SPECTRA] for end in (np.min, np.max))
        right.fill_between(SPECTRA, low, high, color=colour, alpha=0.15, linewidth=0)
        expected = [alpha for s in SPECTRA if (alpha := predicted(s, rule)) is not None]
        if expected:
            right.plot(SPECTRA, expected, ":", color=colour, linewidth=1.4)
    right.plot([], [], ":", color="black", label="predicted: the first N coordinates")
    left.set_xscale("log", base=2)
    left.set_yscale("log")
    left.set_xticks(SIZES, [str(n) for n in SIZES])
    left.set_xlabel("features N")
    left.set_ylabel(f"loss after {UPDATES} updates")
    left.set_title("s = 1, one draw", fontsize=10)
    right.set_xticks(SPECTRA, [f"{s:g}" for s in SPECTRA])
    right.set_xlabel("s of the spectrum k^(−1−s)")
    right.set_ylabel("exponent α")
    right.set_title(f"exponents; bands are the range of {DRAWS} draws", fontsize=10)
    for axis in (left, right):
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = left.get_legend_handles_labels()
    more, words = right.get_legend_handles_labels()
    figure.legend(handles + more, labels + words, loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    every = measured()
    asked.out.mkdir(parents=True, exist_ok=True)
    picture(every, asked.out / "exponents.png")
    told = (
        f"Exponents are over N = {', '.join(map(str, SIZES))} of {D:,} coordinates after {UPDATES} updates, mean and "
        f"range of {DRAWS} draws of the features; behind a semicolon what is predicted."
    )
    text = f"{claims.opening(__doc__)}\n\n{told}\n\n![losses over size, and exponents](exponents.png)"
    data = {f"{s:g}": {rule: alphas.round(12).tolist() for rule, alphas in of.items()} for s, of in every.items()}
    claims.finish("exponents", text, table(every), judged(every), {"exponents": data}, asked.out)


if __name__ == "__main__":
    main()
