"""Pion: rotations of the weights from both sides, in the Lie algebra and transported, Taylor and Cayley.

The golden numbers were computed apart from this code, to their ten printed digits; `literally` is the published
algorithm word for word. Everything else are properties: what rotations keep, and what the step means.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Replay, checkpoint, half_life, namespace, optimizer, replay
from dualopt.errors import NonFiniteError, RecipeError
from dualopt.lie import pair
from dualopt.motion import EXPONENTIALS, Multiplicative
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.recursion import step
from dualopt_conformance import inputs
from dualopt_conformance.replays import compare

Matrix = np.ndarray[Any, Any]
W0 = np.array([[0.5, -1], [1.5, 2]])
G = [np.array(g) for g in ([[1, 2], [-0.5, 0.25]], [[-0.3, 0.8], [1.2, -0.4]], [[0.6, -1.1], [0.2, 0.9]])]
DTAU = 256
LIVES = {"memory_half_life": half_life(0.9, DTAU), "second_memory_half_life": half_life(0.999, DTAU)}
PION = {"optimizer": "pion", "second_memory": True, "step": 0.5, **LIVES}
PLAIN = {key: value for key, value in PION.items() if key not in ("second_memory", "second_memory_half_life")}


def random(shape: tuple[int, ...], seed: int) -> Matrix:
    return np.random.default_rng(seed).standard_normal(shape)


def compiles(backend: Backend) -> bool:
    """True if every operation is compiled for every shape, which takes longer than the test: few shapes then."""
    return backend.name == "jax"


def spare(backend: Backend, exponential: str) -> None:
    """JAX compiles every operation of an inverse for every shape: one test of it is enough there."""
    if compiles(backend) and exponential == "cayley":
        pytest.skip("a minute of compiling; test_all_backends covers it")


def run(group: dict[str, Any], w: Matrix = W0, grads: list[Matrix] = G, trace: bool = False) -> Replay:
    return replay(group, {"w": w}, [{"w": g} for g in grads], DTAU, dtype="float64", trace=trace)


def orthogonal(n: int, seed: int) -> Matrix:
    return np.linalg.qr(random((n, n), seed))[0]


def sigma(x: Matrix) -> Matrix:
    return np.linalg.svd(x, compute_uv=False)


# ---- golden numbers, and the published algorithm


GOLDEN = {
    "taylor": ([[0.1568108779, -1.332335737], [1.676329817, 1.700084659]], [2.558349615, 0.9772025979]),
    "cayley": ([[0.1570878772, -1.332072359], [1.67626176, 1.70030972]], [2.558336368, 0.9771975379]),
}


@pytest.mark.parametrize("exponential", EXPONENTIALS)
def test_three_updates(exponential: str) -> None:
    w3 = run({**PION, "exponential": exponential}).params[-1]["w"]
    weights, singular = GOLDEN[exponential]
    np.testing.assert_allclose(w3, weights, rtol=1e-9)
    np.testing.assert_allclose(sigma(w3), singular, rtol=1e-9)


def expanded(x: Matrix, exponential: str) -> Matrix:
    one = np.eye(len(x))
    return one + x + x @ x / 2 if exponential == "taylor" else np.linalg.solve(one - x / 2, one + x / 2)


def literally(
    w: Matrix, grads: list[Matrix], lr: float, exponential: str, *, second: bool, alternate: bool, transported: bool
) -> Matrix:
    """The published updates, with the ε of the authors' code."""
    m, n = w.shape
    kept = {"in": np.zeros((n, n)), "out": np.zeros((m, m)), "": np.zeros((m, n))}
    squares = {key: np.zeros_like(x) for key, x in kept.items()}

    def direction(key: str, g: Matrix) -> Matrix:
        kept[key] = 0.9 * kept[key] + 0.1 * g
        squares[key] = 0.999 * squares[key] + 0.001 * (kept[key] if transported else g) ** 2
        return -kept[key] / (np.sqrt(squares[key]) + 1e-8) if second else -kept[key]

    for t, g in enumerate(grads, 1):
        if transported:
            q = direction("", g)
            a_in, a_out = w.T @ q - q.T @ w, q @ w.T - w @ q.T
        else:
            a_in, a_out = direction("in", w.T @ g - g.T @ w), direction("out", g @ w.T - w @ g.T)
        if alternate:
            a_in, a_out = (a_in, 0 * a_out) if t % 2 else (0 * a_in, a_out)
        alpha = lr * 0.2 * np.sqrt(m * n) / (np.linalg.norm(w @ a_in + a_out @ w) + 1e-12)
        e_in, e_out = expanded(alpha * a_in, exponential), expanded(alpha * a_out, exponential)
        w, kept[""] = e_out @ w @ e_in, e_out @ kept[""] @ e_in
    return w


