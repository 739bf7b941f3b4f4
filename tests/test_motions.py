"""Rotation, spheres and the solved shrink: published numbers, and what must hold for any input.

Golden numbers were computed apart from this code in float64 and are printed to ten digits. U = 2^-24 is the relative
error of one rounding in float32.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import ENTRIES, Group, Recipe, Schedule, half_life, replay, steady
from dualopt.catalog import complete, row
from dualopt.clock import Clock
from dualopt.counts import Count, complement, retention
from dualopt.errors import RecipeError
from dualopt.motion.held import Held
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recursion import step
from dualopt.replay import drive
from dualopt.shrink import Cautious, Direct
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare

Matrix = list[list[float]]
Numpy = np.ndarray[Any, Any]
U = 2.0**-24
SEED = st.integers(0, 10_000)
KIND = st.sampled_from(["bell", "six_decades", "zeros", "ties", "huge", "low_rank"])

W0 = np.array([[0.5, -1], [1.5, 2]])
G = [np.array(g) for g in ([[1, 2], [-0.5, 0.25]], [[-0.3, 0.8], [1.2, -0.4]], [[0.6, -1.1], [0.2, 0.9]])]
W23 = np.array([[0.5, -1], [1.5, 2], [-0.75, 0.25]]).T
G23 = [
    np.array(g).T
    for g in (
        [[1, 2], [-0.5, 0.25], [0.75, -1.5]],
        [[-0.3, 0.8], [1.2, -0.4], [0.1, -0.6]],
        [[0.6, -1.1], [0.2, 0.9], [-0.8, 0.3]],
    )
]
UNCENTRED = {"rotation_centred": False}
TENSOR = {"rotation_unit": "tensor"}


def close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


def draw(kind: str, shape: tuple[int, ...], seed: int, name: str) -> Numpy:
    return inputs.array(kind, shape, seed, name)


def lengths(x: Numpy, unit: str) -> Numpy:
    return np.sqrt(np.sum(np.square(x.astype(np.float64)), axis=-1 if unit == "row" else (-2, -1)))


def rms(x: Numpy) -> Numpy:
    return np.sqrt(np.mean(np.square(x.astype(np.float64)), axis=(-2, -1)))


# ---- rotation: published numbers. lr = 1e-2, wd = 0.1, β = (0.9, 0.999), three updates


OFFICIAL = {"optimizer": "rotational_adamw", "shrink_half_life": half_life(math.sqrt(1 - 2e-3), 1)}
ROTATIONS: dict[str, tuple[dict[str, Any], Matrix]] = {
    "rows": ({}, [[0.07207237717, 1.089546999, -1.161619376], [-1.440365431, 1.565667134, -0.1253017026]]),
    "rows, not centred": (
        UNCENTRED,
        [[0.4699659355, 1.498158245, -0.7727573316], [-1.032339953, 1.97829964, 0.2882789522]],
    ),
    "tensor": (TENSOR, [[-0.2573610934, -1.748167229], [0.7613053865, 1.244222936]]),
    "tensor, not centred": (TENSOR | UNCENTRED, [[0.4674298406, -1.039107292], [1.501854748, 1.986503888]]),
    "literal": (
        {"rotation_algorithm": "literal"},
        [[0.07820258555, 1.196480864, -1.27468345], [-1.521275971, 1.652568233, -0.1312922621]],
    ),
}


@pytest.mark.parametrize("case", ROTATIONS)
def test_three_rotations(case: str) -> None:
    options, expected = ROTATIONS[case]
    start, grads = (W0, G) if "rotation_unit" in options else (W23, G23)
    found = replay({**OFFICIAL, **options}, {"w": start}, [{"w": g} for g in grads], 1, dtype="float64")
    close(found.scalars[0]["w"]["eta_r"], 0.01025978352)
    close(found.params[2]["w"], expected)


def written_out(name: str, start: Numpy, grads: list[Numpy], eta_r: float, **of: Any) -> Numpy:
    """The authors' loop for rows, centred: n² in the projection, no correction of Adam's m, ε outside."""
    p = start.copy()
    n = np.linalg.norm(p - p.mean(axis=1, keepdims=True), axis=1, keepdims=True)
    m, v, nu = np.zeros_like(p), np.zeros_like(p), np.zeros_like(n)
    for t, g in enumerate(grads, 1):
        if name == "rotational_adamw":
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            d = -m / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        elif name == "rotational_lion":
            d, m = -np.sign(0.9 * m + 0.1 * g), 0.99 * m + 0.01 * g
        else:
            m = 0.9 * m + 0.1 * g
            d = -((1 - of.get("mu", 1)) * g + of.get("mu", 1) * m)
        d = d - np.sum(d * p, axis=1, keepdims=True) / n**2 * p
        nu = 0.99 * nu + 0.01 * np.sum(d * d, axis=1, keepdims=True)
        p = p + eta_r * n * d / (np.sqrt(nu / (1 - 0.99**t)) + 1e-8)
        p = p - p.mean(axis=1, keepdims=True)
        p = p * n / np.linalg.norm(p, axis=1, keepdims=True)
    return p


LOST = 2e-3  # 1 − a² = 2ηλ
ANGLES = {
    "rotational_adamw": math.sqrt(LOST / 19),
    "rotational_lion": math.sqrt(math.pi / 2 * LOST / 71.0714285714286),
    "rotational_sgdm": math.sqrt(LOST / 19),
}


@pytest.mark.parametrize("name", ANGLES)
def test_the_reference_implementation(name: str) -> None:
    options = {"optimizer": name, "rotation_algorithm": "reference", "shrink_half_life": OFFICIAL["shrink_half_life"]}
    grads = [*G23, *reversed(G23)]
    found = replay(options, {"w": W23}, [{"w": g} for g in grads], 1, dtype="float64")
    assert found.scalars[0]["w"]["eta_r"] == pytest.approx(ANGLES[name], rel=1e-12)
    close(found.params[-1]["w"], written_out(name, W23, grads, ANGLES[name]))


def test_the_references_nesterov_keeps_the_heavy_balls_angle() -> None:
    options = {"optimizer": "rotational_sgdm", "readout": 0.9, "shrink_half_life": OFFICIAL["shrink_half_life"]}
    run = [{"w": g} for g in G23]
    found = replay({**options, "rotation_algorithm": "reference"}, {"w": W23}, run, 1, dtype="float64")
    close(found.params[-1]["w"], written_out("rotational_sgdm", W23, G23, ANGLES["rotational_sgdm"], mu=0.9))
    listed = replay(options, {"w": W23}, run, 1, dtype="float64").scalars[0]["w"]["eta_r"]
    assert listed == pytest.approx(math.sqrt(LOST / steady.readout(0.9, 0.1)), rel=1e-12)


def test_the_angle_of_signs() -> None:
    """The arcsine sum where nothing else is stated, (2/π) S for the published Lion; S for everything else."""

    def eta_r(name: str, **stated: Any) -> float:
        full = complete(name, {"motion": "rotational", "shrink_half_life": 300.0, **stated})
        return float(row(name, full).scalars(full, Clock(1, 1), (3, 4))["eta_r"])

    lost, c_a = complement(2, 300), complement(1, 300)
    assert eta_r("sign_sgdm") == pytest.approx(math.sqrt(lost / steady.arcsine(c_a, 1, 0.1)), rel=1e-9)
    assert eta_r("lion") == pytest.approx(math.sqrt(lost / steady.arcsine(c_a, 0.9 / 0.99, 0.01)), rel=1e-9)
    small = math.sqrt(lost * math.pi / 2 * steady.lion_nu0(0.9, 0.99))
    assert eta_r("lion", correlation="linear") == eta_r("rotational_lion") == pytest.approx(small, rel=1e-9)
    assert eta_r("scionc") == pytest.approx(math.sqrt(lost / 39), rel=1e-9)
    assert eta_r("rmsprop") == pytest.approx(math.sqrt(lost), rel=1e-9)


def test_the_angle_follows_the_shrink_and_its_schedule_only() -> None:
    """q of the step does nothing; q of the shrink makes 1 − a² = 1 − 2^(−2 q Δτ/h)."""
    full = complete("rotational_adamw", {"shrink_half_life": 300.0})
    chosen = row("rotational_adamw", full)
    for q, q_shrink, dtau in ((1.0, 1.0, 1), (0.1, 1.0, 1), (0.5, 0.25, 7)):
        found = chosen.scalars(full, Clock(dtau, dtau, q, q_shrink), (3, 4))["eta_r"]
        beta = retention(dtau, full["memory_half_life"])
        expected = math.sqrt((1 - 2 ** (-2 * q_shrink * dtau / 300)) * (1 - beta) / (1 + beta))
        assert found == pytest.approx(expected, rel=1e-12)


# ---- rotation: invariants


ROTATING = st.sampled_from(["rotational_adamw", "rotational_lion", "rotational_sgdm"])


@given(SEED, KIND, ROTATING, st.booleans(), st.sampled_from(["row", "tensor"]))
def test_lengths_and_means(backend: Backend, seed: int, kind: str, name: str, centred: bool, unit: str) -> None:
    """‖p‖ = n after every update, to 8 roundings of unit() and n; mean 0 to the rounding of a sum, of entries <= n."""
    options = {"optimizer": name, "rotation_unit": unit, "rotation_centred": centred, "shrink_half_life": 50}
    params = {"w": draw("bell", (5, 7), seed, "w"), "s": draw("bell", (2, 4, 3), seed, "s")}
    grads = [{n: draw(kind, x.shape, seed, f"{n}{t}") for n, x in params.items()} for t in range(4)]
    found = replay(options, params, grads, [3, 500, 1, 20], backend=backend.name)
    for name_, start in params.items():
        axis = -1 if unit == "row" else (-2, -1)
        begin = start - start.mean(axis=axis, keepdims=True) if centred else start
        n = lengths(begin, unit)
        for p, s in zip(found.params, found.state, strict=True):
            assert s[name_]["n"].shape == (*start.shape[:-2], start.shape[-2] if unit == "row" else 1, 1)
            np.testing.assert_allclose(lengths(p[name_], unit), n, rtol=16 * U)
            if centred:
                bound = 8 * U * lengths(p[name_], unit)
                assert np.all(np.abs(p[name_].astype(np.float64).mean(axis=axis)) <= bound)


@given(SEED, st.integers(-20, 20), st.sampled_from(["rotational_lion", "rotational_adamw"]))
def test_neither_the_scale_of_gradients_nor_of_weights_matters(backend: Backend, seed: int, p: int, name: str) -> None:
    """To the bit for signs; for Adam to its ε."""
    w = draw("bell", (4, 6), seed, "w")
    grads = [draw("bell", (4, 6), seed, f"g{t}") for t in range(4)]
    options = {"optimizer": name, "shrink_half_life": 50} | ({"eps": 1e-30} if name == "rotational_adamw" else {})

    def run(start: Numpy, factor: int) -> Numpy:
        scaled = [{"w": np.ldexp(g, factor)} for g in grads]
        return np.asarray(replay(options, {"w": start}, scaled, 10, backend=backend.name).params[-1]["w"])

    plain = run(w, 0)
    assert run(np.ldexp(w, p), 0).tobytes() == np.ldexp(plain, p).tobytes()
    assert run(w, p).tobytes() == plain.tobytes()


@given(SEED, ROTATING, st.floats(5, 1e4))
def test_the_first_angle(seed: int, name: str, h: float) -> None:
    """arctan η̂_r exactly, when not centred: ν is then ‖d‖² itself. ε / ‖d‖ < 1e-6 of it."""
    w, g = (draw("bell", (3, 9), seed, k).astype(np.float64) for k in ("w", "g"))
    options = {"optimizer": name, "rotation_centred": False, "shrink_half_life": h}
    found = replay(options, {"w": w}, [{"w": g}], 1, dtype="float64")
    p = found.params[0]["w"]
    cosine = np.sum(w * p, axis=1) / (lengths(w, "row") * lengths(p, "row"))
    tangent = np.sqrt(1 - cosine**2) / cosine
    np.testing.assert_allclose(tangent, found.scalars[0]["w"]["eta_r"], rtol=1e-6)


@pytest.mark.parametrize("name", [*ANGLES, "scionc"])
def test_the_mean_square_angle(name: str) -> None:
    """η̂_r² over 800 updates of 64 rows on noise. ν is a mean over 70 updates of ‖d‖², whose spread of √(2/64)
    it follows: within 2 %. The angle is arctan of what is set, less by η̂_r²."""
    rng = np.random.default_rng(3)
    options = {"optimizer": name, "motion": "rotational", "rotation_centred": False, "shrink_half_life": 300}
    options |= {"norm": "column"} if name == "scionc" else {}
    grads = [{"w": rng.standard_normal((64, 64))} for _ in range(800)]
    found = replay(options, {"w": rng.standard_normal((64, 64))}, grads, 1, dtype="float64")
    eta_r = found.scalars[0]["w"]["eta_r"]
    units = [p["w"] / lengths(p["w"], "row")[:, None] for p in found.params]
    cosines = [np.sum(a * b, axis=1) for a, b in itertools.pairwise(units[200:])]
    mean = np.mean(np.arccos(np.clip(cosines, -1, 1)) ** 2)
    assert mean == pytest.approx(eta_r**2, rel=0.02)


def test_short_units_are_not_centred() -> None:
    """A centred pair could not turn, and a centred number would be 0."""
    for shape in ((4, 2), (4, 1), (2, 4, 2)):
        params = {"w": draw("bell", shape, 0, "w")}
        grads = [{"w": draw("bell", shape, 0, f"g{t}")} for t in range(3)]
        options = {"optimizer": "rotational_lion", "shrink_half_life": 50}
        found, plain = (replay({**options, **o}, params, grads, 1).params[-1]["w"] for o in ({}, UNCENTRED))
        assert found.tobytes() == plain.tobytes()
        assert (found == params["w"]).all() == (shape[-1] == 1)
    pair = replay({**options, **TENSOR}, {"w": params["w"][0, :1, :2]}, [{"w": grads[0]["w"][0, :1, :2]}], 1)
    assert pair.params[0]["w"].any()


# ---- spheres: published numbers. Δτ = 256, h = 2560


def test_three_updates_of_one_half_life() -> None:
    group = {"optimizer": "single_half_life", "memory_half_life": 2560}
    found = replay(group, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64")
    close(found.params[2]["w"], [[-0.7952865485, -2.540465378], [0.2055698996, 0.6093406134]])
    k = found.scalars[0]["w"]
    close([1 - k["c_turn"], math.asin(k["s_turn"]), k["s_turn"]], [0.9330329915, 0.368043694, 0.3597908235])
    close(math.sqrt(2 * math.log(2) * 256 / 2560), 0.3723297411)  # the small angle of the docstring
    close(found.state[2]["w"]["radius"], [[math.sqrt(7.5 / 4)]])


def test_three_updates_of_hyperball() -> None:
    group = {"optimizer": "hyperball", "memory_half_life": 1024, "step": 0.05}
    found = replay(group, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64")
    close(found.params[2]["w"], [[0.4122968794, -1.259924851], [1.37256893, 1.964345994]])


# ---- spheres: invariants


SPHERES: dict[str, dict[str, Any]] = {
    "single_half_life": {"optimizer": "single_half_life", "memory_half_life": 300.0},
    "sphere around signs": {"optimizer": "lion", "motion": "sphere", "memory_half_life": 300.0},
    "slerp": {"optimizer": "hyperball", "norm": "frobenius", "retraction": "slerp", "step": 0.1},
    "hyperball": {"optimizer": "hyperball", "norm": "row", "step": 0.1},
}


@pytest.mark.parametrize("case", SPHERES)
@given(seed=SEED, kind=KIND)
def test_spheres_keep_the_norm_and_turn_by_the_angle(backend: Backend, case: str, seed: int, kind: str) -> None:
    """‖W‖ is constant to 16 U; mean(Ŵ_t ∘ Ŵ_{t+1}) = cos φ where anything moves. Hyperball: at most arcsin η."""
    params = {"w": draw("bell", (5, 7), seed, "w"), "s": draw("bell", (2, 4, 3), seed, "s")}
    increments = [3, 100, 20]
    grads = [{n: draw(kind, x.shape, seed, f"{n}{t}") for n, x in params.items()} for t in range(3)]
    found = replay(SPHERES[case], params, grads, increments, backend=backend.name)
    for name, start in params.items():
        before = start
        for t, p in enumerate(found.params):
            now = p[name]
            np.testing.assert_allclose(rms(now), rms(start), rtol=16 * U)
            assert found.state[t][name]["radius"].shape == (*start.shape[:-2], 1, 1)
            cosine = np.mean(now.astype(np.float64) * before, axis=(-2, -1)) / rms(start) ** 2
            moved = np.any(now != before, axis=(-2, -1))
            if case == "hyperball":
                assert np.all(cosine >= math.cos(math.asin(0.1)) - 16 * U)
            else:
                angle = 0.1 if case == "slerp" else math.acos(2 ** (-increments[t] / 300))
                np.testing.assert_allclose(cosine[moved], math.cos(angle), rtol=16 * U)
            before = now


@given(SEED, st.floats(0, 1), st.integers(1, 2000), st.floats(10, 1e5))
def test_a_schedule_scales_the_angle(seed: int, q: float, dtau: int, h: float) -> None:
    full = complete("single_half_life", {"memory_half_life": h})
    chosen = row("single_half_life", full)
    k = chosen.scalars(full, Clock(dtau, dtau, q), (3, 4))
    angle = q * math.acos(2 ** (-dtau / h))
    assert k["s_turn"] == pytest.approx(math.sin(angle), rel=1e-9, abs=1e-9)
    assert k["c_turn"] == pytest.approx(1 - math.cos(angle), rel=1e-9, abs=1e-9)
    assert k["c_m"] == complement(dtau, h)  # the memory does not follow


@given(SEED, st.floats(1e-5, 1.0))
def test_the_turn_is_tangent(backend: Backend, seed: int, away: float) -> None:
    """U ⊥ Ŵ, also where only a fraction `away` of u is tangent: W+ − cos φ W = sin φ R U. Its rounding, a few U of
    ‖W‖, is divided by sin φ = 0.1."""
    w, noise = (draw("bell", (6, 6), seed, k) for k in ("w", "g"))
    g = (w + np.float32(away) * noise).astype(np.float32)
    group = {"optimizer": "sgdm", "motion": "hyperball", "retraction": "slerp", "step": math.asin(0.1), "readout": 0.0}
    found = replay(group, {"w": w}, [{"w": g}], 1, backend=backend.name).params[0]["w"].astype(np.float64)
    wide = w.astype(np.float64)
    u = (found - math.sqrt(1 - 0.01) * wide) / 0.1
    assert abs(np.sum(u * wide)) <= 16 * U / 0.1 * np.sum(wide * wide)
    assert np.sum(u * g) < 0


def test_half_of_a_direction_is_forgotten_after_the_half_life() -> None:
    """Correlation q^t = 1/2 after h along independent random tangents, 16 matrices of 2000 entries: each is off by
    about 1/√2000 · √(1 − 1/4), their mean by 0.005; 4 of these."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((16, 40, 50))
    group = {"optimizer": "single_half_life", "memory_half_life": 30, "readout": 0.0}
    grads = ({"w": rng.standard_normal(start.shape)} for _ in range(30))
    found = replay(group, {"w": start}, grads, 1, dtype="float64").params
    for t, expected in ((10, 2 ** (-1 / 3)), (30, 0.5)):
        cosine = np.mean(found[t - 1]["w"] * start, axis=(-2, -1)) / rms(start) ** 2
        assert np.mean(cosine) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("motion", ["sphere", "hyperball", "slerp", "rotational"])
