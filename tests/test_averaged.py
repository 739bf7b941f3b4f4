"""Averaged motion and NorMuon: golden numbers, invariants, the published code of SF-AdamW, the same bits everywhere.

The golden numbers were computed apart from this code, to their ten printed digits: three updates of a 3 x 2 matrix
(2 x 2 for SF-AdamW) in numpy float64, where an unstated polar factor is exact.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import ENTRIES, Count, Group, Recipe, Schedule, explain, half_life, replay
from dualopt.clock import Clock
from dualopt.convert import transfer
from dualopt.directions.norm_balls import MUON_SCALES, SCALES
from dualopt.directions.polar import polar
from dualopt.errors import RecipeError
from dualopt.motion import Averaged
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recursion import step
from dualopt.replay import Moment, drive
from dualopt.shrink import KINDS, Cautious
from dualopt_conformance import inputs

W32 = np.array([[0.5, -1], [1.5, 2], [-0.75, 0.25]])
G32 = [
    np.array(g)
    for g in (
        [[1, 2], [-0.5, 0.25], [0.75, -1.5]],
        [[-0.3, 0.8], [1.2, -0.4], [0.1, -0.6]],
        [[0.6, -1.1], [0.2, 0.9], [-0.8, 0.3]],
    )
]
DTAU = 256
SF_ADAMW: dict[str, Any] = {
    "optimizer": "sf_adamw",
    "step": 0.01,
    "second_memory_half_life": half_life(0.95, DTAU),
    "shrink_half_life": half_life(1 - 0.01 * 0.1, DTAU),
}


def retained(beta: float) -> float:
    return half_life(beta, DTAU)


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def moments(group: dict[str, Any], theta: Any, grads: list[Any], schedule: Schedule | None = None) -> list[Moment]:
    """Updates of one float64 matrix."""
    recipe = Recipe((Group.from_dict(group),), Count("tokens", DTAU), schedule or Schedule())
    return list(drive(recipe, {"w": theta}, [{"w": g} for g in grads], dtype="float64"))


def random(t: int, shape: tuple[int, ...] = (5, 3)) -> Any:
    return np.random.default_rng(t).standard_normal(shape)


# ---- golden numbers


def test_normuon() -> None:
    life = retained(0.95)
    group = {
        "optimizer": "normuon",
        "step": 0.1,
        "memory_half_life": life,
        "second_memory_half_life": life,
        "shrink_half_life": 2560,
    }
    theta3 = [[0.3562334934, -0.8655372111], [1.182875411, 1.611526299], [-0.6579910683, 0.2633681887]]
    close(moments(group, W32, G32)[2].params["w"], theta3)


def test_sf_normuon() -> None:
    """μ = 0.8, β₂ = 0.95, λ = 0.05, lr = 0.008, β = 0.9, all by default, and a warm-up of two updates."""
    last = moments({"optimizer": "sf_normuon"}, W32, G32, Schedule(warmup=2 * DTAU))[2]
    s = last.state["w"]
    close(s["z"], [[0.4957849268, -1.002062021], [1.494457994, 1.9965418], [-0.7521287173, 0.2542469597]])
    close(s["x"], [[0.4970524986, -1.001805906], [1.496380241, 1.99755848], [-0.751722849, 0.2528793182]])
    close(last.params["w"], [[0.4969257414, -1.001831517], [1.496188017, 1.997456812], [-0.7517634358, 0.2530160823]])
    close(s["v"], [[0.05729074571], [0.0251044282], [0.06022982609]])


@pytest.mark.parametrize(
    ("shrink_at", "z3"),
    [
        ("z", [[0.4838972126, -1.004305243], [1.489916628, 1.980877337]]),
        ("y", [[0.4838988409, -1.004307175], [1.489910127, 1.980881809]]),
    ],
)
def test_sf_adamw(shrink_at: str, z3: Any) -> None:
    grads = [g[:2] for g in G32]
    close(moments({**SF_ADAMW, "shrink_at": shrink_at}, W32[:2], grads)[2].state["w"]["z"], z3)


# ---- SF-AdamW against its authors' arithmetic (schedulefree 1.4), which stores z and y only


def authors_sf_adamw(y: Any, grads: list[Any], rates: list[float], decay: float, r: float) -> list[tuple[Any, Any]]:
    """(y, x) after every update, in their order: y moves by a lerp and one addition, x = (y − (1 − β) z)/β."""
    beta1, beta2, eps = 0.9, 0.95, 1e-8
    z, v, largest, total, out = y.copy(), np.zeros_like(y), 0.0, 0.0, []
    for t, (g, lr) in enumerate(zip(grads, rates, strict=True)):
        largest = max(lr, largest)
        weight = (t + 1) ** r * largest**2
        total += weight
        share = weight / total if total else 0.0
        v = beta2 * v + (1 - beta2) * g * g
        d = g / (np.sqrt(v / (1 - beta2 ** (t + 1))) + eps) + decay * y
        y = y + share * (z - y) + lr * (beta1 * (1 - share) - 1) * d
        z = z - lr * d
        out.append((y, (y - (1 - beta1) * z) / beta1))
    return out


@pytest.mark.parametrize("r", [0.0, 1.5])
@pytest.mark.parametrize(
    "schedule",
    [
        Schedule(),
        Schedule("linear", warmup=4 * DTAU, total=20 * DTAU, floor=0.1),  # the largest η is not the present one
        Schedule("warmup-stable-decay", warmup=3 * DTAU, total=18 * DTAU, decay=9 * DTAU),
    ],
)
def test_sf_adamw_is_its_authors(schedule: Schedule, r: float) -> None:
    """Without decay, as λη and the half-life differ in a warm-up, and with it at a constant step."""
    grads = [random(t) for t in range(25)]
    rates = [0.01 * schedule.q((t + 1) * DTAU) for t in range(25)]
    decay = 0.1 if schedule.shape == "constant" else 0.0
    group = SF_ADAMW if decay else {**SF_ADAMW, "shrink_half_life": math.inf}
    found = moments({**group, "averaging_power": r}, W := random(99), grads, schedule)
    for moment, (y, x) in zip(found, authors_sf_adamw(W, grads, rates, decay, r), strict=True):
        np.testing.assert_allclose(moment.params["w"], y, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(moment.state["w"]["x"], x, rtol=1e-12, atol=1e-13)


def test_the_largest_step_matters_under_decay() -> None:
    """Weights η² forget the end of a decay, those of the running maximum do not."""
    schedule = Schedule("linear", total=20 * DTAU)
    grads = [random(t) for t in range(25)]
    shares = {
        kind: [
            m.scalars["w"]["c_x"]
            for m in moments({**SF_ADAMW, "averaging": kind}, W32[:1], [g[:1, :2] for g in grads], schedule)
        ]
        for kind in ("step", "largest_step")
    }
    q = [1 - (t + 1) / 20 for t in range(20)] + [0.0] * 5
    np.testing.assert_allclose(
        shares["step"], [x * x / sum(y * y for y in q[: t + 1]) for t, x in enumerate(q)], rtol=1e-12
    )
    np.testing.assert_allclose(shares["largest_step"], [1 / (t + 1) for t in range(25)], rtol=1e-12)


# ---- invariants of the averaged motion


@given(
    st.lists(st.integers(1, 1000), min_size=1, max_size=12),
    st.sampled_from(["sgdm", "lion", "adamw", "normuon"]),
    st.sampled_from(KINDS),
    st.booleans(),
    st.floats(0, 1),
)
def test_x_is_the_weighted_mean_of_z(increments: list[int], row: str, shrink: str, by_count: bool, beta: float) -> None:
    """Uniform at a constant η, by counts if asked; and y lies between z and x."""
    group = {
        "optimizer": row,
        "motion": "averaged",
        "shrink": shrink,
        "shrink_half_life": 5e3,
        "averaging_counts": by_count,
        "interpolation": beta,
    }
    grads = [{"w": random(t)} for t in range(len(increments))]
    found = replay(group, {"w": random(50)}, grads, increments, dtype="float64")
    z = [s["w"]["z"] for s in found.state]
    weights = increments if by_count else [1] * len(increments)
    for t in range(len(increments)):
        mean = np.average(z[: t + 1], axis=0, weights=weights[: t + 1])
        np.testing.assert_allclose(found.state[t]["w"]["x"], mean, rtol=1e-11, atol=1e-12)
        between = (1 - beta) * z[t] + beta * found.state[t]["w"]["x"]
        np.testing.assert_allclose(found.params[t]["w"], between, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shrink", KINDS)
def test_z_is_the_additive_motion_along_the_same_gradients(shrink: str) -> None:
    """Given gradients, z of the averaged row is θ of the additive one, to the bit: shrink and mask are on (u, z)."""
    group = {"optimizer": "lion", "shrink": shrink, "shrink_half_life": 4e3, "step": 0.03}
    shapes = {"w": (4, 3), "b": (7,)}
    given = inputs.parameters(shapes), list(inputs.gradients(shapes, 30)), inputs.increments(30)
    plain, averaged = replay(group, *given), replay({**group, "motion": "averaged"}, *given)
    for t in range(30):
        for name in shapes:
            assert averaged.state[t][name]["z"].tobytes() == plain.params[t][name].tobytes()


def test_shrinking_at_y_is_in_proportion_to_y() -> None:
    group = {"optimizer": "sgdm", "motion": "averaged", "shrink_at": "y", "shrink_half_life": 600.0, "step": 0.5}
    found = replay(group, {"w": random(50)}, [{"w": 0 * random(1)}] * 6, 100, dtype="float64")
    y = [random(50), *(p["w"] for p in found.params)]
    z = [random(50), *(s["w"]["z"] for s in found.state)]
    for t in range(6):
        np.testing.assert_allclose(z[t + 1] - z[t], -(1 - 2 ** (-1 / 6)) * y[t], rtol=1e-12)


def test_no_step_yet_is_no_weight() -> None:
    """η = 0 in the first updates: x stays although z shrinks, nothing is 0/0, and the first step sets x to z."""
    recipe = Recipe((Group("sf_adamw", {"shrink_half_life": 50.0, "averaging": "step"}),), Count("updates"))
    plan = Plan(recipe, {"w": (3,)})
    row, action = plan.groups[0].row, plan.groups[0].action
    theta, state, clock = np.ones(3), row.init(np, np.ones(3)), Clock(0, 0)
    for t in range(3):
        clock = clock.tick(1, 0.0 if t < 2 else 1.0)
        clock = dataclasses.replace(clock, sums=row.tally(action, clock))
        theta, state = step(np, row, theta, state, {"gradient": np.ones(3)}, row.scalars(action, clock, (3,)))
        assert np.isfinite(theta).all()
        expected = np.ones(3) if t < 2 else state["z"]
        np.testing.assert_allclose(state["x"], expected, rtol=1e-15)
    assert (state["z"] < 1).all()


def test_z_stays_in_a_ball_with_shrink_at_z() -> None:
    """‖z‖_F <= max(‖z_0‖_F, 0.2 η √(mn)/(1 − a)) for NorMuon; without shrink it leaves that ball."""
    for life, inside in ((300.0, True), (math.inf, False)):
        group = {"optimizer": "sf_normuon", "step": 0.5, "shrink_half_life": life, "memory_half_life": 1e5}
        found = replay(group, {"w": 0.1 * random(3)}, [{"w": random(3)}] * 200, 50, dtype="float64")
        radius = 0.2 * 0.5 * math.sqrt(15) / (1 - 2 ** (-50 / 300))
        largest = max(float(np.linalg.norm(s["w"]["z"])) for s in found.state)
        assert (largest <= radius * (1 + 1e-12)) == inside
        assert largest > 0.9 * radius


def test_late_parameters_have_sums_of_their_own() -> None:
    """A parameter that joins late is averaged as it would be alone with the updates that it took part in."""
    shapes, present = {"early": (3,), "late": (4,)}, [2, 3, 5]
    grads, increments = list(inputs.gradients(shapes, 6)), inputs.increments(6)
    mixed = [g if t in present else {"early": g["early"]} for t, g in enumerate(grads)]
    group, params = {**SF_ADAMW, "averaging_counts": True, "averaging_power": 1.0}, inputs.parameters(shapes)
    found = replay(group, params, mixed, increments)
    alone = replay(
        group, {"late": params["late"]}, [{"late": grads[t]["late"]} for t in present], [increments[t] for t in present]
    )
    for key, x in found.state[-1]["late"].items():
        assert x.tobytes() == alone.state[-1]["late"][key].tobytes()
    assert found.scalars[2]["early"]["c_x"] < found.scalars[2]["late"]["c_x"] == 1.0
    assert found.state[0]["late"]["x"].tobytes() == params["late"].tobytes()


def test_half_precision_keeps_z_and_x() -> None:
    """y is rounded from float32 z and x, which do not see its rounding: small shrink is not lost, and no warning."""
    group = {"optimizer": "lion", "motion": "averaged", "step": 1e-4, "shrink_half_life": 1e5}
    params = {"w": inputs.parameters({"w": (40,)})["w"].astype(np.float16).astype(np.float32)}
    grads = [{"w": g["w"].astype(np.float16).astype(np.float32)} for g in inputs.gradients({"w": (40,)}, 30)]
    narrow = replay(group, params, grads, 10, dtype="float16")
    wide = replay(group, params, grads, 10)
    for t in range(30):
        assert narrow.state[t]["w"]["z"].tobytes() == wide.state[t]["w"]["z"].tobytes()
        assert narrow.state[t]["w"]["x"].tobytes() == wide.state[t]["w"]["x"].tobytes()
        rounded = wide.params[t]["w"].astype(np.float16).astype(np.float32)
        assert narrow.params[t]["w"].tobytes() == rounded.tobytes()


def test_the_interpolation_is_no_retention() -> None:
    """At another batch size half-lives keep their counts, and the weight of x its value."""
    group = Group("sf_normuon", {"interpolation": 0.85})
    recipe, _ = transfer(Recipe((group,), Count("tokens", 1000)), 4000)
    (moved,) = recipe.groups
    assert moved.options["interpolation"] == 0.85
    assert moved.options["memory_half_life"] == pytest.approx(1000 * half_life(0.8, 1))


def test_scalars_of_a_distant_update_have_the_sums_of_its_past() -> None:
    """`explain` at a count: what a run of updates of the usual size has there."""
    schedule = {"shape": "linear", "warmup": 300, "total": 5000}
    group = {"optimizer": "sf_adamw", "averaging": "step"}
    recipe = Recipe.from_dict({"count": {"unit": "tokens", "per_update": 100}, "schedule": schedule, "group": [group]})
    told = explain({"w": (2,)}, recipe, scalars=True, count=2000).scalars
    run = list(drive(recipe, {"w": np.ones(2)}, [{"w": np.ones(2)}] * 20, dtype="float64"))
    assert [dict(s.values) for s in told] == [run[0].scalars["w"], run[19].scalars["w"]]
    uneven = explain({"w": (2,)}, recipe, scalars=True, count=2050).scalars[1].values
    increments = [50] + [100] * 20
    run = list(drive(recipe, {"w": np.ones(2)}, [{"w": np.ones(2)}] * 21, increments, dtype="float64"))
    assert uneven == run[20].scalars["w"]
    assert "interpolation" in explain({"w": (2,)}, {"group": [{"optimizer": "lion", "motion": "averaged"}]}).table()


def test_too_many_updates_to_sum_over() -> None:
    recipe = Recipe.from_dict({"count": {"unit": "updates"}, "group": [{"optimizer": "sf_adamw"}]})
    with pytest.raises(RecipeError, match="state the per_update"):
        explain({"w": (2,)}, recipe, scalars=True, count=10**9)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"optimizer": "adamw", "interpolation": 0.9}, "does not use 'interpolation'"),
        ({"optimizer": "sf_adamw", "motion": "additive", "shrink_at": "y"}, "does not use 'shrink_at'"),
        ({"optimizer": "sf_adamw", "target_rms": 1.0}, "does not use 'target_rms'"),
        ({"optimizer": "sf_adamw", "memory_half_life": 10.0}, "does not use 'memory_half_life'"),
        ({"optimizer": "sf_adamw", "interpolation": 1.5}, r"must be in \[0, 1\]"),
        ({"optimizer": "sf_adamw", "shrink_at": "x"}, "not one of z, y"),
        ({"optimizer": "sf_adamw", "averaging": "largest"}, "largest_step"),
        ({"optimizer": "muon", "scale": "rms"}, "not for muon, which has naive"),
        ({"optimizer": "normuon", "norm": "spectral"}, "does not use 'norm'"),
    ],
)
def test_combinations_without_meaning(group: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Group.from_dict(group)


def test_published_settings_do_not_follow_a_row_into_another_motion() -> None:
    assert ENTRIES["sf_normuon"].defaults["shrink_half_life"] == half_life(1 - 0.008 * 0.05, 1)
    elsewhere = ENTRIES["sf_normuon"].under("additive")
    assert elsewhere["shrink_half_life"] == math.inf
    assert not {"interpolation", "shrink_at", "averaging"} & elsewhere.keys()
    assert ENTRIES["sf_adamw"].defaults["shrink_at"] == "y"
    assert ENTRIES["adamw"].under("averaged")["shrink_at"] == "z"


# ---- NorMuon


@given(
    st.integers(0, 10**6), st.sampled_from([(5, 3), (3, 5), (1, 4), (4, 1), (1, 1), (2, 4, 3)]), st.floats(1e-30, 1e30)
)
def test_every_update_of_normuon_has_rms_a_fifth(seed: int, shape: tuple[int, ...], scale: float) -> None:
    """RMS(η̂ Ô) = 0.2 η, whatever the gradient."""
    grads = [{"w": scale * random(seed + t, shape)} for t in range(3)]
    found = replay({"optimizer": "normuon"}, {"w": 0 * random(0, shape)}, grads, 7, dtype="float64", trace=True)
    for trace in found.trace:
        u = trace["w"]["u"][""]
        np.testing.assert_allclose(np.sqrt(np.mean(u * u, axis=(-2, -1))), 0.2, rtol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4)])
@pytest.mark.parametrize("scale", MUON_SCALES)
def test_other_scales_keep_the_length_of_the_polar_factor(shape: tuple[int, int], scale: str) -> None:
    """The authors' repository and dion, written out with their ε in the second denominator too."""
    eps, mu, c = 1e-10, 0.9, 1 - 2 ** (-1 / 8)
    grads = [random(t, shape) for t in range(4)]
    group = {"optimizer": "normuon", "scale": scale, "readout": mu, "eps": eps, "step": 1.0}
    lives = {"memory_half_life": 8.0, "second_memory_half_life": 8.0}
    found = replay(
        {**group, **lives}, {"w": np.zeros(shape)}, [{"w": g} for g in grads], 1, dtype="float64", trace=True
    )
    m, v = np.zeros(shape), np.zeros((shape[0], 1))
    for t, g in enumerate(grads):
        m = m + c * (g - m)
        o = polar(np, mu * m + (1 - mu) * g, "exact")
        v = v + c * (np.mean(o * o, axis=1, keepdims=True) - v)
        rows = o / (np.sqrt(v) + eps)
        u = -SCALES[MUON_SCALES[scale]](shape) * np.linalg.norm(o) / (np.linalg.norm(rows) + eps) * rows
        close(found.trace[t]["w"]["u"][""], u)
        close(found.state[t]["w"]["v"], v)


