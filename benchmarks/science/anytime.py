"""One run that is good whenever it is stopped: schedule-free NorMuon against AdamW tuned for every horizon.

    python -m benchmarks.science.anytime

AdamW with a cosine must know how long it trains: at 1, 2 and 4 times a horizon it is three runs, each with the step
that is best there. Schedule-free rows (arXiv 2405.15682, 2605.23061) have no schedule after their warm-up, train a fast
point and are evaluated at its running mean: one run of the longest horizon is evaluated at all three. Their step is
tuned at the *shortest* horizon and kept; what the best step of each horizon would have gained is told beside.
SF-NorMuon has the matrices of blocks, and SF-AdamW the embedding and the head; SF-AdamW for everything tells averaging
from geometry.

Steps are tuned, and nothing else. Grids are of factors of 2, extended while the best is at an end. Seed noise is twice
the standard error of a difference of two means over the seeds, with the variance pooled over what is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import Recipe
from dualopt.workload.text import load_text

from . import claims, sweeps
from .claims import Claim
from .gpt import Array
from .runs import Setting, Store, measured
from .sweeps import Sweep

SOURCE = "arXiv 2605.23061"
UPDATES = 96  # of the shortest horizon
HORIZONS = 1, 2, 4
ADAMW, SF_ADAMW, SF_NORMUON = "adamw", "sf_adamw", "sf_normuon"
TITLES = {ADAMW: "AdamW, cosine", SF_ADAMW: "SF-AdamW", SF_NORMUON: "SF-NorMuon"}
FREE = SF_NORMUON, SF_ADAMW
LIFE = 4 * UPDATES * sweeps.PER_UPDATE  # of the shrink: the longest horizon
WARMUP = UPDATES * sweeps.PER_UPDATE / 8
POINTS = tuple(UPDATES * sweeps.PER_UPDATE * quarters // 4 for quarters in (1, 2, 3, 4, 6, 8, 12))  # beside the end
FACTORS, AROUND = (0.5, 1.0, 2.0), (0.5, 1.0, 2.0)
Sweeps = Mapping[str, Sweep]  # AdamW of every horizon, and the free rows at the shortest: factor -> (seeds,)
Courses = Mapping[
    str, Array
]  # AdamW of the longest horizon; free rows, for AROUND times their factor: (..., seeds, AT)


def tokens(horizon: int) -> int:
    return horizon * UPDATES * sweeps.PER_UPDATE


AT = (*POINTS, tokens(HORIZONS[-1]))


def cosine(horizon: int) -> str:
    return f"{ADAMW} {horizon}"


def recipe(row: str, horizon: int = 1) -> Recipe:
    """The middle of the first grid; only AdamW's depends on the horizon."""
    shrink = {"shrink_half_life": LIFE}
    adamw = {"optimizer": "adamw", "step": 0.016, **sweeps.MEMORY, **sweeps.SQUARES, **shrink}
    free = {"optimizer": "sf_adamw", "step": 0.032, **sweeps.SQUARES, **shrink, "shrink_at": "z"}
    blocks = {"optimizer": "sf_normuon", "name": "blocks", "match": ["blocks.*"], "step": 0.04, **shrink}
    groups = {ADAMW: [adamw], SF_ADAMW: [free], SF_NORMUON: [blocks, {**free, "name": "ends"}]}[row]
    schedule: dict[str, Any] = {"warmup": WARMUP}
    if row == ADAMW:
        schedule |= {"shape": "cosine", "total": tokens(horizon)}
    return Recipe.from_dict(
        {"count": {"unit": "tokens", "per_update": sweeps.PER_UPDATE}, "schedule": schedule, "group": groups}
    )


def found(measure: Callable[[Sequence[Recipe], int, tuple[int, ...]], Array]) -> tuple[Sweeps, Courses]:
    """Everything that is trained; `measure` takes recipes, tokens, and the tokens after which is evaluated too."""
    swept: dict[str, Sweep] = {}
    for horizon in HORIZONS:
        names = [cosine(horizon)] if horizon > 1 else [cosine(1), *FREE]
        for name in names:
            make = partial(sweeps.scaled, recipe(name.split()[0], horizon))
            swept |= sweeps.swept({name: make}, FACTORS, lambda given, h=horizon: measure(given, tokens(h), ()))  # type: ignore[misc]
    last = HORIZONS[-1]
    best = {name: sweeps.best_of(sweep) for name, sweep in swept.items()}
    courses = {cosine(last): measure([sweeps.scaled(recipe(ADAMW, last), best[cosine(last)])], AT[-1], POINTS)[0]}
    for row in FREE:
        courses[row] = measure([sweeps.scaled(recipe(row), best[row] * x) for x in AROUND], AT[-1], POINTS)
    return swept, courses


def at(course: Array, horizon: int) -> Array:
    """Losses by seed of a course, at a horizon."""
    return np.asarray(course[..., AT.index(tokens(horizon))])


def kept(courses: Courses, row: str) -> Array:
    """The course of a free row with the step of the shortest horizon, (seeds, AT)."""
    return np.asarray(courses[row][AROUND.index(1.0)])


