"""Predictions of whole recipes: against runs of the core on noise, against the plan, and for all of the catalogue.

Tolerances are 4 standard errors of the means that are compared, unless a line says what is neglected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dualopt import ENTRIES, Count, Group, Recipe, Schedule, half_life, replay, steady
from dualopt.analysis import course, equilibria, weights
from dualopt.analysis.motions import life_of, path_of
from dualopt.analysis.prediction import Prediction, predict
from dualopt.analysis.sizes import size_of
from dualopt.analysis.spectra import Response, of_noise
from dualopt.catalog import complete, meaning, row
from dualopt.catalog.ways import WAYS
from dualopt.clock import Clock
from dualopt.counts import complement
from dualopt.directions.norm_balls import NORMS
from dualopt.directions.polar import SETS, polar
from dualopt.errors import CountError, RecipeError
from dualopt.executor import executor
from dualopt.noise import noise_of
from dualopt.plan import Plan

SHAPE = (8, 16, 24)
ENTRIES_OF = math.prod(SHAPE)


def recipe(table: Mapping[str, Any], **tables: Any) -> Recipe:
    options = {key: value for key, value in table.items() if key != "optimizer"}
    return Recipe((Group(table["optimizer"], options),), **tables)


def run(table: Mapping[str, Any], updates: int, shape: tuple[int, ...] = SHAPE) -> list[Any]:
    """θ before and after every update on noise; of averaged rows the fast point, and at last the mean."""
    rng = np.random.default_rng(0)
    start = {"w": 0.1 * rng.standard_normal(shape)}
    grads = [{"w": rng.standard_normal(shape)} for _ in range(updates)]
    found = replay(table, start, grads, 1, dtype="float64", tier="fast")
    if "z" in found.state[-1]["w"]:
        return [start["w"], *(s["w"]["z"] for s in found.state), found.state[-1]["w"]["x"]]
    return [start["w"], *(p["w"] for p in found.params)]


def rms(x: Any) -> float:
    return math.sqrt(float(np.mean(np.square(x))))


def turned(before: Any, after: Any) -> float:
    """Root mean square of the angles of all matrices."""
    dots, a, b = (np.sum(x * y, axis=(-2, -1)) for x, y in ((before, after), (before, before), (after, after)))
    return rms(np.arccos(np.clip(dots / np.sqrt(a * b), -1, 1)))


ADDITIVE = {"step": 0.02, "shrink_half_life": 60.0}
SMALL = 1 - math.sqrt(1 - 0.12 / math.sqrt(SHAPE[1]))  # A of a polar factor is that of large matrices
POLAR = 1 - math.sqrt(steady.SQUARE_POLAR)  # A of its relatives is an upper estimate
RUNS: dict[str, tuple[dict[str, Any], float]] = {  # what is run, and by how much the prediction may be too large
    "rmsprop": ({"optimizer": "rmsprop"}, 0.0),
    "sign_sgdm": ({"optimizer": "sign_sgdm"}, 0.0),
    "adamw": ({"optimizer": "adamw"}, 0.0),
    "adamw, uncorrected": ({"optimizer": "adamw", "bias_correction": False, "readout": 0.5}, 0.0),
    "lion": ({"optimizer": "lion"}, 0.0),
    "scionc": ({"optimizer": "scionc", "polar": "exact"}, SMALL),
    "scionc, column": ({"optimizer": "scionc", "norm": "column"}, 0.0),
    "scionc, row": ({"optimizer": "scionc", "norm": "row", "readout": 0.0}, 0.0),
    "scionc, sign": ({"optimizer": "scionc", "norm": "sign"}, 0.0),
    "scionc, frobenius": ({"optimizer": "scionc", "norm": "frobenius"}, 0.0),
    "muon": ({"optimizer": "muon", "polar": "exact"}, SMALL),
    "muon, quintic": ({"optimizer": "muon", "polar": "quintic"}, SMALL),
    "normuon": ({"optimizer": "normuon", "polar": "exact"}, SMALL),
    "row_norm": ({"optimizer": "row_norm", "centred": True}, 0.0),
    "column_norm": ({"optimizer": "column_norm"}, 0.0),
    "polargrad, power 0": ({"optimizer": "polargrad", "nuclear_power": "0", "polar": "exact"}, SMALL),
    "freon, half": ({"optimizer": "freon", "exponent": 0.5}, SMALL),
    "freon, 0": ({"optimizer": "freon", "exponent": 0.0}, 0.0),
    "sf_normuon": ({"optimizer": "sf_normuon", "polar": "exact"}, SMALL),
    "sf_adamw at z": ({"optimizer": "sf_adamw", "shrink_at": "z"}, 0.0),
}


@pytest.mark.parametrize("name", RUNS)
def test_sizes_and_angles_of_rows_on_noise(name: str) -> None:
    """After 240 updates, four half-lives. 16 independent draws (the last updates share most of their past) of 3072."""
    table, above = RUNS[name]
    table = ADDITIVE | table
    thetas = run(table, 240)
    seen = predict(recipe(table), {"w": SHAPE}, starts={"w": rms(thetas[0])}, count=240).groups[0]
    (line,), curves = seen.seen, seen.curves
    error = 4 / math.sqrt(2 * ENTRIES_OF)
    assert line.end is not None
    assert line.most is not None
    assert 1 / (1 + above) - error < rms(thetas[-1]) / line.end < 1 + error
    if seen.motion == "averaged":
        thetas.pop()
        assert curves.rms is not None
        assert 1 / (1 + above) - error < rms(thetas[-1]) / curves.rms[-1] < 1 + error
    assert rms(thetas[-1]) <= line.most
    assert curves.angle is not None
    angles = [turned(*pair) for pair in zip(thetas[-61:-1], thetas[-60:], strict=True)]
    assert np.mean(angles) / np.mean(curves.angle[-60:]) == pytest.approx(1 + above / 2, abs=above / 2 + error)


CENTRED = 1 / SHAPE[-1]  # of the square of rows without a mean is lost when they are centred


@pytest.mark.parametrize(
    ("table", "lost", "slow"),
    [
        ({"optimizer": "rotational_adamw", "shrink_half_life": 400.0}, CENTRED, 0.05),
        ({"optimizer": "rotational_lion", "shrink_half_life": 400.0}, CENTRED, 0.0),
        ({"optimizer": "single_half_life", "memory_half_life": 300.0}, 0.0, 0.0),
        ({"optimizer": "pion", "step": 0.02, "exponential": "cayley"}, 0.0, 0.0),
        ({"optimizer": "adamw", "target_rms": 0.1, "solve": "shrink", "step": 0.004}, 0.0, 0.0),
        ({"optimizer": "lion", **ADDITIVE, "target_rms": 0.1}, 0.0, 0.0),
    ],
)
def test_angles_of_motions_that_keep_the_size(table: dict[str, Any], lost: float, slow: float) -> None:
    """4 standard errors; of rotational_adamw the angle was measured 7 % below, as ν still knows the first updates."""
    thetas = run(table, 200)
    (seen,) = predict(recipe(table), {"w": SHAPE}, starts={"w": rms(thetas[0])}, count=200).groups
    assert seen.seen[0].end is not None
    rows = SHAPE[0] * SHAPE[1]
    kept = (rms(thetas[-1]) / seen.seen[0].end) ** 2
    assert kept == pytest.approx(1 - lost, abs=4 * lost * math.sqrt(2 / rows) + 1e-9)
    angles = [turned(*pair) for pair in zip(thetas[-41:-1], thetas[-40:], strict=True)]
    assert seen.curves.angle is not None
    error = 4 / math.sqrt(2 * ENTRIES_OF)
    assert -slow - error < np.mean(angles) / np.mean(seen.curves.angle[-40:]) - 1 < error


def test_the_angle_of_rows_whose_size_is_the_gradients() -> None:
    """Of polar factors the angle is larger, as A is an upper estimate."""
    tables = ({"optimizer": "sgdm"}, 0.0), ({"optimizer": "sgdm", "l2": 0.5}, 0.0), ({"optimizer": "polargrad"}, SMALL)
    error = 4 / math.sqrt(2 * ENTRIES_OF)
    for table, above in tables:
        thetas = run(ADDITIVE | table, 400)
        line = predict(recipe(ADDITIVE | table), {"w": SHAPE}, count=400).groups[0].seen[0]
        assert line.end is line.settles is None
        assert line.turns is not None
        found = np.mean([turned(*p) for p in zip(thetas[-61:-1], thetas[-60:], strict=True)])
        assert -error < found / line.turns - 1 < error + above


@pytest.mark.parametrize(("name", "half_life_"), [("adamw", 300.0), ("adamw", 60.0), ("sign_sgdm", 300.0)])
def test_cautious_shrink_takes_less_than_half(name: str, half_life_: float) -> None:
    """What is neglected is a relative √(1 − a): 4.8 % at 300 updates and 10.7 % at 60, where 3.8 ± 0.2 % and
    10.5 ± 0.2 % were measured on 200,000 entries."""
    shape, neglected = (120, 100), math.sqrt(1 - 2 ** (-1 / half_life_))
    error = 4 / math.sqrt(2 * math.prod(shape))
    table = {"optimizer": name, "step": 0.02, "shrink_half_life": half_life_, "shrink": "cautious"}
    found = rms(run(table, 1200, shape)[-1])
    line = predict(recipe(table), {"w": shape}, starts={"w": 0.1}, count=1200).groups[0].seen[0]
    assert line.end is not None
    assert -error < found / line.end - 1 < neglected + error
    half = equilibria.masked(1e-6, lambda lost: 1.0)
    assert half == pytest.approx(0.5e-6, rel=1e-12)  # nothing agrees: the mask is a coin


@pytest.mark.parametrize("norm", NORMS)
def test_balls_are_reached_and_not_left(norm: str) -> None:
    """A gradient that never changes fills the ball: RMS → η RMS(u)/(1 − a), and `most` is that at every count."""
    shape = {"spectral_conv": (4, 3, 5), "bias_rms": (15,)}.get(norm, (4, 15))
    stated: dict[str, Any] = {"optimizer": "scionc", "norm": norm, "readout": 1.0, **ADDITIVE}
    if norm.startswith("spectral"):
        stated["polar"] = "exact"
    grads = [{"w": np.random.default_rng(0).standard_normal(shape)}] * 300
    thetas = replay(stated, {"w": np.zeros(shape)}, grads, 1, dtype="float64", tier="fast").params
    for count in (1, 20, 300):
        most = predict(recipe(stated), {"w": shape}, starts={"w": 0.0}, count=count).groups[0].seen[0].most
        assert most == pytest.approx(rms(thetas[count - 1]["w"]), rel=1e-9)


# ---- what is remembered


AVERAGED = st.lists(st.tuples(st.floats(0.01, 1), st.floats(0, 0.9), st.floats(0, 1)), min_size=1, max_size=15)


@given(AVERAGED, st.floats(0, 1))
def test_weights_in_a_mean(given: list[tuple[float, float, float]], pulled: float) -> None:
    eta, lost, share = (np.array([one[i] for one in given]) for i in range(3))
    n = len(given)
    z, x = np.append(1.0, np.zeros(n)), np.append(1.0, np.zeros(n))  # (θ_0, u_1, ..., u_n) in each
    for i in range(n):
        y = (1 - pulled) * z + pulled * x
        z = z - lost[i] * y
        z[i + 1] += eta[i]
        x = x + share[i] * (z - x)
    found, left = weights.of_mean(eta, lost, share, pulled)
    np.testing.assert_allclose(found, x[1:], rtol=1e-11, atol=1e-14)
    assert left == pytest.approx(x[0], rel=1e-11, abs=1e-14)


@pytest.mark.parametrize(
    "table",
    [
        {"optimizer": "sgdm"},
        {"optimizer": "sgdm", "shrink": "corrected"},
        {"optimizer": "sgdm", "motion": "averaged"},
        {"optimizer": "sgdm", "motion": "averaged", "shrink_at": "y", "averaging_power": 1.0},
    ],
)
@pytest.mark.parametrize("shape", ["constant", "cosine", "equal-weight-17"])
def test_predicted_shares_are_those_of_a_run(table: dict[str, Any], shape: Any) -> None:
    """SGDM is linear: the derivative of what is evaluated by θ_0 and by every gradient is their share."""
    n, h = 30, 25.0
    if table.get("shrink") == "corrected" and shape.startswith("equal"):
        shape = "linear"  # the other drives the shrink itself
    lengths = {"total": 300.0, "warmup": 40.0} if shape in ("cosine", "linear") else {}
    table = {"step": 0.3, "shrink_half_life": 10 * h, "readout": 0.8, "memory_half_life": 40.0} | table
    whole = recipe(table, count=Count("tokens", 10), schedule=Schedule(shape, **lengths))
    plan = Plan(whole, {"w": (n + 1, 1)}, float64=True)
    (planned,) = plan.groups
    theta = np.zeros((n + 1, 1))
    theta[0] = 1.0
    state = planned.row.init(np, theta)
    from dualopt.recursion import step

    for i in range(n):
        g = np.zeros((n + 1, 1))
        g[i + 1] = 1.0
        proposal = plan.propose(None, ["w"])
        theta, state = step(np, planned.row, theta, state, {"gradient": g}, proposal.scalars["w"])
        plan.commit(proposal)
    end = planned.row.evaluate(np, theta, state, {})[:, 0]
    (seen,) = predict(whole, {"w": (n + 1, 1)}, count=10 * n).groups
    assert seen.left == pytest.approx(end[0], rel=1e-9)
    share = -end[1:] / -np.sum(end[1:])
    np.testing.assert_allclose(seen.curves.weight / np.sum(seen.curves.weight), share, rtol=1e-8, atol=1e-12)
    assert seen.early == pytest.approx(np.sum(share[:8]), rel=1e-8)  # round(30/4)


@pytest.mark.parametrize("shape", ["equal-weight", "equal-weight-14", "equal-weight-16", "equal-weight-17"])
def test_equal_weight_recipes_weigh_all_batches_alike(shape: Any) -> None:
    whole = recipe(
        {"optimizer": "sgdm", "readout": 0.0, "shrink_half_life": 500.0},
        count=Count("tokens", 10),
        schedule=Schedule(shape),
    )
    (seen,) = predict(whole, {"w": (3, 3)}, count=20_000).groups  # 2000 updates: some are interpolated
    np.testing.assert_allclose(seen.curves.weight, 1, rtol=1e-3)
    assert seen.early == pytest.approx(0.25, rel=1e-3)


# ---- the course is the plan's


SCHEDULES = (
    Schedule(),
    Schedule("cosine", warmup=3000, total=90_000, floor=0.1, drives="both"),
    Schedule("warmup-stable-decay", warmup=3000, total=90_000, decay=20_000),
    Schedule("equal-weight-14"),
)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s.shape)
@pytest.mark.parametrize("updates", [60, 3000])
def test_courses_have_the_scalars_of_the_plan(schedule: Schedule, updates: int) -> None:
    """To the bit where every update is derived, else within 1e-5 of the largest."""
    options = {"optimizer": "adamw", "step": 0.3, "shrink_half_life": 9000.0, "memory_half_life": 2000.0}
    plan = Plan(recipe(options, count=Count("tokens", 30), schedule=schedule), {"w": (3, 4)})
    found = course.course(plan, 0, (3, 4), updates)
    for update in (1, 2, 7, updates // 3, updates - 1, updates):
        plan.set_out(30 * (update - 1))
        expected = plan.propose(None, ["w"]).scalars["w"]
        for name, value in expected.items():
            tolerance = 0.0 if updates == 60 else 1e-5 * float(np.max(np.abs(found.k[name])))
            assert abs(found.k[name][update - 1] - value) <= tolerance, (name, update)


def test_runs_that_are_too_long_say_so() -> None:
    with pytest.raises(RecipeError, match="state the per_update"):
        predict(recipe({"optimizer": "adamw"}), {"w": (2, 2)}, count=2**21)
    with pytest.raises(CountError):
        predict(recipe({"optimizer": "adamw"}), {"w": (2, 2)}, count=0)


def test_where_a_run_ends() -> None:
    def end(table: dict[str, Any], **tables: Any) -> tuple[int, bool]:
        found = predict(recipe(table, **tables), {"w": (2, 2)})
        return found.end, found.assumed

    adam = {"optimizer": "adamw"}
    tokens = Count("tokens", 100)
    assert end(adam, count=tokens) == (1_000_000, True)
    assert end(adam | {"shrink_half_life": 5e4}, count=tokens) == (250_000, True)
    assert end(adam, count=tokens, schedule=Schedule("linear", total=7000)) == (7000, False)
    epochs = Count("epochs", 10, samples_per_epoch=500)
    assert end(adam, count=epochs, schedule=Schedule("linear", total=3)) == (1500, False)
    assert predict(recipe(adam, count=tokens), {"w": (2, 2)}, count=260).end == 300  # whole updates


# ---- every corner


def plain(found: Prediction) -> None:
    """All numbers are numbers."""
    for g in found.groups:
        for curve in vars(g.curves).values():
            assert curve is None or np.all(np.isfinite(curve))
        for value in (g.left, g.early, g.reach, g.amplification, *(vars(s).get("end") for s in g.seen)):
            assert value is None or math.isfinite(value)
        assert 0 <= g.early <= 1 + 1e-12
        assert 0 <= g.left <= 1 + 1e-12


TAKEN = [(n, m) for n, e in ENTRIES.items() for m in WAYS if meaning.not_taken(e, e.under(m)) is None]


@pytest.mark.parametrize(("name", "motion"), TAKEN)
def test_every_row_under_every_motion(name: str, motion: str) -> None:
    shapes = {"w": (6, 8), "stack": (2, 4, 5)}
    whole = recipe({"optimizer": name, "motion": motion})
    for schedule in (Schedule(), Schedule("warmup-stable-decay", warmup=10, total=50, decay=20)):
        found = predict(Recipe(whole.groups, schedule=schedule), shapes, count=60)
        plain(found)
        assert {s.pattern for s in found.groups[0].seen} == set(shapes)


@pytest.mark.parametrize("shape", [(), (1,), (0,), (1, 1), (0, 3), (5, 1), (1, 5), (3, 4, 2, 2)])
@pytest.mark.parametrize("name", ["adamw", "lion", "sgdm", "rmsprop"])
def test_odd_shapes(name: str, shape: tuple[int, ...]) -> None:
    for start in (0.0, 0.3):
        plain(predict(recipe({"optimizer": name, **ADDITIVE}), {"w": shape}, starts={"w": start}, count=30))
    if len(shape) > 1:
        for other in ("scionc", "muon", "normuon", "row_norm", "rotational_adamw", "pion"):
            plain(predict(recipe({"optimizer": other}), {"w": shape}, starts={"w": 0.0}, count=30))


@given(st.floats(1e-6, 10), st.floats(1, 1e7), st.floats(0.5, 1e6), st.floats(0, 1), st.integers(1, 700))
@settings(max_examples=40)
def test_any_knobs(step: float, life: float, memory: float, mu: float, count: int) -> None:
    table = {"step": step, "shrink_half_life": life, "memory_half_life": memory, "readout": mu}
    for name in ("adamw", "lion", "scionc"):
        for shrink in ("direct", "cautious", "corrected"):
            plain(predict(recipe({"optimizer": name, **table, "shrink": shrink}), {"w": (4, 5)}, count=count))


def test_units_do_not_matter() -> None:
    """Samples of 64 tokens or tokens: the same updates."""
    one = predict(
        recipe({"optimizer": "lion", "shrink_half_life": 100.0, "memory_half_life": 30.0}, count=Count("samples", 8)),
        {"w": (5, 6)},
        count=800,
    )
    two = predict(
        recipe(
            {"optimizer": "lion", "shrink_half_life": 6400.0, "memory_half_life": 1920.0}, count=Count("tokens", 512)
        ),
        {"w": (5, 6)},
        count=51_200,
    )
    assert one.updates == two.updates == 100
    assert one.groups[0].seen == two.groups[0].seen
    assert one.groups[0].left == two.groups[0].left


def test_derived_steps_settle_where_they_are_told() -> None:
    """steady_rms in parameters of several shapes, whose η differ."""
    table = {"optimizer": "scionc", "steady_rms": 0.3, "shrink_half_life": 200.0}
    (seen,) = predict(recipe({**table, "norm": "column"}), {"a": (4, 9), "b": (30, 2)}, count=4000).groups
    for line in seen.seen:
        assert line.settles == pytest.approx(0.3, rel=1e-9)
        assert line.end == pytest.approx(0.3, rel=1e-6)


def test_steps_that_are_derived_with_s_settle_lower_for_polar_factors() -> None:
    table = {"optimizer": "scionc", "steady_rms": 0.3, "shrink_half_life": 200.0, "readout": 1.0, "polar": "exact"}
    (seen,) = predict(recipe(table), {"a": (30, 30)}, count=4000).groups
    lost, c = 1 - 2 ** (-1 / 200), complement(1, seen.memory_half_life)
    assert seen.seen[0].settles == pytest.approx(0.3 * math.sqrt(seen.amplification / steady.linear(lost, 1, c)), 1e-9)
    assert seen.amplification < 0.8 * steady.linear(lost, 1, c)


# ---- singular values


@pytest.mark.parametrize(("m", "n"), [(24, 24), (8, 32), (32, 8), (1, 12)])
@pytest.mark.parametrize("name", ["exact", "quintic"])
def test_polar_factors_of_two_readouts_agree_as_derived(name: str, m: int, n: int) -> None:
    """Large matrices are assumed: of small ones at most a relative 0.12/√k is missing (see `watch.forecast`). The rest
    are 4 standard errors of a correlation of so many entries. ρ itself is 0.04 above the f of square ones, and more."""
    rng, pairs = np.random.default_rng(0), 200
    x, noise_ = rng.standard_normal((2, pairs, m, n))
    error = 4 / math.sqrt(pairs * m * n)
    chosen, scaling = (None, "frobenius") if name == "exact" else (SETS[name], SETS[name].normalise)
    _, shares = of_noise(chosen, scaling, m, n)
    assert np.sum(shares) == pytest.approx(1, rel=1e-12)
    u = polar(np, x, name)
    for rho in (0.3, 0.8, 0.95):
        v = polar(np, rho * x + math.sqrt(1 - rho**2) * noise_, name)
        measured = float(np.sum(u * v) / math.sqrt(np.sum(u * u) * np.sum(v * v)))
        predicted_ = float(np.sum(shares * rho ** (2.0 * np.arange(shares.size) + 1)))
        assert -0.12 / math.sqrt(min(m, n)) * predicted_ - error < measured - predicted_ < error


def test_shares_of_square_polar_factors_are_closed() -> None:
    """b_j = (8/π)(j + 1)/((2j + 1)(2j + 3)), as far as the midpoint rule is exact for a jump: (j/N)² off."""
    j = np.arange(40.0)
    _, shares = of_noise(None, "frobenius", 7, 7)
    np.testing.assert_allclose(
        shares[:40], (8 / np.pi * (j + 1) / ((2 * j + 1) * (2 * j + 3))) ** 2, rtol=(40 / 2048) ** 2
    )
    found = Response(1, 1, 1, shares)
    assert found.amplification(0.0, 0.0, 0.1) == 1.0
    flat = Response(1, 1, 1, np.array([1.0, 0.0]))  # a direction that is linear in its readout
    assert flat.amplification(0.01, 0.9, 0.1) == pytest.approx(steady.linear(0.01, 0.9, 0.1), rel=1e-12)
    n = 2 * np.arange(10_000.0) + 1  # S of a long memory: Σ b²/n
    limit = float(np.sum((4 / np.pi * (n + 1) / (n * (n + 2))) ** 2 / n))
    assert found.amplification(0.0, 1.0, 1e-5) / steady.linear(0.0, 1.0, 1e-5) == pytest.approx(limit, rel=1e-3)


def test_the_size_of_a_row_by_its_own_update() -> None:
    """c_u² against full-rank updates of the rows whose size `noise` does not know; NorMuon starts with v = mean O²."""
    z = np.random.default_rng(0).standard_normal((9, 14))
    for name, stated in (
        ("row_norm", {}),
        ("row_norm", {"centred": True}),
        ("column_norm", {}),
        ("polargrad", {"nuclear_power": "0", "polar": "exact"}),
        ("polargrad", {"nuclear_power": "0", "polar": "exact", "centred": True}),
        ("hybrid_polargrad", {"order": "polar_then_row", "polar": "exact"}),
        ("freon", {"exponent": 0.5}),
        ("freon", {"exponent": 0.0}),
    ):
        full = complete(name, stated)
        chosen = row(name, full)
        k = chosen.scalars(full, Clock(1, 1), (9, 14))
        u = chosen.direction(np, {"m": z}, {"": z}, k)[""]
        found = size_of(chosen.direction, noise_of(chosen.direction, full), (9, 14), 1.0, 0.1)
        centred = 0.03 if stated.get("centred") and name == "row_norm" else 1e-7  # of rows of unequal length
        assert found.noise == pytest.approx(float(np.mean(u * u)), rel=centred), (name, stated)


def test_slopes_size_what_follows_the_gradient() -> None:
    """SGDM with a penalty and Adam with one, on rows of 128, against the published equilibria; a → 1 in SGDM's A."""
    raw = equilibria.sgdm(0.01, 5e-4, 0.9, 1.0, 128 * 1e-4)
    table = {"optimizer": "sgdm", "step": 0.1, "memory_half_life": half_life(0.9, 1), "l2": 5e-4}
    (line,) = predict(recipe(table), {"w": (3, 128)}, count=50, slope=1e-4).groups[0].seen
    assert line.settles is not None
    assert line.settles * math.sqrt(128) == pytest.approx(raw.norm, rel=1e-3)
    assert line.turns == pytest.approx(raw.angle, rel=1e-3)
    adam = {"optimizer": "adam_l2", "step": 1e-3, "l2": 1e-3, "memory_half_life": half_life(0.9, 1)}
    (line,) = predict(recipe(adam), {"w": (3, 128)}, count=50, slope=1e-4 / 128).groups[0].seen  # 1e-4 of all entries
    assert line.settles is not None
    assert line.settles * math.sqrt(128) == pytest.approx(0.3838905148, rel=1e-9)
    assert line.turns == pytest.approx(0.006760419514, rel=1e-9)
    (line,) = predict(recipe(adam), {"w": (3, 128)}, count=50).groups[0].seen
    assert (line.end, line.settles, line.turns) == (None, None, None)


