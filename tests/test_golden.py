"""Golden numbers of the published optimizers, computed apart from this code, to their ten printed digits.

Three updates of two 2 x 2 matrices' worth of given gradients in numpy float64, where an unstated polar
factor is exact. Unless a case says otherwise Δτ = 256, h_m = 1024, h_a = 2560, so β = 0.8408964153 and
a = 0.9330329915, and η = 0.1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dualopt import Replay, Schedule, complement, half_life, replay
from dualopt.clock import Clock
from dualopt.directions.norm_balls import MUON_SCALES, SCALES, ball
from dualopt.directions.polar import QUINTIC, newton_schulz, polar
from dualopt.schedules import next_14, next_17, next_17_linear
from dualopt.shrink import Corrected

Matrix = list[list[float]]
W0 = np.array([[0.5, -1], [1.5, 2]])
G = [np.array(g) for g in ([[1, 2], [-0.5, 0.25]], [[-0.3, 0.8], [1.2, -0.4]], [[0.6, -1.1], [0.2, 0.9]])]
DTAU, ETA, A = 256, 0.1, 2 ** (-256 / 2560)
BASE = {"step": ETA, "memory_half_life": 1024, "shrink_half_life": 2560}


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def retained(beta: float) -> float:
    return half_life(beta, DTAU)


def run(options: dict[str, Any], trace: bool = False) -> Replay:
    stated = {key: value for key, value in {**BASE, **options}.items() if value is not None}
    return replay(stated, {"w": W0}, [{"w": g} for g in G], DTAU, dtype="float64", trace=trace)


ADAM = {"optimizer": "adamw", "memory_half_life": retained(0.9), "second_memory_half_life": retained(0.999)}
LION = {"optimizer": "lion", "memory_half_life": retained(0.99), "readout": 0.9 / 0.99}
MOONLIGHT = {"optimizer": "muon", "scale": "moonlight"}
NESTEROV_MUON = {**MOONLIGHT, "memory_half_life": retained(0.95), "readout": 0.95}
SPECTRAL = [[0.3299738788, -1.079738024], [1.106621786, 1.622792703]]

ROWS: dict[str, tuple[dict[str, Any], Matrix]] = {
    "adamw": (ADAM, [[0.2186301837, -1.015922181], [1.222853744, 1.516526117]]),
    "adamw in half-lives": (
        {"optimizer": "adamw", "second_memory_half_life": 8192},
        [[0.2219350031, -1.010097185], [1.218339071, 1.517071206]],
    ),
    "adam with a readout": (
        {"optimizer": "adamw", "second_memory_half_life": retained(0.999), "readout": 0.9},
        [[0.2372559797, -0.9774951367], [1.200414615, 1.517271056]],
    ),
    "adam_l2": (
        {**ADAM, "optimizer": "adam_l2", "l2": 0.1, "shrink_half_life": math.inf},
        [[0.2890640405, -1.213878231], [1.487480257, 1.803270195]],
    ),
    "rmsprop": (
        {"optimizer": "rmsprop", "second_memory_half_life": retained(0.99), "memory_half_life": None},
        [[-0.6969664508, -1.572651747], [1.074114224, 0.6593341222]],
    ),
    "sign_sgdm": (
        {"optimizer": "sign_sgdm"},
        [[0.1257678427, -1.092610752], [1.112130352, 1.530753036]],
    ),
    "lion": (LION, [[0.312374441, -0.8926107518], [1.112130352, 1.530753036]]),
    "sgdm, Polyak and L2": (  # buf = α buf + g + λθ, θ −= 0.1 buf: η = 0.1 / (1 − α)
        {
            "optimizer": "sgdm",
            "memory_half_life": retained(0.9),
            "step": 1.0,
            "l2": 0.05,
            "shrink_half_life": math.inf,
        },
        [[0.2137824375, -1.551874875], [1.345256063, 1.862664125]],
    ),
    "sgdm, Nesterov": (
        {"optimizer": "sgdm", "readout": 0.9},
        [[0.3594229409, -0.8983489853], [1.193102175, 1.605877321]],
    ),
    "scionc": ({"optimizer": "scionc"}, SPECTRAL),
    "scionc, Nesterov": (
        {"optimizer": "scionc", "readout": 0.9},
        [[0.2549245937, -0.9557240555], [1.177939696, 1.504909032]],
    ),
    "scion as constrained SCG": (  # γ = 0.05, ρ = 3, α = 0.1: a = 1 − γ, η = γρ, β = 1 − α
        {
            "optimizer": "scion",
            "step": 0.15,
            "memory_half_life": retained(0.9),
            "shrink_half_life": retained(0.95),
        },
        [[0.3083214129, -1.264710322], [1.12089334, 1.714033006]],
    ),
    "muon, naive": ({"optimizer": "muon", "scale": "naive", "readout": 1.0}, SPECTRAL),
    "muon, moonlight": (
        {**MOONLIGHT, "readout": 1.0},
        [[0.3845870696, -0.8879087569], [1.186768996, 1.624020541]],
    ),
    "cautious adamw": (
        {**ADAM, "shrink": "cautious"},
        [[0.2186301837, -1.222632217], [1.310300994, 1.626874208]],
    ),
    "cautious lion": (
        {**LION, "shrink": "cautious"},
        [[0.3352752816, -1.01963959], [1.199577602, 1.641101127]],
    ),
    "muon, Nesterov": (NESTEROV_MUON, [[0.3631916831, -0.854136706], [1.208194707, 1.590211146]]),
    "cautious muon": (
        {**NESTEROV_MUON, "shrink": "cautious"},
        [[0.3631916831, -0.9764979954], [1.295641957, 1.706017132]],
    ),
}


@pytest.mark.parametrize("case", ROWS)
def test_three_updates(case: str) -> None:
    options, theta3 = ROWS[case]
    close(run(options).params[2]["w"], theta3)


def test_the_memory_of_sgdm() -> None:
    m3 = run(ROWS["sgdm, Nesterov"][0]).state[2]["w"]["m"]
    close(m3, [[0.1678284843, 0.1570242114], [0.136116666, 0.1178031786]])


def test_adam_without_bias_correction() -> None:
    """u = −m / (√v + ε), as MLX has it by default, written out."""
    found = run({**ADAM, "bias_correction": False, "eps": 1e-3}).params
    theta, m, v = W0, np.zeros((2, 2)), np.zeros((2, 2))
    for t, g in enumerate(G):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        theta = A * theta - ETA * m / (np.sqrt(v) + 1e-3)
        close(found[t]["w"], theta)


@pytest.mark.parametrize("case", [case for case in ROWS if case.startswith("cautious")])
def test_the_cautious_mask(case: str) -> None:
    """(θ+ − ηu)/θ is a where u θ <= 0 and 1 elsewhere, u being the update that is applied."""
    found = run(ROWS[case][0], trace=True)
    before = [W0, *(p["w"] for p in found.params)]
    masks = []
    for t, trace in enumerate(found.trace):
        u = trace["w"]["u"][""]
        masks.append(u * before[t] <= 0)
        close((before[t + 1] - ETA * u) / before[t], np.where(masks[-1], A, 1.0))
    assert 0 < np.mean(masks) < 1


# ---- directions


M = np.array([[3.0, 0, 4], [1, -2, 2]])
BALLS: dict[str, Matrix] = {
    "spectral": [
        [-0.505807184, -0.2388232409, -0.5948018317],
        [-0.02386103655, 0.7641917957, -0.286545314],
    ],
    "column": [[-1.341640786, 0, -1.264911064], [-0.4472135955, 1.414213562, -0.632455532]],
    "row": [[-0.3464101615, 0, -0.4618802154], [-0.1924500897, 0.3849001795, -0.3849001795]],
}


@pytest.mark.parametrize("norm", BALLS)
def test_atoms(norm: str) -> None:
    chosen = ball(norm, "exact")
    close(chosen(np, M, {}, chosen.scalars({}, Clock(1, 1), M.shape)), BALLS[norm])


def test_the_atom_of_a_bias() -> None:
    chosen = ball("bias_rms")
    z = np.array([3.0, -4])
    close(chosen(np, z, {}, chosen.scalars({}, Clock(1, 1), z.shape)), [-0.8485281374, 1.13137085])


@pytest.mark.parametrize(
    ("scale", "tall", "wide"),  # 8 x 2 and 2 x 8
    [
        ("naive", 1, 1),
        ("keller_jordan", 2, 1),
        ("mup", 2, 0.5),
        ("moonlight", 0.2 * math.sqrt(8), 0.2 * math.sqrt(8)),
    ],
)
def test_factors_of_muon(scale: str, tall: float, wide: float) -> None:
    assert [SCALES[MUON_SCALES[scale]](shape) for shape in ((8, 2), (2, 8), (5, 8, 2))] == [tall, wide, tall]


def test_polar_factors() -> None:
    exact = [[0.4472135955, 0.894427191], [-0.894427191, 0.4472135955]]
    close(polar(np, G[0], "exact"), exact)
    start = G[0] / (np.linalg.norm(G[0]) + 1e-7)  # as the reference divides; polar() itself adds nothing
    quintic = [[0.3297550134, 0.6595100268], [-0.6644384631, 0.3322192316]]
    close(newton_schulz(np, start, QUINTIC.steps), quintic)
    np.testing.assert_allclose(polar(np, G[0], "quintic"), quintic, rtol=1e-6)


# ---- motions and shrink


def test_the_solve_for_a_target_rms() -> None:
    """R = 1.35 from W0 along −polar(G1)."""
    found = run({"optimizer": "scionc", "target_rms": 1.35, "step": 1.0}, trace=True)
    u, theta = found.trace[0]["w"]["u"][""], found.params[0]["w"]
    close(np.sum((theta - A * W0) * u) / np.sum(u * u), 0.2861825522)
    close(np.sqrt(np.mean(theta**2)), 1.35)


def test_the_solve_is_one_for_a_group() -> None:
    """The rows of the same matrix as two parameters of an elementwise row move with the same η."""
    atom = polar(np, G[0], "exact")
    options = {**BASE, "optimizer": "sgdm", "readout": 0.0, "target_rms": 1.35, "step": 1.0}
    parts = ({"a": W0[0], "b": W0[1]}, [{"a": atom[0], "b": atom[1]}])
    found = replay(options, *parts, DTAU, dtype="float64").params[0]
    close(np.stack([found["a"], found["b"]]), A * W0 - 0.2861825522 * atom)


def test_corrected_decay() -> None:
    """γ_max = 0.02, λ_max = 0.1: the printed a at s = 1, 0.5, 0.1, and (1 − a²) c = γ² with the printed c."""
    action = {"shrink_half_life": half_life(1 - 0.02 * 0.1, 1)}
    for q, a in ((1, 0.998), (0.5, 0.9995003752), (0.1, 0.9999800198)):
        lost = Corrected().scalars(action, Clock(1, 1, q), (2, 2))["c_a"]
        close(1 - lost, a)
        close(lost * (2 - lost) * 0.1001001001, (0.02 * q) ** 2)
        close(lost / (0.02 * q), {1: 0.1, 0.5: 0.04996248125, 0.1: 0.009990099802}[q])  # λ_exact


# ---- schedules: λ = 0.1, η_0 = 0.5 and s = 1, 2, 49


STEPS = (1, 2, 49)
LOST = 0.1 * 0.5  # λη at the peak


@pytest.mark.parametrize(
    ("shape", "retained_at_peak", "values"),
    [
        ("equal-weight-14", math.exp(-LOST), [0.476723086, 0.4554956753, 0.1462180629]),
        ("equal-weight-16", 1 - LOST, [0.4761904762, 0.4545454545, 0.1449275362]),
        ("equal-weight-17", math.exp(-LOST), [0.4776937491, 0.4580624773, 0.2073757996]),
    ],
)
def test_equal_weight_shapes(shape: Any, retained_at_peak: float, values: list[float]) -> None:
    h = half_life(retained_at_peak, DTAU)
    close([0.5 * Schedule(shape).at(DTAU * s, DTAU, h, DTAU)[0] for s in STEPS], values)


@pytest.mark.parametrize(
    ("advance", "power", "values"),
    [
        (next_14, 1.0, [0.476723086, 0.4554956753, 0.1462180629]),
        (lambda x: x / (1 + x), 1.0, [0.4761904762, 0.4545454545, 0.1449275362]),  # eq 14, linear shrink
        (next_17, 0.5, [0.4776937491, 0.4580624773, 0.2073757996]),
        (next_17_linear, 0.5, [0.4772255751, 0.457268526, 0.2066130183]),
    ],
)
def test_recursions(advance: Any, power: float, values: list[float]) -> None:
    orbit = [LOST]
    for _ in range(49):
        orbit.append(advance(orbit[-1]))
    close([0.5 * (orbit[s] / LOST) ** power for s in STEPS], values)


def test_the_closed_form_of_eq_17_lies_close_by() -> None:
    """η_max / √(2 λ_max η_max s + 1) at s = 1, 2, 49; the article's approximation, off by λη/2 at worst."""
    h = half_life(math.exp(-LOST), DTAU)
    exact = [0.5 * Schedule("equal-weight-17").q_equal(DTAU * s, h, DTAU) for s in STEPS]
    np.testing.assert_allclose(exact, [0.4767312946, 0.4564354646, 0.2058467424], rtol=LOST / 2)


def test_the_shrink_half_life_of_eq_16() -> None:
    h = half_life(1 - LOST, DTAU)
    for s, expected in ((1, 3636.914965), (49, 12154.81308)):
        _, q_shrink = Schedule("equal-weight-16").at(DTAU * s, DTAU, h, DTAU)
        assert h / q_shrink == pytest.approx(expected, rel=1e-9)
    assert complement(DTAU, h) == pytest.approx(LOST, rel=1e-15)
