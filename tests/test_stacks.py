"""Stacks of matrices: views of what is stored, in memory that is used again; counted in bytes, not in time."""

from __future__ import annotations

from typing import Any

import pytest

from dualopt import Recipe
from dualopt.directions.polar import PRESETS, Way, polar
from dualopt.directions.polar.iterations import restarts
from dualopt.directions.polar.sets import SETS
from dualopt.generator import Stream
from dualopt.plan import Plan
from dualopt.recipe import Group

torch = pytest.importorskip("torch")

from dualopt_torch import products, spectral, stacks  # noqa: E402
from dualopt_torch.namespace import FAST  # noqa: E402
from dualopt_torch.optimizer import Optimizer  # noqa: E402
from dualopt_torch.triton.symmetric import is_gram  # noqa: E402

WAYS: dict[str, dict[str, Any]] = {
    "published": {},
    "accurate": {"polar": "accurate"},
    "fast": {"polar": "fast"},
    "aol": {"polar": "aol", "polar_work": "bfloat16"},
}
SHAPES = (32, 128), (128, 32), (64, 64)


def drawn(shape: tuple[int, ...], name: str = "x") -> Any:
    return torch.from_numpy(Stream(0, name).bell(shape))


@pytest.fixture(params=[False, True])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether stacks are bfloat16; without units for it products are slow, and the same."""
    for module in (products, spectral):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: request.param)
    return bool(request.param)


# --- the workspace --------------------------------------------------------------------------------------


def test_memory_that_lies_idle_is_used_again() -> None:
    space, device = stacks.Workspace(), torch.device("cpu")

    def new(*shape: int, dtype: Any = torch.float32) -> Any:
        return space.empty(torch.Size(shape), dtype, device)

    a = new(2, 3, 4)
    b = new(2, 3, 4)
    places = {a.data_ptr(), b.data_ptr()}
    assert len(places) == 2
    turned = a.mT[0]  # keeps the memory of a
    del a
    c = new(1, 2)
    assert c.data_ptr() not in places
    del turned
    d = new(4, 3, 4, dtype=torch.bfloat16)  # the same bytes
    assert d.data_ptr() in places
    assert d.data_ptr() != b.data_ptr()
    assert d.dtype == torch.bfloat16
    assert d.is_contiguous()
    assert len(space.blocks) == 3
    del c
    e = new(100)
    assert len(space.blocks) == 3  # in place of one that was too small
    assert sorted(x.numel() for x in space.blocks) == [96, 96, 400]
    del b, d, e
    smallest = new(1)
    assert smallest.untyped_storage().nbytes() == 96  # large ones are left for those who need them


def test_without_a_count_of_users_every_array_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stacks, "_users", None)
    space = stacks.Workspace()
    space.empty(torch.Size((3,)), torch.float32, torch.device("cpu"))
    assert not space.blocks


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_operations_are_those_of_the_core(dtype: Any, native: bool) -> None:
    """To the bit, except that a product may be added to its sum before it is rounded: two roundings of b r + c s."""
    if dtype == torch.bfloat16 and not native:
        return
    work = "float32_work" if dtype == torch.float32 else "bfloat16_work"
    plain, ours = getattr(FAST, work)(FAST), getattr(stacks.stacked(stacks.Workspace()), work)(FAST)
    r, s = drawn((3, 5, 5), "r").to(dtype), drawn((3, 5, 5), "s").to(dtype)
    d = drawn((3, 1, 1), "d").abs()
    before = r.clone(), s.clone()
    for name, given in {
        "times": (d, r), "shifted": (1.7, r, d), "product": (r, s), "sum": (0.3, r, r, s, -0.7),
    }.items():  # fmt: skip
        assert torch.equal(getattr(ours, name)(*given), getattr(plain, name)(*given)), name
    assert torch.equal(ours.shifted(1.7, r), plain.shifted(1.7, r))
    apart = (ours.mixed(0.3, r, -0.7, s) - plain.mixed(0.3, r, -0.7, s)).abs()
    sizes = 0.3 * r.abs() + 0.7 * s.abs()
    assert (apart <= torch.finfo(dtype).eps * sizes).all()
    assert torch.equal(r, before[0])
    assert torch.equal(s, before[1])
    z = torch.stack([1e-30 * drawn((4, 6)), 1e20 * drawn((4, 6)), 0 * drawn((4, 6))]).to(dtype)
    assert torch.equal(ours.level(z.clone()), plain.level(z).to(dtype))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_products_of_a_matrix_with_itself_reach_their_kernel(
    preset: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once at the start of every part of the Gram form, and in every step of the other one."""
    found: list[bool] = []

    def seen(u: Any, v: Any, out: Any = None) -> Any:
        found.append(is_gram(u, v))
        return torch.matmul(u, v, out=out)

    monkeypatch.setattr(products, "product", seen)
    monkeypatch.setattr(products, "multiplies_bfloat16", lambda device: True)
    stated = PRESETS[preset]
    z = drawn((2, *shape)).to(torch.bfloat16)
    polar(stacks.stacked(stacks.Workspace()), z, stated["polar"], Way.of(stated))
    steps = len(SETS[stated["polar"]].steps)
    assert sum(found) == (steps if shape[0] == shape[1] else 1 + len(restarts(steps)))


# --- bytes ----------------------------------------------------------------------------------------------


