"""What another optimizer remembers continues here: the same next 20 updates, and refusals that change nothing."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import dualopt
from dualopt import checkpoint, tensors
from dualopt.cli.app import app
from dualopt.convert import Knobs, source, to_action
from dualopt.counts import Count
from dualopt.errors import CheckpointError, EvaluationError
from dualopt.generator import Stream
from dualopt.recipe import Group, Recipe

SHAPES = {"w": (6, 4), "b": (5,), "deep.v": (3, 7)}
BEFORE, AFTER, PER_UPDATE = 30, 20, 8
Array = np.ndarray[Any, Any]


def starts(shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Array]:
    return {name: np.array(Stream(0, name).bell(shape)) for name, shape in shapes.items()}


def gradient(name: str, shape: tuple[int, ...], t: int) -> Array:
    """Of scales that differ by two decades from update to update."""
    return np.array(Stream(1, f"{name}/{t}").bell(shape)) * 10.0 ** (t % 3 - 1)


def recipe_of(knobs: Knobs, *, continued: bool = False, **own: Any) -> Recipe:
    count = Count("samples", PER_UPDATE)
    return Recipe((to_action(knobs, count, continued=continued, **own),), count)


def budget(shape: tuple[int, ...], start: Array, lr: float, updates: int, per_step: float = 4) -> Array:
    """Of θ after some updates: 4 units in the last place of its running magnitude for each, and as much of an update.

    One update from one state is within 4 (`test_torch.test_lockstep_with_torch_optim`). What m or v differ by is of the
    size of a unit, and lives on as long as the memory. An update is at most 10 η here: of Adam |m̂|/√v̂ is at most
    (1 - β₁)/√((1 - β₂)(1 - β₁²/β₂)), below 3 for all betas below.
    """
    running = np.abs(start) + 10 * lr * updates
    return updates * per_step * (running + 10 * lr) * 2.0**-23


def gain(name: str, values: Mapping[str, Any]) -> float:
    """By how much an update may exceed 10 η: of SGD it is η |g| / (1 - β), with |g| below 40."""
    return 4 / (1 - values.get("momentum", 0.0)) if name == "SGD" else 1.0


# ---- torch


def parameters(torch: Any, dtype: Any, shapes: dict[str, tuple[int, ...]] = SHAPES) -> dict[str, Any]:
    return {name: torch.nn.Parameter(torch.from_numpy(x).to(dtype)) for name, x in starts(shapes).items()}


def give(torch: Any, named: dict[str, Any], t: int, late: str = "") -> None:
    for name, p in named.items():
        g = torch.from_numpy(gradient(name, tuple(p.shape), t)).to(p.dtype)
        p.grad = None if name == late and t < 7 else g


TORCH: list[tuple[str, dict[str, Any]]] = [
    ("AdamW", {"lr": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "betas": (0.8, 0.99), "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.5}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.9}),
]


@pytest.mark.parametrize("given", ["optimizer", "state_dict"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "values"), TORCH)
def test_torch_states_continue(name: str, values: dict[str, Any], dtype: str, given: str) -> None:
    """One parameter is late by 7 updates, so step numbers differ."""
    torch = pytest.importorskip("torch")
    named = parameters(torch, getattr(torch, dtype))
    theirs = getattr(torch.optim, name)(list(named.values()), **values)
    for t in range(BEFORE):
        give(torch, named, t, late="b")
        theirs.step()
    start = {n: p.detach().double().numpy().copy() for n, p in named.items()}
    mine = {n: torch.nn.Parameter(p.detach().clone()) for n, p in named.items()}
    knobs = Knobs(source(f"torch-{name.lower()}"), **values)
    counted = name != "SGD"
    if given == "optimizer":  # whose parameters are those of the model: it goes on with copies of both
        mine, named = named, mine
        saved = theirs
        other = getattr(torch.optim, name)(list(named.values()), **values)
        other.load_state_dict(copy.deepcopy(theirs.state_dict()))
        theirs = other
    else:
        saved = theirs.state_dict()
    opt = dualopt.optimizer(mine, recipe_of(knobs, continued=True))
    opt.adopt(saved, f"torch-{name.lower()}", updates=None if counted else BEFORE)
    late = BEFORE - 7 if counted else BEFORE
    assert opt.plan.counts == {"w": BEFORE * PER_UPDATE, "b": late * PER_UPDATE, "deep.v": BEFORE * PER_UPDATE}
    assert (opt.plan.tau, opt.param_groups[0]["tau"]) == (BEFORE * PER_UPDATE,) * 2
    lr, eps = values["lr"], 2.0**-23 if dtype == "float32" else 2.0**-52
    for t in range(BEFORE, BEFORE + AFTER):
        give(torch, named, t)
        give(torch, mine, t)
        theirs.step()
        opt.step()
        for n, p in mine.items():
            apart = np.abs(p.detach().double().numpy() - named[n].detach().double().numpy())
            allowed = budget(SHAPES[n], start[n], gain(name, values) * lr, t + 1 - BEFORE) * eps / 2.0**-23
            assert (apart <= allowed).all(), (t, n, float((apart / allowed).max()))
            assert not np.array_equal(p.detach().double().numpy(), start[n])


@pytest.mark.parametrize("kind", ["torch-muon", "keller-jordan-muon", "heavy-ball-muon"])
def test_muon_states_continue(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the polar factor in float32 on both sides; the budget is that of `test_torch.test_muon_follows_torch`."""
    torch = pytest.importorskip("torch")
    from torch.optim import _muon

    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)
    shapes = {"w": (24, 16), "v": (16, 24)}
    named = parameters(torch, torch.float32, shapes)
    lr, beta, decay = 0.02, 0.95, 0.1
    if kind == "torch-muon":
        theirs = torch.optim.Muon(list(named.values()), lr=lr, momentum=beta, weight_decay=decay)
    else:
        theirs = torch.optim.SGD(list(named.values()), lr=lr)  # for its state_dict; steps are taken below
    balls = {n: torch.zeros_like(p) for n, p in named.items()}

    @torch.no_grad()
    def step() -> None:
        """Keller Jordan's, now a mean and until 2024 a ball: torch's Muon but for the scale of the state."""
        if kind == "torch-muon":
            theirs.step()
            return
        for n, p in named.items():
            if kind == "heavy-ball-muon":
                balls[n].mul_(beta).add_(p.grad)
                z = p.grad.add(balls[n], alpha=beta)
            else:
                balls[n].lerp_(p.grad, 1 - beta)
                z = p.grad.lerp(balls[n], beta)
            u = _muon._zeropower_via_newtonschulz(z, (3.4445, -4.7750, 2.0315), 5, 1e-7)
            p.mul_(1 - lr * decay).add_(u, alpha=-lr * max(1, p.shape[0] / p.shape[1]) ** 0.5)
            theirs.state[p] = {"momentum_buffer": balls[n]}

    for t in range(BEFORE):
        give(torch, named, t)
        step()
    mine = {n: torch.nn.Parameter(p.detach().clone()) for n, p in named.items()}
    knobs = Knobs(source(kind), lr=lr, momentum=beta, weight_decay=decay)
    opt = dualopt.optimizer(mine, recipe_of(knobs))
    opt.adopt(theirs.state_dict(), kind, updates=BEFORE)
    for t in range(BEFORE, BEFORE + AFTER):
        give(torch, named, t)
        give(torch, mine, t)
        step()
        opt.step()
        for n, p in mine.items():
            m, k = shapes[n]
            length = lr * math.sqrt(max(1, m / k) * min(m, k))
            rounding = 2.0**-24 * (485 * math.sqrt(max(m, k)) * length + float(named[n].detach().norm()))
            assert float((p - named[n]).detach().norm()) <= (t + 1 - BEFORE) * rounding