def test_moonlight_is_rms_at_full_rank() -> None:
    grads = [{"w": random(t)} for t in range(3)]
    for t in range(3):
        u = [
            replay({"optimizer": "normuon", "scale": s}, {"w": random(9)}, grads, 1, dtype="float64", trace=True)
            for s in ("rms", "moonlight")
        ]
        close(u[0].trace[t]["w"]["u"][""], u[1].trace[t]["w"]["u"][""])


def test_without_gradient_nothing_moves(backend: Backend) -> None:
    """A zero matrix and a zero row give zero, also when rows are remembered, and nothing is NaN."""
    zero = np.zeros((3, 4), np.float32)
    some = np.array(random(0, (3, 4)), np.float32)
    some[1] = 0
    for row in ("normuon", "sf_normuon"):
        found = replay(
            {"optimizer": row, "shrink_half_life": math.inf}, {"w": some}, [{"w": zero}] * 2, 1, backend=backend.name
        )
        assert all(p["w"].tobytes() == some.tobytes() for p in found.params)
        found = replay(
            {"optimizer": row, "shrink_half_life": math.inf}, {"w": zero}, [{"w": some}] * 2, 1, backend=backend.name
        )
        assert not found.params[-1]["w"][1].any()
        assert found.params[-1]["w"][[0, 2]].all()