@pytest.mark.parametrize("exponential", EXPONENTIALS)
@pytest.mark.parametrize("motion", ["multiplicative", "transported"])
@pytest.mark.parametrize("second", [True, False])
@pytest.mark.parametrize("alternate", [True, False])
@pytest.mark.parametrize("shape", [(2, 2), (3, 5), (5, 2), (1, 4), (4, 1)])
def test_as_published(exponential: str, motion: str, second: bool, alternate: bool, shape: tuple[int, int]) -> None:
    w, grads = random(shape, 0), [random(shape, t) for t in range(1, 6)]
    group = (PION if second else PLAIN) | {"exponential": exponential, "motion": motion, "alternate": alternate}
    options = {"second": second, "alternate": alternate, "transported": motion == "transported"}
    expected = literally(w, grads, 0.5, exponential, **options)
    np.testing.assert_allclose(run(group, w, grads).params[-1]["w"], expected, rtol=1e-9, atol=1e-10)


# ---- the Lie algebra


@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_the_gradients_of_rotations(m: int, n: int, seed: int) -> None:
    """<G, WX> = ½ <G_in, X> and <G, XW> = ½ <G_out, X> for skew X; both gradients are skew to the bit."""
    w, g = random((m, n), seed), random((m, n), seed + 100)
    found = pair(np, w, g)
    for key, size in (("in", n), ("out", m)):
        np.testing.assert_array_equal(found[key], -found[key].T)
        x = random((size, size), seed + 200)
        x = x - x.T
        moved = w @ x if key == "in" else x @ w
        np.testing.assert_allclose(np.sum(g * moved), 0.5 * np.sum(found[key] * x), atol=1e-12)


@pytest.mark.parametrize("group", [PION, PLAIN, {**PION, "bias_correction": True, "readout": 0.5}])
def test_directions_and_memories_are_skew(backend: Backend, group: dict[str, Any]) -> None:
    """To the bit on every backend: v is symmetric, so dividing by its root keeps A skew."""
    shapes = {"stack": (2, 2, 3)} if compiles(backend) else {"square": (4, 4), "tall": (5, 2), "stack": (2, 3, 4)}
    grads = list(inputs.gradients(shapes, 4, kinds=("bell", "six_decades")))
    found = replay(group, inputs.parameters(shapes), grads, DTAU, backend=backend.name, trace=True)
    for state, trace in zip(found.state, found.trace, strict=True):
        for name, shape in shapes.items():
            sizes = {"in": shape[-1], "out": shape[-2]}
            for channel, u in trace[name]["u"].items():
                assert u.shape == (*shape[:-2], sizes[channel], sizes[channel])
                for x in (u, trace[name]["g"][channel], state[name][f"m_{channel}"]):
                    np.testing.assert_array_equal(x, -np.swapaxes(x, -1, -2))


@given(st.integers(1, 5), st.integers(2, 5), st.floats(0.01, 2.0), st.booleans(), st.integers(0, 99))
def test_the_first_order_change(m: int, n: int, lr: float, alternate: bool, seed: int) -> None:
    """Its RMS is 0.2 η, whatever the direction; and it descends on the memory."""
    w, g = random((m, n), seed), random((m, n), seed + 1)
    u = {key: -x for key, x in pair(np, w, g).items()}
    sides = {"use_in": 1.0, "use_out": 0.0} if alternate else {}
    k = {"length": lr * 0.2 * np.sqrt(m * n), **sides}
    x = Multiplicative(alternate=alternate).rotation(np, w, u, k)
    first = w @ x["in"] + x["out"] @ w
    np.testing.assert_allclose(np.sqrt(np.mean(first**2)), 0.2 * lr, rtol=1e-12)
    assert np.sum(g * first) < 0
    assert not alternate or not x["out"].any()


# ---- what rotations keep


