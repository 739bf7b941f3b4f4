"""The exact tier: sums, products and roots against float64, a literal twin, and numpy's bits elsewhere.

u = 2^-24 is the relative error of one rounding in float32. Bitwise tests compare bytes with numpy's run
of the same function; subnormal numbers are left out where a backend flushes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import namespace
from dualopt.exact import CHUNK, SLICE_BITS, SLICES, _slices, exact, fixed_sum, sliced_matmul, tree_sum
from dualopt.generator import Stream
from dualopt.namespace import Backend
from dualopt.scaling import power_of_two, unit
from dualopt_conformance import inputs

U = 2.0**-24
Flushes = Callable[[Backend], bool]
Numpy = np.ndarray[Any, Any]
EXACT = exact(np)


def run(backend: Backend, function: Callable[..., Any], *arrays: Numpy, **options: Any) -> Numpy:
    """`function(xp, *arrays)` on a backend's exact tier, as numpy."""
    given_arrays = [backend.from_numpy(x, "float32") for x in arrays]
    return backend.to_numpy(function(backend.namespace("exact"), *given_arrays, **options))


def same_bits(x: Numpy, y: Numpy) -> bool:
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


# ---- sums


def halved(x: Numpy) -> Any:
    """The tree in its own words: add the two halves of a row, the middle of an odd one left alone."""
    while len(x) > 1:
        half = len(x) // 2
        x = np.concatenate([x[:half] + x[len(x) - half :], x[half : len(x) - half]])
    return x[0]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 1000, 1025])
@pytest.mark.parametrize("kind", ["bell", "six_decades", "huge", "ties"])
def test_the_tree(backend: Backend, n: int, kind: str) -> None:
    x = inputs.array(kind, (3, n), 0, "sum")
    found = run(backend, tree_sum, x)
    assert same_bits(found, np.array([halved(row) for row in x]))
    error = np.abs(found - x.sum(axis=-1, dtype=np.float64))
    depth = (n - 1).bit_length()  # each element is in that many additions
    assert np.all(error <= depth * U * np.abs(x).sum(axis=-1, dtype=np.float64))


AXES: tuple[tuple[tuple[int, ...], Any], ...] = (
    ((), None),
    ((), ()),
    ((7,), None),
    ((7,), -1),
    ((2, 3, 5), None),
    ((2, 3, 5), 0),
    ((2, 3, 5), 1),
    ((2, 3, 5), (0, 2)),
    ((2, 3, 5), (-1, 0)),
    ((2, 3, 5), (2, 1)),
    ((2, 3, 5), ()),
    ((2, 1, 5), 1),
    ((0,), None),
    ((0, 3), 0),
    ((0, 3), 1),
    ((3, 0), (0, 1)),
    ((2, 0, 3), 1),
)


@pytest.mark.parametrize(("shape", "axis"), AXES)
@pytest.mark.parametrize("keepdims", [False, True])
def test_sums_over_axes(backend: Backend, shape: tuple[int, ...], axis: Any, keepdims: bool) -> None:
    x = inputs.array("bell", shape, 0, "axes")
    found = run(backend, fixed_sum, x, axis=axis, keepdims=keepdims)
    expected = x.sum(axis=axis, keepdims=keepdims, dtype=np.float64)
    assert found.shape == expected.shape
    assert same_bits(found, np.asarray(fixed_sum(np, x, axis=axis, keepdims=keepdims)))
    magnitude = np.abs(x).sum(axis=axis, keepdims=keepdims, dtype=np.float64)
    assert np.all(np.abs(found - expected) <= 6 * U * magnitude)  # at most 30 elements: 5 levels, 1 spare


# ---- products


