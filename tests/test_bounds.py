"""Running error bounds and budgets: sound for every evaluation tried, and tight enough to see a wrong coefficient.

`Noisy` arrays are the adversary: each operation may be off by all that its arithmetic allows, at random.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES, namespace
from dualopt.directions.norm_balls import SpectralBall
from dualopt.directions.polar import POLAR_EXPRESS, factorised, newton_schulz
from dualopt.estimators.shampoo import Factors, Rooted
from dualopt.exact import Overlay, exact
from dualopt.executor import Execute, executor
from dualopt.memory import Readout
from dualopt.recursion import Row
from dualopt.scaling import unit
from dualopt.storage import rounded
from dualopt_conformance.arithmetic import FLUSHING, FMA, FUSED, NATIVE, NORMAL, PLAIN, Arithmetic, U
from dualopt_conformance.batches import Batch, batches
from dualopt_conformance.bounded import Bounded
from dualopt_conformance.bounds import Bounds
from dualopt_conformance.budgets import Allowed, Judgement, allowed, judge
from dualopt_conformance.cases import CASES
from dualopt_conformance.factorised import derivative, polar_factor
from dualopt_conformance.followed import FollowedFactors, FollowedRooted, PolarBall, bounding
from dualopt_conformance.forms import FORMS, textbook
from dualopt_conformance.walk import Moment, walk

Array = np.ndarray[Any, Any]
Found = Mapping[str, tuple[Array, Mapping[str, Array]]]
XP = Bounds((PLAIN, FMA, FUSED, NATIVE, FLUSHING))
EXACT = exact(np)
RNG = np.random.default_rng
SOON = ("lion", "scionc", "normuon", "rotational_lion", "pion")  # compiled in `make test`


# ---- evaluations


class Noisy(np.ndarray):
    """float64 numbers whose every operation is off by what `arithmetic` allows, in a random direction."""

    arithmetic: Arithmetic = NATIVE
    random: np.random.Generator = RNG(0)
    wide: Array | None = None  # a product before its rounding

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = {"add": "add", "subtract": "add", "multiply": "mul", "divide": "div", "sqrt": "sqrt"}.get(ufunc.__name__)
        given = [np.asarray(np.float32(x) if type(x) is float else x, np.float64) for x in inputs]
        given, limits = [self.flushed(x) for x in given], [np.abs(x) for x in given]
        if name == "sqrt":
            given = [np.maximum(given[0], 0)]  # v − c v, flushed in one place only, is no memory of squares
        contracted = [i for i, x in enumerate(inputs) if getattr(x, "wide", None) is not None and self.arithmetic.fma]
        if name == "add" and contracted:
            use = self.random.choice(contracted)
            given[use] = inputs[use].wide
            limits = [np.abs(given[use])]  # the other term is a number, and the result no worse than that
        z = np.asarray(getattr(ufunc, method)(*given, **options))
        if name is None:
            return z if z.dtype == bool else z.view(Noisy)
        kind, size = self.arithmetic, np.abs(z)
        off = np.maximum(U * kind.unit(name) * size, np.minimum(size, kind.tiny(name)))
        if name == "add":
            off = np.minimum(off, np.minimum(limits[0], limits[-1]))
        if name == "mul":
            sizes = [np.abs(np.frexp(x)[0]) for x in given]
            shift = (sizes[0] == 0.5) | (sizes[1] == 0.5)
            off = np.where(shift, np.minimum(size, kind.tiny("shift")), off)
            off = np.where((np.abs(given[0]) == 1) | (np.abs(given[1]) == 1), 0, off)
        out = _noisy(self.flushed(z + self.any(z.shape) * off))
        if name == "mul":
            out.wide = z
        return out

    @classmethod
    def any(cls, shape: tuple[int, ...]) -> Array:
        """Numbers of [-1, 1], the ends among them."""
        return np.clip(cls.random.uniform(-1.5, 1.5, shape), -1, 1)

    @classmethod
    def flushed(cls, x: Array) -> Array:
        """Subnormal numbers become 0 now and then."""
        if not cls.arithmetic.flush:
            return x
        return np.where((np.abs(x) < NORMAL) & (cls.random.uniform(size=x.shape) < 0.5), 0 * x, x)


def _noisy(x: Any) -> Any:
    return np.asarray(x, np.float64).view(Noisy)


def _noisy_sum(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    """One after the other in random order."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = [i % x.ndim for i in axes]
    flat = np.moveaxis(x, gone, range(len(gone))).reshape((-1, *(n for i, n in enumerate(x.shape) if i not in gone)))
    order = Noisy.random.permutation(len(flat))
    total = _noisy(flat[order[0]])
    for i in order[1:]:
        total = total + flat[i]
    return np.reshape(total, [1 if i in gone else n for i, n in enumerate(x.shape)]) if keepdims else total


def _noisy_matmul(a: Any, b: Any) -> Any:
    a, b, k = np.asarray(a), np.asarray(b), a.shape[-1]
    z = a @ b
    gamma = Noisy.arithmetic.add * k * U / (1 - k * U)
    return _noisy(z + Noisy.any(z.shape) * gamma * (np.abs(a) @ np.abs(b)))


