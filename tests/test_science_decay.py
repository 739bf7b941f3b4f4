"""benchmarks/science/decay.py on losses that are made up."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

import dualopt
from benchmarks.science import decay, sweeps
from benchmarks.science.gpt import Array
from dualopt import Recipe


@pytest.mark.parametrize(("turning", "moved"), [(0.0, 0.0), (0.1, 3.0)])
def test_decay_measures_how_far_the_best_step_moves(turning: float, moved: float) -> None:
    """Loss = 0.1 log₂²η + turning · log₂²(1 − a): direct sweeps have their best at 1; coupled ones at half a strength,
    in octaves, where both terms weigh the same: from 1/4 to 16 that is 3 octaves."""
    base = sweeps.recipe("adamw", sweeps.TOKENS)
    whole = dualopt.counts.complement(sweeps.PER_UPDATE, sweeps.ADAMW[0]["shrink_half_life"])

    def measure(recipes: Sequence[Recipe]) -> Array:
        found = []
        for recipe in recipes:
            options = recipe.groups[0].options
            x = math.log2(float(options["step"]) / 0.016)
            y = math.log2(dualopt.counts.complement(sweeps.PER_UPDATE, float(options["shrink_half_life"])) / whole)
            found.append([0.1 * x * x + turning * y * y] * 3)
        return np.array(found)

    every = decay.found(base, measure)
    assert decay.moves(every["direct"]) == pytest.approx(0.0, abs=1e-6)
    assert decay.moves(every["coupled"]) == pytest.approx(moved, abs=1e-6)
    assert decay.sensitivity(every["direct"][1.0]) == pytest.approx(0.1)
    assert decay.sensitivity(every["coupled"][1.0]) == pytest.approx(0.1 + turning)
    first, falls, radius, costs = (claim.holds for claim in decay.judged(every))
    assert (first, falls, radius, costs) == ((True, True, False, True) if turning else (False, False, False, False))


def test_decay_finds_steps_that_keep_a_radius() -> None:
    """If the loss is one of η/√(1 − a), direct sweeps move by half an octave for one of strength, 3 in all, and coupled
    ones, whose radius goes with √η, by as much as strength: with them a stronger shrink wants a larger step."""
    base = sweeps.recipe("adamw", sweeps.TOKENS)

    def measure(recipes: Sequence[Recipe]) -> Array:
        found = []
        for recipe in recipes:
            options = recipe.groups[0].options
            lost = dualopt.counts.complement(sweeps.PER_UPDATE, float(options["shrink_half_life"]))
            x = math.log2(float(options["step"]) / math.sqrt(lost) / 0.25)
            found.append([0.1 * x * x] * 3)
        return np.array(found)

    every = decay.found(base, measure)
    assert decay.moves(every["direct"]) == pytest.approx(3.0, abs=1e-6)
    assert [claim.holds for claim in decay.judged(every)] == [True, False, True, False]
