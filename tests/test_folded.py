"""Updates of several microbatches lie within their derived bounds, and wrong folds do not."""

from __future__ import annotations

import pytest

from dualopt.namespace import Backend
from dualopt_conformance import drift, folded
from dualopt_conformance.cases import STREAMS
from dualopt_conformance.folded import FOLDS, FOLLOWED, WrongFold
from dualopt_conformance.mutants import tried

from .budgeted import assert_within, lockstep


@pytest.mark.parametrize("tier", [pytest.param("exact", marks=pytest.mark.long), "fast"])
@pytest.mark.parametrize("name", FOLLOWED)
def test_evaluations_lie_inside(backend: Backend, name: str, tier: str) -> None:
    """In the exact tier, and with the backend's own sums, products and factorisations."""
    if backend.name in ("jax", "strict") and name.startswith("shampoo") and tier == "fast":
        pytest.skip("strict has no factorisation in its fast tier; jax compiles one for a minute")
    assert_within(lockstep(name, backend, 3, tier))


@pytest.mark.parametrize("wrong", FOLDS, ids=lambda w: w.name)
def test_a_wrong_fold_is_caught(wrong: WrongFold) -> None:
    found = tried(wrong)
    assert found.caught
    assert found.right
    assert found.error > found.budget >= 0
    assert (found.name, found.part, found.case) == (wrong.name, folded.PART, wrong.case)
    assert found.tensor.split(" of ")[-1] in STREAMS[wrong.case].shapes


def test_a_right_fold_is_not() -> None:
    """The nearest to its budget is told then."""
    found = tried(WrongFold("none", "as it should be", lambda row: row, "adamw.inv/usual"))
    assert not found.caught
    assert not found.right
    assert 0 < found.error <= found.budget


def test_every_estimator_is_hit() -> None:
    tried = {STREAMS[w.case].table.get("estimator", "std") for w in FOLDS}
    followed = {case.table.get("estimator", "std") for case in FOLLOWED.values()}
    assert tried == followed
    left_out = set(STREAMS) - set(FOLLOWED)
    assert left_out == {"shampoo.inv/usual", "shampoo.full/usual"}  # compared bit by bit


def test_the_report_says_what_has_no_bound() -> None:
    """Free runs of microbatches are shown, and those that single updates have no bound for say why."""
    told = {name: drift._why(case) for name, case in STREAMS.items()}
    left_out = {name for name, why in told.items() if "single eigenvectors" in why}
    assert left_out == {"shampoo.inv/usual", "shampoo.full/usual"} == set(STREAMS) - set(FOLLOWED)