def test_where_nothing_turns(backend: Backend, motion: str) -> None:
    """Zero gradients, gradients along W, zero weights and single numbers; the sphere keeps such W to the bit."""
    way = {"motion": "hyperball", "retraction": "slerp"} if motion == "slerp" else {"motion": motion}
    w = draw("bell", (4, 5), 1, "w")
    params = {
        "still": w,
        "along": w,
        "against": w,
        "zero": np.zeros((4, 5), np.float32),
        "one": np.float32([[-1.7]]),
        "none": np.zeros((3, 0), np.float32),
        "no_stack": np.zeros((0, 3, 4), np.float32),
    }
    grads = {n: draw("bell", x.shape, 2, n) for n, x in params.items()}
    grads |= {"still": np.zeros_like(w), "along": np.float32(3.3) * w, "against": np.float32(-1.1) * w}
    group = {
        "optimizer": "sgdm",
        "readout": 0.0,
        **way,
        **({"rotation_centred": False} if motion == "rotational" else {}),
    }
    found = replay(group, params, [grads] * 3, 10, backend=backend.name).params[-1]
    for name, x in params.items():
        assert np.isfinite(found[name]).all()
        if name == "zero" or x.size == 0:
            assert not found[name].any()
        elif motion in ("sphere", "slerp") or (name == "still" and motion == "hyperball"):
            assert found[name].tobytes() == x.tobytes()
        else:
            np.testing.assert_allclose(found[name], x, rtol=32 * U)


