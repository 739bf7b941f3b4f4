"""The conformance package and the contract of namespaces: each measure sees what it is for."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest

from dualopt import namespace, replay
from dualopt.errors import CountError, GradientError, MissingFrameworkError, NonFiniteError, RecipeError
from dualopt.exact import exact
from dualopt.executor import executor
from dualopt.namespace import Backend
from dualopt_conformance import inputs, metric
from dualopt_conformance.metric import bit_differences, normwise, scaled_ulp
from dualopt_conformance.replays import compare, lockstep

NAN, INF = np.nan, np.inf
TINY = 2.0**-126

# ---- metric


@pytest.mark.parametrize(
    ("x", "y", "scale", "dtype", "expected"),
    [
        (1.0, 1 + 2.0**-23, None, "float32", 1),
        (1.0, 1 + 2.0**-52, None, "float64", 1),
        (1.0, 1 + 2.0**-23, 4.0, "float32", 0.25),  # the terms were larger: four times the spacing
        (2.0**-30, 0.0, 1.0, "float32", 2.0**-7),  # cancellation: a tiny result of terms near 1
        (1.5, 1.5 + 2.0**-23, None, "float32", 1),
        (2.0, 2 - 2.0**-23, None, "float32", 0.5),  # the spacing is that above a power of two
        (-3.0, 3.0, None, "float32", 6 * 2**22),
        (TINY / 2, 0.0, None, "float32", 2**22),  # a flushed subnormal, in spacings of 2^-149
        (TINY / 2, 0.0, 1.0, "float32", 2.0**-104),
        (0.0, -0.0, None, "float32", 0),
        (INF, INF, None, "float32", 0),
        (NAN, NAN, None, "float32", 0),
        (INF, -INF, None, "float32", INF),
        (1.0, NAN, None, "float32", INF),
        (NAN, 1.0, 1.0, "float32", INF),
    ],
)
def test_scaled_ulp(x: float, y: float, scale: float | None, dtype: str, expected: float) -> None:
    assert scaled_ulp([x], [y], scale, dtype).tolist() == [expected]


def test_ulp_is_the_spacing() -> None:
    x = inputs.array("six_decades", (1000,), 0, "ulp")
    np.testing.assert_array_equal(metric.ulp(x, "float32"), np.spacing(np.abs(x)))
    np.testing.assert_array_equal(metric.ulp(x, "float64"), np.spacing(np.abs(x).astype(np.float64)))
    assert metric.ulp(0.0, "float32") == 2.0**-149


def test_bit_differences() -> None:
    x = np.array([[0.0, NAN, 1.0], [2.0, INF, 3.0]], np.float32)
    y = np.array([[-0.0, NAN, 1.0], [2.0, -INF, np.nextafter(np.float32(3), np.float32(4))]], np.float32)
    np.testing.assert_array_equal(bit_differences(x, y), [[True, False, False], [False, True, True]])
    np.testing.assert_array_equal(bit_differences(x.T, x.T), np.zeros((3, 2), bool))
    assert bit_differences(x[0, 0], y[0, 0]).shape == ()


def test_normwise() -> None:
    assert normwise([3.0, 4.0], [3.0, 4.0]) == 0
    assert normwise([3.0, 4.0], [3.0, 4.5]) == pytest.approx(0.1)
    assert normwise([3e200, 4e200], [3e200, 4.5e200]) == pytest.approx(0.1)
    assert normwise([[0.0]], [[0.0]]) == 0
    assert normwise([0.0], [1e-300]) == INF
    assert normwise(np.zeros(0), np.zeros(0)) == 0


def test_what_cannot_be_compared_is_refused() -> None:
    one = np.ones(2, np.float32)
    for measure in (scaled_ulp, bit_differences, normwise):
        with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
            measure(one, one[:1])
    with pytest.raises(ValueError, match="dtypes float32 and float64"):
        bit_differences(one, one.astype(np.float64))


# ---- inputs


@pytest.mark.parametrize("kind", inputs.KINDS)
@pytest.mark.parametrize("shape", inputs.SHAPES.values(), ids=inputs.SHAPES)
def test_inputs_have_shape_and_type(kind: str, shape: tuple[int, ...]) -> None:
    x = inputs.array(kind, shape, 0, "x")
    assert (x.dtype, x.shape) == (np.float32, shape)
    assert np.isfinite(x).all()
    assert x.tobytes() == inputs.array(kind, shape, 0, "x").tobytes()
    if x.size > 10:
        assert x.tobytes() != inputs.array(kind, shape, 1, "x").tobytes()
        assert x.tobytes() != inputs.array(kind, shape, 0, "y").tobytes()


def test_inputs_try_what_they_say() -> None:
    drawn = {kind: inputs.array(kind, (200, 50), 0, "x").astype(np.float64) for kind in inputs.KINDS}
    assert abs(np.mean(drawn["bell"] ** 2) - 1) < 0.05
    size = np.abs(drawn["six_decades"])
    assert np.quantile(size, 0.95) / np.quantile(size, 0.05) > 1e5
    rows = np.linalg.norm(drawn["six_rows"], axis=1)
    assert rows.max() / rows.min() > 1e5
    assert 1e-20 < np.abs(drawn["tiny"]).mean() < 1e-17
    assert 1e14 < np.abs(drawn["huge"]).mean() < 1e16
    assert 0.5 < np.mean(drawn["zeros"] == 0) < 0.9
    assert np.any(~drawn["zeros"].any(axis=1))
    assert set(np.abs(drawn["ties"]).flat) == {0, 0.25, 0.5, 1, 2}
    assert np.linalg.matrix_rank(drawn["low_rank"], tol=1e-3) == 1


def test_increments_vary() -> None:
    drawn = inputs.increments(200, least=3, most=9)
    assert set(drawn) == set(range(3, 10))
    assert drawn == inputs.increments(300, least=3, most=9)[:200]


# ---- lockstep

GROUP = {"optimizer": "adamw", "step": 0.1}
CASE: tuple[Any, ...] = (
    GROUP,
    inputs.parameters({"a": (2, 3), "b": (4,)}),
    list(inputs.gradients({"a": (2, 3), "b": (4,)}, 3)),
    7,
)


def test_lockstep_finds_nothing_where_nothing_differs(backend: Backend) -> None:
    report = lockstep(*CASE, backends=("numpy", backend.name))
    assert (report.compared, report.differing, report.first) == (3 * 3 * 10, 0, None)
    assert str(report) == "0 of 90 elements differ in bits"


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations are undone after the test."""
    for name in ("_LOADERS", "_loaded"):
        monkeypatch.setattr(namespace, name, dict(getattr(namespace, name)))