def judged(swept: Sweeps, courses: Courses) -> list[Claim]:
    """What the sources say, and what came out."""
    tuned = {h: sweeps.least(swept[cosine(h)]) for h in HORIZONS}
    free = {row: {h: at(kept(courses, row), h) for h in HORIZONS} for row in FREE}
    noise = sweeps.noise([*tuned.values(), *(x for of in free.values() for x in of.values())])
    gaps = {row: {h: float((of[h] - tuned[h]).mean()) for h in HORIZONS} for row, of in free.items()}
    means = {h: at(courses[SF_NORMUON], h).mean(axis=-1) for h in HORIZONS}
    gained = {h: float(x[AROUND.index(1.0)] - x.min()) for h, x in means.items()}
    early = {h: float((at(courses[cosine(HORIZONS[-1])], h) - tuned[h]).mean()) for h in HORIZONS[:-1]}

    def told(values: Mapping[int, float]) -> str:
        return ", ".join(f"{h}x {x:+.3f}" for h, x in values.items())

    return [
        Claim(
            SOURCE,
            "one run of SF-NorMuon is at least as good as AdamW with a cosine and a step for every horizon",
            f"no loss above it at any horizon, within seed noise, {noise:.3f}",
            told(gaps[SF_NORMUON]),
            max(gaps[SF_NORMUON].values()) <= noise,
        ),
        Claim(
            SOURCE,
            "one setting is good for all horizons: the step of the shortest stays the best",
            f"the best of {', '.join(f'x{x:g}' for x in AROUND)} gains less than seed noise",
            ", ".join(f"{h}x {x:.3f}" for h, x in gained.items()),
            max(gained.values()) <= noise,
        ),
        Claim(
            "arXiv 2405.15682",
            "averaging alone suffices: SF-AdamW is at least as good as AdamW with a cosine for every horizon",
            "no loss above it at any horizon, within seed noise",
            told(gaps[SF_ADAMW]),
            max(gaps[SF_ADAMW].values()) <= noise,
        ),
        Claim(
            SOURCE,
            "a cosine is not anytime: that of the longest horizon, stopped early, is worse than one that ends there",
            "worse by more than seed noise",
            told(early),
            min(early.values()) > noise,
        ),
    ]


def table(swept: Sweeps, courses: Courses) -> str:
    """Losses at every horizon, and steps."""

    def cell(losses: Array) -> str:
        return f"{losses.mean():.3f} ({losses.min():.3f} … {losses.max():.3f})"

    tuned = [sweeps.least(swept[cosine(h)]) for h in HORIZONS]
    middle = float(recipe(ADAMW).groups[0].options["step"])
    steps = [f"{middle * sweeps.best_of(swept[cosine(h)]):.3g}" for h in HORIZONS]
    rows = [["AdamW, a cosine and a step for each", ", ".join(steps), *map(cell, tuned)]]
    last = cosine(HORIZONS[-1])
    rows.append([f"AdamW, the cosine of {HORIZONS[-1]}x", steps[-1], *(cell(at(courses[last], h)) for h in HORIZONS)])
    for row in FREE:
        step = float(recipe(row).groups[0].options["step"]) * sweeps.best_of(swept[row])
        for x, course in zip(AROUND, courses[row], strict=True):
            title = f"{TITLES[row]}, one run" + ("" if x == 1 else f", step x{x:g}")
            rows.append([title, f"{step * x:.3g}", *(cell(at(course, h)) for h in HORIZONS)])
    return claims.markdown(["", "step", *(f"loss at {h}x" for h in HORIZONS)], rows)


def picture(swept: Sweeps, courses: Courses, path: Path) -> None:
    """Losses over tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axis = figure.subplots()
    drawn = [
        (kept(courses, SF_NORMUON), "#1b6ca8", "SF-NorMuon, one run"),
        (kept(courses, SF_ADAMW), "#59a14f", "SF-AdamW, one run"),
        (courses[cosine(HORIZONS[-1])], "#d1495b", f"AdamW, the cosine of {HORIZONS[-1]}x"),
    ]
    for course, colour, label in drawn:
        axis.plot(AT, course.mean(axis=0), "-", color=colour, linewidth=1.6, label=label)
        axis.fill_between(AT, course.min(axis=0), course.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    tuned = np.array([sweeps.least(swept[cosine(h)]) for h in HORIZONS])
    ends = [tokens(h) for h in HORIZONS]
    axis.plot(ends, tuned.mean(axis=1), "D", color="#d1495b", label="AdamW, a cosine and a step for each horizon")
    axis.set_xscale("log", base=2)
    ticks = [tokens(1) // 4, tokens(1) // 2, *ends]
    axis.set_xticks(ticks, [f"{tick:,}\n{tick / tokens(1):g}x" for tick in ticks])
    axis.set_xlabel("tokens")
    axis.set_ylabel("validation loss (nats per byte)")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(arguments: list[str] | None = None) -> None:
    asked = claims.parser(__doc__).parse_args(arguments)
    text, store = load_text(), Store(asked.out / "anytime.jsonl")
    swept, courses = found(lambda recipes, end, points: measured(recipes, Setting(text, end, at=points), store))
    picture(swept, courses, asked.out / "anytime.png")
    setting = Setting(text, tokens(HORIZONS[-1]))
    told = (
        f"{setting.told} A horizon of 1x is {tokens(1):,} tokens, {UPDATES} updates of {sweeps.PER_UPDATE}. All rows "
        f"warm up for {WARMUP:,.0f} tokens and shrink by a half-life of {LIFE:,} tokens, the longest horizon."
    )
    head = f"{claims.opening(__doc__)}\n\n{told}\n\n![losses over tokens](anytime.png)"
    data = {name: sweeps.plain(sweep) for name, sweep in swept.items()}
    every = {"losses": data, "courses": {name: course.tolist() for name, course in courses.items()}}
    claims.finish("anytime", head, table(swept, courses), judged(swept, courses), every, asked.out)


if __name__ == "__main__":
    main()