def test_a_ball_that_is_taken_for_a_mean_does_not_continue() -> None:
    """The scale matters although the direction does not see it: the next gradient is weighed against it."""
    torch = pytest.importorskip("torch")
    found = []
    for kind in ("heavy-ball-muon", "keller-jordan-muon"):
        named = {"w": torch.nn.Parameter(torch.eye(4))}
        buffer = torch.from_numpy(gradient("w", (4, 4), 0)).float() * 10
        opt = dualopt.optimizer(named, recipe_of(Knobs(source("heavy-ball-muon"), lr=0.1)))
        state = {"state": {0: {"momentum_buffer": buffer}}, "param_groups": [{"params": [0]}]}
        opt.adopt(state, kind, updates=3)
        give(torch, named, 1)
        opt.step()
        found.append(named["w"].detach())
    assert float((found[0] - found[1]).norm()) > 1e-2


def test_several_optimizers_are_taken_over_one_by_one() -> None:
    torch = pytest.importorskip("torch")
    named = parameters(torch, torch.float32)
    theirs = [
        torch.optim.Muon([named["w"]], lr=0.02),
        torch.optim.AdamW([("b", named["b"]), ("deep.v", named["deep.v"])], lr=0.01),
    ]
    for t in range(3):
        give(torch, named, t)
        for other in theirs:
            other.step()
    count = Count("samples", PER_UPDATE)
    groups = (
        to_action(Knobs(source("torch-muon"), lr=0.02), count, name="hidden", match="w"),
        to_action(Knobs(source("torch-adamw"), lr=0.01), count, name="rest"),
    )
    opt = dualopt.optimizer(named, Recipe(groups, count))
    opt.adopt(theirs[0].state_dict(), "torch-muon", names=["w"], updates=3)
    assert opt.plan.counts == {"w": 24, "b": 0, "deep.v": 0}
    opt.adopt(theirs[1].state_dict(), "torch-adamw", per_update=100)  # its names are in it
    assert opt.plan.counts == {"w": 24, "b": 300, "deep.v": 300}
    assert opt.plan.tau == 300
    assert torch.equal(opt.state[named["b"]]["m"], theirs[1].state[named["b"]]["exp_avg"])
    assert torch.equal(opt.state[named["w"]]["m"], theirs[0].state[named["w"]]["momentum_buffer"])