@given(st.integers(1, 5), st.integers(2, 5), st.floats(0.01, 5.0), st.integers(0, 99))
def test_cayley_keeps_singular_values(m: int, n: int, lr: float, seed: int) -> None:
    w, grads = random((m, n), seed), [random((m, n), seed + t) for t in range(1, 8)]
    found = run({**PION, "step": lr, "exponential": "cayley"}, w, grads).params[-1]["w"]
    assert np.abs(found - w).max() > 1e-4
    np.testing.assert_allclose(sigma(found), sigma(w), rtol=1e-12, atol=1e-13)


@given(st.integers(1, 5), st.integers(2, 5), st.floats(0.01, 5.0), st.integers(0, 99))
def test_the_growth_of_taylor(m: int, n: int, lr: float, seed: int) -> None:
    """E2(X) stretches by 1 ... √(1 + φ⁴/4), φ = ‖X‖_op, so no singular value falls and none grows by more."""
    w, g = random((m, n), seed), random((m, n), seed + 1)
    motion = Multiplicative()
    k = {"length": lr * 0.2 * np.sqrt(m * n)}
    x = motion.rotation(np, w, {key: -y for key, y in pair(np, w, g).items()}, k)
    bound = np.prod([np.sqrt(1 + np.linalg.norm(y, 2) ** 4 / 4) for y in x.values()])
    before, after = sigma(w), sigma(motion.rotated(np, w, x))
    assert (after >= before * (1 - 1e-12) - 1e-14).all()
    assert (after <= before * bound * (1 + 1e-12)).all()


@pytest.mark.parametrize("exponential", EXPONENTIALS)
@pytest.mark.parametrize("motion", ["multiplicative", "transported"])
def test_equivariance(exponential: str, motion: str) -> None:
    """P W Qᵀ moves as W does, for orthogonal P and Q; with v for signed permutations only."""
    w, grads = random((3, 5), 0), [random((3, 5), t) for t in range(1, 6)]
    p, q = orthogonal(3, 7), orthogonal(5, 8)
    signed_p = np.eye(3)[[2, 0, 1]] * [1, -1, 1]
    signed_q = np.eye(5)[[4, 2, 0, 1, 3]] * [-1, 1, 1, -1, 1]
    stated = {"exponential": exponential, "motion": motion}

    def apart(group: dict[str, Any], p: Matrix, q: Matrix) -> float:
        plain = run(group, w, grads).params[-1]["w"]
        turned = run(group, p @ w @ q.T, [p @ g @ q.T for g in grads]).params[-1]["w"]
        return float(np.abs(p @ plain @ q.T - turned).max())

    assert apart(PLAIN | stated, p, q) < 1e-12
    assert apart(PION | stated, signed_p, signed_q) < 1e-12
    assert apart(PION | stated, p, q) > 1e-3


def test_the_memory_is_carried_along() -> None:
    """Without a new gradient in it, the transported memory keeps its place relative to the weights."""
    w, g = random((3, 5), 0), random((3, 5), 1)
    group = PLAIN | {"motion": "transported", "exponential": "cayley", "memory_half_life": 1e12}
    found = run(group, w, [g])
    w1, m1 = found.params[0]["w"], found.state[0]["w"]["m"]
    m0 = g * found.scalars[0]["w"]["c_m"]
    for one, other in ((w1 @ w1.T, w @ w.T), (m1 @ m1.T, m0 @ m0.T)):
        np.testing.assert_allclose(np.linalg.eigvalsh(one), np.linalg.eigvalsh(other), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.sum(w1 * m1), np.sum(w * m0), rtol=1e-10)


# ---- alternation


def test_alternation_counts_from_one_and_remembers_both() -> None:
    """An update from the right keeps WWᵀ, one from the left WᵀW; the memories are of all updates."""
    w, grads = random((3, 5), 0), [random((3, 5), t) for t in range(1, 5)]
    found = run(PLAIN | {"alternate": True, "exponential": "cayley"}, w, grads)
    before = [w, *(p["w"] for p in found.params)]
    for t in range(4):
        one, other = before[t], before[t + 1]
        right, left = np.abs(other @ other.T - one @ one.T).max(), np.abs(other.T @ other - one.T @ one).max()
        assert (right < 1e-12) == (t % 2 == 0)
        assert (left < 1e-12) == (t % 2 == 1)
        for channel in ("in", "out"):
            expected = sum(0.1 * 0.9 ** (t - i) * pair(np, before[i], grads[i])[channel] for i in range(t + 1))
            np.testing.assert_allclose(found.state[t]["w"][f"m_{channel}"], expected, rtol=1e-9, atol=1e-12)


