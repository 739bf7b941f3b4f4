"""Streams of microbatches: the same bits on every backend, memory that does not grow, and native loops.

Numbers of microbatches and increments vary from update to update; one parameter joins late.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from dualopt import Replay, explain, numpy_backend, replay
from dualopt.clock import Clock
from dualopt.errors import GradientError, NonFiniteError
from dualopt.estimators import ESTIMATORS, FOUR
from dualopt.generator import Stream
from dualopt.microbatches import Folding
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.recursion import step
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare

KINDS = ("bell", "six_decades", "zeros", "ties", "huge", "bell")
SHAPES = {"scalar": (), "vector": (7,), "square": (5, 5), "empty": (0,), "kernel": (2, 3, 2, 2)}
MATRIX = {"wide": (2, 3)}  # one small shape: what JAX compiles grows with it
COMMON = {"step": 0.03, "shrink_half_life": 2e4}


def _cases() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {"muon std": {"optimizer": "muon"}, "lion std": {"optimizer": "lion"}}
    found |= {f"adamw {e}": {"optimizer": "adamw", "estimator": e} for e in ESTIMATORS}
    found["adamw inv, plain"] = {"optimizer": "adamw", "estimator": "inv", "bias_correction": False, "readout": 0.9}
    found["adamw sym, averaged"] = {"optimizer": "adamw", "estimator": "sym", "readout": 0.5, "shrink": "cautious"}
    for e in FOUR:
        for hessian in ("squares", "samples"):
            found[f"sophia {e} {hessian}"] = {"optimizer": "sophia", "estimator": e, "hessian": hessian}
        found[f"shampoo {e}"] = {"optimizer": "shampoo", "estimator": e, "root_interval": 700}
    found["shampoo plain"] = {"optimizer": "shampoo", "bias_correction": False}
    return found


CASES = _cases()


@lru_cache
def data(case: str) -> tuple[Any, ...]:
    """(group, parameters, microbatches of every update, counts, samples of every update)."""
    group = {**CASES[case], **COMMON}
    matrices = group["optimizer"] in ("shampoo", "muon")
    shapes, updates = (MATRIX, 3) if matrices else (SHAPES, 8)
    late = next(iter(shapes))
    counts = [4 + t % 3 for t in range(updates)]
    streams: list[list[list[dict[str, Any]]]] = []
    for label in (0, 1):
        flat = inputs.gradients(shapes, sum(counts) * (label + 1), kinds=KINDS)
        given = [next(flat) for _ in range(sum(counts) * label)]
        given = [[dict(next(flat)) for _ in range(n)] for n in counts]  # type: ignore[misc]
        streams.append(given)  # type: ignore[arg-type]
    if not matrices:
        for tree in (*streams[0][0], *streams[1][0]):
            del tree[late]
    sampled = group.get("hessian") == "samples"
    samples = [s if t % 3 == 0 else None for t, s in enumerate(streams[1])] if sampled else None
    return group, inputs.parameters(shapes), streams[0], inputs.increments(updates), samples


def run(case: str, backend: str = "numpy", **options: Any) -> Replay:
    group, params, micro, counts, samples = data(case)
    return replay(group, params, micro, counts, samples=samples, backend=backend, **options)


@lru_cache
def reference(case: str) -> Replay:
    return run(case)


@pytest.mark.parametrize("case", CASES)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, case: str) -> None:
    report = compare(reference(case), run(case, backend.name))
    assert report.differing == 0, str(report)
    assert report.compared > 0
    for name, x in reference(case).params[-1].items():
        assert np.isfinite(x).all()
        assert x.size == 0 or not np.array_equal(x, data(case)[1][name])


@pytest.mark.parametrize("case", ["adamw loo_jensen", "sophia full samples"])
def test_half_precision(backend: Backend, case: str) -> None:
    if "bfloat16" in backend.dtypes:
        report = compare(run(case, dtype="bfloat16"), run(case, backend.name, dtype="bfloat16"))
        assert report.differing == 0, str(report)


@pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] in ("adamw", "sophia")])
def test_the_fast_tier_is_close(backend: Backend, case: str) -> None:
    """Eight updates of 0.03 whose u are right to 1e-4: cancelled means are read at 1e-7 of what was cancelled.

    Single updates, and those of Shampoo, are held to derived budgets in `test_folded`.
    """
    exact, fast = reference(case).params[-1], run(case, backend.name, tier="fast").params[-1]
    for name, x in exact.items():
        np.testing.assert_allclose(fast[name], x, rtol=1e-6, atol=8 * 0.03 * 1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case.split()[0] in ("adamw", "sophia", "shampoo")])
def test_scalars_are_opaque_and_nothing_is_modified(case: str) -> None:
    """k as floats and as 0-d arrays: the same bits from folds and step. All inputs are read-only."""
    group, params, micro, _, samples = data(case)
    plan = Plan(Recipe(groups=(Group.from_dict(group),)), {name: x.shape for name, x in params.items()})
    row, name = plan.groups[0].row, next(n for n in micro[1][0] if params[n].size)
    xp, planned = numpy_backend.BACKEND.namespace("exact"), plan.groups[0]
    clock = Clock(0, 0).tick(300, 0.5)
    k = row.scalars(planned.action, Clock(clock.tau, clock.dtau, 0.5, 1.0, row.tally(planned.action, clock)), ())
    found = []
    for scalars in (k, {key: np.array(x, np.float32) for key, x in k.items()}):
        state = planned.start(xp, name, params[name])
        state = {key: 0.125 * np.ones_like(x) if key == "v" else x for key, x in state.items()}
        evidence: dict[str, Any] = {}
        for stream, given in (("gradient", micro[1]), ("samples", samples and samples[0])):
            if not given:
                continue
            trees = [{name: tree[name]} for tree in given if name in tree]
            if not trees:
                continue
            for x in (params[name], *state.values(), *(tree[name] for tree in trees)):
                x.setflags(write=False)
            folding = Folding(plan, xp, lambda _, s=state: s, {name: scalars}, stream=stream)
            for tree in trees:
                folding.add(tree)
            folding.turn()
            for tree in trees if folding.passes > 1 else ():
                folding.again(tree)
            evidence |= folding.evidence()[name]
        seen = planned.measured(xp, name, evidence)
        theta = planned.views[name].apply(xp, params[name])
        found.append((evidence, *step(xp, row, theta, planned.seen(xp, name, state), seen, scalars)))
    for key, x in found[0][0].items():
        assert x.tobytes() == found[1][0][key].tobytes(), key
    assert found[0][1].tobytes() == found[1][1].tobytes()
    for key, x in found[0][2].items():
        assert x.tobytes() == found[1][2][key].tobytes(), key


def stream(shape: tuple[int, ...], count: int, seed: int = 0) -> list[dict[str, Any]]:
    return [{"w": np.array(Stream(seed, f"w/{j}").bell(shape))} for j in range(count)]


def test_a_generator_is_a_list() -> None:
    trees = stream((5,), 6)
    for estimator in ("std", "sym", "full"):
        group = {"optimizer": "adamw", "estimator": estimator}
        one = replay(group, {"w": np.ones(5)}, [trees] * 3, 1)
        other = replay(group, {"w": np.ones(5)}, ((tree for tree in trees) for _ in range(3)), 1)
        assert one.params[-1]["w"].tobytes() == other.params[-1]["w"].tobytes()


class Lazy:
    """Gradients that exist while they are looked at."""

    def __init__(self, size: int, count: int) -> None:
        self.size, self.count = size, count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for j in range(self.count):
            yield {"w": np.full(self.size, 1.0 + j, np.float32)}


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_memory_does_not_grow(estimator: str) -> None:
    """The peak with 40 microbatches is that with 4, within the tenth of an array."""
    size = 100_000
    params, peaks = {"w": np.ones(size, np.float32)}, []
    for count in (4, 4, 40):
        tracemalloc.start()
        replay({"optimizer": "adamw", "estimator": estimator}, params, [Lazy(size, count)], 1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < peaks[1] + 0.1 * 4 * size, peaks


def test_a_bad_microbatch_is_found() -> None:
    trees = stream((3,), 4)
    trees[2]["w"][1] = np.inf
    with pytest.raises(NonFiniteError, match="update 0"):
        replay({"optimizer": "adamw", "estimator": "inv"}, {"w": np.ones(3)}, [trees], 1)
    trees[2]["w"] = np.ones(4)
    with pytest.raises(GradientError, match="shape"):
        replay({"optimizer": "adamw", "estimator": "inv"}, {"w": np.ones(3)}, [trees], 1)


def test_means_of_the_largest_numbers() -> None:
    """No difference overflows on the way."""
    large = float(np.finfo(np.float32).max)
    trees = [{"w": np.array([sign * large])} for sign in (1, -1, 1, -1)]
    found = replay({"optimizer": "sgdm"}, {"w": np.zeros(1)}, [trees], 1)
    assert np.isfinite(found.params[0]["w"]).all()


def test_explain_runs_a_dry_update() -> None:
    for estimator in ESTIMATORS:
        table = {
            "count": {"unit": "updates"},
            "group": [{"optimizer": "adamw", "match": ["*"], "estimator": estimator}],
        }
        assert explain({"w": (3, 2)}, table, dry=True).dry == 1
