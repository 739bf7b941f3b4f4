"""What a compiled MLX step costs: traces, memory, kernels, and that joined parameters have the bits of single ones."""

from __future__ import annotations

import gc
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt import Count, Group, Recipe, Schedule
from dualopt.errors import NonFiniteError

mx = pytest.importorskip("mlx.core")

from dualopt_mlx import Optimizer, elementwise  # noqa: E402

Arrays = dict[str, Any]
SIDE = 512
MATRICES = {f"w{i}": (SIDE, SIDE) for i in range(6)}
LOST = {"shrink_half_life": 90.0}
ROWS: dict[str, dict[str, Any]] = {
    "adamw": LOST,
    "adam_l2": {},
    "lion": LOST | {"shrink": "cautious"},
    "sf_adamw": {},
}


def drawn(shapes: dict[str, tuple[int, ...]], seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    return {name: mx.array(rng.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}


def test_no_trace_but_the_first_in_1000_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule, and increments that change from step to step; eagerly the compiled functions are traced once, too."""
    shapes = {"w": (3, 4), "b": (5,), "number": ()}
    made = Recipe(
        (Group("adamw", name="matrix", match=("w",)), Group("lion", name="rest")),
        count=Count("tokens", per_update=100),
        schedule=Schedule(shape="linear", warmup=2_000, total=400_000),
    )
    g, traces = drawn(shapes, 1), 0
    model, twin = drawn(shapes, 0), drawn(shapes, 0)
    opt, reference = Optimizer(model, made), Optimizer(twin, made)

    def step() -> None:
        nonlocal traces
        traces += 1
        opt.update(model, g)

    compiled = opt.compile(step)
    moved: Any = elementwise.moved
    pieces = 0

    def counted(*args: Any) -> Any:
        nonlocal pieces
        pieces += 1
        return moved(*args)

    elementwise._update.cache_clear()
    monkeypatch.setattr(elementwise, "moved", counted)
    for t in range(1000):
        count = 1 + t * 37 % 400
        compiled(count=count)
        reference.update(twin, g, count)
    assert traces == 1
    assert pieces == 2 * 2  # two groups: in the trace of the step, and in those of the eager updates
    assert all(np.array_equal(model[name], twin[name]) for name in shapes)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("row", ["adamw", "adam_l2", "lion", "sgdm"])
def test_buffers_are_reused(row: str, compiled: bool) -> None:
    """No copy of a parameter or of its state: what is made for a moment are the booleans of the search, and words."""
    model, g = drawn(MATRICES, 0), drawn(MATRICES, 1)
    opt = Optimizer(model, Recipe((Group(row),)))
    update = opt.compile(lambda: opt.update(model, g)) if compiled else lambda: opt.update(model, g)
    for _ in range(3):
        update()
        mx.eval(model, opt.state)
    gc.collect()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    update()
    mx.eval(model, opt.state)
    elements = SIDE * SIDE * len(MATRICES)
    booleans, scalars = elements + elements // 8, 2**16
    assert mx.get_peak_memory() - before <= booleans + scalars


def primitives(path: Path, *outputs: Any) -> Counter[str]:
    """How often each primitive occurs in the graph that is still to be evaluated."""
    mx.export_to_dot(str(path), *outputs)
    return Counter(re.findall(r'label ?= ?"(\w+)', path.read_text()))


def test_small_parameters_are_updated_as_one_array(tmp_path: Path) -> None:
    """300 of them take the kernels of one: those of m, v and θ."""
    g = drawn({f"t{i}": (1 + i % 7,) for i in range(300)}, 1)
    model = drawn({name: x.shape for name, x in g.items()}, 0)
    opt = Optimizer(model, Recipe((Group("adamw"),)))
    update = opt.compile(lambda: opt.update(model, g))
    update()
    mx.eval(model, opt.state)
    update()
    found = primitives(tmp_path / "graph.dot", model, opt.state["memory"])
    large = [name for name in found if name.startswith("Compiled") and "Subtract" in name]
    assert sum(found[name] for name in large) == 3
    assert found["Slice"] == 3 * 300


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("row", ROWS)
def test_company_changes_no_bit(row: str, dtype: str) -> None:
    shapes = {f"t{i}": s for i, s in enumerate([(3,), (2, 5), (), (1, 7), (7, 1), (0, 3), (130, 130)])}
    made = Recipe((Group(row, ROWS[row]),))
    model = {name: x.astype(getattr(mx, dtype)) for name, x in drawn(shapes, 0).items()}
    alone = {name: {name: x} for name, x in model.items()}
    opt, single = Optimizer(model, made), {name: Optimizer(alone[name], made) for name in model}
    for t in range(5):
        g = {name: x.astype(getattr(mx, dtype)) for name, x in drawn(shapes, 1 + t).items()}
        opt.update(model, g)
        for name, own in single.items():
            own.update(alone[name], {name: g[name]})
    for name, own in single.items():
        for x, y in ((model[name], alone[name][name]), *zip(_state(opt, name), _state(own, name), strict=True)):
            assert np.array_equal(np.array(x.astype(mx.float32)), np.array(y.astype(mx.float32))), name


def _state(opt: Any, name: str) -> list[Any]:
    return list(opt.state["memory"][name].values())


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_that_is_not_finite_is_named_among_small_and_large(compiled: bool) -> None:
    shapes = {"a": (3,), "b": (2, 2), "large": (200, 100), "c": (5,)}
    for name, shape in shapes.items():
        model, g = drawn(shapes, 0), drawn(shapes, 1)
        opt = Optimizer(model, Recipe((Group("lion"),)))
        update = opt.compile(lambda g, opt=opt, model=model: opt.update(model, g)) if compiled else None
        place = tuple(n - 1 for n in shape)
        g[name][place] = mx.array(float("nan"))
        before = {n: np.array(x) for n, x in model.items()}
        if update is not None:
            update(g)  # the host asks later
        with pytest.raises(NonFiniteError, match=f"the gradient of '{name}'"):
            opt.update(model, g)
        assert all(np.array_equal(before[n], model[n]) for n in shapes)
