"""benchmarks/science/cautious.py: the paths that it measures, and what it makes of losses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

from benchmarks.science import cautious, sweeps
from benchmarks.science.gpt import Array
from dualopt import Recipe

TOKENS = sweeps.TOKENS


@pytest.mark.parametrize("better", [True, False])
def test_cautious_shrink_is_measured(better: bool, tmp_path: Path) -> None:
    """In the valley 3000 updates leave standard shrink 2e-2 away; 20 000 would be those of the drift."""
    gain = 0.1 if better else -0.1

    def loss(recipe: Recipe, life: float) -> float:
        cautious = recipe.groups[0].options.get("shrink") == "cautious"
        return 0.2 if math.isinf(life) else -gain if cautious else 0.0

    def measure(recipes: Sequence[Recipe]) -> Array:
        steps = [math.log2(float(recipe.groups[0].options["step"]) / 0.016) for recipe in recipes]
        lives = [float(recipe.groups[0].options["shrink_half_life"]) for recipe in recipes]
        here = [2 + 0.1 * x * x + loss(*of) for x, of in zip(steps, zip(recipes, lives, strict=True), strict=True)]
        return np.array([[x, x + 0.01, x + 0.02] for x in here])

    losses = cautious.found(TOKENS, measure)
    bowls = {form: cautious.descent(cautious.bowl, np.zeros(2), form, cautious.KEPT, 400) for form in cautious.FORMS}
    valleys = {
        form: cautious.descent(cautious.valley, cautious.START, form, cautious.SLIDING, 3_001)
        for form in cautious.FORMS
    }
    assert valleys["none"][-1].tolist() == [2.0, -1.0]
    assert valleys["standard"][3_000] == pytest.approx([0.48780532, 0.4878044361], abs=1e-9)
    assert valleys["cautious"][3_000] == pytest.approx([0.9660954607, 0.03389486789], abs=1e-9)
    claimed = cautious.judged(bowls, valleys, losses)
    assert [claim.holds for claim in claimed] == [True, True, True, True, better, better, better]
    assert claimed[4].measured.startswith("-0.100" if better else "+0.100")
    swapped = {**bowls, "cautious": bowls["standard"], "standard": bowls["cautious"]}
    assert [claim.holds for claim in cautious.judged(swapped, valleys, losses)][:2] == [False, False]
    cautious.picture(valleys, losses, tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
