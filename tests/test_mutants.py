"""The lockstep gate catches every wrong optimizer of the table, and lets every legitimate rewrite pass."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from dualopt.catalog import ENTRIES
from dualopt.counts import complement
from dualopt.directions.norm_balls import NORMS
from dualopt.errors import RecipeError
from dualopt.motion import MOTIONS
from dualopt.motion.rotational import LISTING, Rotational
from dualopt_conformance import cases, mutants
from dualopt_conformance.alterations import Maker, Mutant, altered, arithmetic, bfloat16, having, marked
from dualopt_conformance.budgets import judge
from dualopt_conformance.cases import CASES, SITUATIONS, Case, chosen
from dualopt_conformance.folded import FOLDS
from dualopt_conformance.mutants import MUTANTS, REWRITES, WRONG, examine, examine_all, reference
from dualopt_conformance.rearranged import flushed, fused
from dualopt_conformance.walk import LATE

PARTS = (
    "signal", "memory", "readout", "bias correction", "elementwise direction", "norm ball", "counts", "clock",
    "schedule", "shrink", "motion", "pooling", "views", "state", "storage", "scaled rows", "symmetry", "spectrum",
    "curvature", "average", "sphere", "rotation", "target",
)  # fmt: skip


def tried_on(mutant: Mutant) -> list[Case]:
    return list(chosen(mutant.cases).values())


@pytest.mark.parametrize("mutant", WRONG, ids=lambda m: m.name)
def test_a_wrong_optimizer_is_caught(mutant: Mutant) -> None:
    found = examine(mutant)
    assert found.caught
    assert found.right
    assert found.case in CASES
    assert np.isfinite(found.error)  # caught for its mistake, not because it broke down
    assert found.error > found.budget >= 0


@pytest.mark.parametrize("mutant", REWRITES, ids=lambda m: m.name)
def test_a_legitimate_rewrite_passes(mutant: Mutant) -> None:
    found = examine(mutant, updates=3)
    assert not found.caught, found
    assert found.right
    assert found.case


@pytest.mark.long
@pytest.mark.parametrize("mutant", REWRITES, ids=lambda m: m.name)
def test_a_legitimate_rewrite_passes_later_on(mutant: Mutant) -> None:
    assert not examine(mutant, updates=100).caught


def test_the_table() -> None:
    names = Counter(m.name for m in MUTANTS)
    assert max(names.values()) == 1
    assert MUTANTS == WRONG + REWRITES
    assert mutants.every() == (*MUTANTS, *FOLDS)
    assert not names.keys() & {fold.name for fold in FOLDS}
    assert len(WRONG) >= 32
    assert len({m.what for m in WRONG}) >= 25
    assert {m.part for m in WRONG} == set(PARTS)
    assert all(m.what and m.cases for m in MUTANTS)
    assert [m.legitimate for m in MUTANTS] == [False] * len(WRONG) + [True] * len(REWRITES)


FURTHER = {  # options that only a mistake makes large enough to be seen
    "polargrad.damped": {**CASES["polargrad/usual"].table, "eps": 0.04},
    "rotational_adamw.damped": {**CASES["rotational_adamw.literal/usual"].table, "rotation_eps": 0.1},
    "shampoo.rarely": {**CASES["shampoo/usual"].table, "root_interval": 2000.0},
}
SEEN_THERE = (
    ("ε for its root", "polargrad.damped", altered(scalars=lambda k, a: {"root_eps": k["eps"]})),
    ("listing for literal", "rotational_adamw.damped", altered(having(Rotational, algorithm=LISTING))),
    (
        "roots in every update",
        "shampoo.rarely",
        altered(scalars=lambda k, a: {"fresh": 1.0, "c_f": complement(512, a["second_memory_half_life"])}),
    ),
)


@pytest.mark.parametrize(("name", "variant", "step"), SEEN_THERE, ids=[name for name, *_ in SEEN_THERE])
def test_a_wrong_optimizer_is_caught_in_a_variant_of_its_own(
    name: str, variant: str, step: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(variant, FURTHER[variant], SITUATIONS["usual"])
    monkeypatch.setitem(cases.EVERY, case.id, case)  # type: ignore[arg-type]
    monkeypatch.setitem(cases.CASES, case.id, case)  # type: ignore[arg-type]
    assert examine(Mutant(name, "", "", step, (case.id,))).caught
    assert not examine(Mutant("nothing", "", "", altered(), (case.id,), legitimate=True), updates=3).caught


def test_every_row_and_norm_is_hit() -> None:
    tables = [case.table for m in WRONG for case in tried_on(m)]
    assert {t["optimizer"] for t in tables} == set(ENTRIES)
    assert {str(t.get("motion", ENTRIES[t["optimizer"]].motion)) for t in tables} == set(MOTIONS)
    assert {t["norm"] for t in tables if "norm" in t} == set(NORMS)
    assert {case.table["optimizer"] for m in REWRITES for case in tried_on(m)} == set(ENTRIES)
    assert {case.dtype for m in WRONG for case in tried_on(m)} == {"float32", "bfloat16", "float16"}


def test_doing_nothing_is_within_budget() -> None:
    (nothing,) = (m for m in REWRITES if m.name == "nothing")
    for case in chosen(("adamw/usual", "muon/usual", "lion/bfloat16", "scionc.target/usual")):
        found = examine(Mutant("nothing", "", "", nothing.step, (case,), legitimate=True), updates=6)
        assert not found.caught
        assert found.error <= found.budget


def test_the_absurd_is_caught_at_once() -> None:
    absurd = altered(after=lambda s, theta, new: (theta + 1, new))
    for case in chosen(("sgdm/usual", "scionc/usual", "adamw/float16")):
        found = examine(Mutant("absurd", "motion", "θ + 1", absurd, (case,)))
        assert found.caught
        assert not found.tensor.startswith(("m of", "v of"))
        assert found.error > 100 * found.budget


def test_what_breaks_down_is_refused() -> None:
    broken = altered(after=lambda s, theta, new: (theta * np.float32(np.nan), new))
    with pytest.raises(ValueError, match="broken: sgdm/usual gives numbers that are not finite"):
        examine(Mutant("broken", "motion", "NaN", broken, ("sgdm/usual",)))
    with pytest.raises(RecipeError, match="no case matches"):
        examine(Mutant("nowhere", "motion", "", altered(), ("adamv/*",)))


def test_flushed_subnormals_are_reported_and_do_not_fail() -> None:
    step = altered(before=lambda theta, s, g: marked(arithmetic(flushed), theta, s, g))()
    seen = Counter[str]()
    for m, permitted in reference("sgdm/underflow"):
        with np.errstate(under="ignore"):
            moved = step(m.planned, m.theta, m.state, m.gradient, m.proposal)
        for name, (_, state) in moved.items():
            judged = judge(permitted[name]["m"], m.planned.views[name].apply(np, np.asarray(state["m"])))
            seen.update(flushed=judged.flushed, failed=judged.failed)
    assert seen["flushed"] > 0
    assert seen["failed"] == 0


def test_the_reference_is_kept() -> None:
    first, again = list(reference("sgdm/usual")), list(reference("sgdm/usual"))
    assert len(first) > 5
    assert all(one is other for (one, _), (other, _) in zip(first, again, strict=True))
    assert LATE in [m.update for m, _ in first]


def test_examine_all_tells_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    two = (WRONG[0], REWRITES[-1])
    monkeypatch.setattr(mutants, "MUTANTS", two)
    monkeypatch.setattr(mutants, "FOLDS", ())
    told: list[tuple[str, int, int]] = []
    found = examine_all(lambda name, i, n: told.append((name, i, n)))
    assert told == [(two[0].name, 0, 2), (two[1].name, 1, 2)]
    assert [f.outcome for f in found] == ["caught", "accepted"]
    assert [f.name for f in examine_all()] == [m.name for m in two]


def test_steps_that_remember_start_afresh() -> None:
    (previous,) = (m for m in WRONG if m.name == "previous increment")
    assert previous.step() is not previous.step()
    assert examine(previous) == examine(previous)


# ---- the tools of the tables


def test_one_rounding_of_a_product_and_a_sum() -> None:
    one, eps = np.float32(1), np.float32(2.0**-23)
    x = np.array([one + eps], np.float32)
    assert fused(x, x, -x * x).tolist() == [2.0**-46]  # what rounding x x has lost
    assert (x * x - x * x).tolist() == [0]


def test_arithmetic_rounds_every_result() -> None:
    mark = arithmetic(bfloat16)
    x = mark(np.array([1.0, 1 + 2.0**-7, 3.0], np.float32))
    y = np.concatenate([x * x, np.sqrt(x), (x + np.float32(2.0**-8))])
    np.testing.assert_array_equal(np.asarray(y), bfloat16(y))
    assert type(y) is type(x)
    one = np.asarray(mark(np.array([[1 + 2.0**-7]], np.float32)) @ np.array([[1 + 2.0**-7]], np.float32))
    assert one.tolist() == [[1 + 2.0**-6]]
    assert (np.where(x > 1, x, x) > 1).tolist() == [False, True, True]
