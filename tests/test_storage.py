"""Half-precision parameters in `drive` and `replay`: widened, updated in float32, rounded once when stored.

The twin carries one update out in float32 and rounds what it leaves with `rounded` of the conformance suite:
in the exact tier numpy's, in the fast tier the backend's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt import namespace, storage
from dualopt.counts import Count
from dualopt.errors import NonFiniteError, RecipeError
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.replay import Moment, drive, replay
from dualopt_conformance import inputs
from dualopt_conformance.cases import rounded

Numpy = np.ndarray[Any, Any]
HALF = ("bfloat16", "float16")
INF = np.float32(np.inf)
LARGEST = {"bfloat16": 255 * 2.0**120, "float16": 65504.0}
DIGITS = {"bfloat16": 8, "float16": 11}  # of the significand

# Long enough for a compiled kernel, several matrices of one shape, nothing at all.
SHAPES = {"scalar": (), "empty": (0,), "vector": (129,), "tall": (7, 3), "wide": (3, 7), "stack": (2, 4, 3)}
MATRICES = {"empty": (3, 0), "tall": (7, 3), "other": (7, 3)}
ROWS = {"adamw": SHAPES, "lion": SHAPES, "scionc": MATRICES}


def recipe(row: str, **options: Any) -> Recipe:
    return Recipe((Group.from_dict({"optimizer": row, "shrink_half_life": 40.0, **options}),), Count("samples"))


def given(shapes: Mapping[str, Any], dtype: str, updates: int) -> tuple[dict[str, Numpy], list[dict[str, Numpy]]]:
    """Parameters and gradients that hold values of `dtype`."""
    params = {n: rounded(x, dtype) for n, x in inputs.parameters(shapes).items()}
    series = inputs.gradients(shapes, updates, kinds=("bell", "zeros", "six_decades"))
    return params, [{n: rounded(g, dtype) for n, g in gradient.items()} for gradient in series]


def twin(made: Backend, tier: str, table: Recipe, params: Any, grads: Any, dtype: str) -> Iterator[Moment]:
    """What `drive` should do, with float32 arrays only."""
    xp, execute, plan = made.namespace(tier), made.execute(tier), Plan(table, {n: x.shape for n, x in params.items()})
    (planned,) = plan.groups

    def array(x: Numpy) -> Any:
        return made.from_numpy(x, "float32")

    theta = dict(params)
    state = {n: planned.start(xp, n, array(x)) for n, x in theta.items()}
    for gradient in grads:
        proposal = plan.propose(None, gradient)
        here = {n: array(x) for n, x in theta.items()}
        evidence = {n: {"gradient": array(x)} for n, x in gradient.items()}
        for name, (moved, s) in execute(planned, here, state, evidence, proposal.scalars).items():
            theta[name], state[name] = rounded(made.to_numpy(moved), dtype), s
        plan.commit(proposal)
        kept = {n: {key: made.to_numpy(x) for key, x in s.items()} for n, s in state.items()}
        yield Moment(dict(theta), kept, {}, {})


def same_bits(x: Numpy, y: Numpy) -> bool:
    return x.dtype == y.dtype == np.float32 and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("tier", ["exact", "fast"])
@pytest.mark.parametrize("row", ROWS)
def test_the_bits_of_the_twin(backend: Backend, row: str, tier: str, dtype: str) -> None:
    params, grads = given(ROWS[row], dtype, 4)
    made = namespace.load("numpy") if tier == "exact" else backend
    expected = list(twin(made, tier, recipe(row), params, grads, dtype))
    found = list(drive(recipe(row), params, grads, backend=backend.name, tier=tier, dtype=dtype))
    assert len(found) == 4
    for here, there in zip(found, expected, strict=True):
        for name, x in here.params.items():
            assert same_bits(x, there.params[name]), name
            assert same_bits(x, rounded(x, dtype)), name
            assert here.state[name].keys() == there.state[name].keys()
            assert all(same_bits(s, there.state[name][key]) for key, s in here.state[name].items()), name
    assert any(not np.array_equal(found[-1].params[n], x) for n, x in params.items() if x.size)


def moved(backend: Backend, tier: str, dtype: str, theta: Any, gradient: Any, step: float) -> Numpy:
    """θ − step·sign(g), as it is stored: Lion without shrink."""
    one = recipe("lion", step=step, shrink_half_life=float("inf"))
    arrays = np.full(129, theta, np.float32), np.full(129, gradient, np.float32)
    (found,) = drive(one, {"w": arrays[0]}, [{"w": arrays[1]}], backend=backend.name, tier=tier, dtype=dtype)
    return found.params["w"]


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("tier", ["exact", "fast"])
def test_rounding_is_to_nearest_even(backend: Backend, tier: str, dtype: str) -> None:
    last = 2.0 ** (1 - DIGITS[dtype])  # of 1
    ties = ((1.0, last / 2, 1.0), (1 + last, last / 2, 1 + 2 * last), (1.0, last / 2 * (1 + 2.0**-10), 1 + last))
    for theta, step, expected in ties:
        assert set(moved(backend, tier, dtype, theta, -1.0, step)) == {np.float32(expected)}
        assert set(moved(backend, tier, dtype, -theta, 1.0, step)) == {np.float32(-expected)}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("tier", ["exact", "fast"])
def test_too_large_is_infinity(backend: Backend, tier: str, dtype: str) -> None:
    largest = LARGEST[dtype]
    half = 2.0 ** -DIGITS[dtype] * 2.0 ** (np.frexp(largest)[1] - 1)  # of the spacing there
    for step, expected in ((half * 0.99, largest), (half, INF), (half * 1.5, INF)):
        assert set(moved(backend, tier, dtype, largest, -1.0, step)) == {np.float32(expected)}
        assert set(moved(backend, tier, dtype, -largest, 1.0, step)) == {np.float32(-expected)}


@pytest.mark.parametrize("dtype", HALF)
def test_values_pass_through_storage(backend: Backend, dtype: str) -> None:
    """NaN and infinity survive; what lies between two values goes where the twin puts it; any shape."""
    x = inputs.array("six_decades", (5, 3, 2), 0, "storage") * np.float32(3)
    special = np.array([np.inf, -np.inf, 0.0, -0.0, 1.0, 65519.0, 65520.0, -65536.0], np.float32)
    for given_array in (x, x[0, 0, 0], x[:0], special):
        with np.errstate(over="ignore"):
            expected = rounded(np.asarray(given_array), dtype)
        assert same_bits(backend.to_numpy(backend.from_numpy(given_array, dtype)), expected)
    payloads = np.array([0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x7FFFFFFF], np.uint32).view(np.float32)
    stored = backend.from_numpy(payloads, dtype)
    assert np.isnan(backend.to_numpy(stored)).all()
    assert str(backend.to_numpy(backend.working(stored)).dtype) == "float32"


def test_numpy_rounds_every_value_to_the_nearest() -> None:
    """All bfloat16 numbers, the ties between them and both neighbours of each, against float64 distances."""
    whole = np.arange(0, 0x7F80, dtype=np.uint32) << np.uint32(16)
    values = np.append(whole.view(np.float32).astype(np.float64), 2.0**128)
    for offset in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF):
        x = (whole + np.uint32(offset)).view(np.float32)
        found = storage.rounded(x, "bfloat16")
        below, above = x - values[:-1], values[1:] - x
        up = (above < below) | ((above == below) & (np.arange(len(x)) % 2 == 1))
        with np.errstate(over="ignore"):
            expected = np.where(up, values[1:], values[:-1]).astype(np.float32)
        assert same_bits(found, expected)
        assert same_bits(storage.rounded(-x, "bfloat16"), -expected)
    again = np.arange(0, 1 << 16, dtype=np.uint32).astype(np.uint16)
    kept = storage.store(storage.widen(again), "bfloat16")
    number = ~np.isnan(storage.widen(again))
    assert np.array_equal(kept[number], again[number])
    assert np.isnan(storage.widen(kept[~number])).all()


REFUSED = ((np.nan, HALF), (np.inf, HALF), (1e39, HALF), (65520.0, ("float16",)), (3.4e38, ("bfloat16",)))


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("bad", REFUSED, ids=[str(value) for value, _ in REFUSED])
def test_gradients_that_are_not_finite_when_stored_are_refused(backend: Backend, bad: Any, dtype: str) -> None:
    value, types = bad
    arguments: Any = (recipe("lion"), {"w": np.ones(2)}, [{"w": np.array([1.0, value])}])
    run = drive(*arguments, backend=backend.name, dtype=dtype)
    if dtype not in types and dtype == "bfloat16":
        next(run)
        return
    with pytest.raises(NonFiniteError, match="update 0: the gradient of 'w' holds NaN, infinity"):
        next(run)


def test_squares_are_bounded_by_the_working_type(backend: Backend) -> None:
    arguments: Any = (recipe("adamw"), {"w": np.ones(2)}, [{"w": np.full(2, 1e19)}])
    with pytest.raises(NonFiniteError, match="too large to square"):
        next(drive(*arguments, backend=backend.name, dtype="bfloat16"))


def test_unknown_types_are_named(backend: Backend) -> None:
    arguments: Any = ({"optimizer": "lion"}, {"w": np.ones(2)}, [{"w": np.ones(2)}], 1)
    with pytest.raises(RecipeError, match=f"dtype 'int8': {backend.name} has float32, .*bfloat16, float16"):
        replay(*arguments, backend=backend.name, dtype="int8")


@pytest.mark.parametrize("dtype", HALF)
def test_traces_are_of_widened_arrays(backend: Backend, dtype: str) -> None:
    params, grads = given(SHAPES, dtype, 2)
    group = recipe("adam_l2", l2=0.02).groups[0]  # whose signal reads θ
    found = replay(group, params, grads, 1, backend=backend.name, dtype=dtype, trace=True)
    for t, gradient in enumerate(grads):
        before = params if t == 0 else found.params[t - 1]
        for name in ("scalar", "vector", "stack"):
            expected = gradient[name] + np.float32(found.scalars[t][name]["l2"]) * before[name]
            assert same_bits(found.trace[t][name]["g"][""], np.asarray(expected))


def test_a_shrink_that_is_lost_warns() -> None:
    arguments: Any = ({"optimizer": "lion", "shrink_half_life": 1e5}, {"w": np.ones(2)}, [{"w": np.ones(2)}], 1)
    with pytest.warns(RuntimeWarning, match="'w' is bfloat16 and shrinks by 6.9e-06 per update"):
        replay(*arguments, dtype="bfloat16")


@pytest.mark.parametrize("tier", ["exact", "fast"])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("row", ["adamw", "scionc"])
@pytest.mark.parametrize("name", [name for name in ("torch", "mlx") if name in namespace.installed()])
def test_native_optimizers_do_the_same(name: str, row: str, tier: str, dtype: str) -> None:
    backend = namespace.load(name)
    params, grads = given({n: s for n, s in ROWS[row].items() if n != "empty"}, dtype, 3)
    expected = list(drive(recipe(row), params, grads, backend=name, tier=tier, dtype=dtype))[-1]
    model = {n: backend.from_numpy(x, dtype) for n, x in params.items()}
    if name == "torch":
        model = {n: x.requires_grad_() for n, x in model.items()}
    opt = dualopt.optimizer(model, recipe(row), tier=tier)
    for gradient in grads:
        named = {n: backend.from_numpy(g, dtype) for n, g in gradient.items()}
        if name == "mlx":
            opt.update(model, named)
            continue
        for n, g in named.items():
            model[n].grad = g
        opt.step()
    saved = opt.snapshot()
    for n, x in expected.params.items():
        assert same_bits(saved.parameters[n], x)
        assert all(same_bits(saved.state[n][key], s) for key, s in expected.state[n].items())