def test_half_precision_states_are_widened() -> None:
    torch = pytest.importorskip("torch")
    named = {"w": torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))}
    theirs = torch.optim.SGD(named.values(), lr=0.1, momentum=0.9)
    give(torch, named, 0)
    theirs.step()
    ball = theirs.state[named["w"]]["momentum_buffer"]
    assert ball.dtype == torch.bfloat16
    opt = dualopt.optimizer(named, recipe_of(Knobs(source("torch-sgd"), lr=0.1, momentum=0.9)))
    opt.adopt(theirs, "torch-sgd", updates=1)
    c = dualopt.counts.complement(PER_UPDATE, opt.plan.groups[0].action["memory_half_life"])
    assert torch.equal(opt.state[named["w"]]["m"], ball.float() * c)


def adam_state(torch: Any, **changed: Any) -> dict[str, Any]:
    made = {"step": torch.tensor(3.0), "exp_avg": torch.ones(6, 4), "exp_avg_sq": torch.ones(6, 4), **changed}
    kept = {key: x for key, x in made.items() if x is not None}
    return {"state": {0: kept}, "param_groups": [{"params": [0], "lr": 0.1}]}


@pytest.mark.parametrize(
    ("make", "origin", "options", "says"),
    [
        (adam_state, "torch-muon", {"updates": 3}, "cannot continue as adamw"),
        (lambda t: adam_state(t, exp_avg=t.ones(4, 6)), "torch-adamw", {}, "exp_avg has shape"),
        (lambda t: adam_state(t, exp_avg_sq=None), "torch-adamw", {}, "keeps 'exp_avg_sq', this one has"),
        (lambda t: adam_state(t, max_exp_avg_sq=t.ones(6, 4)), "torch-adamw", {}, "amsgrad"),
        (lambda t: adam_state(t, step=t.tensor(2.5)), "torch-adamw", {}, "whole number > 0, got 2.5"),
        (lambda t: adam_state(t, step=t.tensor(0.0)), "torch-adamw", {}, "whole number > 0"),
        (lambda t: adam_state(t, step=None), "torch-adamw", {}, "does not say after how many"),
        (adam_state, "torch-adamw", {"updates": 4}, "of 3 updates, and 4 were stated"),
        (adam_state, "torch-adamw", {"names": ["v"]}, "no such parameter"),
        (adam_state, "torch-adamw", {"names": ["w", "v"]}, "2 names were given"),
        (adam_state, "optax-adamw", {}, "no state can be taken over"),
        (lambda t: {**adam_state(t), "param_groups": [{"params": [0], "maximize": True}]}, "torch-adamw", {}, "sign"),
        (
            lambda t: {**adam_state(t), "param_groups": [{"params": [0]}, {"params": []}]},
            "torch-adamw",
            {},
            "without names",
        ),
        (lambda t: t.optim.Adam([t.nn.Parameter(t.ones(2))]), "torch-adam", {}, ""),  # no state, nothing to take
    ],
)
def test_what_does_not_fit_is_refused(
    make: Callable[[Any], Any], origin: str, options: dict[str, Any], says: str
) -> None:
    torch = pytest.importorskip("torch")
    named = {"w": torch.nn.Parameter(torch.ones(6, 4))}
    opt = dualopt.optimizer(named, recipe_of(Knobs(source("torch-adamw"))))
    give(torch, named, 0)
    opt.step()
    before = opt.snapshot()
    if says:
        with pytest.raises(CheckpointError, match=says):
            opt.adopt(make(torch), origin, **options)
    else:
        opt.adopt(make(torch), origin, **options)
    after = opt.snapshot()
    assert after.counts == before.counts
    assert all(np.array_equal(after.state["w"][key], x) for key, x in before.state["w"].items())


