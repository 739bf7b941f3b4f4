"""What must hold for any input: of the recursion, of the norm balls, of cautious shrink, of equal weights.

Arrays come from the integer generator (the examples are its seeds); every declared norm, the published
forms of updates and the RMS-targeted solve are written out again here, in float64. u = 2^-24 is the
relative error of one rounding in float32; "2 ulp" is 4 u of the larger term.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Group, Recipe, Schedule, complement, half_life, replay, retention
from dualopt.catalog import complete, row
from dualopt.clock import Clock
from dualopt.counts import Count
from dualopt.directions.norm_balls import NORMS, ball
from dualopt.directions.polar import SETS, polar
from dualopt.memory import Memories, Readout
from dualopt.motion import Additive, Targeted
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recursion import step
from dualopt.schedules import SHAPES
from dualopt.shrink import Cautious, Direct
from dualopt_conformance import inputs
from dualopt_conformance.metric import scaled_ulp

U = 2.0**-24
SEED = st.integers(0, 10_000)
KIND = st.sampled_from(["bell", "six_decades", "zeros", "ties", "huge"])
Numpy = np.ndarray[Any, Any]


def draw(kind: str, shape: tuple[int, ...], seed: int, name: str) -> Numpy:
    return inputs.array(kind, shape, seed, name)


def on(backend: Backend, *arrays: Numpy) -> list[Any]:
    return [backend.from_numpy(x, "float32") for x in arrays]


# ---- A1: the recursion


@given(SEED, KIND, st.integers(1, 1000), st.floats(1, 1e6), st.floats(0, 1), st.integers(1, 8))
def test_memory_and_readout(backend: Backend, seed: int, kind: str, dtau: int, h: float, mu: float, r: int) -> None:
    """(iii) z = μβ m + (1 − μβ) g; (iv) r updates with one gradient are one update with β^r, in m and z;
    (vi) Lion's β₁ m + (1 − β₁) g is the readout μ = β₁/β₂ of the updated memory."""
    m0, g = draw(kind, (5,), seed, "m").astype(np.float64), draw(kind, (5,), seed, "g").astype(np.float64)
    action, clock = {"memory_half_life": h, "readout": mu}, Clock(dtau, dtau)
    xp = backend.namespace("exact")
    m, gradient = on(backend, m0, g)
    k = Memories().scalars(action, clock, (5,)) | Readout().scalars(action, clock, (5,))
    s: Any = {"m": m}
    for _ in range(r):
        s = Memories()(xp, s, {"": gradient}, k)
    z = backend.to_numpy(Readout()(xp, s, gradient, k))
    kept = retention(r * dtau, h)
    scale = np.maximum(np.abs(m0), np.abs(g))  # a blend lies between its ends
    # a blend rounds 3 times and its c once: 4 u of a difference up to 2 scales, 8 u; once more for z
    for found, expected, blends in (
        (backend.to_numpy(s["m"]), kept * m0 + (1 - kept) * g, r),
        (z, mu * kept * m0 + (1 - mu * kept) * g, r + 1),
    ):
        assert np.all(np.abs(found - expected) <= blends * 8 * U * scale)


@given(SEED, KIND, st.lists(st.integers(1, 2000), min_size=1, max_size=8), st.floats(100, 1e6))
def test_without_steps_weights_decay_by_the_count(
    backend: Backend, seed: int, kind: str, increments: list[int], h: float
) -> None:
    """(v), (vii), (viii) η = 0: θ = 2^(−τ/h_a) θ_0 for any increments, never across zero."""
    theta = draw(kind, (5,), seed, "theta")
    grads = [{"w": draw("bell", (5,), seed, f"g{t}")} for t in range(len(increments))]
    group = {"optimizer": "lion", "step": 0.0, "shrink_half_life": h}
    found = replay(group, {"w": theta}, grads, increments, backend=backend.name).params[-1]["w"]
    total = sum(increments)
    expected = retention(total, h) * theta.astype(np.float64)
    # per update: c rounds, c θ rounds, the difference rounds; 2 c u + a u of θ before, relative to a θ
    relative = sum(U * (1 + 2 * complement(d, h) / retention(d, h)) for d in increments) * 1.001
    assert np.all(np.abs(found - expected) <= relative * np.abs(expected))
    assert np.all(found * theta >= 0)


