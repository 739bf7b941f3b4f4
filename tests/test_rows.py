"""Every row of the catalogue in the exact tier: the same bits on every backend as on numpy.

Also: scalars as Python floats and as 0-d arrays give the same bits, no input array is modified, and a
parameter without gradient neither moves nor ages. Gradients change kind from update to update and
increments vary; they stay clear of subnormal numbers, which some backends flush.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES, Replay, replay
from dualopt.clock import Clock
from dualopt.digest import digest
from dualopt.directions.norm_balls import MUON_SCALES, NORMS
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.recursion import step
from dualopt.shrink import KINDS
from dualopt.views import view
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare, lockstep

MOTIONS: dict[str, dict[str, Any]] = {kind: {"shrink": kind} for kind in KINDS}
MOTIONS["strict mask"] = {"shrink": "cautious", "strict_mask": True}
MOTIONS["targeted"] = {"target_rms": 0.7}
COMMON = {"step": 0.03, "shrink_half_life": 2e4}
GRADIENTS = ("bell", "six_decades", "zeros", "ties", "low_rank", "six_rows", "huge")
SHAPES = {**inputs.SHAPES, "kernel": (3, 1, 7)}
ELEMENTWISE = ("scalar", "vector", "square", "empty")
STATED = {"sophia": {"second_memory_half_life": 50.0}}  # or 1e15 is remembered, and nothing moves any more
LONG = {"muon direct": ("tall", "wide"), "scion direct": ("tall",), "scionc direct": ("stack",)}

Case = tuple[dict[str, Any], tuple[str, ...], int]  # group, names of shapes, updates


def _cases() -> dict[str, Case]:
    """Rows by motions, norms, scales, options; a polynomial iteration is long with one motion only."""
    found: dict[str, Case] = {}
    for row, entry in ((row, entry) for row, entry in ENTRIES.items() if entry.motion == "additive"):
        for motion, options in MOTIONS.items():
            if not {*options, *COMMON} <= {*entry.uses}:
                continue  # moves in another way: see the tests of that motion
            case, group = f"{row} {motion}", {"optimizer": row, **COMMON, **STATED.get(row, {}), **options}
            of_matrices = entry.least_ndim(entry.defaults) > 1
            short = of_matrices and entry.name not in ("row_norm", "column_norm")  # all others multiply matrices
            shapes = LONG.get(case, ("wide",)) if short else ("tall", "wide") if of_matrices else ELEMENTWISE
            found[case] = group, shapes, 5 if short and case not in LONG else 50
    for norm in NORMS:
        spectral = norm.startswith("spectral")
        shapes = ("wide",) if spectral else ("tall", "wide", "stack")
        shapes = {"spectral_conv": ("kernel",), "bias_rms": ("vector", "stack", "scalar")}.get(norm, shapes)
        group = {"optimizer": "scionc", "norm": norm, **COMMON}
        found[f"norm {norm}"] = group, shapes, 5 if spectral else 50
    for scale in MUON_SCALES:
        found[f"scale {scale}"] = {"optimizer": "muon", "scale": scale, **COMMON}, ("wide",), 3
    for name, group, shapes in (
        ("adam without correction", {"optimizer": "adamw", "bias_correction": False}, ELEMENTWISE),
        ("adam with nesterov", {"optimizer": "adamw", "readout": 0.9}, ELEMENTWISE),
        ("adam with l2", {"optimizer": "adam_l2", "l2": 0.1}, ELEMENTWISE),
        ("sgdm with l2", {"optimizer": "sgdm", "l2": 0.1, "readout": 0.9}, ELEMENTWISE),
        ("column transposed", {"optimizer": "scion", "norm": "column", "orientation": "in_out"}, ("tall",)),
    ):
        found[name] = {**group, **COMMON}, shapes, 50
    return found


CASES = _cases()
PINNED = {
    "sgdm direct": "72be64bd58911007",
    "rmsprop direct": "87d761e4595d9c52",
    "sign_sgdm direct": "3898719410f9300f",
    "adamw direct": "75bfdb100983e620",
    "adam_l2 direct": "75bfdb100983e620",
    "lion direct": "172665dd8175fdbe",
    "muon direct": "6c931786d983e780",
    "scion direct": "21801b4c70e25297",
    "scionc direct": "26c674fca087ba08",
    "lion cautious": "e639a7d896563916",
    "sgdm targeted": "a2a44b4f178fba0f",
    "norm column": "54122b2c89ecedc7",
}


@lru_cache
def data(case: str) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]], list[int]]:
    group, names, updates = CASES[case]
    shapes = {name: SHAPES[name] for name in names}
    gradients = list(inputs.gradients(shapes, updates, kinds=GRADIENTS))
    del gradients[2][names[0]]  # this parameter lags behind the others from here on
    return group, inputs.parameters(shapes), gradients, inputs.increments(updates)


@lru_cache
def reference(case: str) -> Replay:
    return replay(*data(case))


@pytest.mark.parametrize("case", CASES)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, case: str) -> None:
    report = compare(reference(case), replay(*data(case), backend=backend.name))
    assert report.differing == 0, str(report)
    assert report.compared > 0


@pytest.mark.parametrize("row", ["adamw", "lion", "scion"])
def test_squares_below_the_normal_range(backend: Backend, flushes: Callable[[Backend], bool], row: str) -> None:
    """Gradients of 1e-18: a backend that flushes subnormal numbers loses v, and v alone comes first."""
    shapes = {"w": (5, 5)}
    group = {"optimizer": row} | ({"norm": "frobenius"} if row == "scion" else {})
    grads = inputs.gradients(shapes, 10, kinds=("tiny",))
    report = lockstep(group, inputs.parameters(shapes), grads, 7, backends=("numpy", backend.name))
    if row == "adamw" and flushes(backend):
        assert report.first is not None
        assert (report.first.update, report.first.key) == (0, "v")
    else:
        assert report.differing == 0, str(report)


@pytest.mark.parametrize("case", CASES)
def test_the_replay_moves_and_skips(case: str) -> None:
    """The comparison above is of something: parameters move, and stay where there is no gradient."""
    _, params, gradients, _ = data(case)
    found = reference(case)
    before = [params, *found.params]
    for name in (name for name, x in params.items() if x.size):
        still = [np.array_equal(before[t][name], before[t + 1][name]) for t in range(len(gradients))]
        assert still[2] == (name not in gradients[2])
        assert sum(still) <= len(still) // 2, still
        assert np.isfinite(found.params[-1][name]).all()


@pytest.mark.parametrize("case", PINNED)
def test_the_definition_has_not_changed(case: str) -> None:
    """The digest of all parameters and state after the last update. Where a definition changes on purpose,
    so do recorded results: say so, and pin the new digest. (Without a penalty adam_l2 is adamw.)"""
    last = (reference(case).params[-1], reference(case).state[-1])
    arrays = [(name, x) for name, x in last[0].items()]
    arrays += [(f"{name}/{key}", x) for name, s in last[1].items() for key, x in s.items()]
    assert digest(arrays) == PINNED[case]


def test_a_parameter_without_gradient_neither_moves_nor_ages() -> None:
    """The late one of two parameters is where it would be alone with the updates that it took part in."""
    shapes = {"early": (3,), "late": (4,)}
    params, grads = inputs.parameters(shapes), list(inputs.gradients(shapes, 6))
    increments = inputs.increments(6)
    present = [1, 2, 5]
    mixed = [g if t in present else {"early": g["early"]} for t, g in enumerate(grads)]
    group = {"optimizer": "adamw", "memory_half_life": 900, "second_memory_half_life": 5e3, **COMMON}
    found = replay(group, params, mixed, increments)
    alone = replay(
        group,
        {"late": params["late"]},
        [{"late": grads[t]["late"]} for t in present],
        [increments[t] for t in present],
    )
    assert found.params[-1]["late"].tobytes() == alone.params[-1]["late"].tobytes()
    assert found.state[-1]["late"]["v"].tobytes() == alone.state[-1]["late"]["v"].tobytes()
    assert found.params[0]["late"].tobytes() == params["late"].tobytes()
    assert found.scalars[1]["early"] != found.scalars[1]["late"]


@pytest.mark.parametrize("norm", ["column", "row", "sign", "spectral", "spectral_max"])
def test_a_transposed_matrix_moves_as_its_transpose(norm: str) -> None:
    params, grads = inputs.parameters({"w": (3, 7)}), list(inputs.gradients({"w": (3, 7)}, 3))
    group = {"optimizer": "scionc", "norm": norm, **COMMON}
    plain = replay(group, params, grads, 10).params[-1]["w"]
    turned = [{"w": g["w"].T.copy()} for g in grads]
    other = replay({**group, "orientation": "in_out"}, {"w": params["w"].T.copy()}, turned, 10).params[-1]["w"]
    assert plain.tobytes() == other.T.tobytes()


LAST = {"layout": "channels_last"}


@pytest.mark.parametrize(
    ("shape", "options", "logical", "seen"),
    [
        ((), {"least_ndim": 0}, (), ()),
        ((), {"least_ndim": 1}, (1,), (1,)),
        ((5, 2, 3), {"least_ndim": 2}, (5, 2, 3), (5, 2, 3)),
        ((5, 2, 3), {"least_ndim": 2, "orientation": "in_out"}, (5, 3, 2), (5, 3, 2)),
        ((8, 2, 5, 3), {"least_ndim": 2, "norm": "spectral_conv"}, (8, 2, 5, 3), (8, 30)),
        ((8, 5, 3, 2), {"least_ndim": 2, "norm": "spectral_conv", **LAST}, (8, 2, 5, 3), (8, 30)),
        ((8, 2, 5, 3), {"least_ndim": 2}, (8, 30), (8, 30)),
        ((8, 5, 3, 2), {"least_ndim": 2, **LAST}, (8, 30), (8, 30)),
        ((8, 5, 2), {"least_ndim": 2, "kind": "conv", **LAST}, (8, 10), (8, 10)),
        ((8, 5, 2), {"least_ndim": 2, **LAST}, (8, 5, 2), (8, 5, 2)),
        ((8, 5, 3, 2), {"least_ndim": 2, "kind": "stack", **LAST}, (8, 5, 3, 2), (8, 5, 3, 2)),
        ((8, 5, 3, 2), {"least_ndim": 0, **LAST}, (8, 5, 3, 2), (8, 5, 3, 2)),
    ],
)
def test_views(shape: tuple[int, ...], options: dict[str, Any], logical: Any, seen: Any) -> None:
    found, x = view(shape, **options), np.arange(math.prod(shape)).reshape(shape)
    applied = found.apply(np, x)
    assert (found.logical, found.seen, applied.shape) == (logical, seen, seen)
    np.testing.assert_array_equal(found.undo(np, applied), x)
    if seen != shape and len(seen) == 2:  # every layout gives the matrix of the channels-first one
        first = np.moveaxis(x, -1, 1) if "layout" in options else x
        np.testing.assert_array_equal(applied, first.reshape(seen))


@pytest.mark.parametrize("case", [case for case in CASES if CASES[case][2] == 50])
def test_scalars_are_opaque_and_nothing_is_modified(backend: Backend, case: str) -> None:
    """k as floats and as 0-d float32 arrays: the same bits. On numpy all inputs are read-only."""
    table, params, gradients, increments = data(case)
    xp = backend.namespace("exact")
    plan = Plan(Recipe(groups=(Group.from_dict(table),)), {name: params[name].shape for name in gradients[0]})
    planned = plan.groups[0]
    for name, seen in planned.views.items():
        if seen.size == 0:
            continue
        clock = Clock(0, 0)
        state: dict[str, Any] | None = None
        for t in range(2):
            clock = clock.tick(increments[t], 0.5)
            clock = dataclasses.replace(clock, sums=planned.row.tally(planned.action, clock))
            k = planned.row.scalars(planned.action, clock, seen.logical)
            zero_d = {key: backend.from_numpy(np.array(value, np.float32), "float32") for key, value in k.items()}
            theta, gradient = (seen.apply(xp, backend.from_numpy(x[name], "float32")) for x in (params, gradients[t]))
            state = planned.row.init(xp, theta) if state is None else state  # as the row sees it
            given = [theta, gradient, *state.values(), *zero_d.values()]
            before = [backend.to_numpy(x) for x in given]
            if backend.name == "numpy":
                for x in given:
                    x.setflags(write=False)
            evidence = {"gradient": gradient}
            by_float = step(xp, planned.row, theta, state, evidence, k)
            by_array = step(xp, planned.row, theta, state, evidence, zero_d)
            for one, other in ((by_float[0], by_array[0]), *zip(by_float[1].values(), by_array[1].values())):  # noqa: B905
                assert backend.to_numpy(one).tobytes() == backend.to_numpy(other).tobytes()
            assert by_float[1].keys() == by_array[1].keys() == state.keys()
            for x, old in zip(given, before, strict=True):
                assert backend.to_numpy(x).tobytes() == old.tobytes()
            state = by_float[1]
