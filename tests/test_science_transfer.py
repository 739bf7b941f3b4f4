"""benchmarks/science/transfer.py on losses that are made up: what it finds, recommends and says."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")

from benchmarks.science import sweeps, transfer, transfer_report
from benchmarks.science.gpt import Array
from dualopt import Recipe
from dualopt.convert.transfer import MEMORIES, RULES

TOKENS = sweeps.TOKENS


def rooted(recipes: Sequence[Recipe]) -> Array:
    """Losses by which the step goes with the root of the batch, memories in tokens do best, and raw ones worst."""
    found = []
    for recipe in recipes:
        options, r = recipe.groups[0].options, recipe.count.per_update / sweeps.PER_UPDATE
        x = math.log2(float(options["step"]) / 0.016 / math.sqrt(r))
        first, second = (math.log2(float(options[key]) / sweeps.ADAMW[0][key]) for key in sweeps.KNOBS[1:3])
        found.append([2 + 0.1 * x * x + 0.1 * abs(first) + 0.2 * abs(second) + s for s in (0.0, 0.01, 0.02)])
    return np.array(found)


def test_transfer_finds_the_rule_that_is_there() -> None:
    found = transfer.found("adamw", TOKENS, transfer.RATIOS, rooted)
    assert found.base.groups[0].options["step"] == pytest.approx(0.016)
    assert found.noise == pytest.approx(2 * 0.01 * math.sqrt(2 / 3))
    for ratio, cell in found.cells.items():
        assert set(cell.rules) == {(kept, rule) for kept in MEMORIES for rule in RULES}
        assert cell.gap(("all", "sqrt")) == pytest.approx(0)
        assert cell.gap(("all", "none")).mean() == pytest.approx(0.1 * math.log2(math.sqrt(ratio)) ** 2)
        assert cell.gap(("second", "sqrt")).mean() == pytest.approx(0.1 * abs(math.log2(ratio)))
        assert sweeps.optimum(cell.sweeps["raw"]) == pytest.approx(math.log2(math.sqrt(ratio)), abs=1e-6)
    entries = transfer_report.recommended([found])
    assert [(e["family"], e["direction"], e["memories"]) for e in entries] == [
        ("elementwise", "smaller", "all"),
        ("elementwise", "larger", "all"),
    ]
    assert {e["rule"] for e in entries} <= {"sqrt", "radius"}  # of AdamW they are nearly the same
    assert "0.25x" in entries[0]["measured"]
    assert "4x and 16x" in entries[1]["measured"]
    assert all(claim.holds for claim in transfer_report.judged([found]))
    assert "**+0.000 (+0.000 … +0.000)**" in transfer_report.tables([found])


def test_transfer_recommends_nothing_where_cells_disagree(tmp_path: Path) -> None:
    """At 4x the root does best, at 16x the step of before: no choice does for larger batches."""

    def torn(recipes: Sequence[Recipe]) -> Array:
        found = rooted(recipes)
        for i, recipe in enumerate(recipes):
            if recipe.count.per_update == 16 * sweeps.PER_UPDATE:
                x = math.log2(float(recipe.groups[0].options["step"]) / 0.016)
                found[i] += 0.1 * x * x - 0.1 * (x - 2) ** 2
        return found

    found = transfer.found("adamw", TOKENS, transfer.RATIOS, torn)
    assert [e["direction"] for e in transfer_report.recommended([found])] == ["smaller"]
    held = {claim.claim: claim.holds for claim in transfer_report.judged([found])}
    assert held["AdamW: one choice does for all smaller batches"]
    assert not held["AdamW: one choice does for all larger batches"]
    assert "none does in all cells" in transfer_report.tables([found])
    transfer_report.picture([found, found], tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