def test_coupled_decay_may_cross_zero_where_direct_shrink_cannot() -> None:
    """(vii) with ηλ = 3 the factor 1 − ηλ is −2; a half-life of any length keeps a in (0, 1]."""
    for h in (1e-2, 1.0, 1e9):
        found = replay(
            {"optimizer": "sgdm", "step": 0.0, "shrink_half_life": h},
            {"w": np.ones(2)},
            [{"w": np.ones(2)}],
            1,
            dtype="float64",
        )
        assert np.all(found.params[0]["w"] >= 0)
        assert np.all(found.params[0]["w"] <= 1)


# ---- A2: norm balls


def lines(x: Numpy, axis: int) -> Numpy:
    return np.sqrt((x * x).sum(axis=axis))


def op(x: Numpy) -> float:
    return float(np.linalg.svd(x, compute_uv=False)[0])


def nuclear(x: Numpy) -> float:
    return float(np.linalg.svd(x, compute_uv=False).sum())


# name -> (norm, dual norm), m outputs and n inputs, as the table of sources states them
DECLARED: dict[str, tuple[Callable[[Numpy, int, int], float], Callable[[Numpy, int, int], float]]] = {
    "spectral": (
        lambda x, m, n: math.sqrt(n / m) * op(x),
        lambda x, m, n: math.sqrt(m / n) * nuclear(x),
    ),
    "spectral_max": (
        lambda x, m, n: op(x) / max(1, math.sqrt(m / n)),
        lambda x, m, n: max(1, math.sqrt(m / n)) * nuclear(x),
    ),
    "spectral_in": (lambda x, m, n: op(x) / math.sqrt(m), lambda x, m, n: math.sqrt(m) * nuclear(x)),
    "sign": (lambda x, m, n: n * np.abs(x).max(), lambda x, m, n: np.abs(x).sum() / n),
    "sign_in": (lambda x, m, n: np.abs(x).max(), lambda x, m, n: np.abs(x).sum()),
    "column": (
        lambda x, m, n: lines(x, 0).max() / math.sqrt(m),
        lambda x, m, n: math.sqrt(m) * lines(x, 0).sum(),
    ),
    "column_in": (
        lambda x, m, n: n * lines(x, 0).max() / math.sqrt(m),
        lambda x, m, n: math.sqrt(m) / n * lines(x, 0).sum(),
    ),
    "row": (
        lambda x, m, n: math.sqrt(n) * lines(x, 1).max(),
        lambda x, m, n: lines(x, 1).sum() / math.sqrt(n),
    ),
    "row_in": (lambda x, m, n: lines(x, 1).max(), lambda x, m, n: lines(x, 1).sum()),
    "bias_rms": (
        lambda x, m, n: float(np.sqrt(np.mean(x**2))),
        lambda x, m, n: math.sqrt(n) * float(np.sqrt(np.sum(x**2))),
    ),
    "frobenius": (lambda x, m, n: float(np.sqrt(np.sum(x**2))), lambda x, m, n: float(np.sqrt(np.sum(x**2)))),
    "spectral_conv": (  # 3 kernel positions, as out × (in · 3)
        lambda x, m, n: 3 * math.sqrt(n / 3 / m) * op(x),
        lambda x, m, n: math.sqrt(m / (n / 3)) / 3 * nuclear(x),
    ),
}
BALL_SHAPES = st.sampled_from([(1, 1), (2, 2), (3, 7), (7, 3), (1, 5), (5, 1)])


def test_every_norm_is_declared_here() -> None:
    assert set(DECLARED) == set(NORMS)


