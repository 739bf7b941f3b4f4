"""Where weights settle: sums against brute force, published numbers to their digits, and long runs on noise.

Golden numbers were computed apart from this code and are printed to ten digits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Group, half_life, replay, steady
from dualopt.catalog import complete, row
from dualopt.clock import Clock
from dualopt.counts import complement
from dualopt.directions.norm_balls import NORMS
from dualopt.errors import RecipeError
from dualopt.noise import Noise, noise_of

W0 = np.array([[0.5, -1], [1.5, 2]])
G1 = np.array([[1, 2], [-0.5, 0.25]])


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def weights(mu: float, beta: float, terms: int) -> np.ndarray[Any, Any]:
    """W_k of z = μ m+ + (1 − μ) g, built by the recursion from one gradient."""
    m, found = 0.0, []
    for g in [1.0] + [0.0] * (terms - 1):
        m = beta * m + (1 - beta) * g
        found.append(mu * m + (1 - mu) * g)
    return np.array(found)


MU, BETA, A = st.floats(0, 1), st.floats(0, 0.95), st.floats(0.5, 1)


@given(MU, BETA, A)
def test_sums_over_the_weights_of_a_readout(mu: float, beta: float, a: float) -> None:
    w = weights(mu, beta, 900)  # 0.95^900 = 1e-20
    assert w.sum() == pytest.approx(1, rel=1e-12)
    assert steady.readout(mu, 1 - beta) == pytest.approx(1 / np.sum(w * w), rel=1e-12)
    rho = np.correlate(w, w, "full")[900:] / np.sum(w * w)
    np.testing.assert_allclose(rho[:20], steady.overlap(mu, 1 - beta) * beta ** np.arange(1, 21), rtol=1e-9, atol=1e-12)
    kept = a ** np.arange(1, 900)
    assert steady.linear(1 - a, mu, 1 - beta) == pytest.approx(1 + 2 * np.sum(kept * rho), rel=1e-12)
    signs = 1 + 4 / math.pi * np.sum(kept * np.arcsin(np.clip(rho, 0, 1)))
    assert steady.arcsine(1 - a, mu, 1 - beta) == pytest.approx(signs, rel=1e-7)  # arcsin is steep at 1
    assert steady.linear(0.0, mu, 1 - beta) == pytest.approx(steady.readout(mu, 1 - beta), rel=1e-12)


@pytest.mark.parametrize("c", [0.3, 0.03, 0.01, 3e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("mu", [1.0, 0.9])
@pytest.mark.parametrize("c_a", [0.0, 1e-4])
def test_long_arcsine_sums(c: float, mu: float, c_a: float) -> None:
    """Against all terms one by one. 1e-12: the stated error of the rest, 1e-10 over a sum of 400 and more."""
    k = np.arange(1, math.ceil(40 / c) + 1)
    rho = steady.overlap(mu, c) * np.exp(k * math.log1p(-c))
    expected = 1 + 4 / math.pi * math.fsum(np.exp(k * math.log1p(-c_a)) * np.arcsin(rho))
    assert steady.arcsine(c_a, mu, c) == pytest.approx(expected, rel=1e-12)


def test_the_longest_memories_take_no_time() -> None:
    """∫ arcsin(e^−x) dx = (π/2) ln 2, so A c → 2 ln 2 as c → 0; the next term is −c."""
    c = complement(1, 1e9)
    assert steady.arcsine(0.0, 1.0, c) * c == pytest.approx(2 * math.log(2), rel=1e-8)


def test_amplifications() -> None:
    close(steady.readout(1.0, 0.05), 39)
    close(steady.readout(0.95, 0.05), 32.90445054)
    close(1 / steady.lion_nu0(0.9, 0.99), 71.07142857)
    close(steady.readout(0.9 / 0.99, 0.01), 71.07142857)
    c_a, c = complement(256, 2560), complement(256, 1024)
    close(steady.linear(c_a, 1, c), 8.284365641)
    close(steady.arcsine(c_a, 1, c), 6.004936887)
    lost = complement(2 * 256, 2560)
    close(math.sqrt((2 - c_a) / (c_a * steady.linear(c_a, 1, c))), 1.866635643)
    close(steady.step_for(1, 1, steady.linear(c_a, 1, c), lost) / c_a, 1.866635643)  # ρ = η / (1 − a)
    close(steady.step_for(1.35, 1, steady.readout(1, c), lost), 0.1427937363)


def test_signs() -> None:
    """The RMS of SignSGDM at η = 1e-3, λ = 0.1 for a → 1, and Lion's (2/π) S beside the sum that it approximates."""
    amplification = steady.arcsine(0.0, 1, 0.1)
    assert amplification == pytest.approx(13.279, abs=5e-4)
    assert steady.radius(1e-3, 1, amplification, 2e-4) == pytest.approx(0.25767, abs=5e-6)
    for beta1, beta2, small, full in ((0.9, 0.99, 45.25, 45.93), (0.95, 0.98, 54.80, 58.08), (0.9, 0.9, 12.10, 13.28)):
        assert steady.SMALL_SIGNS / steady.lion_nu0(beta1, beta2) == pytest.approx(small, abs=5e-3)
        assert steady.arcsine(0.0, beta1 / beta2, 1 - beta2) == pytest.approx(full, abs=5e-3)


