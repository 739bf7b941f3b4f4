"""Directions that reshape singular values: golden numbers, what they are the gradient or limit of, and exact bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import ENTRIES, replay
from dualopt.directions.polar import polar
from dualopt.directions.powers import over_count, power, product
from dualopt.directions.schatten import Freon, Kaon, MiMuon, Regularized, Spectral
from dualopt.exact import exact
from dualopt.namespace import Backend
from dualopt.shrink import KINDS
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare

Array = np.ndarray[Any, Any]
EXACT = exact(np)
W0 = np.array([[0.5, -1], [1.5, 2]])
G = [np.array(g) for g in ([[1, 2], [-0.5, 0.25]], [[-0.3, 0.8], [1.2, -0.4]], [[0.6, -1.1], [0.2, 0.9]])]
BASE = {"step": 0.1, "memory_half_life": 1024, "shrink_half_life": 2560}


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def regularized(z: Array, eps: float, relative: bool = False) -> Array:
    """Orth_ε(z): minus the direction."""
    part = Regularized("exact", relative=relative)
    k = part.scalars({"smoothing": eps}, None, z.shape)  # type: ignore[arg-type]
    return np.asarray(-part(EXACT, z, {}, k))


def mimuon(z: Array, gap: float, relative: bool = False) -> Array:
    return np.asarray(-MiMuon(relative)(EXACT, z, {}, {"gap": gap}))


def freon(z: Array, c: float) -> Array:
    return np.asarray(-Freon(c)(EXACT, z, {}, {}))


def kaon(z: Array, steps: int) -> Array:
    return np.asarray(-Kaon(steps)(EXACT, z, {}, {}))


def matrix(seed: int, m: int, n: int) -> Array:
    return np.random.default_rng(seed).standard_normal((m, n))


def sigma(z: Array) -> Array:
    return np.linalg.svd(z, compute_uv=False)


shapes = st.tuples(st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 5)).map(lambda a: matrix(*a))


# ---- golden numbers


@pytest.mark.parametrize(
    ("options", "theta3"),
    [
        (
            {"optimizer": "regularized_muon", "smoothing": 0.3, "relative": False},
            [[0.3204222333, -0.9827040118], [1.172147586, 1.593899278]],
        ),
        (
            {"optimizer": "mimuon", "gap": 0.1, "relative": False},
            [[0.3299738788, -1.079738024], [1.106621786, 1.622792703]],
        ),
        (
            {"optimizer": "mimuon", "gap": 0.28, "relative": False},
            [[0.3674237928, -0.9753708124], [1.115156687, 1.640681388]],
        ),
    ],
)
def test_three_updates(options: dict[str, Any], theta3: Any) -> None:
    close(replay({**BASE, **options}, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64").params[2]["w"], theta3)


def test_the_gaps_of_three_updates() -> None:
    """What decides the branches above."""
    found = replay({**BASE, "optimizer": "mimuon"}, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64")
    gaps = [float(-np.diff(sigma(s["w"]["m"]))[0]) for s in found.state]
    close(gaps, [0.2668248232, 0.2765342132, 0.2863958315])


def test_a_smoothed_polar_factor() -> None:
    close(regularized(G[0], 0.3), [[0.4432422072, 0.8864844144], [-0.7881104062, 0.3940552031]])
    close(np.sum(np.sqrt(sigma(G[0]) ** 2 + 0.09) - 0.3), 2.290531712)
    for eps, expected in (
        (1e-3, [0.9999999, 0.9999984]),
        (0.1, [0.9990014975, 0.9843740387]),
        (10, [0.2182178902, 0.05581455722]),
    ):
        close(sigma(regularized(G[0], eps)), expected)


@pytest.mark.parametrize(
    ("c", "expected"),
    [
        (0, [[0.6135719911, 1.227143982], [-0.3067859955, 0.1533929978]]),
        (0.5, [[0.4472135955, 0.894427191], [-0.894427191, 0.4472135955]]),
        (2 / 3, [[0.3737446004, 0.7474892007], [-1.186565144, 0.5932825718]]),
        (1, [[0.2236067977, 0.4472135955], [-1.788854382, 0.894427191]]),
    ],
)
def test_powers_of_the_spectrum(c: float, expected: Any) -> None:
    close(freon(G[0], c), expected)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (1, [[0.005238400218, 0.01047680044], [-0.6705152279, 0.335257614]]),
        (5, [[0.1074853978, 0.2149707955], [-0.4232672355, 0.2116336178]]),
    ],
)
def test_a_random_spectrum(steps: int, expected: Any) -> None:
    close(kaon(G[0], steps), expected)


# ---- what they are


@given(shapes, st.sampled_from([1e-3, 0.1, 1.0, 30.0]))
def test_the_gradient_of_the_smoothed_nuclear_norm(z: Array, eps: float) -> None:
    """∇Ψ by central differences, Ψ + Ψ* = <z, u>, and ‖u‖_op < 1. Differences err by 1e-10 and u/1e-5."""

    def psi(x: Array) -> float:
        return float(np.sum(sigma(x) ** 2 / (np.sqrt(sigma(x) ** 2 + eps * eps) + eps)))

    u = regularized(z, eps)
    i, j = z.shape[0] - 1, 0
    step = np.zeros_like(z)
    step[i, j] = h = 1e-5 * max(eps, 1e-2)
    if sigma(z).min() > 0.1:
        assert abs((psi(z + step) - psi(z - step)) / (2 * h) - u[i, j]) < 1e-6
    s = sigma(u)
    assert s.max() < 1
    conjugate = eps * float(np.sum(s * s / (1 + np.sqrt(1 - s * s))))
    np.testing.assert_allclose(psi(z) + conjugate, float(np.sum(z * u)), rtol=1e-6)  # 1 − s² cancels: u/ε² at 1e-3


@given(shapes, st.integers(0, 2**16), st.sampled_from([0.1, 1.0]))
def test_it_is_lipschitz(z: Array, seed: int, eps: float) -> None:
    other = z + 0.3 * matrix(seed, *z.shape)
    moved = np.linalg.norm(regularized(z, eps) - regularized(other, eps))
    assert moved <= np.linalg.norm(z - other) / eps * (1 + 1e-12)


@given(shapes)
def test_its_limits(z: Array) -> None:
    np.testing.assert_allclose(regularized(z, 1e-9), polar(EXACT, z, "exact"), atol=1e-6 / max(sigma(z).min(), 1e-3))
    np.testing.assert_allclose(1e6 * regularized(z, 1e6), z, atol=1e-9)


@given(shapes, st.integers(-30, 30))
def test_a_relative_smoothing_does_not_see_the_scale(z: Array, exponent: int) -> None:
    """And is ε ‖z‖_F/√r in absolute terms."""
    found = regularized(z, 0.2, relative=True)
    assert regularized(z * 2.0**exponent, 0.2, relative=True).tobytes() == found.tobytes()
    size = 0.2 * np.linalg.norm(z) / np.sqrt(min(z.shape))
    np.testing.assert_allclose(found, regularized(z, float(size)), atol=1e-12)


def test_it_dissipates() -> None:
    """ẋ = −Orth(m), ṁ = κ(∇f − m): d/dt [f + Ψ/κ] = −<m, Orth(m)>, by central differences along the flow."""
    eps, kappa, h = 0.3, 2.0, 1e-5
    a = matrix(1, 3, 3) @ matrix(1, 3, 3).T
    x, m = matrix(2, 3, 4), matrix(3, 3, 4)

    def energy(x: Array, m: Array) -> float:
        return float(0.5 * np.sum(x * (a @ x)) + np.sum(np.sqrt(sigma(m) ** 2 + eps**2) - eps) / kappa)

    dx, dm = -regularized(m, eps), kappa * (a @ x - m)
    rate = (energy(x + h * dx, m + h * dm) - energy(x - h * dx, m - h * dm)) / (2 * h)
    assert abs(rate + float(np.sum(m * regularized(m, eps)))) < 1e-7 * abs(rate)


@given(shapes)
def test_the_limits_of_a_gap(z: Array) -> None:
    exactly = polar(EXACT, z, "exact")
    np.testing.assert_allclose(mimuon(z, 0.0), exactly, atol=1e-12)
    found = mimuon(z, 1e30)
    if min(z.shape) > 1:
        assert found.tobytes() == z.tobytes()
    else:  # a rank of one has no gap
        np.testing.assert_allclose(found, exactly, atol=1e-12)
    low = z[:, :1] * z[:1]
    np.testing.assert_allclose(mimuon(low, 1e30), polar(EXACT, low, "exact"), atol=1e-12)


def test_a_relative_gap() -> None:
    """σ = 4, 2, 1: the least gap is 1, a quarter of the largest."""
    q, p = np.linalg.qr(matrix(0, 3, 3))[0], np.linalg.qr(matrix(1, 4, 3))[0]
    z = (q * [4.0, 2.0, 1.0]) @ p.T
    for scale in (1.0, 1e-20, 1e20):
        assert (mimuon(scale * z, 0.26, relative=True) == scale * z).all()
        np.testing.assert_allclose(mimuon(scale * z, 0.24, relative=True), q @ p.T, atol=1e-12)
    assert (mimuon(z, 1.01) == z).all()
    np.testing.assert_allclose(mimuon(z, 0.99), q @ p.T, atol=1e-12)


@given(shapes, st.sampled_from([0.0, 0.2, 0.5, 0.6, 2 / 3, 0.9, 1.0]), st.integers(-30, 30))
def test_a_power_mean_of_one(z: Array, c: float, exponent: int) -> None:
    """mean σ(u)^(q/(q−1)) = 1 over nonzero σ; scale does not matter; c = 1/2 is the polar factor."""
    u, q = freon(z, c), 2 * (1 - c)
    assert freon(z * 2.0**exponent, c).tobytes() == u.tobytes()
    if c == 0.5:
        np.testing.assert_allclose(u, polar(EXACT, z, "exact"), atol=1e-12)
    elif q > 0:
        np.testing.assert_allclose(np.mean(sigma(u) ** (q / (q - 1))), 1, rtol=1e-9)
    else:
        np.testing.assert_allclose(np.mean(np.log(sigma(u))), 0, atol=1e-9)
    if c == 0:
        np.testing.assert_allclose(u, z * np.sqrt(min(z.shape)) / np.linalg.norm(z), atol=1e-12)


def test_null_directions_are_dropped_from_powers() -> None:
    """Rank 2 of 4: the mean is over two singular values, and nothing is inverted that is rounding."""
    q, p = np.linalg.qr(matrix(0, 5, 2))[0], np.linalg.qr(matrix(1, 4, 2))[0]
    for c, expected in ((1.0, [0.5**0.5, 2**0.5]), (0.5, [1, 1]), (0.0, np.sqrt(2) * np.array([2, 1]) / np.sqrt(5))):
        np.testing.assert_allclose(freon((q * [2.0, 1.0]) @ p.T, c), (q * np.asarray(expected)) @ p.T, atol=1e-12)


@given(shapes, st.integers(1, 6))
def test_a_random_spectrum_is_bounded(z: Array, steps: int) -> None:
    u = kaon(z, steps)
    assert sigma(u).max() <= 1
    x = sigma(z) / np.linalg.norm(z)
    for _ in range(steps):
        x = 4.1 * x * (1 - x * x) ** 2
    if steps <= 3:  # rounding grows about fivefold a step
        np.testing.assert_allclose(sigma(u), np.sort(x / 1.175)[::-1], atol=1e-9)


PARTS: dict[str, tuple[Spectral, dict[str, float]]] = {
    "regularized": (Regularized("exact"), {"smoothing": 0.2}),
    "regularized by a set": (Regularized("cans"), {"smoothing": 0.2}),
    "mimuon": (MiMuon(), {"gap": 0.1}),
    "freon": (Freon(), {}),
    "kaon": (Kaon(2), {}),
}


@pytest.mark.parametrize("part", PARTS)
@given(z=shapes, seed=st.integers(0, 2**16))
def test_rotations_of_rows_and_columns(part: str, z: Array, seed: int) -> None:
    direction, k = PARTS[part]
    left, right = (np.linalg.qr(matrix(seed, n, n))[0] for n in z.shape)
    u = direction(EXACT, z, {}, k)  # type: ignore[operator]
    found = direction(EXACT, left @ z @ right.T, {}, k)  # type: ignore[operator]
    gaps = np.abs(np.diff(sigma(z)))
    if part != "mimuon" or np.abs(gaps - 0.1).min(initial=1.0) > 1e-9:
        tolerance = 1e-9 / min(1.0, float(sigma(z).min() / sigma(z).max()) ** 2)
        np.testing.assert_allclose(found, left @ u @ right.T, atol=tolerance)


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 3, 2)])
def test_zero_gives_zero(part: str, shape: tuple[int, ...]) -> None:
    direction, k = PARTS[part]
    for dtype in (np.float32, np.float64):
        found = direction(EXACT, np.zeros(shape, dtype), {}, k)  # type: ignore[operator]
        assert found.dtype == dtype
        assert not found.any()


# ---- numbers


@given(st.floats(1e-6, 1), st.floats(-3, 3))
def test_powers(x: float, p: float) -> None:
    for dtype in (np.float32, np.float64):
        found = power(EXACT, np.array([x], dtype), p)
        rounding = (64 + 14 * abs(p)) * float(np.finfo(dtype).eps)  # of factors, and of what is left of p times log x
        np.testing.assert_allclose(found, np.array([x], dtype).astype(float) ** p, rtol=rounding)
        if 0 <= p <= 1:
            by_array = power(EXACT, np.array([x], dtype), np.array([p], dtype))
            np.testing.assert_allclose(by_array, found, rtol=rounding)


def test_products_and_counts() -> None:
    x = np.arange(1.0, 8)
    assert product(EXACT, x) == 5040
    assert over_count(EXACT, x > 3, x) == 0.25
    assert over_count(EXACT, x > 9, x) == 1


# ---- every row, everywhere


ROWS: dict[str, dict[str, Any]] = {
    "regularized_muon": {"smoothing": 0.2, "iterations": 3},
    "mimuon": {"gap": 0.05},
    "freon": {},
    "freon inverse": {"exponent": 1.0},
    "kaon": {},
}


@pytest.mark.parametrize("case", ROWS)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, case: str) -> None:
    group = {"optimizer": case.split(maxsplit=1)[0], "memory_half_life": 900, "shrink_half_life": 2e4, **ROWS[case]}
    shapes = {"w": (3, 4)}
    grads = list(inputs.gradients(shapes, 4, kinds=("bell", "zeros", "low_rank", "huge")))
    params, increments = inputs.parameters(shapes), inputs.increments(4)
    report = compare(
        replay(group, params, grads, increments), replay(group, params, grads, increments, backend=backend.name)
    )
    assert report.differing == 0, str(report)
    assert report.compared > 0


@pytest.mark.parametrize("row", ["regularized_muon", "mimuon", "freon", "kaon"])
@pytest.mark.parametrize("shrink", KINDS)
def test_they_take_every_shrink(row: str, shrink: str) -> None:
    shapes = {"w": (3, 5), "line": (1, 4), "pair": (2, 4, 3), "empty": (0, 3)}
    group = {"optimizer": row, "shrink": shrink, "shrink_half_life": 2e4, "target_rms": 0.9}
    for dtype in ("float32", "bfloat16"):
        found = replay(group, inputs.parameters(shapes), inputs.gradients(shapes, 3), 64, dtype=dtype)
        assert all(np.isfinite(x).all() for x in found.params[-1].values())
        assert all(s.keys() == {"m"} for s in found.state[-1].values())
    assert ENTRIES[row].least_ndim({}) == 2