def _either(function: Callable[..., Any]) -> Callable[..., Any]:
    """numpy's functions that lose the subclass."""

    def call(*arguments: Any, **options: Any) -> Any:
        found = function(*arguments, **options)
        given = [x for y in arguments for x in (y if isinstance(y, list) else [y])]
        return _noisy(found) if any(isinstance(x, Noisy) for x in given) else found

    return call


class NoisyLinalg:
    """Factorisations of a matrix that is off by all that a backward stable one may be."""

    @staticmethod
    def _off(a: Any) -> Array:
        a = np.asarray(a)
        noise = Noisy.random.normal(size=a.shape)
        size, length = (np.linalg.norm(x, axis=(-2, -1), keepdims=True) for x in (a, noise))
        return np.asarray(a + noise * (Noisy.arithmetic.add * 2 * U * max(a.shape[-2:]) * size / length))

    def svd(self, a: Any, full_matrices: bool = True) -> tuple[Any, ...]:
        return tuple(_noisy(x) for x in np.linalg.svd(self._off(a), full_matrices=False))

    def eigh(self, a: Any) -> tuple[Any, ...]:
        off = self._off(a)
        return tuple(_noisy(x) for x in np.linalg.eigh((off + np.swapaxes(off, -1, -2)) / 2))

    def inv(self, a: Any) -> Any:
        return _noisy(np.linalg.inv(self._off(a)))


NOISY = Overlay(
    np,
    "noisy",
    sum=_noisy_sum,
    matmul=_noisy_matmul,
    max=lambda x, **options: np.max(np.asarray(x), **options).astype(np.float32),  # of it powers of two are made
    finfo=lambda dtype: np.finfo(np.float32),
    linalg=NoisyLinalg(),
    where=_either(np.where),
    concat=_either(np.concatenate),
)


class Contracted(np.ndarray):
    """float32 numbers where a product that is added is not rounded: fma."""

    wide: Array | None = None

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        plain = [x.view(np.ndarray) if isinstance(x, Contracted) else x for x in inputs]
        wide = [getattr(x, "wide", None) for x in inputs]
        if ufunc in (np.add, np.subtract) and method == "__call__" and any(w is not None for w in wide):
            use = 0 if wide[0] is not None else 1  # one product goes in as it is; float64 holds it
            exactly = [np.asarray(wide[i] if i == use else plain[i], np.float64) for i in (0, 1)]
            return np.asarray(ufunc(*exactly), np.float32).view(Contracted)
        found = np.asarray(getattr(ufunc, method)(*plain, **options))
        if found.dtype != np.float32:
            return found
        out = found.view(Contracted)
        if ufunc is np.multiply:
            out.wide = np.multiply(*(np.asarray(np.float32(x), np.float64) for x in plain))
        if ufunc is np.negative and wide[0] is not None:
            out.wide = -wide[0]
        return out


def alone(batch: Batch) -> Any:
    """What `execute` reads of a moment."""
    return SimpleNamespace(**vars(batch), proposal=SimpleNamespace(scalars=batch.scalars))


def execute(run: Execute, moment: Moment, array: Callable[[Array], Any], row: Row | None = None) -> Found:
    """One update of the moment's parameters by an executor over `array`s."""
    planned = moment.planned if row is None else replace(moment.planned, row=row)
    with np.errstate(all="ignore"):
        return run(
            planned,
            {n: array(x) for n, x in moment.theta.items()},
            {n: {key: array(x) for key, x in s.items()} for n, s in moment.state.items()},
            {n: {"gradient": array(x)} for n, x in moment.gradient.items()},
            moment.proposal.scalars,
        )


def by_float32(moment: Moment, xp: Any, row: Row | None = None) -> Found:
    return execute(executor(xp), moment, lambda x: x, row)


def by_fma(moment: Moment) -> Found:
    return execute(executor(np), moment, lambda x: x.view(Contracted))


def by_torch(moment: Moment) -> Found:
    torch = namespace.load("torch")
    found = execute(torch.execute("fast"), moment, lambda x: torch.from_numpy(x, "float32"))
    return {n: (torch.to_numpy(x), {key: torch.to_numpy(y) for key, y in s.items()}) for n, (x, s) in found.items()}


# ---- judging them


@cache
def moments(case: str, updates: int) -> tuple[tuple[Moment, dict[str, dict[str, Allowed]]], ...]:
    """A trajectory of the exact tier, and what each of its updates may give."""
    walked = list(walk(CASES[case], updates))
    return tuple(zip(walked, allowed(walked, CASES[case].dtype), strict=True))


def length(case: str) -> int:
    """Updates that are looked at."""
    return 4 if CASES[case].row.local else 2


def permitted(m: Moment, dtype: str = "float32") -> dict[str, dict[str, Allowed]]:
    (found,) = allowed([m], dtype)
    return found


def tensors(m: Moment, found: Found, dtype: str = "float32") -> Iterator[tuple[str, str, Array]]:
    """(name, key, array as the row sees it)."""
    for name, (theta, state) in found.items():
        for key, x in {**state, "": rounded(np.asarray(theta), dtype)}.items():
            yield name, key, m.planned.seen(np, name, {key: np.asarray(x)})[key]