def test_the_finite_a_sum_of_a_walk() -> None:
    """E‖θ‖² of a memory β = 0.8 under a = 0.98, to all orders and for a → 1, with η² c_u² = 1/3600."""
    lost = 1 - 0.98**2
    close(steady.radius(1 / 60, 1, steady.linear(0.02, 1, 0.2), lost) ** 2, 0.05793532028)
    close(steady.radius(1 / 60, 1, steady.readout(1, 0.2), lost) ** 2, 0.06313131313)


def test_equilibria_of_published_optimizers() -> None:
    """(η_g, η_r, ‖ω‖) in raw knobs. η_r has a = √(1 − 2ηλ), the others a = 1 − ηλ."""

    def lost(x: float) -> float:
        return 1 - (1 - x) ** 2

    eta, wd, alpha = 0.1, 5e-4, 0.9  # SGDM with Polyak's momentum and L2, E‖g‖² = E‖g̃‖² = 1
    s = steady.readout(1, 1 - alpha)
    close(eta / (1 - alpha) / math.sqrt(s), 0.2294157339)
    close(steady.angle(2 * eta * wd / (1 - alpha), s), 0.007254762501)
    close(math.sqrt(steady.radius(eta / (1 - alpha), 1, 1, lost(eta * wd / (1 - alpha)))), 5.62376477)

    eta, wd, c = 1e-3, 0.1, 128  # AdamW
    close(eta * math.sqrt(c / s), 0.002595542738)
    close(steady.angle(2 * eta * wd, s), 0.003244428423)
    close(steady.radius(eta, c / s, s, lost(eta * wd)), 0.8000200008)

    eta, wd = 1e-4, 1.0  # Lion
    s = steady.SMALL_SIGNS / steady.lion_nu0(0.9, 0.99)
    close(eta * math.sqrt(c), 0.00113137085)
    close(steady.angle(2 * eta * wd, s), 0.002102458411)
    close(steady.radius(eta, c, s, lost(eta * wd)), 0.5381315174)

    eta, l2, slope = 1e-3, 1e-3, 1e-4  # Adam and L2
    x = steady.adam_l2(eta, l2, c, slope)
    close(math.sqrt(x), 0.3838905148)
    eta_g = math.sqrt(eta**2 * c / steady.readout(1, 0.1) * (1 - l2**2 * x**2 / (slope + l2**2 * x**2)))
    close([eta_g, eta_g / math.sqrt(x)], [0.002595260928, 0.006760419514])
    close(4 * l2**2 * x**3, c * eta**2 * l2**2 * x**2 + c * eta**2 * slope)
    with pytest.raises(RecipeError, match="above 0"):
        steady.adam_l2(eta, 0.0, c, slope)


def test_the_multiplier_and_the_transient() -> None:
    close(steady.multiplier(W0, G1), -0.2333333333)
    square, a = 2.0, 0.99
    for _ in range(30):
        square = a * a * square + 0.01
    close(steady.transient(2.0, 0.01 / (1 - a * a), a, 30), square)


# ---- rows on noise


def options(name: str, **stated: Any) -> dict[str, Any]:
    return complete(name, stated)


@pytest.mark.parametrize("norm", NORMS)
def test_squares_of_directions(norm: str) -> None:
    """c_u² per entry against an update of full rank: Σ u² over its entries."""
    chosen = row("scionc", options("scionc", norm=norm, polar="exact"))
    shape = {"spectral_conv": (4, 3, 5), "bias_rms": (15,)}.get(norm, (4, 15))
    seen = (15,) if norm == "bias_rms" else (4, 15)
    z = np.random.default_rng(0).standard_normal(seen)
    scale = chosen.direction.scalars({"readout": 1.0}, Clock(1, 1), shape)
    u = chosen.direction(np, {"m": z}, {"": z}, scale)[""]
    found = Noise(chosen.direction.geometry).square(shape, 1.0, 0.1)  # type: ignore[attr-defined]
    assert found == pytest.approx(np.mean(u * u), rel=1e-12)


SETTLING: dict[str, dict[str, Any]] = {
    "sign_sgdm": {"optimizer": "sign_sgdm"},
    "lion": {"optimizer": "lion", "memory_half_life": half_life(0.9, 1), "readout": 0.8},
    "adamw": {"optimizer": "adamw"},
    "adamw with a readout": {"optimizer": "adamw", "readout": 0.7},
    "rmsprop": {"optimizer": "rmsprop"},
    "frobenius": {"optimizer": "scionc", "norm": "frobenius"},
    "row": {"optimizer": "scionc", "norm": "row", "readout": 0.5},
    "column": {"optimizer": "scionc", "norm": "column"},
    "sign": {"optimizer": "scionc", "norm": "sign", "readout": 0.0},
    "muon, wide": {"optimizer": "muon", "readout": 0.0, "polar": "exact", "scale": "moonlight"},
}


