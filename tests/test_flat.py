"""Flat storage: the bits of the exact tier, the memory where it is said to be, and torch's meaning of gradients."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import dualopt  # noqa: E402
from dualopt.errors import DistributionError, GradientError, NonFiniteError  # noqa: E402
from dualopt_torch import Optimizer, elementwise, optimizer  # noqa: E402

from .test_elementwise import COMPILED, SHAPES, bits, give, missing, parameters, recipe  # noqa: E402


def made() -> dict[str, Any]:
    """Short and long, empty and 0-d, of two types, and two that are no dense stretch in the order of their indices, one
    of them the first of all."""
    named: dict[str, Any] = {"s": torch.nn.Parameter(parameters({"s": (4, 3)})["s"].detach().t())}
    named |= parameters({name: shape for name, shape in SHAPES.items() if name != "longer"})
    named |= {f"h{i}": x for i, x in enumerate(parameters({"a": (5, 3), "b": (4,)}, torch.bfloat16).values())}
    named["t"] = torch.nn.Parameter(parameters({"t": (6, 5)})["t"].detach().t())
    return named


def storages(tensors: Any) -> set[int]:
    return {x.untyped_storage().data_ptr() for x in tensors}


@pytest.mark.parametrize(
    ("row", "options", "compiled"),
    [
        ("lion", {}, False),
        ("sgdm", {"clip": 0.5, "rounding": "kahan"}, False),
        ("lion", {"rounding": "stochastic"}, False),
        ("adamw", {"clip": 0.5, "rounding": "master"}, False),
        pytest.param("adamw", {}, True, marks=COMPILED[1].marks),
    ],
)
def test_flat_storage_has_the_bits_of_the_exact_tier(row: str, options: dict[str, Any], compiled: bool) -> None:
    exact, flat, group = made(), made(), recipe(row, **options)
    tier = "fast" if "clip" in options else "exact"  # a length has other bits in either tier
    one = Optimizer(exact, group, tier=tier, compiled=None if tier == "exact" else compiled)
    two = Optimizer(flat, group, compiled=compiled, flat=True)
    for t in range(8):
        for named, opt in ((exact, one), (flat, two)):
            opt.zero_grad(set_to_none=t % 3 == 0)
            give(named, t, without=missing(t) if t < 6 else ())
            opt.step()
    assert bits(exact, one) == bits(flat, two)


def test_one_call_without_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients that backward() adds up in their places, from the first update on."""
    model = torch.nn.Sequential(*(torch.nn.Linear(7, 7) for _ in range(20)))
    twin = copy.deepcopy(model)
    opt, other = Optimizer(model, recipe(), compiled=False, flat=True), Optimizer(twin, recipe(), tier="exact")
    called: list[int] = []
    call = elementwise.Calls.__call__
    monkeypatch.setattr(elementwise.Calls, "__call__", lambda *a: called.append(a[1][0].numel()) or call(*a))
    x = torch.linspace(-1, 1, 21).reshape(3, 7)
    for _ in range(4):
        for m, o in ((model, opt), (twin, other)):
            o.zero_grad(set_to_none=False)
            m(x).square().sum().backward()
            o.step()
    assert called == 4 * [20 * 56]
    for found in (model.parameters(), (p.grad for p in model.parameters())):
        assert len(storages(found)) == 1
    assert len(storages(opt.state[p]["m"] for p in model.parameters())) == 1
    assert bits(dict(model.named_parameters()), opt) == bits(dict(twin.named_parameters()), other)


def test_beside_other_rows() -> None:
    """Elementwise groups are flat; the matrices of others stay where they are."""
    groups = [
        {"optimizer": "muon", "match": ["w*"], "ndim": 2},
        {"optimizer": "adamw", "match": ["*"], "name": "rest"},
    ]
    shapes = {"w0": (4, 3), "b0": (3,), "w1": (3, 2), "b1": (2,)}
    runs = []
    for flat in (False, True):
        named = parameters(shapes)
        opt = Optimizer(named, dualopt.Recipe.from_dict({"group": groups}), compiled=False, flat=flat)
        for t in range(3):
            give(named, t)
            opt.step()
        runs.append(bits(named, opt))
    assert runs[0] == runs[1]
    assert len(storages([named["b0"], named["b1"]])) == len(storages([named["b0"].grad, named["b1"].grad])) == 1
    assert len(storages(named.values())) == 3


def test_gradients_keep_their_meaning() -> None:
    """None: neither moved nor aged, nor is the memory of a gradient that was there before it; 0: aged."""
    named = parameters({"a": (3,), "b": (2, 2)})
    opt = Optimizer(named, recipe(), flat=True)
    give(named, 0)
    opt.step()
    opt.zero_grad()
    assert all(p.grad is None for p in named.values())
    before = bits(named, opt)["b"]
    named["a"].sum().backward()
    opt.step()
    assert bits(named, opt)["b"] == before
    assert opt.state[named["b"]]["tau"] < opt.state[named["a"]]["tau"]
    opt.zero_grad(set_to_none=False)
    assert named["b"].grad is None
    assert named["a"].grad.tolist() == [0.0] * 3
    (2 * named["b"]).sum().backward()
    opt.step()
    assert named["b"].grad.tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert [opt.state[named[name]]["tau"] for name in named] == [3, 2]


def test_bad_gradients_change_nothing() -> None:
    named = made()
    opt = Optimizer(named, recipe(), compiled=False, flat=True)
    give(named, 0)
    opt.step()
    opt.step()
    before = bits(named, opt)
    named["d"].grad[1, 2, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="'d'"):
        opt.step()
    named["d"].grad[1, 2, 0] = 1.0
    named["b"].data = torch.zeros(6)
    with pytest.raises(GradientError, match="'b' has shape"):
        opt.step()
    named["b"].data = torch.zeros(7)
    after = bits(named, opt)
    assert {name for name in before if before[name] != after[name]} == {"b"}


def test_several_microbatches_copies_and_checkpoints() -> None:
    named, other = made(), made()
    opt, exact = Optimizer(named, recipe(), compiled=False, flat=True), Optimizer(other, recipe(), tier="exact")
    for t in range(3):
        for params, o in ((named, opt), (other, exact)):
            for part in range(2):
                give(params, 2 * t + part)
                o.accumulate()
            o.step()
    assert bits(named, opt) == bits(other, exact)
    twin, twin_opt = copy.deepcopy((named, opt))
    loaded = made()
    loaded_opt = Optimizer(loaded, recipe(), compiled=False, flat=True)
    for name, p in loaded.items():
        p.data.copy_(named[name].detach())
    loaded_opt.load_state_dict(copy.deepcopy(opt.state_dict()))
    for t in (7, 8):
        for params, o in ((named, opt), (twin, twin_opt), (loaded, loaded_opt), (other, exact)):
            give(params, t)
            o.step()
    assert bits(named, opt) == bits(twin, twin_opt) == bits(loaded, loaded_opt) == bits(other, exact)
    assert storages([twin["a"], twin["long"]]) != storages([named["a"], named["long"]])
    assert len(storages([twin["a"], twin["long"]])) == 1


def test_parameters_that_other_processes_lay_out_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    named = parameters({"a": (3,)})
    at = named["a"].data_ptr()
    monkeypatch.setattr(optimizer, "joined", lambda *args: object())
    with pytest.raises(DistributionError, match="flat = True"):
        Optimizer(named, recipe(), flat=True)
    assert named["a"].data_ptr() == at