def judged(m: Moment, limits: Mapping[str, Mapping[str, Allowed]], found: Found, dtype: str = "float32") -> Any:
    """{(name, key): judgement}."""
    return {(name, key): judge(limits[name][key], y) for name, key, y in tensors(m, found, dtype)}


def failures(found: Mapping[Any, Judgement]) -> dict[Any, Judgement]:
    return {place: j for place, j in found.items() if j.failed}


# ---- soundness


def parted(cases: Iterable[str], soon: Callable[[str], bool]) -> list[Any]:
    """The cases, those that are not for `make test` marked."""
    return [c if soon(c) else pytest.param(c, marks=pytest.mark.long) for c in cases]


def of_a_row(case: str) -> bool:
    """The row itself in the usual situation, or an elementwise one."""
    return case.endswith("/usual") and (case.split("/", maxsplit=1)[0] in ENTRIES or CASES[case].row.local)


@pytest.mark.parametrize("case", parted(CASES, of_a_row))
def test_evaluations_lie_inside(case: str) -> None:
    """Nothing here flushes, so nothing needs the wider bound either."""
    dtype = CASES[case].dtype
    for m, limits in moments(case, length(case)):
        rewritten = textbook(m.planned.row)
        for found in (
            by_float32(m, EXACT),
            by_float32(m, np),
            by_float32(m, EXACT, rewritten),
            by_float32(m, np, rewritten),
            by_fma(m),
        ):
            each = judged(m, limits, found, dtype)
            assert not failures(each)
            assert not any(j.flushed for j in each.values())
            assert all(j.worst <= j.budget for j in each.values())


@pytest.mark.skipif("torch" not in namespace.installed(), reason="torch is not installed")
@pytest.mark.parametrize("case", parted([f"{name}/usual" for name in ENTRIES], lambda c: c.split("/")[0] in SOON))
def test_compiled_updates_lie_inside(case: str) -> None:
    for m, limits in moments(case, 3):
        assert not failures(judged(m, limits, by_torch(m)))


NOISE = [(c, NATIVE) for c in CASES if c.endswith("/usual")]
NOISE += [(c, FLUSHING) for c in CASES if c.endswith(("/underflow", "/extremes"))]
NOISE += [(c, FMA) for c in ("sgdm.unbounded/usual", "adamw.target/usual", "lion.cautious/usual", "rmsprop/underflow")]


@pytest.mark.parametrize(
    ("case", "arithmetic"),
    [
        pytest.param(
            c, a, id=f"{c}-{a.name}", marks=[] if of_a_row(c) and c.split("/")[0] in ENTRIES else pytest.mark.long
        )
        for c, a in NOISE
    ],
)
def test_noise_lies_inside(case: str, arithmetic: Arithmetic) -> None:
    """The bound of each form, against operations that take all the room that the arithmetic gives them."""
    Noisy.arithmetic, Noisy.random = arithmetic, RNG(0)
    xp = Bounds((arithmetic,))
    for m, _ in moments(case, length(case)):
        for form in FORMS.values():
            row = form(m.planned.row)
            (batch,) = batches([m])
            with np.errstate(all="ignore"):
                bounds = batch.run(xp, bounding(row))
                found = execute(executor(NOISY), alone(batch), _noisy, row)
                for name, (theta, state) in found.items():
                    for key, y in {**state, "": theta}.items():
                        assert_within(bounds[name][key], np.asarray(y))


def assert_within(b: Bounded, y: Array) -> None:
    assert np.isfinite(y).all()
    e = np.where(np.isnan(b.e[0]), np.inf, b.e[0])  # ∞ times 0: nothing is said, as `budgets` has it
    apart = np.abs(y - b.x) - e * (1 + 1e-6) - 2.0**-50 * b.s
    if b.norm is None:
        assert np.all(apart <= 0)
    else:
        length = np.sqrt(np.sum(np.maximum(apart, 0) ** 2, axis=(-2, -1), keepdims=True))
        assert np.all((length <= b.norm[0]) | np.isnan(b.norm[0]))


# ---- the rule of each operation


def numbers(seed: int) -> Array:
    """float32 numbers of all sizes: zeros, subnormals, powers of two, either sign."""
    random = RNG(seed)
    x = random.normal(size=4000) * 2.0 ** random.integers(-160, 100, 4000)
    x[::7] = 0
    x[1::7] = 2.0 ** random.integers(-30, 30, x[1::7].size)
    x[2::7] = random.normal(size=x[2::7].size)
    return x.astype(np.float32).astype(np.float64)


def uncertain(xp: Bounds, seed: int) -> tuple[Bounded, Array]:
    """An array with errors, some of them larger than the number, and one of its evaluations."""
    random, x = RNG(seed + 100), numbers(seed)
    e = np.abs(x) * 10.0 ** random.uniform(-9, 0.5, x.size) * (random.uniform(size=x.size) < 0.7)
    return Bounded(xp, x, np.abs(x), np.stack([e])), x + np.clip(random.uniform(-1.5, 1.5, x.size), -1, 1) * e