# ---- the shrink that holds a norm


def test_the_published_root() -> None:
    """Signs, γ = 0.05, R = ‖W_0‖: [‖P∘W‖²/‖W‖², <W,U>, <P∘W,U>, α, d] as printed."""
    norm = math.sqrt(7.5)
    group = {"optimizer": "sign_sgdm", "step": 0.05, "target_rms": norm / 2, "solve": "shrink", "shrink": "cautious"}
    found = replay(group, {"w": W0}, [{"w": G[0]}], 256, dtype="float64", trace=True)
    u, moved = found.trace[0]["w"]["u"][""], found.params[0]["w"]
    lost = W0 + 0.05 * u - moved
    mask = u * W0 <= 0
    masked, size = np.where(mask, W0, 0.0), np.linalg.norm(u)
    printed = [np.sum(masked**2) / 7.5, np.sum(W0 * u), np.sum(masked * u) / (norm * size), 0.05 * size / norm]
    close([*printed, np.sum(lost * W0) / np.sum(masked**2)], [
        0.5666666667, 0, -0.4564354646, 0.03651483717, 0.001212879039,
    ])  # fmt: skip
    close(lost[~mask], 0)
    close(np.linalg.norm(moved), norm)


@given(
    seed=SEED,
    kind=st.sampled_from(["bell", "six_decades", "zeros"]),
    target=st.floats(0.1, 3),
    eta=st.floats(0, 2),
    cautious=st.booleans(),
)
def test_the_solved_shrink(seed: int, kind: str, target: float, eta: float, cautious: bool) -> None:
    """RMS(θ+) = R where a root is real, else as close as d can bring it; of two roots the smaller change."""
    theta, u = (draw(kind, (4, 5), seed, name).astype(np.float64) for name in ("theta", "u"))
    motion = Held(Cautious() if cautious else Direct())
    moved, _ = motion(np, theta, {"": u}, {}, {"eta": eta, "entries_r2": theta.size * target**2})
    masked = np.where(np.sign(u) * np.sign(theta) <= 0, theta, 0.0) if cautious else theta
    ahead = theta + eta * u
    if not masked.any():
        close(moved, ahead)
        return
    d = np.sum((ahead - moved) * masked) / np.sum(masked**2)
    np.testing.assert_allclose(moved, ahead - d * masked, rtol=1e-9, atol=1e-9)
    roots = np.roots([np.sum(masked**2), -2 * np.sum(masked * ahead), np.sum(ahead**2) - theta.size * target**2])
    if np.iscomplex(roots).any():
        assert d == pytest.approx(roots[0].real, rel=1e-6, abs=1e-6)
    else:
        assert math.sqrt(np.mean(moved**2)) == pytest.approx(target, rel=1e-6)
        assert abs(d) <= min(abs(roots)) * (1 + 1e-6) + 1e-6