def test_another_model_and_an_averaging_row_are_refused() -> None:
    torch = pytest.importorskip("torch")
    named = {"w": torch.nn.Parameter(torch.ones(6, 4))}
    stranger = torch.nn.Parameter(torch.ones(2))
    other = torch.optim.AdamW([stranger])
    stranger.grad = torch.ones(2)
    other.step()
    opt = dualopt.optimizer(named, recipe_of(Knobs(source("torch-adamw"))))
    with pytest.raises(CheckpointError, match="no such parameter"):
        opt.adopt(other, "torch-adamw")
    averaged = dualopt.optimizer(named, Recipe((Group("adamw", {"motion": "averaged"}),)))
    with pytest.raises(CheckpointError, match="additive motion"):
        averaged.adopt(adam_state(torch), "torch-adamw")
    give(torch, named, 0)
    averaged.step()
    averaged.eval()
    with pytest.raises(EvaluationError):
        averaged.adopt(adam_state(torch), "torch-adamw")


@pytest.mark.parametrize("kind", ["lion-pytorch", "scion"])
def test_signs_continue(kind: str) -> None:
    """Lion of lion-pytorch and Scion in its sign norm, by their definitions, in float64: rounding alone."""
    torch = pytest.importorskip("torch")
    lr, shape = 0.01, (6, 4)
    w, m = torch.from_numpy(starts({"w": shape})["w"]).double(), torch.zeros(shape, dtype=torch.float64)

    def step(t: int) -> None:
        nonlocal w, m
        g = torch.from_numpy(gradient("w", shape, t)).double()
        if kind == "scion":
            m = 0.9 * m + 0.1 * g
            w = (1 - lr) * w - 3 * lr * torch.sign(m) / 4
        else:
            w = (1 - lr * 0.5) * w - lr * torch.sign(0.9 * m + (1 - 0.9) * g)
            m = 0.99 * m + (1 - 0.99) * g

    for t in range(BEFORE):
        step(t)
    lion = {"weight_decay": 0.5} if kind == "lion-pytorch" else {"momentum": 0.1, "norm": "Sign", "scale": 3.0}
    mine = {"w": torch.nn.Parameter(w.clone())}
    opt = dualopt.optimizer(mine, recipe_of(Knobs(source(kind), lr=lr, **lion)))
    state = {"exp_avg" if kind == "lion-pytorch" else "momentum_buffer": m.clone()}
    opt.adopt({"state": {0: state}, "param_groups": [{"params": [0]}]}, kind, updates=BEFORE)
    for t in range(BEFORE, BEFORE + AFTER):
        step(t)
        mine["w"].grad = torch.from_numpy(gradient("w", shape, t)).double()
        opt.step()
    assert torch.allclose(mine["w"].detach(), w, rtol=0, atol=(BEFORE + AFTER) * 4 * 2.0**-52 * 4)