def logical(norm: str, shape: tuple[int, int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the shape that the row sees, the shape that its scale is computed from)."""
    if norm == "bias_rms":
        return shape[1:], shape[1:]
    return ((shape[0], 3 * shape[1]), (*shape, 3)) if norm == "spectral_conv" else (shape, shape)


def direction(xp: Any, norm: str, z: Any, shape: tuple[int, ...]) -> Any:
    chosen = ball(norm, "exact")
    return chosen(xp, z, {}, chosen.scalars({}, Clock(1, 1), shape))


@pytest.mark.parametrize("norm", NORMS)
@given(SEED, st.sampled_from(["bell", "six_decades", "zeros", "ties", "low_rank"]), BALL_SHAPES)
def test_directions_are_steepest_descent(norm: str, seed: int, kind: str, shape: tuple[int, int]) -> None:
    """‖u‖ = 1 and <m, u> = −‖m‖_*. 1e-12: a factorisation of at most 7 x 21 entries in float64."""
    seen, scaled = logical(norm, shape)
    m = draw(kind, seen, seed, "m").astype(np.float64)
    u = direction(np, norm, m, scaled)
    length, dual = DECLARED[norm]
    ends = (seen[0] if len(seen) > 1 else 1, seen[-1])
    if not m.any():
        assert not u.any()
        return
    assert length(u, *ends) == pytest.approx(1, rel=1e-12)
    assert np.sum(m * u) == pytest.approx(-dual(m, *ends), rel=1e-12)
    chosen = ball(norm, "exact")
    assert float(chosen.norm(np, u, scaled)) == pytest.approx(1, rel=1e-12)
    assert float(chosen.dual_norm(np, m, scaled)) == pytest.approx(dual(m, *ends), rel=1e-12)
    theta = chosen.initial(np, m, scaled, radius=2.5)
    assert length(theta, *ends) == pytest.approx(2.5, rel=1e-12)


@pytest.mark.parametrize("norm", [norm for norm in NORMS if not norm.startswith("spectral")])
@given(SEED, KIND)
def test_directions_in_float32(backend: Backend, norm: str, seed: int, kind: str) -> None:
    """As in float64, on every backend: a square, 3 levels of sums, a root, a reciprocal, 2 products, the scale."""
    seen, scaled = logical(norm, (3, 7))
    m = draw(kind, seen, seed, "m")
    (array,) = on(backend, m)
    found = backend.to_numpy(direction(backend.namespace("exact"), norm, array, scaled))
    expected = direction(np, norm, m.astype(np.float64), scaled)
    assert np.all(np.abs(found - expected) <= 10 * U * np.abs(expected))


# ---- polynomial iterations


def with_singular_values(sigma: Numpy, shape: tuple[int, int], seed: int) -> Numpy:
    left, _ = np.linalg.qr(draw("bell", (shape[0], len(sigma)), seed, "left").astype(np.float64))
    right, _ = np.linalg.qr(draw("bell", (shape[1], len(sigma)), seed, "right").astype(np.float64))
    return np.asarray((left * sigma) @ right.T)


BANDS = {  # response over [least, 1]; a set that scales rows apart does not act on singular values alone
    "quintic": (0.6818, 1.1344),
    "five": (0.9778, 1.0318),
    "polar_express": (0.8764, 1.1236),
    "cans": (0.8844, 1.1198),
}


def amplification(method: str) -> float:
    """The largest Σ_i |x_i| Π_{j>=i} |slope_j| over [least, 1]: what becomes of relative rounding at every step.

    53 000 for `cans`, whose steps end where they turn steep, without a safety factor; 212 and less for the others.
    """
    chosen = SETS[method]
    x, places, slopes = np.geomspace(chosen.least, 1, 10_000) / chosen.safety, [], []
    for a, b, c in chosen.steps:
        places.append(x)
        slopes.append(np.abs(a + x * x * (3 * b + x * x * 5 * c)))
        x = x * (a + x * x * (b + x * x * c))
    total, onward = np.zeros_like(x), np.ones_like(x)
    for place, slope in zip(reversed(places), reversed(slopes), strict=True):
        onward = onward * slope
        total = total + onward * np.abs(place)
    return float(total.max())


@pytest.mark.parametrize("method", BANDS)
@given(seed=SEED, drawn=st.tuples(*[st.floats(0.02, 1)] * 3))
def test_iterations_act_on_singular_values(backend: Backend, method: str, seed: int, drawn: tuple[float, ...]) -> None:
    """Each σ becomes response(σ), inside the set's band; the normalised input is off by 8 u."""
    chosen = SETS[method]
    grid = np.geomspace(chosen.least, 1, 10_000)
    response = np.array([chosen.response(x) for x in grid])
    assert (response.min(), response.max()) == pytest.approx(BANDS[method], abs=5e-5)
    sigma = np.array(drawn) / np.linalg.norm(drawn)  # >= 0.02 / √3 > least
    (z,) = on(backend, with_singular_values(sigma, (3, 7), seed))
    found = backend.to_numpy(polar(backend.namespace("exact"), z, method)).astype(np.float64)
    slope = float(np.abs(np.diff(response) / np.diff(grid)).max())
    tolerance = max(slope, amplification(method) if method == "cans" else 0) * 8 * U
    expected = np.sort([chosen.response(x) for x in sigma])[::-1]
    np.testing.assert_allclose(np.linalg.svd(found, compute_uv=False), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", [*BANDS, "exact"])
@given(seed=SEED, shape=st.sampled_from([(4, 4), (3, 7), (7, 3), (1, 5)]))
def test_polar_factors_are_equivariant(method: str, seed: int, shape: tuple[int, int]) -> None:
    """U(PMQ) = P U(M) Q, P and Q orthogonal. σ within a factor 8, slopes up to 200: 1e-12; 1e-10 for `cans`."""
    sigma = 1 + np.arange(min(shape)) * 2.0
    m = with_singular_values(sigma, shape, seed)
    p, q = (with_singular_values(np.ones(n), (n, n), seed + i) for i, n in enumerate(shape, 1))
    u, tolerance = polar(np, m, method), 1e-10 if method == "cans" else 1e-12
    np.testing.assert_allclose(polar(np, p @ m @ q, method), p @ u @ q, rtol=0, atol=tolerance)
    np.testing.assert_allclose(polar(np, m.T, method), u.T, rtol=0, atol=tolerance)


@pytest.mark.parametrize("method", [*SETS, "exact"])
def test_null_directions_are_dropped(method: str) -> None:
    m = with_singular_values(np.array([1.0, 0.5]), (4, 6), 0)  # rank 2
    sigma = np.linalg.svd(polar(np, m, method), compute_uv=False)
    assert np.all(sigma[:2] > 0.6)
    assert np.all(sigma[2:] < 1e-12)
    assert not polar(np, np.zeros((3, 2)), method).any()


# ---- equivariance and scale of the other balls


def order(n: int, seed: int, name: str) -> Numpy:
    return np.argsort(draw("bell", (n,), seed, name), kind="stable")


@given(seed=SEED, kind=KIND)
def test_balls_are_equivariant(backend: Backend, seed: int, kind: str) -> None:
    """Permutations leave every sum in place, so these hold to the bit: sign under permutations and signs
    of rows and columns, lines under permutations of lines, and signs of everything."""
    xp = backend.namespace("exact")
    z = draw(kind, (3, 7), seed, "z")
    rows, columns = order(3, seed, "rows"), order(7, seed, "columns")
    flips = np.sign(draw("bell", (3, 7), seed, "flips"))

    def u(norm: str, x: Numpy) -> Numpy:
        (array,) = on(backend, np.ascontiguousarray(x))
        return backend.to_numpy(direction(xp, norm, array, (3, 7)))

    for norm, change in (
        ("sign", lambda x: flips * x[rows][:, columns]),
        ("sign_in", lambda x: flips * x[rows][:, columns]),
        ("column", lambda x: flips * x[:, columns]),
        ("column_in", lambda x: flips * x[:, columns]),
        ("row", lambda x: flips * x[rows]),
        ("row_in", lambda x: flips * x[rows]),
        ("frobenius", lambda x: flips * x),
    ):
        np.testing.assert_array_equal(u(norm, change(z)), change(u(norm, z)), err_msg=norm)


@given(seed=SEED)
def test_lines_turn_with_their_space(seed: int) -> None:
    """column: U(PM) = P U(M); row: U(MQ) = U(M) Q, P and Q orthogonal. 1e-13: sums of 7 in float64."""
    z = draw("bell", (3, 7), seed, "z").astype(np.float64)
    p, q = (with_singular_values(np.ones(n), (n, n), seed) for n in (3, 7))
    for norm, turn in (("column", lambda x: p @ x), ("row", lambda x: x @ q)):
        found, expected = direction(np, norm, turn(z), (3, 7)), turn(direction(np, norm, z, (3, 7)))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


SCALE_FREE: dict[str, dict[str, Any]] = {
    "lion": {"optimizer": "lion"},
    "sign_sgdm": {"optimizer": "sign_sgdm", "readout": 0.5},
    **{norm: {"optimizer": "scionc", "norm": norm} for norm in ("column", "row", "frobenius", "sign")},
}


@pytest.mark.parametrize("group", SCALE_FREE.values(), ids=SCALE_FREE)
@given(seed=SEED, p=st.integers(-30, 30))
def test_a_factor_on_all_gradients_changes_nothing(backend: Backend, group: dict[str, Any], seed: int, p: int) -> None:
    shapes = {"w": (3, 7)}
    params, grads = inputs.parameters(shapes, seed), list(inputs.gradients(shapes, 4, seed))
    scaled = [{"w": np.ldexp(g["w"], p)} for g in grads]
    plain, other = (replay(group, params, g, 100, backend=backend.name).params[-1]["w"] for g in (grads, scaled))
    assert plain.tobytes() == other.tobytes()


@pytest.mark.parametrize("norm", [norm for norm in NORMS if norm not in ("bias_rms", "spectral_conv")])
@given(seed=SEED, h=st.floats(1, 1e4), eta=st.floats(1e-3, 10))
def test_weights_stay_in_the_ball(norm: str, seed: int, h: float, eta: float) -> None:
    """‖θ‖ <= max(‖θ_0‖, η / (1 − a)) after every update, for gradients that point the same way."""
    theta = draw("bell", (3, 7), seed, "theta").astype(np.float64)
    group = {"optimizer": "scionc", "norm": norm, "step": eta, "shrink_half_life": h}
    found = replay(group, {"w": theta}, [{"w": draw("bell", (3, 7), seed, "g")}] * 20, 1, dtype="float64")
    bound = max(DECLARED[norm][0](theta, 3, 7), eta / complement(1, h)) * (1 + 1e-12)
    assert all(DECLARED[norm][0](p["w"], 3, 7) <= bound for p in found.params)


def test_the_ball_is_reached() -> None:
    """The bound above is attained: sign updates with one gradient end at η / (1 − a) = 5."""
    group = {"optimizer": "scion", "norm": "sign_in", "step": 0.05, "shrink_half_life": half_life(0.99, 1)}
    grads = [{"w": np.array([-1.0, 1.0])}] * 2000
    found = replay(group, {"w": np.zeros(2)}, grads, 1, dtype="float64").params[-1]["w"]
    np.testing.assert_allclose(found, [5, -5], rtol=1e-8)
    free = replay({**group, "shrink": "cautious"}, {"w": np.zeros(2)}, grads, 1, dtype="float64")
    np.testing.assert_allclose(free.params[-1]["w"], [100, -100], rtol=1e-8)  # cautious shrink has no ball


# ---- D: cautious shrink


@given(seed=SEED, kind=KIND, h=st.floats(1, 1e6), eta=st.floats(1e-4, 10), strict=st.booleans())
def test_cautious_shrink(backend: Backend, seed: int, kind: str, h: float, eta: float, strict: bool) -> None:
    """(i) θ + ηu − ηλ 1[uθ <= 0] θ with ηλ = 1 − a; (ii) commutes with a change of sign, to the bit;
    (iii) |θ+ − ηu| <= |θ|, with equality off the mask. Each to 2 ulp of the larger of θ and ηu."""
    theta, u = draw(kind, (9,), seed, "theta"), draw("zeros", (9,), seed, "u")
    theta[:3], theta[3:5] = np.abs(theta[:3]), 0
    k = {"eta": eta, "c_a": complement(1, h)}
    motion, xp = Additive(Cautious(strict)), backend.namespace("exact")

    def moved(t: Numpy, d: Numpy) -> Numpy:
        t_array, d_array = on(backend, t, d)
        return backend.to_numpy(motion(xp, t_array, {"": d_array}, {}, k)[0])

    found = moved(theta, u)
    assert np.all(moved(-theta, -u) == -found)
    wide, along = theta.astype(np.float64), float(np.float32(eta)) * u.astype(np.float64)
    product = np.sign(wide) * np.sign(u)
    mask = product < 0 if strict else product <= 0
    scale = np.maximum(np.abs(wide), np.abs(along))
    published = wide + along - k["c_a"] * mask * wide
    assert np.all(scaled_ulp(published, found, scale) <= 2)
    assert np.all(np.abs(found - along) <= np.abs(wide) + 4 * U * scale)
    # off the mask: ηu rounds by half an ulp, the sum by half an ulp of up to two scales
    assert np.all(scaled_ulp(wide + along, found, scale)[~mask] <= 1.5)


def test_tiny_factors_do_not_look_like_zero(backend: Backend) -> None:
    """Equal signs: u enlarges θ, so there is no shrink, though u θ = 1e-50 underflows to 0, which is <= 0."""
    theta, u = on(backend, np.float32([1e-25, -1e-25, 1e-25]), np.float32([1e-25, -1e-25, -1e-25]))
    lost = backend.to_numpy(Cautious()(backend.namespace("exact"), theta, u, {"c_a": 0.5}))
    np.testing.assert_array_equal(lost, np.float32([0, 0, 1e-25]) * np.float32(0.5))


def descend(options: dict[str, Any], start: list[float], gradient: Callable[[Numpy], Numpy], updates: int) -> Numpy:
    """Gradient descent (readout 0) in float64 with gradients computed on the way."""
    stated = complete("sgdm", {"readout": 0.0, **options})
    chosen, theta, state = row("sgdm", stated), np.array(start), {}
    k = chosen.scalars(stated, Clock(1, 1), theta.shape)
    state = chosen.init(np, theta)
    for _ in range(updates):
        theta, state = step(np, chosen, theta, state, {"gradient": gradient(theta)}, k)
    return theta


@pytest.mark.parametrize(
    ("shrink", "expected"),
    [("direct", [0.9090909091, -1.951219512]), ("cautious", [1.0, -2.0])],
)
def test_cautious_shrink_does_not_bias(shrink: str, expected: list[float]) -> None:
    """(iv) h = (1, 4), x* = (1, −2), η = 0.1, a = 0.99."""
    curvature, optimum = np.array([1.0, 4.0]), np.array([1.0, -2.0])
    options = {"step": 0.1, "shrink_half_life": half_life(0.99, 1), "shrink": shrink}
    found = descend(options, [3.0, 1.0], lambda x: curvature * (x - optimum), 500)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2.0, -1.0]),
        ({"shrink_half_life": half_life(0.995, 1)}, [0.48780532, 0.4878044361]),
        ({"shrink_half_life": half_life(0.995, 1), "shrink": "cautious"}, [0.9660954607, 0.03389486789]),
    ],
)
def test_cautious_shrink_slides(options: dict[str, Any], expected: list[float]) -> None:
    """(vi) f = ½ (x1 + x2 − 1)²: along the valley to the edge of the Pareto segment, not to the middle."""
    found = descend({"step": 0.1, **options}, [2.0, -1.0], lambda x: np.full(2, x.sum() - 1), 3000)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