def test_the_solved_shrink_is_one_for_a_group(backend: Backend) -> None:
    """RMS over all tensors of the group, after every update."""
    shapes = {"a": (3, 4), "b": (7,), "c": ()}
    group = {"optimizer": "adamw", "step": 0.1, "target_rms": 0.7, "solve": "shrink"}
    grads = list(inputs.gradients(shapes, 5))
    found = replay(group, inputs.parameters(shapes), grads, 10, backend=backend.name).params
    for p in found:
        every = np.concatenate([np.ravel(x).astype(np.float64) for x in p.values()])
        assert math.sqrt(np.mean(every**2)) == pytest.approx(0.7, rel=64 * U)  # sums of squares of 20 entries


# ---- rows of every kind under every motion, on every backend (all of them on numpy: test_product.py)


SHAPES = {"tall": (7, 3), "wide": (3, 7), "row": (1, 6), "stack": (2, 4, 3), "kernel": (4, 2, 3, 3), "empty": (3, 0)}
WAYS: dict[str, dict[str, Any]] = {
    "rotational": {"motion": "rotational", "shrink_half_life": 9e3},
    "rotational tensor literal": {
        "motion": "rotational",
        "shrink_half_life": 9e3,
        "rotation_algorithm": "literal",
        **TENSOR,
    },
    "rotational reference": {"motion": "rotational", "shrink_half_life": 9e3, "rotation_algorithm": "reference"},
    "sphere": {"motion": "sphere"},
    "hyperball": {"motion": "hyperball", "step": 0.03},
    "slerp": {"motion": "hyperball", "step": 0.03, "retraction": "slerp"},
    "held": {"target_rms": 0.7, "solve": "shrink", "shrink": "cautious"},
    "settled": {"steady_rms": 0.7, "shrink_half_life": 9e3},
}