# ---- mlx


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("AdamW", {"betas": [0.9, 0.99], "weight_decay": 0.1}),
        ("AdamW", {"betas": [0.9, 0.99], "weight_decay": 0.1, "bias_correction": True}),
        ("SGD", {"momentum": 0.9}),
        ("SGD", {"momentum": 0.9, "dampening": 0.5}),
        ("Lion", {"betas": [0.9, 0.99], "weight_decay": 0.1}),
        ("Muon", {"momentum": 0.9, "weight_decay": 0.1}),
        ("RMSprop", {"alpha": 0.9}),
    ],
)
def test_mlx_states_continue(name: str, values: dict[str, Any]) -> None:
    mx = pytest.importorskip("mlx.core")
    import mlx.optimizers as optim

    shapes = {"w": (6, 4)}
    lr = 0.01
    theirs = getattr(optim, name)(learning_rate=lr, **values)
    w = {n: mx.array(x.astype(np.float32)) for n, x in starts(shapes).items()}

    def gradients(t: int) -> dict[str, Any]:
        return {n: mx.array(gradient(n, shape, t).astype(np.float32)) for n, shape in shapes.items()}

    for t in range(BEFORE):
        w = theirs.apply_gradients(gradients(t), w)
    start = {n: np.array(x) for n, x in w.items()}
    mine = {n: mx.array(x) for n, x in start.items()}
    opt = dualopt.optimizer(mine, recipe_of(Knobs(source(f"mlx-{name.lower()}"), learning_rate=lr, **values)))
    opt.adopt(theirs, f"mlx-{name.lower()}")
    assert (opt.count, opt.counts) == (BEFORE * PER_UPDATE, {"w": BEFORE * PER_UPDATE})
    per_step = 4.0
    if name == "Muon":  # a rounding of the matrix, taken in by 6 terms of a sum, grows by five slopes at 0
        per_step = 3.4445**5 * math.sqrt(6)
    if values.get("bias_correction"):  # β^t in float32: t roundings, and the difference 1 - β^t is small
        per_step += sum((BEFORE + 1) * beta**BEFORE / (1 - beta**BEFORE) for beta in values["betas"])
    for t in range(BEFORE, BEFORE + AFTER):
        w = theirs.apply_gradients(gradients(t), w)
        opt.update(mine, gradients(t))
        apart = np.abs(np.array(mine["w"]) - np.array(w["w"]))
        allowed = budget((6, 4), start["w"], gain(name, values) * lr, t + 1 - BEFORE, per_step)
        assert (apart <= allowed).all(), (t, (apart / allowed).max())
    assert np.abs(np.array(mine["w"]) - start["w"]).max() > lr