OPERATIONS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "add": lambda xp, a, b: a + b,
    "subtract": lambda xp, a, b: a - b,
    "multiply": lambda xp, a, b: a * b,
    "divide": lambda xp, a, b: a / b,
    "scale": lambda xp, a, b: 0.7 * a,
    "double": lambda xp, a, b: 2.0 * a,
    "shift": lambda xp, a, b: a + 1e-8,
    "blend": lambda xp, a, b: a + 0.1 * (b - a),
    "root": lambda xp, a, b: xp.sqrt(xp.abs(a)),
    "sign": lambda xp, a, b: xp.sign(a) * b,
    "clip": lambda xp, a, b: xp.where((a < b) & (b > 0), a, b),
    "mask": lambda xp, a, b: xp.where(((a <= 0) & (b >= 0)) | (a == 0), b, xp.zeros_like(b)),
    "sum": lambda xp, a, b: xp.sum(xp.reshape(a * b, (40, 100)), axis=-1, keepdims=True),
    "total": lambda xp, a, b: xp.sum(a * a),
    "product": lambda xp, a, b: xp.matmul(xp.reshape(a, (10, 20, 20)), xp.reshape(b, (10, 20, 20))),
    "moved": lambda xp, a, b: xp.concat(
        [xp.permute_dims(xp.reshape(a, (8, 500)), (1, 0)), xp.matrix_transpose(xp.reshape(b, (8, 500)))], axis=-1
    )[3:, ...],
}


@pytest.mark.parametrize("arithmetic", [PLAIN, NATIVE, FMA, FLUSHING], ids=lambda a: a.name)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation(operation: str, arithmetic: Arithmetic) -> None:
    Noisy.arithmetic, Noisy.random = arithmetic, RNG(1)
    xp = Bounds((arithmetic,))
    for seed in range(3):
        (a, at), (b, bt) = uncertain(xp, seed), uncertain(xp, seed + 50)
        if arithmetic.flush:  # as `array` says of what comes in
            for y in (a, b):
                y.e = np.where(np.abs(y.x) - y.e < NORMAL, np.maximum(y.e, np.abs(y.x)), y.e)
        with np.errstate(all="ignore"):
            bound = OPERATIONS[operation](xp, a, b)
            y = np.asarray(OPERATIONS[operation](NOISY, _noisy(at), _noisy(bt)))
            apart = np.abs(y - bound.x)
            assert np.all((apart <= bound.e[0] * (1 + 1e-9) + 2.0**-50 * np.abs(y)) | ~np.isfinite(bound.e[0]))
        assert np.isfinite(bound.e[0]).mean() > 0.5


def test_what_is_exact_has_no_error() -> None:
    x, zero = XP.array(np.array([1.5, -3.0, 0.0])), XP.array(np.zeros(3))
    for exactly in (
        x + zero,
        zero - x,
        2.0 * x,
        x * XP.sign(x),
        0.0 * x,
        x * 1.0,
        -x,
        XP.abs(x),
        zero * x,
        zero / x[:1],
    ):
        assert exactly.e[[0, 1, 2, 3]].max() <= 2.0**-150  # nothing but a possible underflow
    assert not (0.3 * zero).e.any()
    assert not XP.sign(0.3 * zero).unsure.any()  # type: ignore[union-attr]


def test_one_rounding_is_half_an_ulp() -> None:
    a, b = XP.array(np.array([3.0])), XP.array(np.array([7.0]))
    units = {  # result, magnitude, units of PLAIN, FMA, FUSED, NATIVE, FLUSHING
        "a + b": (a + b, 10, (1, 1, 0, 1, 1)),
        "a / b": (a / b, 3 / 7, (1, 1, 0, 4, 4)),
        "root": (XP.sqrt(a), 3**0.5, (1, 1, 0, 2, 2)),
        "a b": (a * b, 21, (1, 1, 0, 1, 1)),
        "a b + b": (a * b + b, 28, (1.75, 1, 0, 1.75, 1.75)),
        "a b + a b": (a * b + a * b, 42, (2, 1.5, 0, 2, 2)),
    }
    for name, (found, size, expected) in units.items():
        np.testing.assert_allclose(found.e[:, 0] / (U * size), expected, rtol=1e-6, err_msg=name)
    stored = XP.stored(a + b)
    np.testing.assert_allclose(stored.e[:, 0] / (10 * U), (1, 1, 1, 1, 1))
    np.testing.assert_allclose(XP.stored(a, "bfloat16").e[:, 0], 2.0**-7 + U * 3 * np.array([0, 0, 1, 0, 0]))