KINDS_OF_ROWS = ("sgdm", "rmsprop", "adamw", "lion", "muon")


def _products() -> dict[str, dict[str, Any]]:
    found = {}
    published = [name for name, entry in ENTRIES.items() if any(entry.motion == w.get("motion") for w in WAYS.values())]
    for name, entry in ((name, ENTRIES[name]) for name in (*KINDS_OF_ROWS, *published)):
        for way, options in WAYS.items():
            table = {"optimizer": name, **options}
            if entry.motion not in ("additive", options.get("motion")):  # a wrapped row, which is here by itself
                continue
            try:
                Group.from_dict(table)
            except RecipeError:
                continue
            found[f"{name} {way}"] = table
    return found


PRODUCTS = _products()


def test_the_product_leaves_out_what_has_no_meaning() -> None:
    missing = {f"{name} {way}" for name in KINDS_OF_ROWS for way in WAYS} - set(PRODUCTS)
    assert missing == {"rmsprop sphere", "sgdm settled"}
    assert {case.split()[0] for case in PRODUCTS} >= {"rotational_lion", "single_half_life", "hyperball"}


@lru_cache
def _replayed(case: str, backend: str) -> Any:
    table = PRODUCTS[case]
    short = "polar" in ENTRIES[table["optimizer"]].uses
    shapes = {n: SHAPES[n] for n in ("wide", "stack")} if short else SHAPES
    kinds = ("bell", "six_decades", "zeros", "ties", "low_rank", "huge")
    updates = 5 if short else 20
    grads = list(inputs.gradients(shapes, updates, kinds=kinds))
    del grads[2]["wide"]  # it lags behind from here on
    return replay(table, inputs.parameters(shapes), grads, inputs.increments(updates), backend=backend)