def test_saved_mlx_states_continue_too() -> None:
    mx = pytest.importorskip("mlx.core")
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten

    theirs = optim.AdamW(learning_rate=0.1)
    w = theirs.apply_gradients({"a": {"w": mx.ones(3)}}, {"a": {"w": mx.ones(3)}})
    opt = dualopt.optimizer(w, recipe_of(Knobs(source("mlx-adamw"), learning_rate=0.1)))
    opt.adopt(dict(tree_flatten(theirs.state)), "mlx-adamw")
    assert opt.counts == {"a.w": PER_UPDATE}
    for saved, says in (
        ({"a.w.q": mx.ones(3)}, "no NAME.KEY"),
        ({"b.m": mx.ones(3), "b.v": mx.ones(3), "step": mx.array(1)}, "no such parameter"),
        ({"a.w.m": mx.ones(3), "a.w.v": mx.ones(3)}, "does not say after how many"),
        ({"a.w.m": mx.ones(2), "a.w.v": mx.ones(3), "step": mx.array(1)}, "has shape"),
    ):
        with pytest.raises(CheckpointError, match=says):
            opt.adopt(saved, "mlx-adamw")
        assert opt.counts == {"a.w": PER_UPDATE}


# ---- files


def run(*arguments: object, status: int = 0) -> Any:
    found = CliRunner().invoke(app, ["convert", *map(str, arguments)], env={"COLUMNS": "200"})
    assert found.exit_code == status, (found.output, found.exception)
    return found