def test_a_late_parameter_alternates_by_its_own_count() -> None:
    shapes = {"early": (3, 4), "late": (3, 4)}
    params, grads = inputs.parameters(shapes), list(inputs.gradients(shapes, 4))
    mixed = [{"early": g["early"]} if t == 0 else g for t, g in enumerate(grads)]
    group = PLAIN | {"alternate": True}
    found = replay(group, params, mixed, DTAU)
    alone = replay(group, {"late": params["late"]}, [{"late": g["late"]} for g in grads[1:]], DTAU)
    assert found.params[-1]["late"].tobytes() == alone.params[-1]["late"].tobytes()
    assert found.scalars[1]["early"]["use_in"] == 0
    assert found.scalars[1]["late"]["use_in"] == 1


# ---- zeros, extremes, and what is refused


@pytest.mark.parametrize("exponential", EXPONENTIALS)
@pytest.mark.parametrize("motion", ["multiplicative", "transported"])
def test_nothing_moves_without_a_rotation(backend: Backend, exponential: str, motion: str) -> None:
    """Zero gradients, zero weights, 1 x 1 matrices, and gradients along W: the weights keep their bits."""
    spare(backend, exponential)
    params = inputs.parameters({"still": (3, 4), "one": (1, 1), "along": (2, 2)})
    params |= {"zero": np.zeros((4, 3), np.float32), "along": np.eye(2, dtype=np.float32)}
    grads = {name: np.ones_like(x) for name, x in params.items()}
    grads |= {"still": np.zeros((3, 4), np.float32), "along": 2 * np.eye(2, dtype=np.float32)}
    if compiles(backend):
        params, grads = {"along": params["along"]}, {"along": grads["along"]}
    group = PLAIN | {"exponential": exponential, "motion": motion}
    found = replay(group, params, [grads] * 3, DTAU, backend=backend.name)
    for name, x in params.items():
        assert found.params[-1][name].tobytes() == x.tobytes(), name


@pytest.mark.parametrize("exponential", EXPONENTIALS)
def test_the_scale_of_gradients_does_not_matter(backend: Backend, exponential: str) -> None:
    """2^±40 times the gradient: the same bits, without overflow or a shortened step."""
    spare(backend, exponential)
    params, group = inputs.parameters({"w": (3, 5)}), PLAIN | {"exponential": exponential}
    grads = list(inputs.gradients({"w": (3, 5)}, 4))
    ends = []
    for factor in (2.0**-40, 1.0, 2.0**40):
        scaled = [{"w": g["w"] * np.float32(factor)} for g in grads]
        ends.append(replay(group, params, scaled, DTAU, backend=backend.name).params[-1]["w"])
    assert ends[0].tobytes() == ends[1].tobytes() == ends[2].tobytes()
    assert np.isfinite(ends[0]).all()


def test_gradients_too_large_to_multiply_are_refused() -> None:
    params = inputs.parameters({"w": (3, 5)})
    with pytest.raises(NonFiniteError, match="too large"):
        replay(PLAIN, params, [{"w": np.full((3, 5), 1e20, np.float32)}], DTAU)