def test_the_scale_of_a_gradient_does_not_matter(backend: Backend) -> None:
    """Gradients of 1e20 are taken: no square of them is remembered."""
    grads = [{"w": np.array(random(t, (3, 4)), np.float32)} for t in range(2)]
    large = [{"w": g["w"] * np.float32(2.0**66)} for g in grads]
    runs = [
        replay({"optimizer": "normuon"}, {"w": grads[0]["w"]}, g, 1, backend=backend.name).params[-1]["w"]
        for g in (grads, large)
    ]
    assert runs[0].tobytes() == runs[1].tobytes()


# ---- the same bits on every backend


SHAPES: dict[str, tuple[int, ...]] = {"wide": (3, 7), "stack": (2, 4, 3), "kernel": (4, 2, 3, 3), "empty": (3, 0)}
ANY: dict[str, tuple[int, ...]] = {"scalar": (), "vector": (70,), "tall": (7, 3), "empty": (0, 3)}
MOVES: dict[str, dict[str, Any]] = {
    "sf_adamw": {},
    "sf_adamw at z": {"shrink_at": "z", "averaging": "step"},
    "sf_adamw by counts": {"averaging_counts": True, "averaging_power": 2.0, "shrink": "cautious"},
    "sf_adamw strict": {"shrink": "cautious", "strict_mask": True},
    "adamw averaged": {"shrink": "cautious"},
    "lion averaged": {"shrink": "corrected", "interpolation": 0.98},
    "sgdm averaged": {"shrink_at": "y", "readout": 0.9},
    "scionc averaged": {"norm": "row", "shrink": "cautious"},
    "scion averaged": {},
    "normuon": {},
    "normuon authors": {"scale": "keller_jordan", "readout": 0.95, "eps": 1e-10},
    "normuon dion": {"scale": "mup", "shrink": "cautious"},
    "sf_normuon": {"shrink": "cautious"},
}