def test_decisions_within_the_error_are_unsure() -> None:
    xp = Bounds((PLAIN,))
    x = Bounded(xp, np.array([1.0, 1e-9, -1e-9, 0.0, 0.0]), np.ones(5), np.array([[1e-8, 1e-8, 1e-8, 1e-8, 0.0]]))
    sign = xp.sign(x)
    assert sign.unsure is not None
    assert sign.unsure.tolist() == [[False, True, True, True, False]]
    assert sign.e.tolist() == [[0, 2, 2, 1, 0]]
    assert (x > 0).unsure.tolist() == [[False, True, True, True, False]]
    both, one = (x > 0) & (x > 0.5), (x > 0) | (x < 0.5)
    assert both.unsure.tolist() == [[False] * 5]
    assert one.unsure.tolist() == [[False] * 5]
    far, near = xp.exact(np.full(5, 3.0)), xp.exact(np.zeros(5))
    chosen = xp.where(x > 0, far, near)
    assert chosen.e.tolist() == [[0, 3, 3, 3, 0]]
    assert chosen.unsure is not None
    assert chosen.unsure.tolist() == [[False, True, True, True, False]]
    same = xp.where(x > 0, far, far)
    assert not same.e.any()
    assert same.unsure is None or not same.unsure.any()


def test_errors_that_have_no_bound_are_infinite() -> None:
    xp = Bounds((PLAIN,))
    b = Bounded(xp, np.array([1.0, 0.0]), np.ones(2), np.array([[2.0, 0.0]]))
    assert np.isinf((xp.exact(np.ones(2)) / b).e).all()
    capped = xp.at_most(xp.exact(np.ones(2)) / b, 2.0)
    assert capped.e[0, 0] == 3
    assert capped.unsure is not None


def test_deviations_of_matrices_pass_through_linear_operations() -> None:
    xp = Bounds((PLAIN,))
    random = RNG(3)
    x, w, d = random.normal(size=(3, 2, 4, 5))
    norm = np.sqrt(np.sum(d**2, axis=(-2, -1), keepdims=True))
    y = xp.exact(x)
    y.norm = norm[None]
    weights = xp.exact(w)
    tries: list[tuple[Callable[[Any, Any, Any], Any], bool]] = [
        (lambda xp, a, b: -a, True),
        (lambda xp, a, b: a * 0.5 + b, True),
        (lambda xp, a, b: b - a, True),
        (lambda xp, a, b: b * a, True),
        (lambda xp, a, b: a * a, True),
        (lambda xp, a, b: xp.matrix_transpose(a), True),
        (lambda xp, a, b: a[1, ...], True),
        (lambda xp, a, b: xp.sum(b * a), False),
        (lambda xp, a, b: xp.abs(a) / (xp.abs(b) + 3.0), False),
        (lambda xp, a, b: xp.where(a > b, a, b), False),
    ]
    for operation, stays in tries:
        bound, found = operation(xp, y, weights), np.asarray(operation(np, x + d, w))
        assert (bound.norm is not None) == stays
        assert_within(replace_error(bound), found)


def replace_error(b: Bounded) -> Bounded:
    """Room for a rounding in float64."""
    b.e = b.e + 1e-12
    return b


def test_plain_arrays_stay_plain() -> None:
    xp = Bounds((PLAIN,))
    x = xp.array(np.array([[3.0, -4.0]]))
    assert isinstance(xp.max(xp.abs(x), axis=-1, keepdims=True), np.ndarray)
    found = unit(xp, x, -1)
    np.testing.assert_allclose(found.x, [[0.6, -0.8]])
    assert 0 < found.e.max() < 6 * U
    assert namespace.missing(xp) == []


# ---- tightness


MEDIAN = {"adamw/usual": 8.0, "lion/usual": 3.0, "sign_sgdm/usual": 3.0, "sgdm/usual": 3.0}


@pytest.mark.parametrize("case", MEDIAN)
def test_bounds_are_not_absurd(case: str) -> None:
    relative = [(one[""].bound / one[""].unit).ravel() for _, limits in moments(case, 5) for one in limits.values()]
    assert 0.5 <= np.median(np.concatenate(relative)) <= MEDIAN[case]
    assert np.max(np.concatenate(relative)) <= 20
    for _, limits in moments(case, 5):
        for one in limits["odd"].values():
            assert one.derived["fused"] <= one.derived["fma"] <= one.derived["plain"] <= (one.bound / one.unit).max()
            assert one.derived["fused"] > 0.49


def perturbed(
    case: str, change: Callable[[dict[str, float]], dict[str, float]], updates: int
) -> list[dict[Any, Judgement]]:
    """What the bounds say of the exact tier with changed scalars."""
    out = []
    for m, limits in moments(case, updates):
        cohorts = tuple(replace(c, scalars=change(dict(c.scalars))) for c in m.proposal.cohorts)
        other = replace(m, proposal=replace(m.proposal, cohorts=cohorts))
        out.append(failures(judged(m, limits, by_float32(other, EXACT))))
    return out


@pytest.mark.parametrize("case", ["sgdm/usual", "sgdm/underflow", "adamw/underflow", "adamw/usual"])
def test_a_step_off_by_a_millionth_is_outside(case: str) -> None:
    assert any(perturbed(case, lambda k: {**k, "eta": k["eta"] * (1 + 1e-6)}, 8))


@pytest.mark.parametrize("case", ["sgdm/usual", "adamw/usual", "lion/usual"])
def test_a_complement_of_a_float32_retention_is_outside(case: str) -> None:
    first = perturbed(case, lambda k: {**k, "c_m": 1 - float(np.float32(1 - k["c_m"]))}, 1)[0]
    assert {key for _, key in first} >= {"m"}