# ---- A3.3: the solve for a target RMS


@given(
    seed=SEED,
    kind=st.sampled_from(["bell", "six_decades", "zeros"]),
    target=st.floats(0.01, 3),
    peak=st.floats(0, 5),
    h=st.floats(0.5, 100),
    away=st.sampled_from([-1.0, 0.0, 1.0]),
)
def test_the_solve_takes_the_published_branches(
    seed: int, kind: str, target: float, peak: float, h: float, away: float
) -> None:
    theta, noise = (draw(kind, (4, 5), seed, name).astype(np.float64) for name in ("theta", "u"))
    u = noise + away * theta
    motion = Targeted(Direct())
    k = {"eta": peak, "c_a": complement(1, h), "entries_r2": theta.size * target**2}
    moved, _ = motion(np, theta, {"": u}, {}, k)
    a = 1 - k["c_a"]
    s, v, w2 = np.mean(theta * u), np.mean(u * u), np.mean(theta * theta)
    d = a * a * s * s + v * (target**2 - a * a * w2)
    if v == 0:
        eta = 0.0
    elif d < 0:
        eta = -a * s / v  # closest approach
    else:
        shrinks = a * a * w2 > target**2 and s < 0
        eta = (-a * s + (-1 if shrinks else 1) * math.sqrt(d)) / v
    eta = min(max(0.0, eta), peak)
    # √d is off by √eps where d cancels
    np.testing.assert_allclose(moved, a * theta + eta * u, rtol=1e-7, atol=1e-7)
    if v > 0 and d >= 0 and 0 < eta < peak:
        assert math.sqrt(np.mean(moved**2)) == pytest.approx(target, rel=1e-6)


