"""What the experiments of benchmarks/science have in common: training many at once, sweeps, pages."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("torch")
import torch

import dualopt
from benchmarks.science import claims, gpt, sweeps
from benchmarks.science.gpt import Array
from benchmarks.science.runs import Setting, Store, measured
from dualopt import Recipe
from dualopt.workload.model import GPTConfig, initial
from dualopt.workload.text import Text, batch, load_text, validation
from dualopt_torch.gpt import GPT, loss

TINY = GPTConfig(layers=1, width=16, heads=2, context=16)
TOKENS = 20 * 64
PAGES = Path(__file__).parents[1] / "docs/science"


@pytest.fixture(scope="module")
def text() -> Text:
    return load_text()


def tiny(optimizer: str, factor: float = 1.0) -> Recipe:
    tables = {"count": {"unit": "tokens", "per_update": 64}}
    return sweeps.scaled(sweeps.recipe(optimizer, TOKENS, **tables), factor)


# ---- training


@pytest.mark.parametrize("optimizer", sorted(sweeps.GROUPS))
def test_members_train_as_if_alone(optimizer: str, text: Text) -> None:
    """The loss of a member is that of a loop over its own model.

    20 updates multiply the roundings of batched products, 2⁻²⁴ of a loss of 5, by at most a few hundred; a member that
    took the batch, the step or the initial values of another is off by 1e-2 and more.
    """
    found = gpt.losses([tiny(optimizer), tiny(optimizer, 0.5)], (3, 4), TOKENS, text, config=TINY)
    alone = GPT(TINY, initial(TINY, 4))
    for name, parameter in alone.named_parameters():
        parameter.requires_grad_(not name.endswith("norm.weight"))
    opt = dualopt.optimizer(alone, tiny(optimizer, 0.5))
    for update in range(TOKENS // 64):
        alone.zero_grad()
        loss(alone, *(torch.from_numpy(x).long() for x in batch(text, 4, update, 4, 16))).backward()
        opt.step(count=64)
    with torch.no_grad():
        held_out = validation(text, *gpt.HELD_OUT, 16)
        losses = [loss(alone, *(torch.from_numpy(x).long() for x in one)).item() for one in held_out]
    assert found[1, 1] == pytest.approx(np.mean(losses), abs=1e-4)
    assert np.abs(found - found[1, 1])[[0, 0, 1], [0, 1, 0]].min() > 1e-3


def test_a_member_that_diverges_leaves_the_others_alone(text: Text) -> None:
    wild = sweeps.scaled(tiny("adamw"), 1e38)
    found = gpt.losses([wild, tiny("adamw")], (0,), TOKENS, text, config=TINY)
    assert found[0, 0] == math.inf
    assert found[1, 0] == pytest.approx(gpt.losses([tiny("adamw")], (0,), TOKENS, text, config=TINY)[0, 0], abs=1e-4)


def test_killed_experiments_go_on(text: Text, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting, path = Setting(text, TOKENS, (0, 1), TINY), tmp_path / "runs.jsonl"
    recipes = [tiny("adamw", factor) for factor in (1.0, 0.5)]
    first = measured(recipes, setting, Store(path))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])  # cut off while the last line was written
    trained: list[int] = []
    losses = gpt.losses
    monkeypatch.setattr(
        gpt, "losses", lambda found, *rest, **more: trained.append(len(found)) or losses(found, *rest, **more)
    )
    again = measured([*recipes, recipes[0]], setting, Store(path))
    assert trained == [1]
    assert again[:2] == pytest.approx(first, abs=1e-4)
    assert again[2].tolist() == again[0].tolist()
    assert measured(recipes, setting, Store(path)).tolist() == again[:2].tolist()
    assert trained == [1]
    measured(recipes[:1], Setting(text, 2 * TOKENS, (0, 1), TINY), Store(path))  # other runs are other keys
    assert trained == [1, 1]


# ---- sweeps


def test_sweeps_follow_the_best_step_and_find_the_vertex() -> None:
    def bowl(recipes: Sequence[Recipe]) -> Array:
        steps = [math.log2(float(r.groups[0].options["step"]) / 0.016) for r in recipes]
        return np.array([[(x - 3.2) ** 2, (x - 3.2) ** 2 + 1] for x in steps])

    start = sweeps.recipe("adamw", TOKENS)
    sweep = sweeps.swept({"here": partial(sweeps.scaled, start)}, (0.5, 1.0, 2.0), bowl)["here"]
    assert sorted(sweep) == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert (sweeps.best_of(sweep), sweeps.optimum(sweep)) == (8.0, pytest.approx(3.2))


@pytest.mark.parametrize("coupled", [False, True])
def test_coupled_steps_shrink_more(coupled: bool) -> None:
    before = sweeps.recipe("scionc", TOKENS)
    after = sweeps.scaled(before, 4.0, coupled=coupled)
    for a, b in zip(before.groups, after.groups, strict=True):
        lost = [1 - dualopt.counts.retention(sweeps.PER_UPDATE, float(g.options["shrink_half_life"])) for g in (a, b)]
        assert lost[1] == pytest.approx(lost[0] * (4 if coupled else 1), rel=1e-9)
        assert b.options["step"] == 4 * float(a.options["step"])


# ---- pages


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_pages_are_whole(page: Path) -> None:
    """Every page has its picture and its data, and says what holds as the data does."""
    text = page.read_text(encoding="utf-8")
    told = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
    assert f"({page.stem}.png)" in text
    assert page.with_suffix(".png").stat().st_size > 10_000
    assert f"python -m benchmarks.science.{page.stem}" in told["command"]
    assert claims.table([claims.Claim(**one) for one in told["claims"]]) in text
