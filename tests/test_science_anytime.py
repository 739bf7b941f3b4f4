"""benchmarks/science/anytime.py on losses that are made up, and losses on the way of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

from benchmarks.science import anytime, gpt, sweeps
from benchmarks.science.gpt import Array
from dualopt import Recipe
from dualopt.workload.model import GPTConfig
from dualopt.workload.text import load_text

TINY = GPTConfig(layers=1, width=16, heads=2, context=16)


def test_losses_on_the_way_are_those_of_shorter_runs_at_the_mean() -> None:
    """Of rows without an end a run of 3 updates is the beginning of one of 6: the same operations, so the same bits."""
    count = {"count": {"unit": "tokens", "per_update": 64}}
    recipes = [Recipe.from_dict({**anytime.recipe(anytime.SF_NORMUON).to_dict(), **count})]
    text = load_text()
    found = gpt.courses(recipes, (0, 1), (64, 3 * 64, 6 * 64), text, config=TINY)
    assert found.shape == (1, 2, 3)
    assert found[..., 1].tolist() == gpt.losses(recipes, (0, 1), 3 * 64, text, config=TINY).tolist()
    fast = gpt.Members(TINY, recipes, (0, 1))
    batches = [gpt._stacked([one] * 2) for one in gpt.validation(text, 1, 4, 16)]
    first = fast.scores(batches)
    for name, state in fast.state.items():
        fast.state[name] = {**state, "x": 2 * state["x"]}  # what is evaluated is the mean, not the point of gradients
    assert not (fast.scores(batches) == first).any()


@pytest.mark.parametrize("better", [True, False])
def test_anytime_compares_one_run_with_tuned_ones(better: bool, tmp_path: Path) -> None:
    """Loss = 3 − log₂ of the tokens over those of 1x + 0.1 log₂² of the step over the best, which is twice the middle;
    of the free rows 0.1 below or above, and of a cosine before its end 0.2 above."""

    def measure(recipes: Sequence[Recipe], end: int, points: tuple[int, ...]) -> Array:
        found = []
        for recipe in recipes:
            group = recipe.groups[0]
            row = group.optimizer
            x = math.log2(float(group.options["step"]) / float(anytime.recipe(row).groups[0].options["step"])) - 1
            lower = 0.0 if row == anytime.ADAMW else -0.1 if better else 0.1
            late = [3 - math.log2(t / anytime.tokens(1)) + 0.1 * x * x + lower for t in (*points, end)]
            course = [y + 0.2 * (row == anytime.ADAMW and t != end) for y, t in zip(late, (*points, end), strict=True)]
            found.append([[y + 0.001 * seed for y in course] for seed in range(3)])
        return np.array(found) if points else np.array(found)[..., 0]

    swept, courses = anytime.found(measure)
    assert {sweeps.best_of(sweep) for sweep in swept.values()} == {2.0}
    assert [claim.holds for claim in anytime.judged(swept, courses)] == [better, True, better, True]
    sign = "-" if better else "+"
    assert anytime.judged(swept, courses)[0].measured == ", ".join(f"{h}x {sign}0.100" for h in (1, 2, 4))
    table = anytime.table(swept, courses)
    assert "| AdamW, the cosine of 4x | 0.032 | 3.201 (3.200 … 3.202) | 2.201" in table
    assert "| SF-NorMuon, one run, step x0.5 | 0.04 |" in table
    anytime.picture(swept, courses, tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
