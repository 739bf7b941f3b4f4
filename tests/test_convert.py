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
from dualopt.convert import REFUSED, SOURCES, Knobs, inexact, source, to_action, to_knobs
from dualopt.counts import Count, retention
from dualopt.errors import CountError, RecipeError
from dualopt.namespace import Backend
from dualopt.recipe import Group

Array = np.ndarray[Any, Any]
SHAPE = (6, 4)
STEPS = 12


def gradients() -> list[Array]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(SHAPE) for _ in range(STEPS)]


def start() -> Array:
    return np.random.default_rng(2).standard_normal(SHAPE)


def knobs_of(name: str, **stated: Any) -> Knobs:
    """The knobs of a source; `lr` is whatever it calls its learning rate."""
    found = source(name)
    if "lr" in stated and "learning_rate" in found.knobs:
        stated["learning_rate"] = stated.pop("lr")
    return Knobs(found, **stated)


def ours(knobs: Knobs, per_update: int = 32, dtype: str = "float64") -> Array:
    group = to_action(knobs, per_update)
    found = dualopt.replay(group, {"w": start()}, [{"w": g} for g in gradients()], per_update, dtype=dtype)
    return found.params[-1]["w"]


def same(found: Array, wanted: Array, smallest: float = 1.0) -> None:
    """The same in float64: 8 roundings of the largest entry for each update, and a scalar 1 - β or 1 - β^t that is
    formed by subtraction is 1/(1 - β) roundings off."""
    allowed = STEPS * (8 + 1 / smallest) * 2.0**-53 * np.abs(wanted).max()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=allowed)


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
        ("Adam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("NAdam", {"lr": 0.01, "betas": (0.0, 0.99), "weight_decay": 0.1, "decoupled_weight_decay": True}),
        ("RMSprop", {"lr": 0.01, "alpha": 0.9, "eps": 1e-3}),
    ],
)
def test_actions_follow_torch(name: str, knobs: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(start()))
    optimizer = getattr(torch.optim, name)([w], **knobs)
    for g in gradients():
        w.grad = torch.from_numpy(g)
        optimizer.step()
    lost = 1 - max(*knobs.get("betas", (0.0, 0.0)), knobs.get("alpha", 0.0), knobs.get("momentum", 0.0))
    same(ours(knobs_of(f"torch-{name.lower()}", **knobs)), w.detach().numpy(), lost)


@pytest.mark.parametrize("rule", ["original", "match_rms_adamw"])
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_follows_torch_to_its_bfloat16(rule: str, nesterov: bool) -> None:
    torch = pytest.importorskip("torch")
    w = torch.nn.Parameter(torch.from_numpy(start()))
    optimizer = torch.optim.Muon([w], lr=0.02, weight_decay=0.5, nesterov=nesterov, adjust_lr_fn=rule)
    for g in gradients():
        w.grad = torch.from_numpy(g)
        optimizer.step()
    moved = ours(
        knobs_of("torch-muon", lr=0.02, weight_decay=0.5, nesterov=nesterov, adjust_lr_fn=rule), dtype="float32"
    )
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
        ("Muon", {"momentum": 0.9, "weight_decay": 0.3}),
        ("RMSprop", {"alpha": 0.9, "eps": 1e-3}),
    ],
)
def test_actions_follow_mlx(name: str, knobs: dict[str, Any]) -> None:
    mx = pytest.importorskip("mlx.core")
    import mlx.optimizers as optim

    optimizer = getattr(optim, name)(learning_rate=0.01, **knobs)
    w = {"w": mx.array(start().astype(np.float32))}
    for g in gradients():
        w = optimizer.apply_gradients({"w": mx.array(g.astype(np.float32))}, w)
    moved = ours(knobs_of(f"mlx-{name.lower()}", lr=0.01, **knobs), dtype="float32")
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
    moved = ours(knobs_of("lion-pytorch", lr=lr, betas=(first, second), weight_decay=decay))
    same(moved, w)