@pytest.mark.parametrize("case", PRODUCTS)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, case: str) -> None:
    reference = _replayed(case, "numpy")
    report = compare(reference, _replayed(case, backend.name))
    assert report.differing == 0, str(report)
    last, first = reference.params[-1], reference.params[0]
    assert all(np.isfinite(x).all() for x in last.values())
    assert (last["wide"] != first["wide"]).any()


@pytest.mark.parametrize("case", [c for c in PRODUCTS if c.split()[0] in ("adamw", "lion")])
def test_scalars_are_opaque_and_nothing_is_modified(backend: Backend, case: str) -> None:
    """k as floats and as 0-d float32 arrays: the same bits. On numpy all inputs are read-only."""
    xp = backend.namespace("exact")
    planned = Plan(Recipe((Group.from_dict(PRODUCTS[case]),)), {"w": (3, 7)}).groups[0]
    k = planned.row.scalars(planned.action, Clock(20, 10, 0.5), (3, 7))
    zero_d = {key: backend.from_numpy(np.array(value, np.float32), "float32") for key, value in k.items()}
    theta, gradient = (backend.from_numpy(draw("bell", (3, 7), 0, n), "float32") for n in ("w", "g"))
    state = planned.row.init(xp, theta)
    given_ = [theta, gradient, *state.values(), *zero_d.values()]
    before = [backend.to_numpy(x).copy() for x in given_]
    if backend.name == "numpy":
        for x in given_:
            x.setflags(write=False)
    one, other = (step(xp, planned.row, theta, state, {"gradient": gradient}, scalars) for scalars in (k, zero_d))
    assert backend.to_numpy(one[0]).tobytes() == backend.to_numpy(other[0]).tobytes()
    for key, x in one[1].items():
        assert backend.to_numpy(x).tobytes() == backend.to_numpy(other[1][key]).tobytes()
    for x, old in zip(given_, before, strict=True):
        assert backend.to_numpy(x).tobytes() == old.tobytes()