@pytest.mark.parametrize(
    ("group", "says"),
    [
        (PLAIN | {"shrink_half_life": 1e4}, "pion does not use 'shrink_half_life' .rotations keep the singular values"),
        (PLAIN | {"target_rms": 1.0}, "does not use 'target_rms' .rotations keep the RMS"),
        (PLAIN | {"eps": 1e-8}, "eps belongs to second_memory = true"),
        ({"optimizer": "sgdm", "motion": "multiplicative", "l2": 0.1}, "does not use 'l2' .the gradient λW"),
        ({"optimizer": "muon", "motion": "multiplicative"}, "does not take muon: its direction is not elementwise"),
        ({"optimizer": "rmsprop", "motion": "transported"}, "does not take rmsprop: it has no memory m"),
        ({"optimizer": "adamw", "exponential": "cayley"}, "adamw does not use 'exponential'"),
    ],
)
def test_refused(group: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Group.from_dict(group)


def test_vectors_are_refused() -> None:
    with pytest.raises(RecipeError, match="needs a matrix"):
        replay(PLAIN, {"w": np.ones(3, np.float32)}, [], DTAU)


# ---- backends


VARIANTS: dict[str, dict[str, Any]] = {
    "pion": PLAIN,
    "second": PION,
    "corrected": PION | {"bias_correction": True, "readout": 0.9},
    "alternate": PION | {"alternate": True},
    "cayley": PION | {"exponential": "cayley"},
    "transported": PION | {"motion": "transported"},
    "transported cayley": PLAIN | {"motion": "transported", "exponential": "cayley", "alternate": True},
    "in_out": PLAIN | {"orientation": "in_out"},
    "adamw": {"optimizer": "adamw", "motion": "multiplicative", "step": 0.3},
    "lion": {"optimizer": "lion", "motion": "multiplicative", "exponential": "cayley", "step": 0.3},
    "muon": {"optimizer": "muon", "motion": "transported", "step": 0.3},
}
SHAPES = {name: inputs.SHAPES[name] for name in ("empty_matrix", "one", "tall", "wide", "row", "column", "stack")}
UPDATES = 8


@lru_cache
def data(variant: str, few: bool = False) -> tuple[Any, ...]:
    shapes = {**SHAPES, "kernel": (4, 2, 3, 3)} if variant == "pion" else SHAPES
    shapes = {"wide": (3, 7), "stack": (2, 4, 3)} if variant == "muon" else shapes
    shapes = {"wide": (2, 3)} if few else shapes
    gradients = list(inputs.gradients(shapes, UPDATES, kinds=("bell", "six_decades", "zeros", "low_rank", "huge")))
    del gradients[2]["wide"]
    return VARIANTS[variant], inputs.parameters(shapes), gradients, inputs.increments(UPDATES)


@lru_cache
def reference(variant: str, few: bool = False, dtype: str = "float32") -> Replay:
    return replay(*data(variant, few), dtype=dtype)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_backends_give_the_bits_of_numpy(backend: Backend, variant: str) -> None:
    few = compiles(backend)
    found = replay(*data(variant, few), backend=backend.name)
    report = compare(reference(variant, few), found)
    assert report.differing == 0, str(report)
    assert all(np.isfinite(x).all() for x in found.params[-1].values())
    assert (found.params[-1]["wide"] != data(variant, few)[1]["wide"]).any()


@pytest.mark.parametrize("variant", ["alternate", "cayley", "transported cayley"])
def test_scalars_are_opaque_and_nothing_is_modified(backend: Backend, variant: str) -> None:
    """k as floats and as 0-d float32 arrays: the same bits. On numpy all inputs are read-only."""
    xp, shapes = backend.namespace("exact"), {"w": (2, 3)}
    plan = Plan(Recipe((Group.from_dict(VARIANTS[variant]),)), shapes)
    (planned,) = plan.groups
    theta, gradient = (
        backend.from_numpy(x["w"], "float32") for x in (inputs.parameters(shapes), next(inputs.gradients(shapes, 1)))
    )
    state = planned.row.init(xp, theta)
    for _ in range(2):
        proposal = plan.propose(3, ["w"])
        plan.commit(proposal)
        k = proposal.scalars["w"]
        zero_d = {key: backend.from_numpy(np.array(x, np.float32), "float32") for key, x in k.items()}
        given = [theta, gradient, *state.values(), *zero_d.values()]
        before = [backend.to_numpy(x).tobytes() for x in given]
        if backend.name == "numpy":
            for x in given:
                x.setflags(write=False)
        by_float, by_array = (step(xp, planned.row, theta, state, {"gradient": gradient}, one) for one in (k, zero_d))
        assert by_float[1].keys() == by_array[1].keys() == state.keys()
        for one, other in ((by_float[0], by_array[0]), *((by_float[1][key], by_array[1][key]) for key in state)):
            assert backend.to_numpy(one).tobytes() == backend.to_numpy(other).tobytes()
        assert [backend.to_numpy(x).tobytes() for x in given] == before
        theta, state = by_float


def test_half_precision(backend: Backend) -> None:
    """bfloat16 weights, float32 memories: the same bits wherever there is the type."""
    if "bfloat16" not in backend.dtypes:
        pytest.skip("no bfloat16")
    few = compiles(backend)
    found = replay(*data("second", few), backend=backend.name, dtype="bfloat16")
    report = compare(reference("second", few, dtype="bfloat16"), found)
    assert report.differing == 0, str(report)


def test_cayley_in_float32_keeps_singular_values(backend: Backend) -> None:
    """To rounding: some u per update, over as many updates."""
    spare(backend, "cayley")
    found = replay(*data("cayley"), backend=backend.name).params[-1]
    for name, w in data("cayley")[1].items():
        if w.ndim == 2 and w.size:
            np.testing.assert_allclose(sigma(found[name]), sigma(w), rtol=UPDATES * 2.0**-20)


# ---- training


TRAINED = {"square": (4, 4), "tall": (6, 3)}


def target(name: str) -> Matrix:
    """Where W0 is turned to: P W0 Qᵀ."""
    w = inputs.parameters(TRAINED)[name]
    m, n = w.shape
    return (orthogonal(m, 1) @ w @ orthogonal(n, 2).T).astype(np.float32)


@pytest.fixture(params=["torch", "mlx"])
def framework(request: pytest.FixtureRequest) -> str:
    if request.param not in namespace.installed():
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


class Training:
    """½‖W − target‖² in a framework, by its native optimizer."""

    def __init__(self, framework: str, group: dict[str, Any], tier: str) -> None:
        self.backend = namespace.load(framework)
        self.torch = framework == "torch"
        start = {n: self.backend.from_numpy(w, "float32") for n, w in inputs.parameters(TRAINED).items()}
        self.targets = {n: self.backend.from_numpy(target(n), "float32") for n in TRAINED}
        self.params: dict[str, Any] = {n: x.requires_grad_() for n, x in start.items()} if self.torch else start
        self.opt = optimizer(self.params, Recipe((Group.from_dict(group),)), tier=tier)

    def weights(self) -> dict[str, Matrix]:
        return {n: np.array(self.backend.to_numpy(p.detach() if self.torch else p)) for n, p in self.params.items()}

    def loss(self) -> float:
        return float(sum(0.5 * np.sum((w - target(n)) ** 2) for n, w in self.weights().items()))

    def update(self, count: int) -> None:
        if self.torch:
            for n, p in self.params.items():
                p.grad = p.detach() - self.targets[n]
            self.opt.step(count=count)
        else:
            self.opt.update(self.params, {n: p - self.targets[n] for n, p in self.params.items()}, count=count)


@pytest.mark.long
@pytest.mark.parametrize("tier", ["exact", "fast"])
@pytest.mark.parametrize("motion", ["multiplicative", "transported"])
def test_it_trains(framework: str, tier: str, motion: str) -> None:
    """The loss falls to a tenth, and the singular values are those of the start."""
    group = {"optimizer": "pion", "step": 0.2, "exponential": "cayley", "motion": motion}
    training = Training(framework, group, tier)
    first, before = training.loss(), {n: sigma(w) for n, w in training.weights().items()}
    for _ in range(100):
        training.update(1)
    assert training.loss() < 0.1 * first
    for n, w in training.weights().items():
        np.testing.assert_allclose(sigma(w), before[n], rtol=1e-4)


@pytest.mark.parametrize("group", ["alternate", "in_out", "transported", "cayley"])
def test_a_run_continues_in_another_framework(tmp_path: Any, group: str) -> None:
    """Seven updates in one, saved, seven in the other: the bits of fourteen in one."""
    if not {"torch", "mlx"} <= set(namespace.installed()):
        pytest.skip("needs both frameworks")
    counts = inputs.increments(14)
    whole = Training("torch", VARIANTS[group], "exact")
    for count in counts:
        whole.update(count)
    for first, second in (("torch", "mlx"), ("mlx", "torch")):
        one, other = Training(first, VARIANTS[group], "exact"), Training(second, VARIANTS[group], "exact")
        for count in counts[:7]:
            one.update(count)
        path = tmp_path / f"{first}.safetensors"
        saved = one.opt.snapshot()
        if group == "in_out":  # as the row sees them: n is the first stored dimension
            assert saved.state["tall"]["m_in"].shape == (6, 6)
            assert saved.state["tall"]["m_out"].shape == (3, 3)
        checkpoint.save(path, saved, metadata={})
        other.opt.restore(checkpoint.load(path)[0])
        for count in counts[7:]:
            other.update(count)
        for n, w in whole.weights().items():
            assert w.tobytes() == other.weights()[n].tobytes(), (first, n)
