"""A recipe at another batch size: what stays in counts, and what each rule makes of the step."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualopt
from dualopt.catalog import ENTRIES, complete
from dualopt.convert import Knobs, source, to_action, to_knobs, transfer
from dualopt.convert.transfer import RECOMMENDED, Recommendation
from dualopt.counts import LN2, Count
from dualopt.errors import CountError, RecipeError
from dualopt.recipe import Group, Recipe
from dualopt.schedules import Schedule

ROOT = Path(__file__).parents[1]


def one(group: Group, per_update: int) -> Recipe:
    return Recipe((group,), Count("tokens", per_update))


def lion(old: int, beta: float = 0.99) -> Group:
    knobs = Knobs(source("mlx-lion"), learning_rate=1e-4, betas=(0.5 * beta, beta), weight_decay=0.1)
    return to_action(knobs, old)


# ---- memories


def test_second_memories_after_marek() -> None:
    """arXiv 2507.07101: β₂ = 0.95 at batch 512 is 0.95^(1/512) = 0.99990 at batch 1, β₁ stays."""
    group = to_action(Knobs(source("torch-adamw"), betas=(0.9, 0.95)), 512)
    moved, (told,) = transfer(one(group, 512), 1, memories="second")
    betas = to_knobs(moved.groups[0], 1, "torch").values["betas"]
    assert betas == (pytest.approx(0.9), pytest.approx(0.95 ** (1 / 512)))
    assert round(betas[1], 5) == 0.99990
    lives = {life.key: life for life in told.lives}
    kept = {"all": 0.9 ** (1 / 512), "second": 0.9, "raw": 0.9}
    assert lives["memory_half_life"].keeps == pytest.approx(kept)
    assert lives["second_memory_half_life"].keeps["raw"] == pytest.approx(0.95)
    assert lives["memory_half_life"].kept == pytest.approx(0.9)
    assert lives["second_memory_half_life"].after == lives["second_memory_half_life"].before
    assert lives["shrink_half_life"].after == lives["shrink_half_life"].before


@given(st.floats(0.5, 0.999), st.sampled_from([1, 8, 64, 4096]))
def test_all_half_lives_stay_in_counts(beta: float, new: int) -> None:
    old, r = 64, new / 64
    group = lion(old, beta)
    moved, (told,) = transfer(one(group, old), new)
    assert moved.groups == (group,)
    assert moved.count == Count("tokens", new)
    values = to_knobs(group, new, "mlx").values
    assert values["betas"] == pytest.approx((0.5 * beta**r, beta**r))  # β₁* = μ β₂^r
    assert 1 - values["learning_rate"] * values["weight_decay"] == pytest.approx((1 - 1e-5) ** r)
    assert any(note.startswith("readout") for note in told.notes)


@pytest.mark.parametrize("rule", ["none", "linear", "sqrt"])
@pytest.mark.parametrize("new", [128, 2048])
def test_raw_knobs_are_what_they_were_but_for_the_step(rule: str, new: int) -> None:
    """torch's betas and weight_decay stay, and lr follows the rule: there a = 1 − λη."""
    before = Knobs(source("torch-adamw"), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    moved, (told,) = transfer(one(to_action(before, 512), 512), new, memories="raw", rule=rule)
    values = to_knobs(moved.groups[0], new, "torch").values
    assert values["lr"] == pytest.approx(2e-3 * (told.factors[rule] or 0))
    assert (values["betas"], values["weight_decay"]) == (pytest.approx((0.9, 0.95)), pytest.approx(0.1))
    assert any("λ stays" in note for note in told.notes)


def test_raw_does_not_shrink_weights_to_nothing() -> None:
    group = Group("lion", {"step": 0.1, "shrink_half_life": 2.0})
    with pytest.raises(RecipeError, match="shrink weights to nothing in an update"):
        transfer(one(group, 1), 8, memories="raw", rule="linear")


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_half_lives_that_are_not_stated_stay_in_counts_too(name: str) -> None:
    """Defaults are in updates, so they would move with the batch size."""
    moved, _ = transfer(one(Group(name), 100), 10)
    before, after = complete(name, {}, per_update=100), complete(name, moved.groups[0].options, per_update=10)
    if before.get("second_memory") is False:  # its half-life is not read
        del before["second_memory_half_life"], after["second_memory_half_life"]
    assert before == after


def test_half_lives_stay_in_their_unit() -> None:
    count = Count("epochs", 50, samples_per_epoch=1000)
    group = Group("adamw", {"memory_half_life": 0.5, "shrink_half_life": 3.0})
    moved, (told,) = transfer(Recipe((group,), count), 100, memories="second")
    options = moved.groups[0].options
    assert (options["memory_half_life"], options["shrink_half_life"]) == (1.0, 3.0)
    default = complete("adamw", {}, per_update=50)["second_memory_half_life"]
    assert options["second_memory_half_life"] == pytest.approx(float(default) / 1000)
    assert [life.key for life in told.lives] == ["memory_half_life", "second_memory_half_life", "shrink_half_life"]


def test_all_groups_move_and_nothing_else() -> None:
    schedule = Schedule("linear", warmup=10.0, total=1000.0, drives="both")
    groups = (Group("muon", {"readout": 0.9}, "hidden", ndim=2), Group("adamw", {}, "rest"))
    recipe = Recipe(groups, Count("samples", 8), schedule, nonfinite="skip")
    moved, told = transfer(recipe, 32, memories="second", rule="sqrt")
    assert (moved.schedule, moved.nonfinite, moved.count.per_update) == (schedule, "skip", 32)
    assert [g.name for g in moved.groups] == [t.group.name for t in told] == ["hidden", "rest"]
    assert moved.groups[0].options["readout"] == 0.9
    assert [float(g.options["step"]) for g in moved.groups] == [pytest.approx(0.04), pytest.approx(2e-3)]
    assert any("keeps its retention per update" in note for note in told[0].notes)


# ---- the step


def factors(group: Group, r: int) -> dict[str, float | None]:
    _, (told,) = transfer(one(group, 1000), 1000 * r)
    return dict(told.factors)


SHRINKING = {"shrink_half_life": 1e9, "memory_half_life": 1e6}  # long: the limit a, β → 1


def test_the_rules() -> None:
    """In the limit a, β → 1 factors are r or √r. What is left out is of the order of 1 − a or 1 − β of the larger
    batch, 4000 ln 2 over the half-life, and much less of rows in which both batches' shares cancel."""
    shrink, memory = LN2 * 4000 / 1e9, LN2 * 4000 / 1e6
    found = factors(Group("lion", {"readout": 1.0, **SHRINKING}), 4)
    assert (found["none"], found["linear"], found["sqrt"]) == (1.0, 4.0, 2.0)
    assert found["radius"] == pytest.approx(4, rel=memory)  # normalised, long memory
    assert factors(Group("sign_sgdm", {"readout": 0.0, **SHRINKING}), 4)["radius"] == pytest.approx(2, rel=shrink)
    assert factors(Group("adamw", SHRINKING), 4)["radius"] == pytest.approx(2, rel=memory)
    assert factors(Group("muon", {"readout": 1.0, **SHRINKING}), 4)["radius"] == pytest.approx(4, rel=memory)
    assert factors(Group("sgdm", SHRINKING), 4)["radius"] == pytest.approx(4, rel=memory)  # and noise falls by 1/r


@pytest.mark.parametrize(
    ("row", "options", "memories"),
    [
        ("lion", {"readout": 0.9}, "all"),
        ("sign_sgdm", {"readout": 0.0}, "all"),
        ("adamw", {"second_memory_half_life": 2e4}, "all"),
        ("lion", {"readout": 0.9, "shrink": "cautious"}, "all"),
        ("sgdm", {}, "all"),
        ("sgdm", {}, "raw"),
    ],
)
def test_the_radius_stays_on_noise(row: str, options: dict[str, Any], memories: str) -> None:
    """Weights on noise settle at one RMS before and after, where `none` moves it.

    4000 entries, 12 half-lives of their mean square: the standard error of an RMS is 1/√(2 · 4000) = 1.1 %, that of a
    ratio 1.6 %; 5 % is three of it. The step of `none` is off by more than 10 %.
    """
    rng = np.random.default_rng(0)
    group = Group(row, {"step": 0.01, "memory_half_life": 300.0, "shrink_half_life": 4000.0, **options})
    recipe = one(group, 100)
    moved, (told,) = transfer(recipe, 400, memories=memories, rule="radius")

    def settled(recipe: Recipe) -> float:
        every = recipe.count.per_update
        noise = math.sqrt(100 / every) if row == "sgdm" else 1.0
        w = {"w": np.zeros(4000)}
        updates = 24000 // every
        grads = ({"w": noise * rng.standard_normal(4000)} for _ in range(updates))
        run = dualopt.replay(recipe.groups[0], w, list(grads), every, dtype="float64")
        return float(np.sqrt(np.mean(run.params[-1]["w"] ** 2)))

    before = settled(recipe)
    assert settled(moved) == pytest.approx(before, rel=0.05)
    unchanged, _ = transfer(recipe, 400, memories=memories)
    assert abs(settled(unchanged) / before - 1) > 0.1
    assert moved.groups[0].options["step"] == pytest.approx(0.01 * (told.factors["radius"] or 0))


@pytest.mark.parametrize(
    ("group", "why"),
    [
        (Group("adamw"), "without shrink"),
        (Group("adam_l2", {"l2": 0.1}), "penalty"),
        (Group("hyperball"), "motion sets the radius"),
        (Group("rotational_adamw"), "no step"),
        (Group("adamw", {"target_rms": 0.1, "shrink_half_life": 1e3}), "motion sets the radius"),
        (Group("polargrad", {"shrink_half_life": 1e3}), "size of its updates is not known"),
    ],
)
def test_where_there_is_no_radius_to_keep(group: Group, why: str) -> None:
    _, (told,) = transfer(one(group, 100), 400)
    assert why in told.why
    assert told.factors["radius"] is None
    if told.step is not None:
        with pytest.raises(RecipeError, match=why):
            transfer(one(group, 100), 400, rule="radius")


def test_raw_keeps_the_radius_of_directions_of_one_length() -> None:
    for name, options in (("adamw", {}), ("lion", {}), ("muon", {"readout": 0.9})):
        group = Group(name, {"step": 0.01, "shrink_half_life": 2e5, **options})
        _, (told,) = transfer(one(group, 1000), 4000, memories="raw")
        assert told.factors["radius"] == pytest.approx(1, rel=1e-12)


def test_what_is_recommended_and_what_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    way = Recommendation("all", "sqrt", "somewhere")
    for key in list(RECOMMENDED):
        monkeypatch.delitem(RECOMMENDED, key)
    monkeypatch.setitem(RECOMMENDED, ("elementwise", "larger"), way)
    assert [t.recommended for t in transfer(one(Group("adamw"), 100), 400)[1]] == [way]
    assert [t.recommended for t in transfer(one(Group("adamw"), 100), 25)[1]] == [None]
    assert [t.recommended for t in transfer(one(Group("adamw"), 100), 100)[1]] == [None]
    assert [t.recommended for t in transfer(one(Group("muon"), 100), 400)[1]] == [None]


def test_recommendations_are_those_of_the_measurements() -> None:
    """Worked out again from the losses of docs/science/transfer.json: within twice the standard error of a difference
    of means of the best choice in every cell, and none where no choice is."""
    told = json.loads((ROOT / "docs/science/transfer.json").read_text(encoding="utf-8"))
    families = {"adamw": "elementwise", "scionc": "spectral"}
    for optimizer, family in families.items():
        cells = {float(r): cell for r, cell in told[optimizer]["cells"].items()}
        assert sorted(cells) == [0.25, 4.0, 16.0]
        tuned = [min((x for s in c["sweeps"].values() for x in s.values()), key=np.mean) for c in cells.values()]
        noise = 2 * math.sqrt(float(np.mean([np.var(x, ddof=1) for x in tuned])) * 2 / 3)
        for direction, ratios in (("smaller", [0.25]), ("larger", [4.0, 16.0])):
            above = {}
            for way in cells[0.25]["rules"]:
                means = {r: float(np.mean(cells[r]["rules"][way])) for r in ratios}
                best = {r: min(float(np.mean(x)) for x in cells[r]["rules"].values()) for r in ratios}
                above[way] = max(means[r] - best[r] for r in ratios)
            here = RECOMMENDED.get((family, direction))
            assert (here is None) == (min(above.values()) > noise)
            if here is not None:
                assert above[f"{here.memories} + {here.rule}"] == min(above.values())
                assert optimizer in here.measured
                assert (ROOT / here.measured.rpartition(" ")[2]).is_file()
    assert {family for family, _ in RECOMMENDED} <= set(families.values())


def test_refusals() -> None:
    recipe = one(Group("lion"), 2)
    with pytest.raises(RecipeError, match="memories is one of all, second, raw, got 'first'"):
        transfer(recipe, 1, memories="first")
    with pytest.raises(RecipeError, match="rule is one of none, linear, sqrt, radius"):
        transfer(recipe, 1, rule="squareroot")
    with pytest.raises(RecipeError, match="state unit = 'tokens' or 'samples'"):
        transfer(Recipe((Group("lion"),)), 4)
    with pytest.raises(CountError, match="positive whole number"):
        transfer(recipe, 0)