@pytest.mark.parametrize("case", ["adamw rotational", "lion rotational tensor literal", "sgdm sphere", "lion slerp"])
def test_a_stack_is_its_matrices(backend: Backend, case: str) -> None:
    stack = draw("bell", (3, 4, 5), 0, "w")
    grads = [draw("six_decades", (3, 4, 5), 0, f"g{t}") for t in range(3)]
    whole = replay(PRODUCTS[case], {"w": stack}, [{"w": g} for g in grads], 9, backend=backend.name).params[-1]["w"]
    for i in range(3):
        alone = replay(PRODUCTS[case], {"w": stack[i]}, [{"w": g[i]} for g in grads], 9, backend=backend.name)
        assert alone.params[-1]["w"].tobytes() == whole[i].tobytes()


@pytest.mark.parametrize("case", ["adamw rotational", "sgdm sphere", "lion hyperball"])
def test_half_precision_parameters(backend: Backend, case: str) -> None:
    """bfloat16 parameters have the bits of numpy, with n, ν and R in float32."""
    if "bfloat16" not in backend.dtypes:
        pytest.skip(f"{backend.name} has no bfloat16")
    params = {"w": draw("bell", (4, 5), 0, "w")}
    grads = [{"w": draw("bell", (4, 5), 0, f"g{t}")} for t in range(5)]
    runs = [replay(PRODUCTS[case], params, grads, 700, backend=b, dtype="bfloat16") for b in ("numpy", backend.name)]
    assert compare(*runs).differing == 0