def group_of(case: str) -> dict[str, Any]:
    row, *rest = case.split()
    motion = {"motion": "averaged"} if "averaged" in rest else {}
    return {"optimizer": row, "step": 0.03, "shrink_half_life": 2e4, **motion, **MOVES[case]}


@pytest.mark.parametrize("case", MOVES)
def test_same_bits_everywhere(backend: Backend, case: str) -> None:
    group = group_of(case)
    products = "polar" in ENTRIES[group["optimizer"]].uses and group.get("norm") != "row"
    shapes, updates = (SHAPES if products else ANY, 5 if products else 40)
    if case == "scionc averaged":
        shapes = SHAPES
    grads = list(inputs.gradients(shapes, updates, kinds=("bell", "six_decades", "zeros", "ties", "low_rank", "huge")))
    del grads[2][next(iter(shapes))]
    given = group, inputs.parameters(shapes), grads, inputs.increments(updates)
    reference, ours = replay(*given), replay(*given, backend=backend.name)
    for t in range(updates):
        for name in shapes:
            assert ours.params[t][name].tobytes() == reference.params[t][name].tobytes(), f"{name} after {t}"
            for key, x in reference.state[t][name].items():
                assert ours.state[t][name][key].tobytes() == x.tobytes(), f"{name}/{key} after {t}"
    assert all(np.isfinite(x).all() for x in reference.params[-1].values())
    if "v" in reference.state[-1].get("wide", {}):
        assert {n: s["v"].shape for n, s in reference.state[-1].items()}["kernel"] == (4, 1)


def test_averaged_rows_stay_elementwise() -> None:
    assert Averaged(Cautious()).local
    plan = Plan(Recipe((Group("sf_adamw"),)), {"w": (3,)})
    assert plan.groups[0].row.local
    assert plan.groups[0].row.evaluate(np, 1, {"x": 2}, {}) == 2