# ---- B: equal weights


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.startswith("equal-weight")])
@pytest.mark.parametrize("per_update", [1, 256])
@given(
    increments=st.lists(st.integers(1, 1000), min_size=2, max_size=30),
    h=st.floats(300, 1e6),
    constant=st.booleans(),
)
def test_every_update_has_the_same_weight(
    shape: Any, per_update: int, increments: list[int], h: float, constant: bool
) -> None:
    """η_j Π_{k>j} a_k = η_T for all j, for equal and for varying increments, since a_j = η_j / η_{j−1}."""
    unit = "updates" if per_update == 1 else "tokens"
    group = Group("sgdm", {"step": 0.5, "shrink_half_life": h})
    plan = Plan(Recipe((group,), Count(unit, per_update), Schedule(shape)), {"w": (2,)})
    eta, kept = [], []
    for dtau in increments:
        proposal = plan.propose(per_update if constant else dtau, ["w"])
        plan.commit(proposal)
        eta.append(proposal.scalars["w"]["eta"])
        kept.append(1 - proposal.scalars["w"]["c_a"])
    weights = np.array(eta) * np.append(np.cumprod(kept[:0:-1])[::-1], 1.0)
    np.testing.assert_allclose(weights, eta[-1], rtol=1e-12)
    assert eta[-1] < eta[0] < 0.5