def test_a_schedule_reaches_spheres_but_not_rotation() -> None:
    params = {"w": draw("bell", (4, 5), 0, "w")}
    grads = [{"w": draw("bell", (4, 5), 0, f"g{t}")} for t in range(4)]

    def run(table: dict[str, Any], **schedule: Any) -> Numpy:
        made = Recipe((Group.from_dict(table),), Count("samples", 10), Schedule(**schedule))
        return list(drive(made, params, grads))[-1].params["w"]  # type: ignore[no-any-return]

    falling: dict[str, Any] = {"shape": "linear", "total": 40}
    for case, by_step in (("sgdm sphere", True), ("lion hyperball", True), ("adamw rotational", False)):
        constant = run(PRODUCTS[case])
        assert (run(PRODUCTS[case], **falling) != constant).any() == by_step
        assert (run(PRODUCTS[case], **falling, drives="both") != constant).any()


# ---- what is refused


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"optimizer": "rotational_adamw", "step": 0.1}, "does not use 'step'"),
        ({"optimizer": "rotational_adamw", "shrink_half_life": math.inf}, "needs a finite shrink_half_life"),
        ({"optimizer": "rotational_sgdm", "l2": 0.1}, "does not use 'l2'"),
        ({"optimizer": "rotational_lion", "shrink": "cautious"}, "does not use 'shrink'"),
        ({"optimizer": "rotational_lion", "rotation_unit": "column"}, "not one of row, tensor"),
        ({"optimizer": "lion", "rotation_unit": "row"}, "does not use 'rotation_unit'"),
        ({"optimizer": "single_half_life", "shrink_half_life": 9.0}, "does not use 'shrink_half_life'"),
        ({"optimizer": "single_half_life", "step": 9.0}, "does not use 'step'"),
        ({"optimizer": "hyperball", "shrink_half_life": 9.0}, "does not use 'shrink_half_life'"),
        ({"optimizer": "rmsprop", "motion": "sphere"}, "it turns by the memory_half_life"),
    ],
)
def test_refused_coordinates(stated: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Group.from_dict(stated)


@pytest.mark.parametrize("motion", ["rotational", "sphere", "hyperball"])
def test_vectors_are_refused(motion: str) -> None:
    made = Recipe((Group("lion", {"motion": motion}),))
    with pytest.raises(RecipeError, match=f"motion = '{motion}' needs a matrix, but got 'bias'"):
        made.assign({"w": (3, 4), "bias": (3,)})


def test_gradients_whose_squared_length_overflows_are_refused() -> None:
    made = Plan(Recipe((Group("rotational_sgdm"),)), {"w": (64, 64)})
    bound = made.largest("w")
    assert 64 * 64 * bound**2 <= 2.0**126 < np.finfo(np.float32).max


@pytest.mark.parametrize("case", ["rotational_sgdm rotational", "sgdm sphere", "sgdm hyperball", "sgdm held"])
def test_the_fast_tier(backend: Backend, case: str) -> None:
    """Native sums and roots: 5 updates of a smooth row, each with some ten roundings of U relative to the largest."""
    shapes = {"w": (9, 33), "s": (2, 4, 3)}
    params, grads = inputs.parameters(shapes), list(inputs.gradients(shapes, 5))
    exact, fast = (replay(PRODUCTS[case], params, grads, 300, backend=backend.name, tier=t) for t in ("exact", "fast"))
    for name, x in exact.params[-1].items():
        np.testing.assert_allclose(fast.params[-1][name], x, rtol=0, atol=100 * U * np.abs(x).max())


def test_a_polar_factor_on_a_sphere() -> None:
    """The ULMO variant written out: D = P_Ŵ ulmo(M), with ‖Ŵ‖_rms = 1."""
    group = {"optimizer": "scionc", "motion": "sphere", "memory_half_life": 2560}
    found = replay(group, {"w": W0}, [{"w": g} for g in G], 256, dtype="float64").params[-1]["w"]
    q, m = 2**-0.1, np.zeros((2, 2))
    radius = math.sqrt(np.mean(W0**2))
    w = W0 / radius
    for g in G:
        m = q * m + (1 - q) * g
        left, _, right = np.linalg.svd(m)
        d = -left @ right
        d = d - np.mean(d * w) * w
        w = q * w + math.sqrt(1 - q * q) * d / math.sqrt(np.mean(d * d))
    close(found, radius * w)