# ---- matrices


def test_the_derivative_of_a_function_of_singular_values() -> None:
    """Its norm, against the largest singular value of its matrix from differences."""
    step = POLAR_EXPRESS.steps[0]
    for shape, spread in (((4, 4), 1.0), ((3, 5), 0.1), ((5, 2), 1e-3)):
        x = RNG(5).normal(size=shape) * np.geomspace(1, spread, shape[1])
        x = x / np.linalg.norm(x)
        columns = []
        for i in range(x.size):
            d = np.zeros(x.size)
            d[i] = 1e-6
            moved = [newton_schulz(np, x + sign * d.reshape(shape), (step,)) for sign in (1, -1)]
            columns.append(((moved[0] - moved[1]) / 2e-6).ravel())
        sigma = np.linalg.svd(x, compute_uv=False)
        a, b, c = step
        y, slope = sigma * (a + sigma**2 * (b + sigma**2 * c)), a + sigma**2 * (3 * b + sigma**2 * 5 * c)
        norm = derivative(sigma, y, slope).item()
        measured = np.linalg.norm(np.array(columns), 2)
        assert measured * (1 - 1e-6) <= norm <= 1.5 * measured


@pytest.mark.parametrize("case", ["muon/usual", "scionc/usual", "scionc/extremes"])
def test_the_bound_of_the_iteration(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """u itself: how much of its bound products in native order use."""
    xp, worst = Bounds((NATIVE,)), 0.0
    for m, _ in moments(case, 4):
        geometry = m.planned.row.direction.geometry  # type: ignore[attr-defined]
        for name, g in m.gradient.items():
            if g.size:
                z = m.planned.views[name].apply(np, g)
                with np.errstate(all="ignore"):
                    bound = PolarBall(method=geometry.method).atom(xp, xp.array(z))
                assert bound.norm is not None
                for tier in (np, EXACT):
                    apart = np.linalg.norm(geometry.atom(tier, z) - bound.x, axis=(-2, -1), keepdims=True)
                    worst = max(worst, float(np.max(apart / np.maximum(bound.norm[0], 2.0**-149))))
    with capsys.disabled():
        print(f"\n{case}: observed / derived {worst:.3g}")
    assert 1e-4 < worst < 1


def test_swapped_coefficients_are_outside() -> None:
    class Swapped(SpectralBall):
        def atom(self, xp: Any, z: Any) -> Any:
            steps = (POLAR_EXPRESS.steps[1], POLAR_EXPRESS.steps[0], *POLAR_EXPRESS.steps[2:])
            return newton_schulz(xp, unit(xp, z, (-2, -1)) * (1 / POLAR_EXPRESS.safety), steps)

    m, limits = moments("scionc/usual", 2)[1]
    direction: Any = m.planned.row.direction
    geometry = Swapped(direction.geometry.scaling, direction.geometry.method)
    row = replace(m.planned.row, direction=replace(direction, geometry=geometry))
    failed = failures(judged(m, limits, by_float32(m, EXACT, row)))
    assert ("stack", "") in failed
    found = failed["stack", ""]
    assert found.error > 100 * found.error_budget
    assert found.index is not None
    assert len(found.index) == 3


def test_exact_polar_factors_are_bounded() -> None:
    """By the factorisation of a matrix that is off by as much as one that counts as 0 is."""
    case = replace(CASES["scionc/usual"], table={**CASES["scionc/usual"].table, "polar": "exact"})
    for m in walk(case, 3):
        limits = permitted(m)
        for found in (by_float32(m, EXACT), by_float32(m, np)):
            assert not failures(judged(m, limits, found))
        doubled = replace(m, gradient={n: np.roll(x, 1) for n, x in m.gradient.items()})
        assert failures(judged(m, limits, by_float32(doubled, EXACT)))


# ---- factorisations, and what is made of lengths


@pytest.mark.parametrize("kind", ["inverse", "polar", "root"])
def test_factorisations_of_what_is_off(kind: str) -> None:
    """All that is within the error of the input, and of a backward stable factorisation, lies within the bound."""
    xp = Bounds((NATIVE,))
    random = RNG(7)
    x = random.normal(size=(20, 5, 5)) * np.geomspace(1, 1e-3, 5)
    if kind == "inverse":
        x = np.eye(5) + (x - np.swapaxes(x, -1, -2))
    if kind == "root":
        x = x @ np.swapaxes(x, -1, -2)
    x = x.astype(np.float32).astype(np.float64)
    e = 1e-6 * np.abs(x)
    given = Bounded(xp, x, np.abs(x), e[None])
    k = {"r_f": 1.0, "eps": 1e-4}
    made: dict[str, Callable[[Any, Any], Any]] = {
        "inverse": lambda xp, a: xp.linalg.inv(a),
        "polar": lambda xp, a: polar_factor(xp, a) if isinstance(a, Bounded) else factorised(xp, a),
        "root": lambda xp, a: (FollowedFactors() if isinstance(a, Bounded) else Factors()).root(xp, a, k),
    }
    bound, worst = made[kind](xp, given), 0.0
    assert bound.norm is not None
    for _ in range(30):
        moved = x + e * random.choice([-1.0, 1.0], size=x.shape)
        moved = (moved + np.swapaxes(moved, -1, -2)) / 2 if kind == "root" else moved
        apart = np.asarray(made[kind](EXACT, moved.astype(np.float32))) - bound.x
        worst = max(worst, float(np.max(np.linalg.norm(apart, axis=(-2, -1), keepdims=True) / bound.norm[0])))
    assert 1e-3 < worst <= 1


def test_roots_pass_on_what_they_let_pass() -> None:
    """f(L) z f(R) of memories without full rank, whose roots have no useful bound by themselves."""
    xp, random, k = Bounds((NATIVE,)), RNG(9), {"r_f": 1.0, "eps": 1e-6, "c_mu": 0.0}
    z = random.normal(size=(7, 3)).astype(np.float32)
    z[:, 2] = 0
    left, right = (z @ z.T).astype(np.float32), (z.T @ z).astype(np.float32)
    s = {"m": xp.array(z), "L": xp.array(left), "R": xp.array(right)}
    roots = {f"root_{side}": FollowedFactors().root(xp, s[side], k) for side in ("L", "R")}
    bound = FollowedRooted(Readout())(xp, {**s, **roots}, {"": xp.array(z)}, k)[""]
    assert (roots["root_L"].norm > np.linalg.norm(roots["root_L"].x) / 10).all()
    assert (bound.norm[0] + np.linalg.norm(bound.e[0]) < 0.05 * np.linalg.norm(bound.x)).all()
    for tier in (EXACT, np):
        plain = {f"root_{side}": Factors().root(tier, a, k) for side, a in (("L", left), ("R", right))}
        u = Rooted(Readout())(tier, {"m": z, **plain}, {"": z}, k)[""]
        assert np.linalg.norm(u - bound.x) <= bound.norm[0].item() + np.linalg.norm(bound.e[0])


def test_what_is_normalised_stays_within_the_ball() -> None:
    xp = Bounds((PLAIN,))
    x = np.array([[1.0, 2.0], [1e-9, 0.0], [0.0, 0.0]])
    y = Bounded(xp, x, np.abs(x), np.full((1, 3, 2), 1e-8) * np.array([[1.0], [1.0], [0.0]]))
    with np.errstate(all="ignore"):
        found = unit(xp, y, -1)
    assert found.e[0, 0].max() < 5e-7
    assert found.e[0, 1].max() <= 3
    assert found.unsure is not None
    assert found.unsure[0].any(axis=-1).tolist() == [False, True, False]
    assert not found.e[0, 2].any()


def test_the_diagonal_of_a_skew_matrix_is_zero() -> None:
    xp = Bounds((PLAIN,))
    p = xp.matmul(xp.array(RNG(1).normal(size=(4, 3))), xp.array(RNG(2).normal(size=(3, 4))))
    skew = p - xp.matrix_transpose(p)
    assert not np.diagonal(skew.e[0]).any()
    assert (skew.e[0] + np.eye(4) > 0).all()


def test_a_vacuous_bound_is_not_judged() -> None:
    """Sixty times a chaotic map: nothing is claimed of a spectrum that no bound holds."""
    case = replace(CASES["kaon/usual"], table={**CASES["kaon/usual"].table, "iterations": 60})
    m = next(walk(case, 1))
    limits = permitted(m)
    found = judged(m, limits, by_float32(m, EXACT))
    idle = [name for name in m.theta if found[name, ""].unjudged]
    assert len(idle) > 2
    for name in idle:
        assert (found[name, ""].unjudged, found[name, ""].compared) == (m.theta[name].size, 0) or name == "stack"
        assert found[name, "m"].unjudged == 0
    assert not failures(found)
    nan = {n: (x * np.float32(np.nan), s) for n, (x, s) in by_float32(m, EXACT).items()}
    assert {(name, "") for name in idle} <= set(failures(judged(m, limits, nan)))


NOT_JUDGED = {"shampoo": {"root_L", "root_R"}, "normuon": {""}, "sf_normuon": {"", "x", "z"}, "freon": {""}}


@pytest.mark.parametrize("row", ENTRIES)
def test_hardly_anything_is_not_judged(row: str) -> None:
    """Roots of factors without full rank, and rows of a polar factor that the iteration has not brought to size."""
    for m, limits in moments(f"{row}/usual", length(f"{row}/usual")):
        for (_, key), one in judged(m, limits, by_float32(m, EXACT)).items():
            assert not one.unjudged or key in NOT_JUDGED.get(row, set()), (row, key)
        assert any(one[""].value.size and not one[""].vacuous.any() for one in limits.values())


# ---- budgets and judgements


@pytest.mark.parametrize(
    "case", ["adamw/usual", "adamw.target/usual", "scionc/usual", "scionc.row/usual", "freon/usual"]
)
def test_joining_changes_nothing(case: str) -> None:
    """Parameters and updates that are bounded together have the bounds that they have alone."""
    for m, together in moments(case, 3):
        pools = m.planned.row.motion.pools
        for names in [list(m.gradient)] if pools else [[name] for name in m.gradient]:
            views = {name: m.planned.views[name] for name in names}
            few: Any = [{n: x for n, x in every.items() if n in names} for every in (m.theta, m.state, m.gradient)]
            one = replace(m, planned=replace(m.planned, views=views), theta=few[0], state=few[1], gradient=few[2])
            for name, each in permitted(one).items():
                for key, limits in each.items():
                    for x in ("value", "scale", "bound", "flush", "normwise", "unsure"):
                        ours, theirs = getattr(limits, x), getattr(together[name][key], x)
                        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
                    assert limits.value.shape == m.planned.views[name].seen
                    assert limits.derived == pytest.approx(together[name][key].derived, rel=1e-9)


def judgeable(**changes: Any) -> Allowed:
    value = np.array([[1.0, -2.0], [0.0, 4.0]])
    given: dict[str, Any] = {
        "value": value,
        "scale": np.abs(value),
        "bound": np.full((2, 2), 2.0**-23),
        "flush": np.full((2, 2), 2.0**-23),
        "normwise": np.zeros(()),
        "unsure": np.zeros((2, 2), bool),
        "derived": {},
        **changes,
    }
    return Allowed(**given)


def test_judge_measures_in_ulps_of_the_scale() -> None:
    one = judgeable()
    y = one.value.astype(np.float32)
    assert judge(one, y) == Judgement(4, 0.0, 1.0, 2.0**126, 0, 0, 0)  # an error of 2^-23 where s = 0 is 2^126 ulp
    y[0, 0] += np.float32(2.0**-23)
    one = judgeable(scale=np.array([[1.0, 2], [1, 4]]))
    assert judge(one, y) == Judgement(4, 1.0, 1.0, 1.0)
    y[1, 1] += np.float32(2.0**-20)
    y[0, 1] = np.nan
    found = judge(one, y)
    assert (found.failed, found.index, found.error, found.error_budget) == (2, (0, 1), np.inf, 0.5)
    assert found.worst == np.inf
    with pytest.raises(ValueError, match="shapes"):
        judge(one, y[0])


def test_judge_counts_flushed_and_unsure_elements_apart() -> None:
    one = judgeable(
        flush=np.array([[2.0**-23, 3], [2.0**-23, 2.0**-23]]),
        bound=np.array([[2.0**-23, 2.0**-23], [2.0**-23, 8]]),
        unsure=np.array([[False, False], [False, True]]),
    )
    one = replace(one, flush=np.maximum(one.flush, one.bound))
    y = np.array([[1, 0], [0, -4]], np.float32)
    found = judge(one, y)
    assert (found.failed, found.flushed, found.ties, found.worst) == (0, 1, 1, 0)
    y[1, 1] = -5
    found = judge(one, y)
    assert (found.failed, found.index, found.flushed, found.ties) == (1, (1, 1), 1, 1)


def test_judge_takes_matrices_by_their_norm() -> None:
    one = judgeable(normwise=np.full((1, 1), 1e-3), bound=np.zeros((2, 2)), flush=np.zeros((2, 2)))
    y = one.value.astype(np.float32)
    length = U * np.linalg.norm(one.scale)
    y[0, 1] += np.float32(2.0**-12)
    found = judge(one, y)
    assert (found.failed, found.worst, found.budget) == (0, 2.0**-12 / length, 1e-3 / length)
    assert found.derived == found.budget
    y[1, 1] += np.float32(2.0**-9)
    found = judge(one, y)
    assert (found.failed, found.index) == (1, (1, 1))
    assert found.error > found.error_budget
    y[0, 0] = np.inf
    assert judge(one, y).failed
    flushing = replace(one, flush=np.full((2, 2), 1.0))
    y = one.value.astype(np.float32)
    y[1, 1] = 3.5
    assert (judge(flushing, y).failed, judge(flushing, y).flushed) == (0, 1)


def test_flushing_is_told_from_an_error() -> None:
    """Gradients below the smallest normal number may count as zero, which no bound without it allows."""
    m, limits = moments("sgdm/underflow", 1)[0]
    zero = {n: np.zeros_like(x) for n, x in m.gradient.items()}
    found = judged(m, limits, by_float32(replace(m, gradient=zero), EXACT))
    assert not failures(found)
    assert found["odd", "m"].flushed > 100
    larger = {n: 3 * x for n, x in m.gradient.items()}
    assert failures(judged(m, limits, by_float32(replace(m, gradient=larger), EXACT)))


@pytest.mark.parametrize("case", ["adamw/bfloat16", "lion/float16", "scionc/bfloat16"])
def test_half_precision_is_rounded_once_more(case: str) -> None:
    dtype = CASES[case].dtype
    for m, limits in moments(case, 2):
        for name, one in limits.items():
            if one[""].value.size and not one[""].by_matrix:
                assert 0.45 < np.max(one[""].bound / one[""].unit) < 1.1
            assert all(x.dtype == "float32" for key, x in one.items() if key), name
        twice = {n: (x * np.float32(1 + 2.0**-6), s) for n, (x, s) in by_float32(m, EXACT).items()}
        assert failures(judged(m, limits, twice, dtype))