def noise_run(table: dict[str, Any], shape: tuple[int, ...], updates: int) -> list[np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    grads = [{"w": rng.standard_normal(shape)} for _ in range(updates)]
    found = replay(table, {"w": rng.standard_normal(shape)}, grads, 1, dtype="float64", tier="fast")
    return [p["w"] for p in found.params]


@pytest.mark.parametrize("name", SETTLING)
def test_weights_settle_at_the_stated_rms(name: str) -> None:
    """500 entries over 20 half-lives of 40 updates: 20 independent draws of 500 squares, √(2/10⁴) / 2 = 0.7 % of the
    RMS; 4 of these, and 1 % for Adam's v, which is not yet its mean."""
    table = {**SETTLING[name], "steady_rms": 0.3, "shrink_half_life": 40}
    found = noise_run(table, (20, 25), 1000)[200:]
    assert math.sqrt(np.mean(np.square(found))) == pytest.approx(0.3, rel=0.038 if "adam" in name else 0.028)


def test_the_step_of_steady_coordinates() -> None:
    """η = ρ √(q (1 − a²) / (c_u² A)), for varying Δτ, and scaled by the schedule."""
    stated = options("scionc", steady_rms=2.0, shrink_half_life=2560.0, memory_half_life=1024.0)
    assert "step" not in stated
    chosen = row("scionc", stated)
    for dtau in (256, 17):
        k = chosen.scalars(stated, Clock(dtau, dtau, 0.5), (8, 2))
        square = 2 * 4 / 16  # rank 2, scale √(8/2), 16 entries
        a, beta = 2 ** (-dtau / 2560), 2 ** (-dtau / 1024)
        total = (1 + a * beta) / (1 - a * beta) * square
        assert k["eta"] == pytest.approx(0.5 * 2 * math.sqrt((1 - a * a) / total), rel=1e-12)


def test_corrected_shrink_keeps_the_steady_rms() -> None:
    """η²/(1 − a²) is the same at every q."""
    stated = options("lion", steady_rms=2.0, shrink_half_life=50.0, shrink="corrected")
    chosen, found = row("lion", stated), []
    for q in (1.0, 0.5, 0.01):
        k = chosen.scalars(stated, Clock(1, 1, q), (3,))
        found.append(k["eta"] ** 2 / (k["c_a"] * (2 - k["c_a"])))
    np.testing.assert_allclose(found, found[0], rtol=1e-12)


def test_a_small_step_keeps_weights_in_the_ball() -> None:
    """η <= (1 − a) ρ and u of RMS 1: RMS(θ) <= ρ for gradients that all point the same way."""
    lost = complement(1, 30)
    table = {"optimizer": "sign_sgdm", "step": lost * 0.7, "shrink_half_life": 30}
    grads = [{"w": np.ones((3, 3))}] * 500
    found = replay(table, {"w": np.zeros((3, 3))}, grads, 1, dtype="float64").params
    assert 0.699 < max(math.sqrt(np.mean(p["w"] ** 2)) for p in found) <= 0.7 * (1 + 1e-12)


@pytest.mark.parametrize(
    ("name", "stated", "message"),
    [
        ("lion", {"steady_rms": 1.0}, "needs a finite shrink_half_life"),
        ("lion", {"steady_rms": 1.0, "shrink_half_life": 9.0, "step": 1.0}, "takes the place of 'step'"),
        ("lion", {"steady_rms": 1.0, "shrink_half_life": 9.0, "target_rms": 1.0}, "drop one of them"),
        ("lion", {"steady_rms": 1.0, "shrink_half_life": 9.0, "shrink": "cautious"}, "leaves some out"),
        ("sgdm", {"steady_rms": 1.0, "shrink_half_life": 9.0}, "update of known size"),
        ("lion", {"steady_rms": 0.0, "shrink_half_life": 9.0}, "must be finite and > 0"),
        ("lion", {"correlation": "linear"}, "correlation is used by"),
        ("adamw", {"correlation": "linear", "motion": "rotational"}, "directions that are signs"),
        ("lion", {"solve": "shrink"}, "state target_rms"),
        ("lion", {"solve": "shrink", "target_rms": 1.0, "shrink_half_life": 9.0}, "finds the shrink"),
        ("lion", {"solve": "shrink", "target_rms": 1.0, "shrink": "corrected"}, "finds the shrink"),
    ],
)
def test_meaningless_combinations(name: str, stated: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Group(name, stated)


def test_a_row_without_memory_reads_the_newest_gradient() -> None:
    stated = options("rmsprop", steady_rms=1.0, shrink_half_life=30.0)
    noise = noise_of(row("rmsprop", stated).direction, stated)
    assert noise.memory(stated, Clock(1, 1)) == (0.0, 1.0)
    assert noise.amplification(0.1, 0.0, 1.0) == 1.0