def carried_out(group: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """(most bytes at one time, blocks of the workspace) of the route in a second update."""
    from torch.profiler import ProfilerActivity, profile

    parameters = {name: torch.nn.Parameter(drawn(shape, name)) for name, shape in shapes.items()}
    optimizer = Optimizer(
        parameters, Recipe((Group.from_dict({"match": ["*"], "optimizer": "muon", "memory_half_life": 9.0, **group}),))
    )
    (route,) = (r for r in optimizer._execute._routes if isinstance(r, spectral.Spectral))
    made: list[stacks.Workspace] = []
    peaks: list[int] = []

    def workspace() -> stacks.Workspace:
        made.append(stacks.Workspace())
        return made[-1]

    def measured(update: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
            done = route(update)
        events = profiled.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), i, e.nbytes()) for i, e in enumerate(events) if e.name() == "[memory]")
        now = most = 0
        for _, _, change in changes:
            now += change
            most = max(most, now)
        peaks.append(most)
        return done

    optimizer._execute._routes = (measured,)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spectral, "Workspace", workspace)
        for _ in range(2):
            for name, p in parameters.items():
                p.grad = drawn(tuple(p.shape), name)
            optimizer.step()
    return peaks[-1], len(made[-1].blocks)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [(16, 48), (24, 24)])
def test_memory_beside_the_model_is_bounded(
    way: str, shape: tuple[int, int], native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not grow with the number of parameters, nor with the length of a stack of experts.

    The workspace has eight arrays at most: Z, X, R, b R + c R², the last Q and R Z, and two while Q is made anew in
    float32 and rounded. None is longer than a stack, or wider than float32. A scale is made of three more: the
    matrices, those of a safe size, and their squares.
    """
    matrix = shape[0] * shape[1]
    monkeypatch.setattr(spectral, "CHUNK", 4 * 4 * matrix)
    monkeypatch.setattr(spectral, "PIECE", matrix)
    narrow = native and way in PRESETS  # a stack of "aol" is float32, as it is normalised first
    stack = spectral.CHUNK // (2 if narrow else 4)
    few, blocks = carried_out(WAYS[way], {f"w{i}": shape for i in range(24)})
    assert blocks <= 8
    assert few <= (8 + 3) * 4 * stack
    assert carried_out(WAYS[way], {f"w{i}": shape for i in range(48)}) == (few, blocks)
    most, more = carried_out(WAYS[way], {"experts": (48, *shape)})
    assert more == blocks
    assert most <= (8 + 3) * 4 * stack


# --- strides --------------------------------------------------------------------------------------------

QKV = {"axis": 0, "parts": 3}
LYING: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "matrix": ((6, 10), {}),
    "kernel": ((5, 3, 2, 2), {}),
    "kernel of three": ((5, 3, 4), {"view": "conv"}),
    "experts": ((4, 5, 12), {}),
    "experts of layers": ((2, 4, 5, 12), {"view": "stack"}),
    "embedding": ((12, 5), {"orientation": "in_out"}),
    "fused": ((12, 8), {"blocks": QKV}),
    "heads that are read": ((12, 8), {"blocks": {"axis": 0, "parts": 4}}),
    "heads that are written": ((6, 8), {"blocks": {"axis": 1, "parts": 4}}),
    "interleaved": ((12, 8), {"blocks": {**QKV, "interleaved": True}}),
    "fused experts": ((4, 12, 8), {"blocks": {"axis": 1, "parts": 3}}),
}
COPIED = {"channels last"}


@pytest.mark.parametrize("name", [*LYING, *COPIED])
def test_what_is_copied(name: str) -> None:
    """Kernels, experts, blocks and heads are seen where they lie, as are their gradients; another order is copied."""
    shape, stated = LYING.get(name, ((6, 4, 3, 3), {}))
    planned = Plan(Recipe((Group.from_dict({"optimizer": "muon", "match": ["*"], **stated}),)), {"w": shape}).groups[0]
    w = drawn(shape)
    if name == "channels last":
        w = w.contiguous(memory_format=torch.channels_last)
    copied: list[Any] = []
    seen = spectral._seen(planned, "w", w, copied)
    assert len(copied) == (name in COPIED)
    assert (seen.untyped_storage().data_ptr() == w.untyped_storage().data_ptr()) == (name not in COPIED)
    g = planned.measured(FAST, "w", {"gradient": w})["gradient"]
    assert (g.untyped_storage().data_ptr() == w.untyped_storage().data_ptr()) == (name not in COPIED)


@pytest.mark.parametrize("name", LYING)
def test_nothing_of_the_size_of_a_parameter_is_made(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stack that is cut into pieces of one matrix no array takes more bytes than that."""
    longest = [0]

    class Lengths(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            found = func(*args, **(kwargs or {}))
            given = {x.untyped_storage()._cdata for x in args if isinstance(x, torch.Tensor)}
            for x in found if isinstance(found, (tuple, list)) else (found,):
                if isinstance(x, torch.Tensor) and x.untyped_storage()._cdata not in given:
                    longest[0] = max(longest[0], x.nbytes)
            return found

    shape, stated = LYING[name]
    p = torch.nn.Parameter(drawn(shape))
    recipe = Recipe((Group.from_dict({"optimizer": "muon", "match": ["*"], "memory_half_life": 9.0, **stated}),))
    optimizer = Optimizer({"w": p}, recipe)
    (route,) = (r for r in optimizer._execute._routes if isinstance(r, spectral.Spectral))
    p.grad = drawn(shape, "g")
    optimizer.step()
    seen = optimizer.plan.groups[0].views["w"].seen
    monkeypatch.setattr(spectral, "CHUNK", 4)

    def measured(update: Any) -> Any:
        with Lengths():
            return route(update)

    optimizer._execute._routes = (measured,)
    optimizer.step()
    whole = p.numel() // (seen[0] if len(seen) > 2 else 1)
    square = min(seen[-2:]) ** 2
    assert 0 < longest[0] <= 4 * max(whole, square)