def trained(torch: Any, path: Path, names: bool = True) -> tuple[dict[str, Any], Any]:
    """A model in two groups after three updates, and its files."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    named = dict(model.named_parameters())
    both = list(named.items()) if names else list(named.values())
    groups = [{"params": both[:2], "lr": 0.1}, {"params": both[2:], "weight_decay": 0.0}]
    theirs = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))
    for t in range(3):
        give(torch, named, t)
        theirs.step()
    torch.save(model.state_dict(), path / "model.pt")
    torch.save(theirs.state_dict(), path / "adamw.pt")
    return named, theirs


def test_a_torch_checkpoint_becomes_one_of_dualopt(tmp_path: Path) -> None:
    """Its groups and their knobs are those that were saved, and buffers of the model are left out."""
    torch = pytest.importorskip("torch")
    named, theirs = trained(torch, tmp_path)
    files = ["--model", tmp_path / "model.pt", "--save", tmp_path / "c.safetensors", "--out", tmp_path / "r.toml"]
    text = run("torch-adamw", "--checkpoint", tmp_path / "adamw.pt", "--per-update", PER_UPDATE, *files).stdout
    assert "6 parameters continue after 3 updates" in text
    assert "1.running_mean" in text
    opt = dualopt.optimizer(named, tmp_path / "r.toml")
    assert [group["lr"] for group in opt.param_groups] == [0.1, 0.01]
    start = {n: p.detach().numpy().copy() for n, p in named.items()}
    opt.restore(checkpoint.load(tmp_path / "c.safetensors")[0])
    assert all(np.array_equal(p.detach().numpy(), start[n]) for n, p in named.items())
    twins = {n: torch.nn.Parameter(p.detach().clone()) for n, p in named.items()}
    other = dualopt.optimizer(twins, tmp_path / "r.toml")
    other.adopt(theirs.state_dict(), "torch-adamw")
    for t in range(3, 8):
        for one, params in ((opt, named), (other, twins)):
            give(torch, params, t)
            one.step()
    assert all(torch.equal(p, twins[n]) for n, p in named.items())


def test_an_mlx_checkpoint_becomes_one_of_dualopt(tmp_path: Path) -> None:
    """Convolution kernels are channels last there, and (out, in, *k) in a checkpoint of dualopt."""
    kernel, moment = np.arange(2 * 3 * 3 * 5, dtype=np.float32).reshape(2, 3, 3, 5), np.ones((2, 3, 3, 5), np.float32)
    moment[1] = 2
    tensors.write(tmp_path / "model.safetensors", {"conv.weight": kernel}, {})
    state = {"conv.weight.v": moment, "step": np.array(9, np.uint64), "learning_rate": np.array(0.02, np.float32)}
    tensors.write(tmp_path / "muon.safetensors", state, {})
    files = ["--model", tmp_path / "model.safetensors", "--save", tmp_path / "c.safetensors"]
    told = run("mlx-muon", "learning_rate=0.02", "--checkpoint", tmp_path / "muon.safetensors", *files, "--json").stdout
    assert json.loads(told)["taken"] == {"updates": {"conv.weight": 9}, "left_out": []}
    found, _ = checkpoint.load(tmp_path / "c.safetensors")
    assert np.array_equal(found.parameters["conv.weight"], kernel.transpose(0, 3, 1, 2))
    assert np.array_equal(found.state["conv.weight"]["m"], moment.transpose(0, 3, 1, 2))
    assert found.counts == {"": 9, "conv.weight": 9}


def test_groups_of_a_file_take_states_from_several_checkpoints(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    named = parameters(torch, torch.float32)
    theirs = {
        "muon": torch.optim.Muon([("w", named["w"])], lr=0.02),
        "adamw": torch.optim.AdamW([("b", named["b"]), ("deep.v", named["deep.v"])], lr=0.01),
    }
    give(torch, named, 0)
    for name, other in theirs.items():
        other.step()
        torch.save(other.state_dict(), tmp_path / f"{name}.pt")
    torch.save({n: p.detach() for n, p in named.items()}, tmp_path / "model.pt")
    groups = [{"name": "hidden", "match": ["w"], "from": "torch-muon", "lr": 0.02}, {"from": "torch-adamw", "lr": 0.01}]
    (tmp_path / "knobs.json").write_text(json.dumps({"group": groups}))
    taken = ["--checkpoint", tmp_path / "muon.pt", "--checkpoint", tmp_path / "adamw.pt"]
    files = ["--model", tmp_path / "model.pt", "--save", tmp_path / "c.safetensors"]
    assert "state updates" in run(tmp_path / "knobs.json", *taken, *files, status=2).stderr
    run(tmp_path / "knobs.json", *taken, *files, "--updates", 1)
    found, _ = checkpoint.load(tmp_path / "c.safetensors")
    assert {name: set(s) for name, s in found.state.items()} == {"w": {"m"}, "b": {"m", "v"}, "deep.v": {"m", "v"}}


def test_files_that_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    trained(torch, tmp_path, names=False)

    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "touched",))

    torch.save({"state": Harm(), "param_groups": []}, tmp_path / "harm.pt")
    tensors.write(tmp_path / "odd.safetensors", {"w.q": np.ones(2, np.float32)}, {})
    tensors.write(tmp_path / "none.safetensors", {"w.m": np.ones(2, np.float32), "w.v": np.ones(2, np.float32)}, {})

    def refused(state: str, model: str = "model.pt") -> str:
        files = ["--checkpoint", tmp_path / state, "--model", tmp_path / model, "--save", tmp_path / "c.safetensors"]
        return str(run("torch-adamw", *files, status=2).stderr)

    assert "weights_only=True) refuses it" in refused("harm.pt")
    assert not (tmp_path / "touched").exists()
    assert "groups without names" in refused("adamw.pt")
    assert "not the state_dict() of an optimizer" in refused("model.pt")
    assert "not the state_dict() of a model" in refused("adamw.pt", "adamw.pt")
    assert "no NAME.KEY" in refused("odd.safetensors")
    assert "not among the weights" in refused("none.safetensors")
    assert "cannot be read" in refused("gone.pt")
    assert not (tmp_path / "c.safetensors").exists()
    assert "--checkpoint needs --model" in run("torch-adamw", "--checkpoint", "x.pt", status=2).stderr
    assert "--save goes with --checkpoint" in run("torch-adamw", "--save", "x", status=2).stderr