@pytest.mark.parametrize(("momentum", "unconstrained"), [(0.1, False), (0.1, True), (1.0, False)])
def test_scion_follows_its_definition(momentum: float, unconstrained: bool) -> None:
    lr, scale = 0.05, 3.0
    w, m = start(), np.zeros(SHAPE)
    for g in gradients():
        m = (1 - momentum) * m + momentum * g
        w = (w if unconstrained else (1 - lr) * w) - lr * scale * np.sign(m) / SHAPE[1]
    knobs = {"momentum": momentum, "unconstrained": unconstrained}
    same(ours(knobs_of("scion", lr=lr, scale=scale, norm="Sign", **knobs)), w)


def polar5(z: Array, steps: int = 5) -> Array:
    """Keller Jordan's iteration in float64."""
    x = z.T if z.shape[0] > z.shape[1] else z
    x = x / (np.linalg.norm(x) + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if z.shape[0] > z.shape[1] else x


@pytest.mark.parametrize("ball", [True, False])
def test_keller_jordans_muon_follows_its_definition(ball: bool) -> None:
    """A heavy ball or a mean: the polar factor does not see the factor 1 - β, and η = lr in both."""
    lr, decay, beta = 0.02, 0.5, 0.9
    w, m = start(), np.zeros(SHAPE)
    for g in gradients():
        m = beta * m + g if ball else beta * m + (1 - beta) * g
        z = g + beta * m if ball else (1 - beta) * g + beta * m
        w = w * (1 - lr * decay) - lr * math.sqrt(max(1, SHAPE[0] / SHAPE[1])) * polar5(z)
    name = "heavy-ball-muon" if ball else "keller-jordan-muon"
    group = to_action(knobs_of(name, lr=lr, weight_decay=decay, momentum=beta), 32)
    moved = dualopt.replay(group, {"w": start()}, [{"w": g} for g in gradients()], 32, dtype="float64").params[-1]["w"]
    np.testing.assert_allclose(moved, w, atol=3.4445**5 * STEPS * lr * 1e-7)  # its 1e-7 beside a norm of about 1


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("corrected", [True, False])
def test_scionc_follows_its_definition_at_the_peak(exact: bool, corrected: bool) -> None:
    lr, lost = 0.05, 0.01
    w, m = start(), np.zeros(SHAPE)
    for g in gradients():
        m = 0.9 * m + 0.1 * g
        w = (1 - lost) * w - lr * np.sign(m) / SHAPE[1]
    knobs = knobs_of("scionc", lr=lr, weight_decay=lost, norm="Sign", exact=exact, corrected=corrected)
    same(ours(knobs), w)
    assert bool(inexact(knobs)) is (corrected and not exact)


@pytest.mark.parametrize(
    ("make", "knobs"),
    [
        ("adamw", {"b1": 0.8, "b2": 0.99, "weight_decay": 0.1}),
        ("adam", {"b1": 0.8, "b2": 0.99}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("sgd", {"momentum": 0.9}),
        ("sgd", {}),
        ("rmsprop", {"decay": 0.9, "eps_in_sqrt": False, "bias_correction": True}),
        ("lion", {"b1": 0.9, "b2": 0.98, "weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize("at", [None, "start", "before learning rate"])
def test_actions_follow_optax(make: str, knobs: dict[str, Any], at: str | None) -> None:
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    stated = knobs
    if at is not None:
        if "add_decayed_weights" not in SOURCES[f"optax-{make}"].knobs:
            pytest.skip("it has a weight_decay of its own, or none")
        stated = {**knobs, "add_decayed_weights": 0.1, "add_decayed_weights_at": at}
    with jax.enable_x64(True):
        if at == "before learning rate":  # the optimizer is the chain of a memory and a learning rate
            inner = getattr(optax, make)(learning_rate=1.0, **knobs)
            chain = optax.chain(inner, optax.scale(-1.0), optax.add_decayed_weights(0.1), optax.scale(-0.01))
        else:
            before = [] if at is None else [optax.add_decayed_weights(0.1)]
            chain = optax.chain(*before, getattr(optax, make)(learning_rate=0.01, **knobs))
        w = jax.numpy.asarray(start())
        state = chain.init(w)
        for g in gradients():
            moved, state = chain.update(jax.numpy.asarray(g), state, w)
            w = optax.apply_updates(w, moved)
        theirs = np.asarray(w)
    lost = 1 - max((stated[key] for key in ("b1", "b2", "decay", "momentum") if key in stated), default=0.0)
    same(ours(knobs_of(f"optax-{make}", lr=0.01, **stated)), theirs, lost)


@pytest.mark.long
@pytest.mark.parametrize("nesterov", [True, False])
def test_muon_of_optax_is_the_same_but_for_its_first_weights(nesterov: bool) -> None:
    optax = pytest.importorskip("optax")
    jax = pytest.importorskip("jax")
    knobs = knobs_of("optax-muon", lr=0.02, beta=0.5, weight_decay=0.5, nesterov=nesterov)
    assert bool(inexact(knobs)) is nesterov
    with jax.enable_x64(True):
        chain = optax.contrib.muon(0.02, beta=0.5, weight_decay=0.5, nesterov=nesterov)
        w = jax.numpy.asarray(start().T)  # inputs first
        state = chain.init(w)
        for g in gradients():
            moved, state = chain.update(jax.numpy.asarray(g.T), state, w)
            w = optax.apply_updates(w, moved)
        theirs = np.asarray(w).T
    group = to_action(knobs, 32)
    moved = dualopt.replay(group, {"w": start()}, [{"w": g} for g in gradients()], 32, dtype="float64").params[-1]["w"]
    apart = float(np.linalg.norm(moved - theirs) / np.linalg.norm(moved - start()))
    assert (apart > 1e-3) if nesterov else (apart < 3.4445**5 * 1e-8)  # its 1e-8 beside a norm of about 1


# ---- inverses

BETA = st.floats(0.01, 0.99999)
VALUES: dict[str, st.SearchStrategy[Any]] = {  # by kind
    "rate": st.floats(1e-6, 0.3),
    "retention": BETA,
    "pair": st.tuples(BETA, BETA),
    "fraction": st.floats(1e-6, 0.3),
    "weight": st.one_of(st.just(1.0), st.floats(0.001, 0.99)),
    "positive": st.floats(1e-12, 1e-3),
    "steps": st.integers(1, 8),
    "switch": st.booleans(),
}


@st.composite
def stated(draw: st.DrawFn) -> Knobs:
    """Knobs with an image, of every source."""
    found = SOURCES[draw(st.sampled_from(sorted(SOURCES)))]
    values = {}
    for name, knob in found.knobs.items():
        if not knob.means or knob.only:
            values[name] = knob.only[0] if knob.only else knob.default
        elif knob.choices:
            values[name] = draw(st.sampled_from(list(knob.choices)))
        elif knob.kind in VALUES:
            values[name] = draw(VALUES[knob.kind])
    fields = {mean for knob in found.knobs.values() for mean in knob.means}
    if found.family is SOURCES["mlx-lion"].family and "betas" in values:
        values["betas"] = tuple(sorted(values["betas"]))
    if found.name == "optax-lion":
        values["b1"], values["b2"] = sorted((values["b1"], values["b2"]))
    if "newest" in fields:
        values["norm"] = draw(st.sampled_from(["Spectral", "Sign", "ColNorm", "BiasRMS"]))
        choices = {"ColNorm": [None, {"transpose": True}], "Spectral": [None, {"max": True}, {"steps": 3}]}
        values["norm_kwargs"] = draw(st.sampled_from(choices.get(values["norm"], [None])))
    if "dampening" in fields:
        values["dampening"] = 0.0
    if found.name == "torch-nadam":
        values["betas"] = (0.0, values["betas"][1])
    return Knobs(found, **values)


def free(knobs: Knobs) -> set[str]:
    """The knobs that say nothing beside the others, or that an action says in one way only."""
    fields = knobs.fields
    silent: set[str] = {"decoupled"} if fields.get("decay") == 0 else set()
    if fields.get("free"):
        silent |= {"lr", "scale"}
    silent |= {"exact"} | ({"norm_keys"} if fields.get("norm_keys") == {"transpose": False} else set())
    return {name for name, knob in knobs.source.knobs.items() if set(knob.means) & silent}


def close(one: Knobs, other: Knobs, rel: float) -> None:
    skipped = free(one)
    for key, value in one.values.items():
        if key in skipped or one.source.knobs[key].choices.get(value) == one.source.knobs[key].choices.get(
            other.values[key], object()
        ):
            continue
        exact = not isinstance(value, float | tuple) or isinstance(value, bool)
        assert other.values[key] == (value if exact else pytest.approx(value, rel=rel, abs=0)), key


# A retention β is a float64, so 1 - β has a relative error of 2^-53/(1 - β), and h with it: 1e-11 for β up to 0.99999,
# and a readout that is β is compared to nine digits.
LOST = 2.0**-50 / (1 - 0.99999)


@given(stated(), st.integers(1, 2**24))
def test_to_knobs_inverts_to_action(knobs: Knobs, per_update: int) -> None:
    group = to_action(knobs, per_update)
    back = to_knobs(group, per_update, knobs.source.name)
    close(knobs, back, rel=LOST)
    again = to_action(back, per_update)
    assert (again.optimizer, again.orientation) == (group.optimizer, group.orientation)
    assert again.options.keys() == group.options.keys()
    for key, value in group.options.items():
        assert again.options[key] == (pytest.approx(value, rel=LOST) if isinstance(value, float) else value)


@st.composite
def actions(draw: st.DrawFn) -> Group:
    """Groups that have an image in a library, with half-lives from a tenth of an update to 10^6."""
    life = st.floats(0.1, 1e6)
    row = draw(st.sampled_from(["adamw", "adam_l2", "sgdm", "lion", "rmsprop"]))
    options: dict[str, Any] = {"step": draw(st.floats(1e-6, 0.3))}
    if row != "rmsprop":
        options["memory_half_life"] = draw(life)
    if row in ("adamw", "adam_l2", "rmsprop"):
        options |= {"second_memory_half_life": draw(life), "eps": draw(VALUES["positive"])}
    if row == "lion":
        options["readout"] = draw(st.floats(0.01, 1))
    if row in ("adamw", "lion"):
        options["shrink_half_life"] = draw(st.floats(10, 1e6))
    elif row != "rmsprop":
        options["l2"] = draw(st.floats(1e-6, 1))
    return Group(row, options)


@given(actions(), st.sampled_from(["torch", "mlx", "optax", "lion-pytorch"]))
def test_to_action_inverts_to_knobs(group: Group, library: str) -> None:
    """Half-lives come back up to what a float64 keeps of 1 - β, or of β for the short ones."""
    try:
        knobs = to_knobs(group, 1, library)
    except RecipeError as error:
        assert "has no image in" in str(error) or "only, not" in str(error)  # noqa: PT017
        return
    again = to_action(knobs, 1)
    full, back = complete(group.optimizer, group.options), complete(again.optimizer, again.options)
    for key, value in full.items():
        if isinstance(value, float) and value != math.inf and key.endswith("half_life"):
            x = math.log(2) / value
            lost = 2.0**-50 * max(math.exp(-x) / x, 1.0) * (1 + (key == "shrink_half_life") * 1e6)
            assert back[key] == pytest.approx(value, rel=lost if key != "shrink_half_life" else 2.0**-48)
        elif isinstance(value, float) and value != math.inf:
            assert back[key] == pytest.approx(value, rel=LOST)
        else:
            assert back[key] == value


@given(st.floats(1e-12, 0.9))
def test_small_decays_survive(lost: float) -> None:
    """lr·weight_decay = 1e-12 is not lost in 1 − lr·weight_decay."""
    knobs = knobs_of("torch-adamw", lr=1.0, weight_decay=lost)
    assert to_knobs(to_action(knobs, 7), 7, "torch").values["weight_decay"] == pytest.approx(lost, rel=1e-15)


# ---- known values


def test_adamw_in_half_lives() -> None:
    group = to_action(knobs_of("torch-adamw", lr=1e-3, betas=(0.9, 0.999), weight_decay=0.1), 1000)
    assert group.options["memory_half_life"] == pytest.approx(1000 * 6.578813478960585)
    assert group.options["second_memory_half_life"] == pytest.approx(1000 * 692.8005491785742)
    assert group.options["shrink_half_life"] == pytest.approx(1000 * math.log(0.5) / math.log1p(-1e-4))
    assert group.options["step"] == 1e-3
    assert (group.options["readout"], group.options["bias_correction"]) == (1.0, True)


def test_the_other_maps() -> None:
    sgd = to_action(knobs_of("torch-sgd", lr=0.1, momentum=0.9, weight_decay=0.01), 1).options
    assert (sgd["step"], sgd["readout"], sgd["l2"]) == (pytest.approx(1.0), 1.0, 0.01)
    nesterov = knobs_of("torch-sgd", lr=0.1, momentum=0.9, nesterov=True)
    assert to_action(nesterov, 1).options["readout"] == 0.9
    assert to_action(knobs_of("torch-sgd", lr=0.1), 1).options["readout"] == 0.0
    lion = to_action(knobs_of("mlx-lion", lr=1e-4, betas=(0.9, 0.99)), 1).options
    assert lion["readout"] == 0.9 / 0.99
    assert lion["memory_half_life"] == pytest.approx(68.96756393652842)
    muon = to_action(knobs_of("torch-muon", lr=0.02), 1).options
    assert (muon["scale"], muon["polar"], muon["readout"]) == ("keller_jordan", "quintic", 0.95)
    matched = knobs_of("torch-muon", lr=0.02, adjust_lr_fn="match_rms_adamw", ns_steps=7)
    assert (to_action(matched, 1).options["scale"], to_action(matched, 1).options["iterations"]) == ("moonlight", 7.0)
    coupled = to_action(knobs_of("mlx-muon", lr=0.02), 1).options
    assert (coupled["l2"], "shrink_half_life" in coupled) == (0.01, False)
    scion = to_action(knobs_of("scion", lr=2**-12, momentum=0.1, scale=50.0, norm="Spectral"), 1).options
    assert scion["step"] == 50 * 2**-12
    assert retention(1, float(scion["memory_half_life"])) == pytest.approx(0.9)
    assert retention(1, float(scion["shrink_half_life"])) == pytest.approx(1 - 2**-12, rel=1e-15)
    column = to_action(knobs_of("scion", norm="ColNorm", norm_kwargs={"transpose": True}), 1)
    assert (column.options["norm"], column.orientation) == ("column", "in_out")


def test_a_penalty_enters_muons_memory(backend: Backend) -> None:
    """The row of MLX's coupled decay, in the bits of numpy on every backend."""
    group = to_action(knobs_of("mlx-muon", lr=0.02, weight_decay=0.3), 32)

    def run(name: str) -> Array:
        params = {"w": start().astype(np.float32)}
        grads = [{"w": g.astype(np.float32)} for g in gradients()]
        return dualopt.replay(group, params, grads, 32, backend=name, tier="exact").params[-1]["w"]

    assert np.array_equal(run(backend.name), run("numpy"))
    plain = to_action(knobs_of("mlx-muon", lr=0.02, weight_decay=0.0), 32)
    assert "l2" not in plain.options


# ---- what has no image


def image(row: str, target: str, **options: Any) -> Knobs:
    return to_knobs(Group(row, options), 1, target)


REFUSALS: list[tuple[Callable[[], object], str]] = [
    (lambda: to_action(knobs_of("mlx-lion", lr=1e-4, betas=(0.99, 0.9)), 1), "negative weight"),
    (lambda: to_action(knobs_of("torch-sgd", momentum=0.9, dampening=0.9), 1), "undamped first"),
    (lambda: to_action(knobs_of("torch-sgd", nesterov=True), 1), "needs a momentum"),
    (lambda: to_action(knobs_of("mlx-sgd", lr=0.1, momentum=0.9, nesterov=True, dampening=0.1), 1), "plain momentum"),
    (lambda: to_action(knobs_of("torch-adamw", lr=2.0, weight_decay=0.5), 1), "half-life loses less than 1"),
    (lambda: to_action(knobs_of("torch-adamw", betas=(0.9, 0.0)), 1), "half-life is > 0"),
    (lambda: to_action(knobs_of("torch-nadam"), 1), "changes in every update"),
    (lambda: to_action(knobs_of("scion", norm="Sign", norm_kwargs={"max": True}), 1), "has no 'max'"),
    (lambda: to_action(knobs_of("scion", norm="Spectral", norm_kwargs={"max": 1}), 1), "max is like False"),
    (lambda: knobs_of("scion"), "chooses by the number of dimensions"),
    (lambda: knobs_of("torch-adamw", amsgrad=True), "largest v"),
    (lambda: knobs_of("torch-adamw", maximize=True), "negate the loss"),
    (lambda: knobs_of("torch-rmsprop", weight_decay=0.1), "no penalty"),
    (lambda: knobs_of("torch-rmsprop", centered=True), "mean gradient"),
    (lambda: knobs_of("torch-muon", ns_coefficients=(1.5, -0.5, 0.0)), "named sets"),
    (lambda: knobs_of("optax-adamw", lr=0.1, nesterov=True), "corrects the memory"),
    (lambda: knobs_of("optax-rmsprop", lr=0.1), "eps_in_sqrt = False"),
    (lambda: knobs_of("lion-pytorch", decoupled_weight_decay=True), "weight_decay/lr"),
    (lambda: knobs_of("mlx-adam", lr=1e-3, weight_decay=0.1), "has no weight_decay"),
    (lambda: knobs_of("mlx-adam"), "needs learning_rate"),
    (lambda: knobs_of("torch-adamw", betas=(0.9, 1.0)), "two numbers in"),
    (lambda: knobs_of("torch-adamw", lr=-1.0), "lr must be"),
    (lambda: knobs_of("torch-adamw", lr=True), "lr must be"),
    (lambda: source("torch-adamv"), "did you mean 'torch-adam"),
    (lambda: image("sign_sgdm", "torch"), "no image in torch"),
    (lambda: image("lion", "torch"), "no image in torch"),
    (lambda: image("adamw", "torch", readout=0.5), "readout must be 1 or 0"),
    (lambda: image("muon", "torch", readout=0.5), "Nesterov reads"),
    (lambda: image("muon", "torch", scale="mup"), "no choice for 'mup'"),
    (lambda: image("muon", "torch", polar="polar_express"), "quintic"),
    (lambda: image("muon", "torch", l2=0.1, readout=1.0), "decoupled = True only"),
    (lambda: image("muon", "mlx", shrink_half_life=9.0, readout=1.0), "decoupled = False only"),
    (lambda: image("scionc", "scion", step=1.0), "polar = 'quintic' only"),
    (lambda: image("scion", "scion", norm="frobenius"), "no norm = 'frobenius'"),
    (lambda: image("sgdm", "torch", shrink_half_life=5.0), "decoupled = False only"),
    (lambda: image("sgdm", "optax", shrink_half_life=5.0, l2=0.1), "the action does both"),
    (lambda: image("adamw", "torch", shrink="cautious"), "shrink = 'cautious'"),
    (lambda: image("adamw", "torch", target_rms=0.1), "target_rms"),
    (lambda: image("adamw", "torch", bias_correction=False), "bias_correction = True only"),
]


@pytest.mark.parametrize(("make", "says"), REFUSALS, ids=[says for _, says in REFUSALS])
def test_what_has_no_image_says_why(make: Callable[[], object], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        make()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refused_optimizers_say_why(name: str) -> None:
    with pytest.raises(RecipeError, match="has no image: "):
        source(name)


def test_counts_are_checked() -> None:
    with pytest.raises(CountError):
        to_action(knobs_of("torch-adamw"), 0)


def test_an_image_is_searched_in_a_library() -> None:
    assert image("adamw", "mlx", bias_correction=False).source.name == "mlx-adamw"
    assert image("adam_l2", "torch", l2=0.1).source.name == "torch-adam"
    assert image("scionc", "scion", polar="quintic", shrink_half_life=100.0).values["norm"] == "Spectral"
    assert image("sgdm", "optax", shrink_half_life=5.0).values["add_decayed_weights_at"] == "before learning rate"


def test_half_lives_are_in_the_unit_of_the_count() -> None:
    epochs = Count("epochs", 8, samples_per_epoch=1000)
    group = to_action(knobs_of("torch-adamw"), epochs)
    assert float(group.options["memory_half_life"]) * 1000 == pytest.approx(8 * 6.578813478960585)
    assert to_knobs(group, epochs, "torch").values["betas"] == pytest.approx((0.9, 0.999))
