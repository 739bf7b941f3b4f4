"""A recipe moves to another batch size: which rule costs least against tuning the step anew?

    python -m benchmarks.science.transfer

The step of a small GPT is tuned at one batch size, for AdamW and for ScionC, and moves with its recipe to a quarter,
4 and 16 times the batch, at equal tokens and on the same tokens. What is kept of memories and shrink (`all`, `second`,
`raw`) and what becomes of the step (`none`, `linear`, `sqrt`, `radius`) are the choices of `dualopt convert --batch`.
Each is reported as its loss above that of the best step at the target batch, on a grid of factors of 2, by whichever
memories did best there: *retuned*. A grid whose best is at its end is extended.

Seed noise of an optimizer is 2 s √(2/3): twice the standard error of a difference of two means over three seeds, where
s² is the variance over seeds of the retuned runs, pooled over the batch sizes. A choice is recommended for larger, or
for smaller, batches if its mean loss is within seed noise of the best choice in every cell of that direction; of
several, the one whose largest distance is smallest.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dualopt import Recipe
from dualopt.convert.transfer import MEMORIES, NONE, RAW, RULES, transfer
from dualopt.workload.text import load_text

from . import claims, sweeps, transfer_report
from .runs import Setting, Store, measured
from .sweeps import Measure
from .transfer_report import Cell, Found

RATIOS = 0.25, 4.0, 16.0
BASE = 0.25, 0.5, 1.0, 2.0, 4.0  # factors of the grid at the base batch
RECOMMENDED = Path("dualopt/convert/recommended.json")


def grid(ratio: float) -> list[float]:
    """Factors of 2 from 1 to the ratio: `none`, `sqrt` and `linear` of a power of 4 are among them."""
    found, factor = [], 1.0
    while min(factor, 1 / factor) >= min(ratio, 1 / ratio):
        found.append(factor)
        factor *= 2.0 if ratio > 1 else 0.5
    return found


def moved(base: Recipe, ratio: float, memories: str, rule: str = NONE) -> Recipe:
    return transfer(base, round(base.count.per_update * ratio), memories=memories, rule=rule)[0]


def retuned(base: Recipe, ratio: float, memories: str) -> Callable[[float], Recipe]:
    """Factor of the step -> the recipe at the target batch."""
    there = moved(base, ratio, memories)
    return partial(sweeps.scaled, there, coupled=memories == RAW)


def at(base: Recipe, ratio: float, measure: Measure) -> Cell:
    """All rules at one ratio, and the sweeps of the step there."""
    makes: Mapping[str, Callable[[float], Recipe]] = {kept: retuned(base, ratio, kept) for kept in MEMORIES}
    ways = [(kept, rule) for kept in MEMORIES for rule in RULES]
    recipes = [moved(base, ratio, *way) for way in ways]
    measure([*recipes, *(make(factor) for make in makes.values() for factor in grid(ratio))])
    return Cell(dict(zip(ways, measure(recipes), strict=True)), sweeps.swept(makes, grid(ratio), measure))


def found(optimizer: str, tokens: int, ratios: tuple[float, ...], measure: Measure) -> Found:
    """The whole experiment with one optimizer."""
    start = sweeps.recipe(optimizer, tokens)
    here = sweeps.swept({"base": partial(sweeps.scaled, start)}, BASE, measure)["base"]
    base = sweeps.scaled(start, sweeps.best_of(here))
    return Found(optimizer, base, here, {ratio: at(base, ratio, measure) for ratio in ratios})


def data(one: Found) -> dict[str, object]:
    """All losses of one optimizer."""
    cells = {
        f"{ratio:g}": {"rules": {" + ".join(way): losses for way, losses in cell.rules.items()}, "sweeps": cell.sweeps}
        for ratio, cell in one.cells.items()
    }
    return {"noise": one.noise, "base": sweeps.plain(one.sweep), "cells": sweeps.plain(cells)}


def main(arguments: list[str] | None = None) -> None:
    parser = claims.parser(__doc__)
    parser.add_argument("--recommend", type=Path, default=RECOMMENDED, help="what `dualopt convert` reads")
    asked = parser.parse_args(arguments)
    setting = Setting(load_text(), sweeps.TOKENS)
    measure = partial(measured, setting=setting, store=Store(asked.out / "transfer.jsonl"))
    every = [found(optimizer, sweeps.TOKENS, RATIOS, measure) for optimizer in sweeps.GROUPS]
    transfer_report.picture(every, asked.out / "transfer.png")
    entries = transfer_report.recommended(every)
    asked.recommend.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
    said = claims.opening(__doc__)
    updates = ", ".join(f"{setting.tokens / sweeps.PER_UPDATE / r:,.0f} at {r:g}x" for r in (1.0, *RATIOS))
    bases = (f"{sweeps.TITLES[one.optimizer]}: {sweeps.told(one.base)}" for one in every)
    told = " ".join([setting.told, f"Updates of a run: {updates}. Tuned recipes:", *bases])
    text = f"{said}\n\n{told}\n\n![loss above the retuned step](transfer.png)"
    found_of = {one.optimizer: data(one) for one in every}
    claims.finish("transfer", text, transfer_report.tables(every), transfer_report.judged(every), found_of, asked.out)


if __name__ == "__main__":
    main()