@pytest.mark.usefixtures("table")
def test_lockstep_finds_a_backend_with_another_root() -> None:
    """A root off by an ulp now and then, as some vector libraries have it."""
    tier = exact(np, sqrt=lambda x: np.where(x > 1e-4, np.nextafter(np.sqrt(x), np.float32(0)), np.sqrt(x)))
    sound = namespace.load("numpy")
    sloppy = dataclasses.replace(sound, namespaces={"exact": tier}, execute=lambda _: executor(tier))
    namespace.register("sloppy", lambda: sloppy)
    report = lockstep(*CASE, backends=("numpy", "sloppy"))
    assert 0 < report.differing < report.compared
    assert report.first is not None
    assert (report.first.update, report.first.key) == (0, "")  # memories do not depend on roots
    assert f"parameter {report.first.name!r}" in str(report)


def test_compare_names_the_first_difference() -> None:
    reference = replay(*CASE)
    other = copy.deepcopy(reference)
    for t, name in ((1, "b"), (2, "a")):
        m = other.state[t][name]["m"]
        m.flat[2] = np.nextafter(m.flat[2], np.float32(INF))
    report = compare(reference, other)
    assert report.differing == 2
    assert report.first is not None
    at = report.first
    assert (at.update, at.name, at.key, at.index) == (1, "b", "m", (2,))
    assert float.fromhex(at.reference) == reference.state[1]["b"]["m"][2] != float.fromhex(at.other)
    assert f"first: update 1: state 'm' of 'b' at [2] is {at.reference} and {at.other}" in str(report)