def test_the_slope_of_adam_with_a_penalty_is_per_entry() -> None:
    """Rows of 128 on noise of that slope, orthogonal to them as it is in front of a norm: they stay where they should.

    The cubic takes a penalty for small beside the noise, and v for constant: docs/science/random_walk.md finds the mean
    norm 0.2 % off for γ = 1. The rest are 4 standard errors of the mean of independent rows.
    """
    slope, rows, updates = 1e-4 / 128, 32, 3000
    adam = {"optimizer": "adam_l2", "step": 1e-3, "l2": 1e-3, "memory_half_life": half_life(0.9, 1)}
    adam["second_memory_half_life"] = half_life(0.999, 1)
    (line,) = predict(recipe(adam), {"w": (rows, 128)}, count=50, slope=slope).groups[0].seen
    assert line.settles is not None
    plan, rng, execute = Plan(recipe(adam), {"w": (rows, 128)}, float64=True), np.random.default_rng(0), executor(np)
    (planned,) = plan.groups
    w = rng.standard_normal((rows, 128)) * line.settles
    state, squares = planned.start(np, "w", w), []
    for _ in range(updates):
        length = np.linalg.norm(w, axis=1, keepdims=True)
        noise = rng.standard_normal(w.shape) * math.sqrt(slope)
        g = (noise - w * ((noise * w).sum(axis=1, keepdims=True) / length**2)) / length
        proposal = plan.propose(1, ["w"])
        w, state = execute(planned, {"w": w}, {"w": state}, {"w": {"gradient": g}}, proposal.scalars)["w"]
        plan.commit(proposal)
        squares.append(np.mean(w * w, axis=1))
    of_rows = np.sqrt(np.mean(squares[updates // 2 :], axis=0))
    error = 4 * float(np.std(of_rows, ddof=1)) / math.sqrt(rows)
    assert float(np.mean(of_rows)) == pytest.approx(line.settles, abs=0.002 * line.settles + error)


def test_paths_start_where_weights_are() -> None:
    plan = Plan(recipe({"optimizer": "adamw", **ADDITIVE}), {"w": (3, 4)})
    run_ = course.course(plan, 0, (3, 4), 5)
    life = life_of(plan.groups[0], run_, (3, 4))
    path = path_of(plan.groups[0], life, run_, (3, 4), 1e3)
    assert path.rms is not None
    assert path.rms[0] == pytest.approx(1e3 * (1 - run_.k["c_a"][0]), rel=1e-9)


# ---- warnings


def told(table: dict[str, Any], *, count: int = 1000, shape: tuple[int, ...] = (8, 8), **given: Any) -> str:
    return " ".join(predict(recipe(table), {"w": shape}, count=count, **given).warnings)


def test_nothing_to_say() -> None:
    assert told({"optimizer": "adamw", "shrink_half_life": 600.0}) == ""


def test_it_forgets_its_early_data() -> None:
    assert "forgets its early data" in told({"optimizer": "adamw", "shrink_half_life": 60.0})


def test_it_never_forgets_its_initialisation() -> None:
    slow = {"optimizer": "adamw", "step": 1e-6}
    assert "never forgets its initialisation: 100%" in told(slow)
    assert "never" not in told(slow, shape=(8,))  # vectors are gains and biases
    assert "never" not in told({"optimizer": "adamw", "step": 0.1})  # what has grown since is much longer
    assert "beside the run" in told(slow | {"shrink_half_life": 5e3})


def test_half_precision() -> None:
    table = {"optimizer": "adamw", "shrink_half_life": 600.0}
    assert "less than its rounding" in told(table, dtypes={"w": "bfloat16"})
    assert "rounding" not in told(table | {"shrink_half_life": 300.0}, dtypes={"w": "bfloat16"})


def test_thresholds_that_can_be_known() -> None:
    sgd = {"optimizer": "sgdm", "step": 0.5, "memory_half_life": half_life(0.9, 1), "shrink_half_life": 600.0}
    found = predict(recipe(sgd), {"w": (4, 4)}, count=1000).groups[0]
    assert found.threshold == pytest.approx((1 + 2 ** (-1 / 600)) / 0.5 * 19, rel=1e-9)
    assert "unstable" not in told(sgd, curvature=70.0)
    assert "curvature 80" in told(sgd, curvature=80.0)
    assert "l2 = 100 alone" in told({"optimizer": "sgdm", "step": 0.5, "l2": 100.0})
    assert predict(recipe({"optimizer": "lion"}), {"w": (4, 4)}, count=10).groups[0].threshold is None


def test_groups_at_different_speeds() -> None:
    slow, fast = (
        Group("adamw", {"step": s, "shrink_half_life": 600.0}, n, (n,)) for s, n in ((1e-5, "a"), (1e-2, "b"))
    )
    shapes, starts = {"a": (8, 8), "b": (8, 8)}, {"a": 0.5, "b": 0.5}
    (text,) = (w for w in predict(Recipe((slow, fast)), shapes, starts=starts, count=1000).warnings if "speeds" in w)
    assert "'b' by" in text
    assert "'a' by" in text
    alone = predict(Recipe((fast,)), {"b": (8, 8)}, starts=starts, count=1000)
    assert not any("speeds" in w for w in alone.warnings)


def test_defaults_of_a_few_tokens() -> None:
    found = predict(recipe({"optimizer": "adamw"}, count=Count("tokens")), {"w": (2, 2)}, count=100)
    assert any("per_update is 1" in text for text in found.warnings)
