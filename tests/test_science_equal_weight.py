"""benchmarks/science/equal_weight.py: the weights that it measures, and what it makes of losses."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

from benchmarks.science import equal_weight, sweeps
from benchmarks.science.gpt import Array
from dualopt import Recipe

TOKENS = sweeps.TOKENS


def by_option(loss: Callable[[Recipe, float], float]) -> Callable[[Sequence[Recipe]], Array]:
    """A measure whose losses are 0.1 log₂² of the step and what `loss` adds, of (recipe, half-life of the shrink)."""

    def measure(recipes: Sequence[Recipe]) -> Array:
        found = []
        for recipe in recipes:
            options = recipe.groups[0].options
            x = math.log2(float(options["step"]) / 0.016)
            here = 2 + 0.1 * x * x + loss(recipe, float(options["shrink_half_life"]))
            found.append([here, here + 0.01, here + 0.02])
        return np.array(found)

    return measure


@pytest.mark.parametrize("better", [True, False])
def test_equal_weights_are_measured(better: bool, tmp_path: Path) -> None:
    penalty = {"equal-weight-16": -0.1 if better else 0.1, "cosine": 0.0}

    def loss(recipe: Recipe, life: float) -> float:
        return penalty.get(recipe.schedule.shape, 0.3) + (0.05 if life == equal_weight.LIVES[0] else 0.0)

    losses = equal_weight.found(TOKENS, by_option(loss))
    memoryless, remembering = ({s: equal_weight.weights(s, b) for s in equal_weight.SHAPES} for b in (0.0, 0.9))
    assert all(w.shape == (256, 256) and not np.triu(w, 1).any() for w in memoryless.values())
    claimed = equal_weight.judged(memoryless, remembering, losses)
    assert [claim.holds for claim in claimed] == [True, True, True, better]
    gap = "-0.100" if better else "+0.100"
    assert f"equal-weight-16 {2.01 + penalty['equal-weight-16']:.3f}, cosine 2.010: {gap}" in claimed[3].measured
    swapped = equal_weight.judged({**memoryless, "equal-weight-14": memoryless["cosine"]}, remembering, losses)
    assert not swapped[0].holds
    assert equal_weight.best(losses["cosine"])[0] == equal_weight.LIVES[1]
    assert "0.0000 … 1.8823" in equal_weight.table(memoryless, losses)
    equal_weight.picture(memoryless, remembering, losses, tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