def error_and_bound(a: Numpy, b: Numpy, found: Numpy) -> tuple[Numpy, Numpy]:
    """|found − ab| and the bound of `sliced_matmul`'s docstring, with 1e-6 for second-order terms."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    k = a.shape[-1]
    largest = np.abs(a).max(axis=-1, keepdims=True) * np.abs(b).max(axis=-2, keepdims=True)
    chunks = -(-k // CHUNK)
    bound = (2 + chunks) * U * (np.abs(a) @ np.abs(b)) + 5 * k * 2.0**-30 * largest
    return np.abs(found - a @ b), bound * (1 + 1e-6)


PRODUCTS = (  # shapes of a, of b
    ((3, 1), (1, 2)),
    ((3, 9), (9, 2)),
    ((3, CHUNK), (CHUNK, 2)),
    ((130, 1024), (1024, 70)),  # large enough for blocked and threaded kernels
    ((3, 1025), (1025, 2)),
    ((2, 3, 9), (2, 9, 2)),
)


@pytest.mark.parametrize(("left", "right"), PRODUCTS)
@pytest.mark.parametrize("kind", ["bell", "six_rows", "six_decades", "zeros", "low_rank"])
def test_products(backend: Backend, left: tuple[int, ...], right: tuple[int, ...], kind: str) -> None:
    a = inputs.array(kind, left, 0, "left")
    b = np.ascontiguousarray(inputs.array(kind, (*right[:-2], *right[:-3:-1]), 0, "right").swapaxes(-1, -2))
    assert b.shape == right
    found = run(backend, sliced_matmul, a, b)
    assert same_bits(found, sliced_matmul(np, a, b))
    error, bound = error_and_bound(a, b, found)
    assert np.all(error <= bound)
    if kind in ("bell", "six_rows"):  # small rows are no worse off than large ones
        assert np.all(error <= 3 * U * (np.abs(a).astype(np.float64) @ np.abs(b)))


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 9, 2), (0, 0, 0)])
def test_empty_products(backend: Backend, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    found = run(backend, sliced_matmul, np.ones((m, k), np.float32), np.ones((k, n), np.float32))
    assert same_bits(found, np.zeros((m, n), np.float32))


@pytest.mark.parametrize(("dtype", "digits", "bits"), [(np.float32, 24, SLICE_BITS), (np.float64, 53, 21)])
def test_why_products_are_exact(dtype: Any, digits: int, bits: int) -> None:
    """Slices are integers of `bits` bits on their grids, so 4 pairs of CHUNK products fit the significand."""
    assert 4 * CHUNK * 2 ** (2 * bits) <= 2**digits
    assert SLICE_BITS + 1 <= 8  # of bfloat16, so that matrix units keep the float32 slices
    halfway = np.float64(2.0) ** np.arange(-40, 2) * (1 + 2.0**-bits)
    x = np.concatenate([4 * Stream(0, "slices").uniform((5000,)), halfway, -halfway, [4, -4, 0]]).astype(dtype)
    pieces = _slices(x, digits, bits)
    rest = x.astype(np.longdouble)
    for i, piece in enumerate(pieces):
        units = piece.astype(np.float64) / 2.0 ** (2 - bits - i * (bits + 1))
        assert np.all(units == np.round(units))
        assert np.abs(units).max() <= 2**bits
        rest = rest - piece
    assert np.abs(rest).max() <= 2.0 ** (1 - bits - (SLICES - 1) * (bits + 1))


@given(seed=st.integers(0, 1000), k=st.sampled_from([9, CHUNK]))
def test_the_order_of_a_chunk_does_not_matter(backend: Backend, seed: int, k: int) -> None:
    """What makes the bits independent of threads, blocks and fused multiply-adds: every sum is exact."""
    a, b = (inputs.array("six_decades", shape, seed, "order") for shape in ((3, k), (k, 2)))
    shuffled = np.argsort(Stream(seed, "order").words(k), kind="stable")
    found = run(backend, sliced_matmul, np.ascontiguousarray(a[:, shuffled]), b[shuffled])
    assert same_bits(found, run(backend, sliced_matmul, a, b))


@given(seed=st.integers(0, 1000), p=st.integers(-40, 40), q=st.integers(-40, 40))
def test_products_scale_by_powers_of_two(backend: Backend, seed: int, p: int, q: int) -> None:
    a, b = (inputs.array("bell", shape, seed, "scale") for shape in ((3, 9), (9, 2)))
    found = run(backend, sliced_matmul, np.ldexp(a, p), np.ldexp(b, q))
    assert same_bits(found, np.ldexp(run(backend, sliced_matmul, a, b), p + q))


def test_products_at_the_ends_of_the_range(backend: Backend, flushes: Flushes) -> None:
    huge, normal, subnormal = [3.4e38, -3e38], [2.0**-126, -(2.0**-125)], [1e-40, 3e-45]
    pick = np.eye(9, 2, dtype=np.float32)
    for row in (huge, normal) if flushes(backend) else (huge, normal, subnormal):
        a = np.zeros((3, 9), np.float32)
        a[:, :2] = row, [1.0, 2.0], [0.0, 0.0]
        assert same_bits(run(backend, sliced_matmul, a, pick), a[:, :2].copy())
        b = np.zeros((9, 2), np.float32)
        b[:3] = row[:1] * 2, row[1:] * 2, row[:1] * 2
        assert same_bits(run(backend, sliced_matmul, np.eye(3, 9, dtype=np.float32), b), b[:3])
    a, b = np.full((3, 9), 3.4e38, np.float32), np.full((9, 2), 2e-38, np.float32)
    assert np.all(np.subtract(*error_and_bound(a, b, run(backend, sliced_matmul, a, b))) <= 0)
    with np.errstate(over="ignore"):
        assert np.isneginf(run(backend, sliced_matmul, a, pick - 2)).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_hidden(backend: Backend, bad: float) -> None:
    """Its whole row or column becomes NaN, and nothing else."""
    a, b = (inputs.array("bell", shape, 0, "bad") for shape in ((3, 9), (9, 2)))
    good = run(backend, sliced_matmul, a, b)
    bad_a, bad_b = a.copy(), b.copy()
    bad_a[1, 4] = bad_b[4, 1] = bad
    with np.errstate(invalid="ignore"):
        row, column = run(backend, sliced_matmul, bad_a, b), run(backend, sliced_matmul, a, bad_b)
        total = run(backend, fixed_sum, bad_a, axis=-1)
    assert np.isnan(row[1]).all()
    assert np.isnan(column[:, 1]).all()
    assert same_bits(row[::2], good[::2])
    assert same_bits(column[:, 0].copy(), good[:, 0].copy())
    np.testing.assert_array_equal(total[1], bad)
    assert np.isfinite(total[::2]).all()


def test_float64_products_are_as_accurate_as_native() -> None:
    a, b = (inputs.array("bell", shape, 0, "double").astype(np.float64) / 3 for shape in ((5, 300), (300, 4)))
    longer = a.astype(np.longdouble) @ b.astype(np.longdouble)
    assert np.all(np.abs(sliced_matmul(np, a, b) - longer) <= 4 * 2.0**-53 * (np.abs(a) @ np.abs(b)))


# ---- scales


def test_powers_of_two_of_all_binades(backend: Backend, flushes: Flushes) -> None:
    exponents = np.arange(-126 if flushes(backend) else -149, 128)
    grid = np.ldexp(np.float32(1), exponents)[:, None] * np.float32([1, 1 + 2.0**-23, 1.5, 2 - 2.0**-23])
    m = grid.astype(np.float32)
    p = run(backend, power_of_two, m)
    assert np.all(np.frexp(p)[0] == 0.5)
    assert np.all((p >= 2.0**-126) & (p <= 2.0**126))
    ratio = m.astype(np.float64) / p
    normal = m > 2.0**-124
    assert np.all((ratio[normal] > 2) & (ratio[normal] <= 4))
    assert np.all(p[~normal] == 2.0**-126)


def test_powers_of_two_of_the_rest(backend: Backend) -> None:
    with np.errstate(invalid="ignore"):
        found = run(backend, power_of_two, np.array([0.0, -0.0, np.nan, np.inf], np.float32))
    np.testing.assert_array_equal(found, np.float32([2.0**-126, 2.0**-126, np.nan, np.nan]))


def test_powers_of_two_in_float64() -> None:
    m = np.ldexp(np.array([[1.0], [1.75]]), np.arange(-120, 120))
    p = power_of_two(np, m)
    assert np.all(np.frexp(p)[0] == 0.5)
    assert np.all((m / p > 2) & (m / p <= 4))


@pytest.mark.parametrize("axis", [-1, -2, (-2, -1)])
@pytest.mark.parametrize("scale", [1.0, 1e20, 1e-30, 2.0**100, 2.0**-100])
def test_unit_does_not_depend_on_the_scale(backend: Backend, axis: Any, scale: float) -> None:
    x = inputs.array("six_decades", (3, 5, 7), 0, "unit")
    x[1] = 0
    x[2, :, 3] = 0
    scaled = (x * np.float32(scale)).astype(np.float32)
    found = run(backend, unit, scaled, axis=axis)
    assert same_bits(found, unit(EXACT, scaled, axis))
    wide = scaled.astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=axis, keepdims=True))
    expected = np.divide(wide, length, out=np.zeros_like(wide), where=length > 0)
    # half of: squares 1, tree of at most 35 in 6 levels; then root 1, reciprocal 1, product 1
    np.testing.assert_allclose(found, expected, rtol=(7 / 2 + 3) * U, atol=2.0**-149)
    assert not found[1].any()
    if np.frexp(scale)[0] == 0.5:
        assert same_bits(found, run(backend, unit, x, axis=axis))


# ---- roots


def test_roots_are_correctly_rounded(backend: Backend, flushes: Flushes) -> None:
    """A float64 root rounded to float32 is the correctly rounded root, since 53 >= 2 · 24 + 2."""
    bits = Stream(0, "roots").words(200_000) % np.uint32(0x7F800000)  # all positive finite numbers
    squares = np.arange(1, 4096, dtype=np.float32) ** 2
    x = np.concatenate([bits.view(np.float32), squares, np.nextafter(squares, np.float32(0)), np.float32([0, np.inf])])
    x = x[(x == 0) | (x >= 2.0**-126)] if flushes(backend) else x
    root = backend.namespace("exact").sqrt(backend.from_numpy(x, "float32"))
    assert same_bits(backend.to_numpy(root), np.sqrt(x.astype(np.float64)).astype(np.float32))


def test_the_fast_tier_is_not_what_is_tested_here(backend: Backend) -> None:
    """Guards the tests above: the exact tier replaces sum and matmul on every backend."""
    tier = namespace.load(backend.name).namespace("exact")
    x, y = (inputs.array("bell", shape, 0, "guard") for shape in ((3, 1025), (1025, 2)))
    a, b = backend.from_numpy(x, "float32"), backend.from_numpy(y, "float32")
    assert same_bits(backend.to_numpy(tier.sum(a, axis=-1)), np.array([halved(row) for row in x]))
    assert same_bits(backend.to_numpy(tier.matmul(a, b)), sliced_matmul(np, x, y))
    assert not same_bits(sliced_matmul(np, x, y), x @ y)
