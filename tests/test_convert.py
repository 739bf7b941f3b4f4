"""Raw knobs and actions: the same trajectories, exact inverses, known values, and what has no image."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualopt
from dualopt.catalog import complete
from dualopt.convert import SIGNATURES, Coupled, libraries, to_action, to_coupled, transfer
from dualopt.counts import retention
from dualopt.errors import CountError, RecipeError
from dualopt.recipe import Group

Array = np.ndarray[Any, Any]
SHAPE = (6, 4)
STEPS = 12


def gradients() -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(SHAPE) for _ in range(STEPS)]


def start() -> Array:
    return np.random.default_rng(2).standard_normal(SHAPE)


def ours(coupled: Coupled, per_update: int = 32, dtype: str = "float64") -> Array:
    group = to_action(coupled, per_update)
    found = dualopt.replay(group, {"w": start()}, [{"w": g} for g in gradients()], per_update, dtype=dtype)
    return found.params[-1]["w"]


# ---- the same trajectories as the libraries


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("AdamW", {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.1}),
        ("AdamW", {"lr": 0.01, "betas": (0.0, 0.95), "weight_decay": 0.0}),
        ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1, "eps": 1e-3}),
        ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.05}),
    ],
)
def test_actions_follow_torch(name: str, knobs: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(start()))
    optimizer = getattr(torch.optim, name)([w], **knobs)
    for g in gradients():
        w.grad = torch.from_numpy(g)
        optimizer.step()
    np.testing.assert_allclose(ours(Coupled(name.lower(), **knobs)), w.detach().numpy(), rtol=1e-10)


@pytest.mark.parametrize("rule", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_follows_torch_to_its_bfloat16(rule: str, nesterov: bool) -> None:
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(start()))
    optimizer = torch.optim.Muon([w], lr=0.02, weight_decay=0.5, nesterov=nesterov, adjust_lr_fn=rule)
    for g in gradients():
        w.grad = torch.from_numpy(g)
        optimizer.step()
    moved = ours(Coupled("muon", 0.02, weight_decay=0.5, nesterov=nesterov, scale_rule=rule), dtype="float32")
    assert np.linalg.norm(moved - w.detach().numpy()) < 0.02 * np.linalg.norm(moved - start())


@pytest.mark.parametrize(
    ("name", "knobs"),
    [
        ("AdamW", {"betas": (0.9, 0.99), "weight_decay": 0.1}),
        ("AdamW", {"betas": (0.9, 0.99), "weight_decay": 0.1, "bias_correction": True}),
        ("Adam", {"betas": (0.9, 0.99)}),
        ("SGD", {"momentum": 0.9, "dampening": 0.9, "weight_decay": 0.1}),
        ("SGD", {"momentum": 0.8, "dampening": 0.5}),
        ("SGD", {"momentum": 0.8, "nesterov": True}),
        ("Lion", {"betas": (0.9, 0.99), "weight_decay": 0.1}),
        ("Muon", {"momentum": 0.9, "weight_decay": 0.0}),
    ],
)
def test_actions_follow_mlx(name: str, knobs: dict[str, Any]) -> None:
    mx = pytest.importorskip("mlx.core")
    import mlx.optimizers as optim

    optimizer = getattr(optim, name)(learning_rate=0.01, **knobs)
    w = {"w": mx.array(start().astype(np.float32))}
    for g in gradients():
        w = optimizer.apply_gradients({"w": mx.array(g.astype(np.float32))}, w)
    moved = ours(Coupled(name.lower(), 0.01, library="mlx", **knobs), dtype="float32")
    # 4 ulp of the running magnitude per step; of an update, besides, 130 where MLX computes 1 - beta^t in
    # float32, and what the steepest slope of Newton-Schulz, 3.4445^5, makes of the rounding of its products.
    lost = 130 * 2 if knobs.get("bias_correction") else 3.4445**5 * math.sqrt(max(SHAPE)) if name == "Muon" else 0
    running = np.abs(start()) + 0.01 * STEPS * (1 if name in ("Lion", "Muon") else 4)
    assert (np.abs(moved - np.array(w["w"])) <= STEPS * (4 * running + 0.01 * lost) * 2.0**-23).all()


def test_lion_follows_its_definition() -> None:
    lr, decay, (first, second) = 0.01, 0.3, (0.9, 0.98)
    w, m = start(), np.zeros(SHAPE)
    for g in gradients():
        w = w * (1 - lr * decay) - lr * np.sign(first * m + (1 - first) * g)
        m = second * m + (1 - second) * g
    moved = ours(Coupled("lion", lr, library="lion-pytorch", betas=(first, second), weight_decay=decay))
    np.testing.assert_allclose(moved, w, rtol=1e-12)


@pytest.mark.parametrize(("momentum", "unconstrained"), [(0.1, False), (0.1, True), (1.0, False)])
def test_scion_follows_its_definition(momentum: float, unconstrained: bool) -> None:
    lr, scale = 0.05, 3.0
    w, m = start(), np.zeros(SHAPE)
    for g in gradients():
        m = (1 - momentum) * m + momentum * g
        w = (w if unconstrained else (1 - lr) * w) - lr * scale * np.sign(m) / SHAPE[1]
    knobs = {"momentum": momentum, "unconstrained": unconstrained}
    np.testing.assert_allclose(ours(Coupled("scion", lr, scale=scale, norm="sign", **knobs)), w, rtol=1e-12)


# ---- inverses

BETA = st.floats(0.01, 0.99999)
KNOBS: dict[str, st.SearchStrategy[Any]] = {
    "weight_decay": st.floats(0, 3),
    "betas": st.tuples(BETA, BETA),
    "momentum": st.one_of(st.just(0.0), BETA),
    "eps": st.floats(1e-12, 1e-3),
    "nesterov": st.booleans(),
    "bias_correction": st.booleans(),
    "scale_rule": st.sampled_from(["original", "match_rms_adamw"]),
    "norm": st.sampled_from(["spectral", "sign", "column", "bias_rms"]),
    "scale": st.floats(0.1, 5000),
    "unconstrained": st.booleans(),
    "dampening": st.just(0.0),
}


@st.composite
def coupled(draw: st.DrawFn) -> Coupled:
    """Knobs with an image, in every convention."""
    library, optimizer = draw(st.sampled_from(sorted(SIGNATURES)))
    knobs = {knob: draw(KNOBS[knob]) for knob in SIGNATURES[library, optimizer]}
    if optimizer == "lion":
        knobs["betas"] = tuple(sorted(knobs["betas"]))
    if optimizer == "scion":
        knobs["momentum"] = draw(st.one_of(st.just(1.0), st.floats(0.001, 0.99)))
        knobs["scale"] = 1.0 if knobs["unconstrained"] else knobs["scale"]
    if (library, optimizer) == ("mlx", "muon"):
        knobs["weight_decay"] = 0.0
    if not knobs.get("momentum"):
        knobs.pop("nesterov", None)
        knobs |= {"nesterov": False} if "nesterov" in SIGNATURES[library, optimizer] else {}
    return Coupled(optimizer, draw(st.floats(1e-6, 0.3)), library, **knobs)


def close(one: Coupled, other: Coupled, rel: float) -> None:
    left, right = one.to_dict(), other.to_dict()
    assert left.keys() == right.keys()
    for key, value in left.items():
        exact = not isinstance(value, float | tuple)
        assert right[key] == (value if exact else pytest.approx(value, rel=rel)), key


@given(coupled(), st.integers(1, 2**24))
def test_to_coupled_inverts_to_action(knobs: Coupled, per_update: int) -> None:
    group = to_action(knobs, per_update)
    back = to_coupled(group, per_update, knobs.library)
    close(knobs, back, rel=1e-9)
    again = to_action(back, per_update)
    assert again.optimizer == group.optimizer
    assert again.options.keys() == group.options.keys()
    for key, value in group.options.items():
        assert again.options[key] == (pytest.approx(value, rel=1e-9) if isinstance(value, float) else value)


@given(st.floats(1e-12, 0.9))
def test_small_decays_survive(lost: float) -> None:
    """lr·weight_decay = 1e-12 is not lost in 1 − lr·weight_decay."""
    knobs = Coupled("adamw", 1.0, weight_decay=lost)
    assert to_coupled(to_action(knobs, 7), 7).weight_decay == pytest.approx(lost, rel=1e-15)


# ---- known values


def test_adamw_in_half_lives() -> None:
    group = to_action(Coupled("adamw", 1e-3, betas=(0.9, 0.999), weight_decay=0.1), 1000)
    assert group.options["memory_half_life"] == pytest.approx(1000 * 6.578813478960585)
    assert group.options["second_memory_half_life"] == pytest.approx(1000 * 692.8005491785742)
    assert group.options["shrink_half_life"] == pytest.approx(1000 * math.log(0.5) / math.log1p(-1e-4))
    assert group.options["step"] == 1e-3
    assert (group.options["readout"], group.options["bias_correction"]) == (1.0, True)


def test_the_other_maps() -> None:
    sgd = to_action(Coupled("sgd", 0.1, momentum=0.9, weight_decay=0.01), 1).options
    assert (sgd["step"], sgd["readout"], sgd["l2"]) == (pytest.approx(1.0), 1.0, 0.01)
    assert to_action(Coupled("sgd", 0.1, momentum=0.9, nesterov=True), 1).options["readout"] == 0.9
    assert to_action(Coupled("sgd", 0.1), 1).options["readout"] == 0.0
    lion = to_action(Coupled("lion", 1e-4, betas=(0.9, 0.99)), 1).options
    assert lion["readout"] == 0.9 / 0.99
    assert lion["memory_half_life"] == pytest.approx(68.96756393652842)
    muon = to_action(Coupled("muon", 0.02), 1).options
    assert (muon["scale"], muon["polar"], muon["readout"]) == ("keller_jordan", "quintic", 0.95)
    assert to_action(Coupled("muon", 0.02, scale_rule="match_rms_adamw"), 1).options["scale"] == "moonlight"
    scion = to_action(Coupled("scion", 2**-12, momentum=0.1, scale=50.0), 1).options
    assert scion["step"] == 50 * 2**-12
    assert retention(1, float(scion["memory_half_life"])) == pytest.approx(0.9)
    assert retention(1, float(scion["shrink_half_life"])) == pytest.approx(1 - 2**-12, rel=1e-15)


def test_defaults_are_those_of_the_library() -> None:
    assert Coupled("adamw", 1e-3).weight_decay == 0.01
    assert (Coupled("adamw", 1e-3).library, Coupled("lion", 1e-3).library) == ("torch", "mlx")
    assert Coupled("adamw", 1e-3, library="mlx").bias_correction is False
    torch = pytest.importorskip("torch")
    parameter = [torch.nn.Parameter(torch.zeros(2, 2))]
    for optimizer in ("AdamW", "Adam", "SGD", "Muon"):
        theirs = getattr(torch.optim, optimizer)(parameter, lr=1e-3).defaults
        for knob, value in SIGNATURES["torch", optimizer.lower()].items():
            assert theirs.get(knob, value) == value


# ---- what has no image


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: to_action(Coupled("lion", 1e-4, betas=(0.99, 0.9)), 1), "negative weight"),
        (lambda: to_action(Coupled("sgd", 0.1, momentum=0.9, dampening=0.9), 1), "undamped first"),
        (lambda: to_action(Coupled("sgd", 0.1, nesterov=True), 1), "needs a momentum"),
        (lambda: to_action(Coupled("muon", 0.02, library="mlx"), 1), "adds it to the gradient"),
        (lambda: to_action(Coupled("adamw", 2.0, weight_decay=0.5), 1), "half-life loses less than 1"),
        (lambda: to_action(Coupled("adamw", 1e-3, betas=(0.9, 0.0)), 1), "half-life is > 0"),
        (lambda: Coupled("adam", 1e-3, library="mlx", weight_decay=0.1), "has no weight_decay"),
        (lambda: Coupled("adamw", 1e-3, momentum=0.9), "has no momentum"),
        (lambda: Coupled("adamw", 1e-3, betas=(0.9, 1.0)), "two numbers in"),
        (lambda: Coupled("adamw", -1.0), "lr must be"),
        (lambda: Coupled("adamv", 1e-3), "did you mean 'adam"),
        (lambda: Coupled("lion", 1e-3, library="torch"), "known from mlx, lion-pytorch"),
        (lambda: to_coupled(Group("sign_sgdm"), 1), "no image"),
        (lambda: to_coupled(Group("lion"), 1, "torch"), "not from 'torch'"),
        (lambda: to_coupled(Group("adamw", {"readout": 0.5}), 1), "readout must be 1 or 0"),
        (lambda: to_coupled(Group("muon", {"readout": 0.5}), 1), "Nesterov reads"),
        (lambda: to_coupled(Group("muon", {"scale": "mup"}), 1), "scale is one of"),
        (lambda: to_coupled(Group("muon", {"polar": "polar_express"}), 1), "quintic"),
        (lambda: to_coupled(Group("scionc", {"step": 1.0}), 1), "quintic"),
        (lambda: to_coupled(Group("sgdm", {"shrink_half_life": 5.0}), 1), "penalty in the gradient"),
        (lambda: to_coupled(Group("adamw", {"shrink": "cautious"}), 1), "shrink = 'cautious'"),
        (lambda: to_coupled(Group("adamw", {"target_rms": 0.1}), 1), "target_rms"),
        (lambda: to_coupled(Group("adamw", {"bias_correction": False}), 1, "torch"), "no bias_correction"),
        (lambda: to_coupled(Group("muon", {"shrink_half_life": 9.0, "readout": 1.0}), 1, "mlx"), "enters the gradient"),
    ],
)
def test_what_has_no_image_says_why(make: Callable[[], object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make()


def test_counts_are_checked() -> None:
    with pytest.raises(CountError):
        to_action(Coupled("adamw", 1e-3), 0)


def test_an_image_is_searched_among_the_libraries() -> None:
    assert libraries("adamw") == ("torch", "mlx")
    assert to_coupled(Group("adamw", {"bias_correction": False}), 1).library == "mlx"
    assert to_coupled(Group("scionc", {"polar": "quintic", "shrink_half_life": 100.0}), 1).optimizer == "scion"


# ---- another batch size


def test_second_memories_after_marek() -> None:
    """arXiv 2507.07101: β₂ = 0.95 at batch 512 is 0.95^(1/512) = 0.99990 at batch 1, β₁ stays."""
    group = to_action(Coupled("adamw", 3e-4, betas=(0.9, 0.95)), 512)
    moved, notes = transfer(group, 512, 1, "second")
    knobs = to_coupled(moved, 1)
    assert knobs.betas == (pytest.approx(0.9), pytest.approx(0.95 ** (1 / 512)))
    assert round(knobs.betas[1], 5) == 0.99990
    assert any("keeps its retention" in note for note in notes)


@given(st.floats(0.5, 0.999), st.sampled_from([1, 8, 64, 4096]))
def test_all_half_lives_stay_in_counts(beta: float, new: int) -> None:
    old, r = 64, new / 64
    group = to_action(Coupled("lion", 1e-4, betas=(0.5 * beta, beta), weight_decay=0.1), old)
    moved, notes = transfer(group, old, new)
    assert moved == group
    knobs = to_coupled(moved, new)
    assert knobs.betas == (pytest.approx(0.5 * beta**r), pytest.approx(beta**r))  # β₁* = μ β₂^r
    assert 1 - knobs.lr * (knobs.weight_decay or 0) == pytest.approx((1 - 1e-5) ** r)
    assert any(note.startswith("readout") for note in notes)


def test_transfer_states_default_half_lives() -> None:
    """Unstated half-lives are in updates, so they would move with the batch size."""
    moved, _ = transfer(Group("adamw"), 100, 10)
    assert complete("adamw", moved.options, per_update=10) == complete("adamw", {}, per_update=100)
    assert "shrink_half_life" not in moved.options


@pytest.mark.parametrize(
    ("group", "memories", "says"),
    [(Group("lion"), "second", "lion has none"), (Group("adamw"), "first", "'all' or 'second'")],
)
def test_transfer_refuses(group: Group, memories: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        transfer(group, 2, 1, memories)