def test_compare_refuses_runs_of_different_things() -> None:
    reference = replay(*CASE)
    shorter, fewer = copy.deepcopy(reference), copy.deepcopy(reference)
    shorter.params.pop()
    del fewer.state[2]["a"]["v"]
    for other in (shorter, fewer):
        with pytest.raises(ValueError, match="on one side only"):
            compare(reference, other)
    with pytest.raises(ValueError, match="nothing to compare"):
        compare(replay(GROUP, {"a": np.zeros(0)}, [{}], 1), replay(GROUP, {"a": np.zeros(0)}, [{}], 1))


# ---- the contract


def test_the_contract_is_met(backend: Backend) -> None:
    assert all(namespace.missing(xp) == [] for xp in backend.namespaces.values())
    assert set(backend.namespaces) == set(namespace.TIERS)
    assert backend.name in namespace.known()
    assert namespace.missing(object()) == list(namespace.CONTRACT)
    with pytest.raises(RecipeError, match="tier: 'exakt' is not one of exact, fast; did you mean 'exact'"):
        backend.namespace("exakt")


@pytest.mark.usefixtures("table")
def test_backends_that_are_not_there() -> None:
    with pytest.raises(RecipeError, match=r"backend: 'nunpy' is not one of numpy, .*; did you mean 'numpy'"):
        namespace.load("nunpy")

    def absent() -> Backend:
        raise ImportError("No module named 'tinygrad'")

    namespace.register("tinygrad", absent)
    assert "tinygrad" not in namespace.installed()
    with pytest.raises(MissingFrameworkError, match=r"'tinygrad' needs .*pip install 'dualopt-optim\[tinygrad\]'"):
        namespace.load("tinygrad")


ONE = {"w": np.ones(2)}
REFUSED: tuple[tuple[dict[str, Any], type[Exception], str], ...] = (
    ({"dtype": "int8"}, RecipeError, "dtype 'int8': numpy has float32, float64, bfloat16, float16"),
    ({"tier": "slow"}, RecipeError, "tier: 'slow'"),
    ({"backend": "cupy"}, RecipeError, "backend: 'cupy'"),
    ({"group": {"optimizer": "muon"}}, RecipeError, "muon needs a matrix"),
    ({"counts": 0}, CountError, "positive whole number, got 0"),
    ({"counts": [1]}, CountError, "counts end before update 1"),
    ({"counts": [1, 1.5]}, CountError, "got 1.5"),
    ({"grads": [{"v": np.ones(2)}]}, GradientError, "gradient of 'v': no such parameter"),
    ({"grads": [{"w": np.ones(3)}]}, GradientError, r"'w' has shape \(3,\), its parameter \(2,\)"),
    ({"grads": [{"w": np.ones(2, complex)}]}, GradientError, "'w' is complex"),
    ({"grads": [{"w": np.ones(2, int)}]}, GradientError, "'w' is int64"),
    ({"grads": [{"w": np.array([1, NAN])}]}, NonFiniteError, "update 0: the gradient of 'w' holds NaN, infinity"),
    ({"grads": [ONE, {"w": np.array([INF, 1])}]}, NonFiniteError, "update 1"),
    ({"grads": [{"w": np.array([1e39, 1])}]}, NonFiniteError, "update 0"),
    ({"group": {"optimizer": "adamw"}, "grads": [{"w": np.array([1e19, 1])}]}, NonFiniteError, "too large to square"),
    ({"params": [1.0]}, RecipeError, "params: a mapping of names to arrays, got list"),
    ({"params": {"w": [[1.0], [1.0, 2.0]]}}, RecipeError, "params: not arrays"),
    ({"params": {"w": np.ones(2, complex)}}, RecipeError, "'w' is complex128"),
    ({"grads": {"w": np.ones(2)}}, RecipeError, "update 0: grads: a mapping"),
)


@pytest.mark.parametrize(("change", "error", "message"), REFUSED, ids=[str(i) for i in range(len(REFUSED))])
def test_replay_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments = {"group": GROUP, "params": ONE, "grads": [ONE, ONE], "counts": 1, **change}
    with pytest.raises(error, match=message):
        replay(**arguments)
