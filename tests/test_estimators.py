"""Updates estimated from microbatches: golden numbers, formulas written out apart, and what must hold for all.

The fixture is one update, the third, of β = (0.9, 0.95) from m = G₂/2 and v = 0.4 G₂² with four microbatches. The
groups of the golden numbers are halves; here A is the even and B the odd microbatches, so they come as 0, 2, 1, 3.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import half_life, replay
from dualopt.catalog import ENTRIES
from dualopt.errors import GradientError, RecipeError
from dualopt.estimators import ESTIMATORS, FOUR
from dualopt.estimators.shampoo import inverse_root
from dualopt.fold import hypot, moments, standard_error
from dualopt.microbatches import Folding
from dualopt.plan import Plan
from dualopt.recipe import Count, Group, Recipe
from dualopt.recursion import propose

Array = np.ndarray[Any, Any]
W0 = np.array([[0.5, -1], [1.5, 2]])
G = [np.array(g) for g in ([[1, 2], [-0.5, 0.25]], [[-0.3, 0.8], [1.2, -0.4]], [[0.6, -1.1], [0.2, 0.9]])]
MICRO = G[0] + 0.3 * np.random.default_rng(7).standard_normal((4, 2, 2))
SPLIT = MICRO[[0, 2, 1, 3]]
M0, V0, B1, B2, EPS, T = 0.5 * G[1], 0.4 * G[1] ** 2, 0.9, 0.95, 1e-8, 3
C1, C2 = 1 - B1**T, 1 - B2**T
BETAS = {"memory_half_life": half_life(B1, 1), "second_memory_half_life": half_life(B2, 1)}
CORRECTING = [e for e in ESTIMATORS if e != "std"]


def close(found: Any, expected: Any, rtol: float = 1e-9) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-9)


def update(
    options: dict[str, Any],
    micro: Any,
    state: dict[str, Array],
    samples: Any = None,
    *,
    before: int = T - 1,
) -> tuple[Array, dict[str, Array]]:
    """(−u, state) of the update after `before` others of one count each, in float64 numpy."""
    recipe = Recipe(groups=(Group.from_dict({**BETAS, **options}),), count=Count("updates", per_update=1))
    plan = Plan(recipe, {"w": (2, 2)}, float64=True)
    plan.set_out(before)
    k = plan.propose(1, ["w"]).scalars
    evidence: dict[str, Array] = {}
    for stream, trees in (("gradient", micro), ("samples", samples)):
        if trees is None:
            continue
        folding = Folding(plan, np, lambda name: state, k, stream=stream)
        for g in trees:
            folding.add({"w": g})
        folding.turn()
        for g in trees if folding.passes > 1 else ():
            folding.again({"w": g})
        evidence |= folding.evidence()["w"]
    _, s, u = propose(np, plan.groups[0].row, W0, state, evidence, k["w"])
    return -u[""], {key: s[key] for key in state}


def adam(estimator: str, micro: Any = MICRO) -> tuple[Array, dict[str, Array]]:
    return update({"optimizer": "adamw", "estimator": estimator}, micro, {"m": M0, "v": V0})


GOLDEN = {
    "std": [[-0.2059587726, 1.180772749], [0.9169285817, -0.7716939805]],
    "inv": [[-0.2058011308, 1.180284323], [0.9169249837, -0.7708952822]],
    "sym": [[-0.2050663175, 1.178552125], [0.9166273063, -0.7533988535]],
    "loo": [[-0.2053542542, 1.18120148], [0.9168807975, -0.7674755675]],
    "loo_jensen": [[-0.2052848085, 1.180996309], [0.9168790237, -0.7669411876]],
    "cf": [[-0.2072981194, 1.211796362], [0.9091291245, -0.7851369659]],
    "full": [[-0.206703833, 1.211668144], [0.9091208709, -0.7849614788]],
}


@pytest.mark.parametrize("estimator", GOLDEN)
def test_golden_updates(estimator: str) -> None:
    close(adam(estimator, SPLIT)[0], GOLDEN[estimator])


def test_cross_fitting_written_out() -> None:
    """cf and full from their definition: A feeds m, the mean of squares over B feeds v, and both persist."""
    a, b = MICRO[:2], MICRO[2:]
    m = B1 * M0 + (1 - B1) * a.mean(0)
    v = B2 * V0 + (1 - B2) * (b**2).mean(0)
    p = np.sqrt(v / C2) + EPS
    drawn = np.sqrt((B2 * V0 + (1 - B2) * b**2) / C2)
    variance = ((drawn - drawn.mean(0)) ** 2).sum(0) / (2 * 1)
    for estimator, inverse in (("cf", 1 / p), ("full", np.maximum(1 / p - variance / p**3, 0))):
        u, state = adam(estimator, SPLIT)
        close(u, m / C1 * inverse)
        close(state["m"], m)
        close(state["v"], v)


@pytest.mark.parametrize("estimator", ["std", "inv", "sym", "loo", "loo_jensen"])
def test_the_mean_persists(estimator: str) -> None:
    _, state = adam(estimator, MICRO)
    mean = MICRO.mean(0)
    close(state["m"], B1 * M0 + (1 - B1) * mean)
    close(state["v"], B2 * V0 + (1 - B2) * mean**2)


@pytest.mark.parametrize("eps", [1e-8, 0.3])
def test_the_second_derivative_before_the_memory(eps: float) -> None:
    """f − ½ f'' Var with f'' by differences of f(s) = 1/(√(a + bs) + ε)."""
    u, _ = update({"optimizer": "adamw", "estimator": "pre_ema", "eps": eps}, SPLIT, {"m": M0, "v": V0})
    squares = MICRO[2:] ** 2
    s, variance = squares.mean(0), ((squares - squares.mean(0)) ** 2).sum(0) / 2

    def f(x: Array) -> Array:
        return 1 / (np.sqrt((B2 * V0 + (1 - B2) * x) / C2) + eps)

    h = 1e-3 * (1 + s)
    second = (-f(s + 2 * h) + 16 * f(s + h) - 30 * f(s) + 16 * f(s - h) - f(s - 2 * h)) / (12 * h**2)
    m = (B1 * M0 + (1 - B1) * MICRO[:2].mean(0)) / C1
    correction = 0.5 * second * variance
    assert (correction > 1e-7).any()  # the differences below are of this
    np.testing.assert_allclose(m * f(s) - u, m * correction, rtol=1e-5, atol=1e-12)  # fourth order in h: 1e-6


def test_what_the_denominator_loses_at_most() -> None:
    """Noise far above the signal: 1/p − Var/p³ would change sign, and is 0."""
    noisy = [1e-3 * MICRO[0] + s for s in (50.0, -50.0, 50.0, -50.0)]
    zero = {"m": np.zeros((2, 2)), "v": np.zeros((2, 2))}
    noisy[0] = noisy[0] + 40.0
    u, _ = update({"optimizer": "adamw", "estimator": "inv"}, noisy, zero, before=0)
    assert np.isfinite(u).all()
    gradient = np.mean(noisy, axis=0)
    p = np.abs(gradient) + EPS
    drawn = np.abs(noisy)
    variance = ((drawn - drawn.mean(0)) ** 2).sum(0) / 12
    close(u, gradient * np.maximum(1 / p - variance / p**3, 0))


# ---- what holds for all


@pytest.mark.parametrize("row", ["adamw", "sophia", "shampoo"])
def test_equal_microbatches_are_one_gradient(row: str) -> None:
    """In float32, to the bit where no factorisation is involved: means of equal numbers are those numbers."""
    params, rng = {"w": W0}, np.random.default_rng(1)
    grads = [rng.standard_normal((2, 2)).astype(np.float32) for _ in range(5)]
    base = {"optimizer": row, "step": 0.1}
    one = replay(base, params, [{"w": g} for g in grads], 3)
    for estimator in ENTRIES[row].only.get("estimator", ESTIMATORS):
        many = replay({**base, "estimator": estimator}, params, [[{"w": g}] * 6 for g in grads], 3)
        if row == "shampoo":  # a second decomposition sees eigenvalues of equal matrices
            np.testing.assert_allclose(many.params[-1]["w"], one.params[-1]["w"], rtol=1e-5)
        else:
            assert many.params[-1]["w"].tobytes() == one.params[-1]["w"].tobytes(), estimator
        assert many.state[-1]["w"]["m"].tobytes() == one.state[-1]["w"]["m"].tobytes()


@pytest.mark.parametrize("estimator", ["std", "inv", "loo", "loo_jensen"])
def test_the_order_of_microbatches_does_not_matter(estimator: str) -> None:
    np.testing.assert_allclose(adam(estimator, MICRO[[2, 0, 3, 1]])[0], adam(estimator)[0], rtol=1e-12)


def test_groups_may_be_exchanged_where_both_are_used() -> None:
    np.testing.assert_allclose(adam("sym", MICRO[[1, 0, 3, 2]])[0], adam("sym")[0], rtol=1e-12)
    assert not np.allclose(adam("full", MICRO[[1, 0, 3, 2]])[0], adam("full")[0], rtol=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(2, 7), st.floats(0.01, 30))
def test_the_correction_keeps_the_sign(seed: int, count: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    micro = rng.standard_normal((2, 2)) + noise * rng.standard_normal((count, 2, 2))
    with np.errstate(all="ignore"):
        plain, corrected = adam("loo", micro)[0], adam("loo_jensen", micro)[0]
    assert (plain * corrected >= 0).all()
    assert np.isfinite(corrected).all()


def test_the_bias_is_smaller() -> None:
    """|E[corrected 1/p] − 1/E[p]| < |E[1/p] − 1/E[p]| for p̄, the mean of m noisy p_j, as 1/p̄ overshoots.

    20,000 draws of 16: the standard error of either mean is a twentieth of the difference.
    """
    draws = np.abs(1 + 0.9 * np.random.default_rng(0).standard_normal((16, 20_000)))
    middle, spread = np.zeros(20_000), np.zeros(20_000)
    for j, p in enumerate(draws):
        middle, spread = moments(np, middle, spread, p, j)
    relative = standard_error(spread, 16) / middle
    true = 1 / draws.mean()
    plain, corrected = np.mean(1 / middle) - true, np.mean((1 - relative**2) / middle) - true
    assert 0 < abs(corrected) < 0.25 * abs(plain)
    assert np.std(1 / middle) / np.sqrt(20_000) < 0.1 * abs(plain)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(1e-15, 1e15))
def test_running_moments(seed: int, count: int, scale: float) -> None:
    """Streaming equals the batch: within count roundings of float64 each."""
    x = scale * np.random.default_rng(seed).standard_normal((count, 5))
    middle, spread = np.zeros(5), np.zeros(5)
    for j in range(count):
        middle, spread = moments(np, middle, spread, x[j], j)
    size = np.abs(x).max()
    np.testing.assert_allclose(middle, x.mean(0), rtol=0, atol=4 * count * 2**-52 * size)
    np.testing.assert_allclose(spread, x.std(0), rtol=0, atol=4 * count * 2**-52 * size)
    np.testing.assert_allclose(standard_error(spread, count), x.std(0, ddof=1) / np.sqrt(count), rtol=1e-10)


def test_deviations_of_large_and_small_squares() -> None:
    """Numbers whose squares are no float32."""
    a, b = np.float32([3e30, 3e-30, 0, 1e-30]), np.float32([4e30, 4e-30, 0, 0])
    np.testing.assert_allclose(hypot(np, a, b), np.float32([5e30, 5e-30, 0, 1e-30]), rtol=1e-6)


# ---- Sophia


def test_sophia_three_updates() -> None:
    lives = {"memory_half_life": half_life(0.965, 256), "second_memory_half_life": half_life(0.99, 256)}
    options = {"optimizer": "sophia", "step": 0.1, "shrink_half_life": 2560, "rho": 2.0, "eps": 1e-15, **lives}
    found = replay(options, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64")
    close(found.params[2]["w"], [[0.1257678427, -1.028316092], [1.144716246, 1.530753036]])


@pytest.mark.parametrize("estimator", FOUR)
@pytest.mark.parametrize("hessian", ["squares", "samples"])
def test_sophia_written_out(estimator: str, hessian: str) -> None:
    """p_j = ρ n (β₂ h + (1 − β₂) r_j) + ε, and no correction for age."""
    rho, labels, eps, h0 = 0.7, 3.0, 1e-12, 0.1 * V0 + 0.2
    options = {"optimizer": "sophia", "estimator": estimator, "hessian": hessian, "rho": rho, "labels": labels}
    sampled = hessian == "samples"
    drawn = MICRO[::-1].copy() if sampled else MICRO  # in the order of the stream: A even, B odd
    state = {"m": M0, "h": h0} | ({"lost": np.zeros((2, 2))} if sampled and estimator in ("inv", "full") else {})
    u, s = update(options, MICRO, state, drawn if sampled else None)
    crossed = estimator in ("cf", "full")
    r = (drawn[1::2] if crossed else drawn) ** 2
    step = r.mean(0) if crossed else drawn.mean(0) ** 2
    h, m = B2 * h0 + (1 - B2) * step, B1 * M0 + (1 - B1) * (MICRO[::2] if crossed else MICRO).mean(0)
    p, p_j = rho * labels * h + eps, rho * labels * (B2 * h0 + (1 - B2) * r) + eps
    variance = ((p_j - p_j.mean(0)) ** 2).sum(0) / (len(r) * (len(r) - 1)) if estimator in ("inv", "full") else 0
    inverse = np.maximum(1 / p - variance / p**3, 0)
    close(u, np.clip(m * inverse, -1, 1))
    assert (np.abs(u) < 1).any()
    close(s["h"], h)
    if sampled:  # between estimates h and the correction stay
        later, kept = update(options, MICRO, s)
        m = B1 * m + (1 - B1) * (MICRO[::2] if crossed else MICRO).mean(0)
        close(later, np.clip(m * inverse, -1, 1))
        np.testing.assert_array_equal(kept["h"], s["h"])


def test_sophia_before_the_first_estimate() -> None:
    """h = 0: the sign of the memory."""
    u, _ = update({"optimizer": "sophia", "hessian": "samples"}, MICRO, {"m": M0, "h": 0 * V0}, before=0)
    np.testing.assert_array_equal(np.abs(u), 1)


# ---- Shampoo


def _root(a: Array, power: float = -0.25) -> Array:
    values, q = np.linalg.eigh(a)
    return np.asarray(q @ np.diag(values**power) @ q.T)


def test_shampoo_three_updates() -> None:
    lives = {"memory_half_life": half_life(0.9, 256), "second_memory_half_life": half_life(0.95, 256)}
    options = {"optimizer": "shampoo", "step": 0.1, "shrink_half_life": 2560, "root_interval": 256, **lives}
    found = replay(options, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64")
    close(found.params[2]["w"], [[0.3150012555, -1.000393529], [1.223706499, 1.564997825]])


def test_the_correction_of_an_eigenvalue() -> None:
    """λ^(−1/4) − (5/32) λ^(−9/4) Var(λ) at λ = ½, 2 with variances 0.01, 0.02."""
    found = inverse_root(np, np.array([0.5, 2.0]), np.eye(2), np.sqrt([0.01, 0.02]))
    close(found, np.diag([1.181774571, 0.8402394649]))
    close(inverse_root(np, np.array([0.5, 2.0]), np.eye(2), np.array([10.0, 0])), np.diag([0, 2**-0.25]))


@pytest.mark.parametrize("every", [1, 3])
def test_shampoo_as_in_code(every: int) -> None:
    """No correction for age; L, R and the roots change at updates 0, k, 2k ... only."""
    options = {"optimizer": "shampoo", "bias_correction": False, "root_interval": every, "step": 0.1, **BETAS}
    grads = np.random.default_rng(3).standard_normal((8, 2, 2))
    found = replay(options, {"w": W0}, [{"w": g} for g in grads], 1, dtype="float64")
    theta, m, left, right = W0, np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2))
    for t, g in enumerate(grads):
        m = B1 * m + (1 - B1) * g
        if t % every == 0:
            left, right = B2 * left + (1 - B2) * g @ g.T, B2 * right + (1 - B2) * g.T @ g
            roots = _root(left + 1e-6 * np.eye(2)), _root(right + 1e-6 * np.eye(2))
        theta = theta - 0.1 * roots[0] @ m @ roots[1]
        np.testing.assert_allclose(found.params[t]["w"], theta, rtol=1e-7)
        close(found.state[t]["w"]["L"], left)


@pytest.mark.parametrize("estimator", FOUR)
def test_shampoo_written_out(estimator: str) -> None:
    left, right, damping = G[0] @ G[0].T + np.eye(2), G[1].T @ G[1] + np.eye(2), 1e-6
    state = {"m": M0, "L": left, "R": right, "root_L": np.eye(2), "root_R": np.eye(2)}
    options = {"optimizer": "shampoo", "estimator": estimator, "bias_correction": False, "root_interval": 1}
    found, s = update(options, MICRO, state)
    crossed, corrected = estimator in ("cf", "full"), estimator in ("inv", "full")
    drawn = MICRO[1::2] if crossed else MICRO
    mean = MICRO.mean(0)
    m, roots = B1 * M0 + (1 - B1) * (MICRO[::2].mean(0) if crossed else mean), {}
    for side, old, turn in (("L", left, lambda g: g @ g.T), ("R", right, lambda g: g.T @ g)):
        new = B2 * old + (1 - B2) * (np.mean([turn(g) for g in drawn], axis=0) if crossed else turn(mean))
        close(s[side], new)
        values, q = np.linalg.eigh(new + damping * np.eye(2))
        each = [np.diag(q.T @ (B2 * old + (1 - B2) * turn(g) + damping * np.eye(2)) @ q) for g in drawn]
        variance = np.var(each, axis=0, ddof=1) / len(each) if corrected else 0
        d = np.maximum(values**-0.25 - 5 / 32 * values**-2.25 * variance, 0)
        roots[side] = q @ np.diag(d) @ q.T
    close(found, roots["L"] @ m @ roots["R"])


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "count", "word"),
    [
        *(({"optimizer": "adamw", "estimator": e}, 3, "at least 4") for e in ("full", "sym", "pre_ema")),
        *(({"optimizer": "adamw", "estimator": e}, 1, "at least 2") for e in ("cf", "inv", "loo", "loo_jensen")),
        ({"optimizer": "sophia", "estimator": "full"}, 3, "at least 4"),
        ({"optimizer": "shampoo", "estimator": "inv"}, 1, "at least 2"),
        ({"optimizer": "sgdm"}, 0, "no microbatches"),
    ],
)
def test_too_few(options: dict[str, Any], count: int, word: str) -> None:
    with pytest.raises(GradientError, match=word):
        replay(options, {"w": W0}, [[{"w": G[0]}] * count], 1)


@pytest.mark.parametrize("estimator", CORRECTING)
def test_one_gradient_is_too_few(estimator: str) -> None:
    with pytest.raises(GradientError, match="give a list of gradient trees"):
        replay({"optimizer": "adamw", "estimator": estimator}, {"w": W0}, [{"w": G[0]}], 1)


def test_a_stream_that_is_read_twice() -> None:
    options = {"optimizer": "adamw", "estimator": "loo"}
    with pytest.raises(GradientError, match="give a list"):
        replay(options, {"w": W0}, [({"w": g} for g in G)], 1)

    class Shrinking:
        left = 3

        def __iter__(self) -> Any:
            self.left -= 1
            return iter([{"w": g} for g in (G + G)[: self.left + 2]])

    class Growing(Shrinking):
        left = 1

        def __iter__(self) -> Any:
            self.left += 1
            return iter([{"w": g} for g in (G + G)[: self.left]])

    for trees in (Shrinking(), Growing()):
        with pytest.raises(GradientError, match="second pass"):
            replay(options, {"w": W0}, [trees], 1)


@pytest.mark.parametrize(
    "given", [[{"w": G[0]}, {}], [{"w": G[0]}, {"w": G[0], "b": G[0]}], [{"w": G[0]}, {"x": G[0]}]]
)
def test_microbatches_of_different_parameters(given: Any) -> None:
    with pytest.raises(GradientError):
        replay({"optimizer": "adamw"}, {"w": W0, "b": W0}, [given], 1)


def test_choices_that_a_row_does_not_have() -> None:
    for row in ("sophia", "shampoo"):
        with pytest.raises(RecipeError, match="std, cf, inv, full"):
            replay({"optimizer": row, "estimator": "loo"}, {"w": W0}, [], 1)
    with pytest.raises(RecipeError, match="does not use 'estimator'"):
        replay({"optimizer": "lion", "estimator": "inv"}, {"w": W0}, [], 1)


def test_samples_that_nobody_reads() -> None:
    for options in ({"optimizer": "adamw"}, {"optimizer": "sophia"}):
        with pytest.raises(GradientError, match="no row reads"):
            replay(options, {"w": W0}, [{"w": G[0]}], 1, samples=[{"w": G[1]}])
    sampled = {"optimizer": "sophia", "hessian": "samples"}
    with pytest.raises(GradientError, match="'b'"):
        replay(sampled, {"w": W0, "b": W0}, [{"w": G[0]}], 1, samples=[{"b": G[1]}])
