"""Elementwise rows on torch by every route: joined and long parameters, runs, strides, types, and the exact tier."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import dualopt  # noqa: E402
from dualopt.buckets import JOINED, SMALL, joined, pieces, stacks  # noqa: E402
from dualopt.generator import Stream  # noqa: E402
from dualopt.plan import Plan  # noqa: E402
from dualopt.recipe import Group  # noqa: E402
from dualopt.recursion import step  # noqa: E402
from dualopt_conformance import inputs  # noqa: E402
from dualopt_conformance.cases import EVERY  # noqa: E402
from dualopt_torch import Optimizer, execute, kernels, registers, vectors  # noqa: E402
from dualopt_torch.namespace import EXACT  # noqa: E402

SHAPES = {
    "a": (40, 3),
    "b": (7,),
    "long": (130, 131),
    "c": (),
    "none": (0, 3),
    "d": (3, 5, 2),
    "longer": (JOINED + 5,),
    "e": (9,),
}
COMPILED = [False, pytest.param(True, marks=pytest.mark.skipif(not execute.can_compile(), reason="no C++ compiler"))]


def parameters(shapes: Mapping[str, tuple[int, ...]] = SHAPES, dtype: Any = torch.float32) -> dict[str, Any]:
    made = {name: torch.from_numpy(np.array(Stream(0, name).bell(shape))) for name, shape in shapes.items()}
    return {name: torch.nn.Parameter(x.to(dtype)) for name, x in made.items()}


def give(named: Mapping[str, Any], t: int, *, without: tuple[str, ...] = ()) -> None:
    for name, p in named.items():
        x = torch.from_numpy(np.array(Stream(1, f"{name}/{t}").bell(tuple(p.shape)))) * 10.0 ** (t % 5 - 2)
        p.grad = None if name in without else x.to(p.dtype)


def recipe(optimizer: str = "adamw", **options: Any) -> dualopt.Recipe:
    group = {"optimizer": optimizer, "match": ["*"], "shrink_half_life": 50.0, **options}
    return dualopt.Recipe.from_dict({"group": [group]})


def bits(named: Mapping[str, Any], opt: Any) -> dict[str, bytes]:
    arrays = {f"{n}/{key}": x for n, p in named.items() for key, x in opt._state(n).items() if opt.state[p]["tau"]}
    arrays |= {name: p.detach() for name, p in named.items()}
    return {
        name: x.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, x in arrays.items() if x.numel()
    }


def missing(t: int) -> tuple[str, ...]:
    """The last one begins at update 3, and a short and a long one have no gradient now and then."""
    return (("e",) if t < 3 else ()) + (("b", "long") if t in (2, 5) else ())


@pytest.mark.parametrize("compiled", COMPILED)
@pytest.mark.parametrize("row", ["adamw", "lion", "sgdm", "sf_adamw"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_every_route_has_the_bits_of_the_exact_tier(compiled: bool, row: str, dtype: Any) -> None:
    if dtype == torch.float64 and row in ("adamw", "sf_adamw"):
        pytest.skip("torch's eager root of float64 is not always the nearest number; what is compiled has that one")
    exact, fast = parameters(dtype=dtype), parameters(dtype=dtype)
    one = Optimizer(exact, recipe(row), tier="exact")
    two = Optimizer(fast, recipe(row), compiled=compiled)
    for t in range(8):
        for named, opt in ((exact, one), (fast, two)):
            give(named, t, without=missing(t))
            opt.step()
    assert bits(exact, one) == bits(fast, two)


@pytest.mark.parametrize("compiled", COMPILED)
def test_mixed_types_and_strides(compiled: bool) -> None:
    def made() -> dict[str, Any]:
        named = parameters({"a": (4, 3), "b": (5,), "k": (64, 32, 3, 3), "t": (200, 150), "h": (6, 2)})
        named["h"].data = named["h"].data.to(torch.bfloat16)
        named["a"].data = named["a"].data.t().contiguous().t()
        named["k"].data = named["k"].data.to(memory_format=torch.channels_last)
        named["t"].data = named["t"].data.t().contiguous().t()
        return named

    exact, fast = made(), made()
    one, two = Optimizer(exact, recipe(), tier="exact"), Optimizer(fast, recipe(), compiled=compiled)
    for t in range(4):
        for named, opt in ((exact, one), (fast, two)):
            give(named, t)
            if t % 2:
                named["k"].grad = named["k"].grad.to(memory_format=torch.channels_last)
            opt.step()
    assert two.state[fast["k"]]["m"].stride() == fast["k"].stride()
    assert bits(exact, one) == bits(fast, two)


def test_state_of_short_parameters_lies_end_to_end_through_saves_and_copies() -> None:
    named = parameters()
    opt = Optimizer(named, recipe(), compiled=False)
    give(named, 0)
    opt.step()

    def storages(chosen: Any, params: Mapping[str, Any]) -> set[int]:
        short = [p for p in params.values() if 0 < p.numel() <= SMALL]
        return {chosen.state[p]["m"].untyped_storage().data_ptr() for p in short}

    assert len(storages(opt, named)) == 1
    other = parameters()
    loaded = Optimizer(other, recipe(), compiled=False)
    for name, p in other.items():
        p.data.copy_(named[name].detach())
    loaded.load_state_dict(copy.deepcopy(opt.state_dict()))
    assert len(storages(loaded, other)) == 1
    twin, twin_opt = copy.deepcopy((named, opt))
    for t in (1, 2):
        for params, chosen in ((named, opt), (other, loaded), (twin, twin_opt)):
            give(params, t)
            chosen.step()
    assert bits(named, opt) == bits(other, loaded) == bits(twin, twin_opt)


def test_state_that_is_replaced_is_read() -> None:
    """Tensors of `state` may be exchanged, or all of it cleared, between steps."""
    named, other = parameters(), parameters()
    one, two = Optimizer(named, recipe("lion"), compiled=False), Optimizer(other, recipe("lion"), tier="exact")
    for t in range(6):
        for params, opt in ((named, one), (other, two)):
            if t == 2:
                opt.state[params["b"]]["m"] = torch.ones(7)
            if t == 4:
                opt.state.clear()
            give(params, t)
            opt.step()
    assert bits(named, one) == bits(other, two)


@pytest.mark.parametrize("compiled", COMPILED)
def test_memory_that_moves_is_found_again(compiled: bool) -> None:
    """Parameters and state may get other memory between steps, and other strides; what is left behind stays."""
    named, other = parameters(), parameters()
    one, two = Optimizer(named, recipe(), compiled=compiled), Optimizer(other, recipe(), tier="exact")
    left: list[tuple[Any, Any]] = []
    for t in range(5):
        for params, opt in ((named, one), (other, two)):
            give(params, t)
            opt.step()
        for x in (named["long"], named["b"], *(one.state[named[n]]["v"] for n in ("long", "b"))):
            left.append((x.data, x.data.clone()))
            x.data = x.data.t().contiguous().t() if t == 3 and x.ndim == 2 else x.data.clone()
    assert bits(named, one) == bits(other, two)
    assert all(torch.equal(x, kept) for x, kept in left)


def test_one_bad_short_gradient_is_named_and_nothing_changes() -> None:
    named = parameters()
    opt = Optimizer(named, recipe(), compiled=False)
    give(named, 0)
    opt.step()
    before = bits(named, opt)
    give(named, 1)
    named["d"].grad[1, 2, 0] = float("nan")
    named["e"].grad[3] = float("inf")
    with pytest.raises(dualopt.errors.NonFiniteError, match=r"'d'.*2 of 8"):
        opt.step()
    assert bits(named, opt) == before


def test_steps_make_no_arrays_as_large_as_the_model() -> None:
    """The largest transient of an update: the short gradients for their check, and a joined array; 4 bytes each."""
    if not execute.can_compile():
        pytest.skip("torch's compiler needs a C++ compiler")
    short, long = {f"short{i}": (2**12,) for i in range(64)}, {f"long{i}": (2**20,) for i in range(4)}
    named = {name: torch.nn.Parameter(torch.zeros(shape)) for name, shape in (short | long).items()}
    opt = Optimizer(named, recipe(), compiled=True)
    for p in named.values():
        p.grad = torch.full_like(p, 1e-3)
    opt.step()
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        opt.step()
    alive = peak = 0
    for event in found.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            peak = max(peak, alive)
    joint = 4 * 64 * 2**12
    assert joint <= peak <= 3 * joint


@pytest.mark.skipif(not execute.can_compile(), reason="no C++ compiler")
def test_half_precision_of_every_length_around_a_vector() -> None:
    """Whole vectors and what is left over: at any length, and from any element of memory."""
    row, keys = Optimizer(parameters(), recipe()).plan.groups[0].row, ("m", "v")
    memory = [torch.from_numpy(np.array(Stream(2, key).bell((200,)))) for key in ("theta", "g", *keys)]
    memory[3] = memory[3].square()
    k = {name: 0.25 / (i + 1) for i, name in enumerate(row.needs)}
    for size in range(2, 70):
        found = []
        for kernel in (kernels.compiled, registers.eager):
            copies = [x.to(torch.bfloat16) if i < 2 else x.clone() for i, x in enumerate(memory)]
            arrays = tuple(x[size : 2 * size] for x in copies)
            scalars = torch.tensor([*k.values()]) if kernel is kernels.compiled else k
            kernel(row, keys, ("gradient",), arrays)(arrays[0], scalars, *arrays[1:])
            found.append(copies)
        assert all(torch.equal(x, y) for x, y in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_registers_carry_out_every_elementwise_program(dtype: Any) -> None:
    """Of the first update and of later ones, at numbers of six decades, ties, zeros of both signs and no numbers."""
    for table in (c.table for c in EVERY.values() if c.row.local and not c.streams and not c.samples):
        plan = Plan(dualopt.Recipe((Group.from_dict(dict(table)),)), {"w": (7, 30)})
        row, k = plan.groups[0].row, plan.propose(3, ["w"]).scalars["w"]
        theta, g = (torch.from_numpy(inputs.array("ties", (7, 30), 0, x)).reshape(-1).to(dtype) for x in ("theta", "g"))
        g[:5] = torch.tensor([float("nan"), float("inf"), -float("inf"), 0.0, -0.0])
        kept = plan.groups[0].start(np, "w", np.zeros((7, 30), np.float32))
        state = {
            key: torch.from_numpy(np.abs(inputs.array("six_decades", (7, 30), 0, key))).reshape(-1) for key in kept
        }
        before = {key: x.clone() for key, x in state.items()}
        moved, after = step(EXACT, row, theta.float(), before, {"gradient": g.float()}, k)
        registers.eager(row, tuple(state), ("gradient",), (theta, g, *state.values()))(theta, k, g, *state.values())
        for name, x, y in (("theta", theta, moved.to(dtype)), *((key, state[key], after[key]) for key in state)):
            same = x.view(torch.int16 if x.itemsize == 2 else torch.int32) == y.view(
                torch.int16 if x.itemsize == 2 else torch.int32
            )
            assert bool((same | (x.isnan() & y.isnan())).all()), (table, name)


def test_loops_take_whole_vectors_of_the_narrowest_type(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpu_vec_isa
    from torch._inductor.codegen import cpp

    monkeypatch.setattr(cpp.TilingSelect, "select_tiling", lambda self: ([8], [-1], None))
    monkeypatch.setattr(cpu_vec_isa, "pick_vec_isa", cpu_vec_isa.VecAVX2)
    for dtypes, factor in (([torch.float32], 8), ([torch.float32, torch.bfloat16], 16), ([torch.float16], 16)):
        with vectors.whole_vectors(dtypes):
            assert cpp.TilingSelect().select_tiling() == ([factor], [-1], None)
    assert cpp.TilingSelect().select_tiling() == ([8], [-1], None)


def test_buckets() -> None:
    sizes = {"a": 3, "big": SMALL + 1, "b": 0, "c": SMALL, "d": 1, "e": 5}
    kinds = {"a": 0, "big": 0, "b": 0, "c": 0, "d": 1, "e": 0}
    assert joined(sizes, kinds) == (("a", "c", "e"), ("big",), ("d",))
    assert joined(sizes, kinds, most=SMALL) == (("a",), ("big",), ("c",), ("d",), ("e",))
    assert joined(sizes, kinds, small=0) == (("a",), ("big",), ("c",), ("d",), ("e",))
    assert joined({}, {}) == ()
    shapes = {"u": (4, 5), "v": (5, 4), "w": (4, 5), "x": (4, 5), "y": (4, 5)}
    same = dict.fromkeys(shapes, "f32") | {"y": "bf16"}
    assert stacks(shapes, same, most=40) == (("u", "w"), ("x",), ("v",), ("y",))
    assert stacks(shapes, same, most=1)[0] == ("u",)
    assert list(pieces(10, 4)) == [(0, 4), (4, 8), (8, 10)]
    assert list(pieces(0, 4)) == []
