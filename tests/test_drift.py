"""Free runs and oracles of the fast tier: what they are measured in, what they must catch, and what is only shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from dualopt.namespace import load
from dualopt_conformance import drift, experiments, gate
from dualopt_conformance.bench import Bench
from dualopt_conformance.cases import CASES
from dualopt_conformance.digests import tensors_of
from dualopt_conformance.manifest import NotComparableError, Record
from dualopt_conformance.mutants import WRONG, examine
from dualopt_conformance.verdict import FAIL, PASS, SHOWN
from dualopt_conformance.walk import checkpoints, walk

Array = np.ndarray
SIDES = ("oracle", "mine")


def rms(e: Array) -> float:
    """The root mean square."""
    return math.sqrt(float(np.mean(e * e)))


JUDGED = ("rotational_adamw.literal/usual", "muon.gram/usual", "adamw.hyperball/usual")


@cache
def bench(name: str) -> Bench:
    """A case with its reference and oracles."""
    return Bench(CASES[name], experiments.reference(CASES[name]))


@cache
def run(name: str) -> Mapping[str, Array]:
    """numpy's own sums, products and factorisations."""
    return experiments.free(CASES[name], load("numpy"), "fast")


def record(arrays: Mapping[str, Array]) -> Record:
    return Record("mine", {"facts": {}, "tiers": ["fast"]}, {"fast": arrays})


def errors(name: str, t: int, key: str) -> Array:
    """E of the reference ("after") or of the nudged run ("nudged") in all elements of θ, against the oracle."""
    one, scales, found = bench(name), drift.Scales(bench(name)), []
    for tensor in one.case.shapes:
        right = one.known[f"{name}/oracle/{t}/{tensor}"]
        x = one.known[f"{name}/{key}/{t}/{tensor}"]
        y = right + x if key == "nudged" else x
        if right.size:
            found.append(drift._drift(one, tensor, t, right, y, scales.update(tensor, t, right))[0].ravel())
    return np.concatenate(found)


def moved(name: str, by: float) -> dict[str, Array]:
    """The free run with every θ away from the oracle by `by` times what the reference is."""
    known, made = bench(name).known, dict(run(name))
    for key in made:
        there = key.replace("/free/", "/oracle/")
        if there in known:
            right, plain = known[there], known[key.replace("/free/", "/after/")]
            made[key] = (right + by * (plain - right)).astype(plain.dtype)
    return made


# ---- the unit


@pytest.mark.parametrize(
    ("name", "tensor"),
    [("rotational_lion.arcsine/usual", "stack"), ("pion/float16", "stack/v_in"), ("shampoo/extremes", "wide/R")],
)
def test_where_terms_cancel_the_unit_is_that_of_the_terms(name: str, tensor: str) -> None:
    """In units of what is left a sound run is out of bounds; in those of the budget it is not, and a worse one is."""
    case = CASES[name]
    one = Bench(case, experiments.reference(case, oracle=False))
    scales = drift.Scales(one)
    theta, state = next(iter(walk(case))).theta_after, next(iter(walk(case))).state_after
    larger = 0
    for each, x in tensors_of(theta, state):
        s = scales.update(each, 1, x)
        assert s.shape == x.shape
        assert (s >= np.abs(x)).all()
        larger += int((s > 8 * np.abs(x)).sum())
    assert larger > 0
    made = experiments.free(case, load("numpy"), "fast")
    found = drift.free(one, record(made), SIDES)
    assert found.status == PASS
    key = f"{name}/free/1/{tensor}"
    assert not one.unjudged(tensor)
    far = 8 * one.budget(tensor) * drift.ulp(scales.update(tensor, 1, made[key]), "float32")
    assert drift.free(one, record({**made, key: made[key] + far.astype(np.float32)}), SIDES).status == FAIL


# ---- the oracle


@pytest.mark.parametrize("name", JUDGED)
def test_a_nudged_run_is_off_as_float32_is(name: str) -> None:
    for t in [t for t in checkpoints(CASES[name].updates) if t >= experiments.ORACLE_FROM]:
        plain, nudged = (rms(errors(name, t, key)) for key in ("after", "nudged"))
        assert plain / 4 < nudged < 4 * plain + 1


@pytest.mark.parametrize("name", JUDGED)
def test_the_oracle_judges(name: str) -> None:
    """numpy's fast tier holds; errors a tenth larger than what is allowed do not."""
    sound = drift.oracle(bench(name), record(run(name)), "fast", SIDES)
    assert sound.status == PASS
    found = drift.oracle(bench(name), record(moved(name, 1.1 * sound.budget / sound.derived)), "fast", SIDES)
    assert found.status == FAIL
    assert found.first is not None
    assert found.worst > found.budget


def test_what_few_elements_decide_is_known_less_well() -> None:
    even = np.ones(10_000)
    assert drift.worse(even) == drift.WORSE
    assert drift.worse(even[:16]) == 2
    alone = np.where(np.arange(10_000) == 7, 1e12, 1.0)
    assert drift.worse(alone) == pytest.approx(5, abs=1e-3)
    assert drift.worse(np.zeros(4)) == 3


ILL = "shampoo/usual"


def test_where_rounding_decides_the_trajectory_the_oracle_is_shown() -> None:
    """Found by the nudged run alone: what a record holds has no say in it."""
    nudged = [rms(errors(ILL, t, "nudged")) for t in (10, 100)]
    assert all(e > 4 * math.sqrt(t) + 1 for e, t in zip(nudged, (10, 100), strict=True))
    for made in (run(ILL), moved(ILL, 1e3)):
        found = drift.oracle(bench(ILL), record(made), "fast", SIDES)
        assert found.status == SHOWN
        assert "from update 10 on rounding decides the trajectory" in found.note
    calm = Bench(CASES[ILL], {k: np.zeros_like(x) if "/nudged/" in k else x for k, x in bench(ILL).known.items()})
    assert drift.oracle(calm, record(moved(ILL, 1e9)), "fast", SIDES).status == FAIL


def test_where_work_may_be_rounded_elsewhere_the_oracle_is_shown() -> None:
    """In bfloat16, where a product may go into a sum unrounded; in lockstep a wrong update is caught all the same."""
    name = "muon.two_bfloat16/usual"
    assert rms(errors(name, 10, "nudged")) > 4 * math.sqrt(10) + 1
    assert drift.oracle(bench(name), record(run(name)), "fast", SIDES).status == SHOWN
    made = experiments.lockstep(CASES[name], load("numpy"), "fast", bench(name).known)
    assert not gate.lockstep(bench(name), record(made)).failed
    key = f"{name}/lockstep/6/tall"
    before = bench(name).known[f"{name}/start/6/tall"]
    longer = (before + np.float32(2) * (made[key] - before)).astype(np.float32)
    assert gate.lockstep(bench(name), record({**made, key: longer})).failed


@pytest.mark.parametrize("mutant", [m for m in WRONG if ILL in m.cases], ids=lambda m: m.name)
def test_there_wrong_optimizers_are_caught_in_lockstep(mutant) -> None:
    assert examine(replace(mutant, cases=(ILL,)), updates=100).caught


def test_a_reference_without_its_oracles_is_refused() -> None:
    name = JUDGED[0]
    key = f"{name}/nudged/10/tall"
    known = {k: x for k, x in bench(name).known.items() if k != key}
    with pytest.raises(NotComparableError, match=key):
        drift.oracle(Bench(CASES[name], known), record(run(name)), "fast", SIDES)
