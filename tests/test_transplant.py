"""Snapshots that are made to fit: what does not fit is refused with what to do, and what is meant is said once."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dualopt import Count, Group, Recipe, Schedule, checkpoint, optimizer, transplant
from dualopt.checkpoint import Snapshot
from dualopt.errors import CheckpointError, CountError
from dualopt.generator import Stream

torch = pytest.importorskip("torch")

BODY = Group("adamw", {"step": 0.01}, name="body", match=("body.*",))
HEAD = Group("lion", {"step": 0.001}, name="head", match=("*",))
RECIPE = Recipe((BODY, HEAD), Count("tokens", per_update=64))


def side(framework: str, names: dict[str, tuple[int, ...]], recipe: Recipe = RECIPE, updates: int = 0) -> Any:
    """An optimizer of parameters that are what their names say, after some updates."""
    start = {n: Stream(0, n).bell(s) for n, s in names.items()}
    grads = [{n: Stream(1 + t, n).bell(s) for n, s in names.items()} for t in range(updates)]
    if framework == "mlx":
        mx = pytest.importorskip("mlx.core")
        model = {n: mx.array(x) for n, x in start.items()}
        opt = optimizer(model, recipe, tier="exact")
        for g in grads:
            opt.update(model, {n: mx.array(x) for n, x in g.items()}, count=64)
        return opt
    named = {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in start.items()}
    opt = optimizer(named, recipe, tier="exact")
    for g in grads:
        for n, x in g.items():
            named[n].grad = torch.from_numpy(x)
        opt.step(count=64)
    return opt


SHAPES: dict[str, tuple[int, ...]] = {"body.0": (3, 4), "body.1": (4,), "head": (2, 4)}


@pytest.fixture(params=["torch", "mlx"])
def framework(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def bits(x: Any) -> bytes:
    return np.asarray(x).tobytes()


def test_another_recipe_is_refused_by_its_first_difference(framework: str) -> None:
    saved = side("torch", SHAPES, updates=2).snapshot()
    assert saved.origin.tier == "exact"
    assert saved.origin.versions.startswith("dualopt ")
    assert Recipe.from_dict(tomllib.loads(saved.origin.recipe)) == RECIPE
    longer = Group("adamw", {"step": 0.02}, name="body", match=("body.*",))
    other = Group("adam_l2", {"step": 0.01}, name="body", match=("body.*",))
    first = Group("adamw", {"step": 0.01}, name="trunk", match=("body.*",))
    count = Recipe((BODY, HEAD), Count("tokens", per_update=128))
    for recipe, message in (
        (Recipe((longer, HEAD), RECIPE.count), "group.body.step is 0.01, here 0.02"),
        (Recipe((other, HEAD), RECIPE.count), "group.body.optimizer is 'adamw', here 'adam_l2'"),
        (Recipe((first, HEAD), RECIPE.count), "group.body is there, here not stated"),
        (count, "count.per_update is 64, here 128"),
    ):
        opt = side(framework, SHAPES, recipe, updates=1)
        before = opt.snapshot()
        with pytest.raises(CheckpointError, match=f"another recipe, where {message}") as caught:
            opt.restore(saved)
        assert "transplant.under" in str(caught.value)
        same(opt.snapshot(), before)
        opt.restore(transplant.under(saved, recipe))
        same(opt.snapshot(), transplant.under(saved, recipe))
    again = side(framework, SHAPES)
    again.restore(saved)
    same(again.snapshot(), saved)


def same(one: Snapshot, other: Snapshot) -> None:
    assert one.counts == other.counts
    assert one.sums == other.sums
    assert one.origin.recipe == other.origin.recipe
    for mine, yours in ((one.parameters, other.parameters), *((one.state[n], other.state[n]) for n in one.state)):
        assert {n: bits(x) for n, x in mine.items()} == {n: bits(x) for n, x in yours.items()}


def test_groups_in_another_order_are_another_recipe() -> None:
    saved = side("torch", SHAPES).snapshot()
    swapped = Recipe((HEAD, BODY), RECIPE.count)
    with pytest.raises(CheckpointError, match="the groups are in another order"):
        checkpoint.require_recipe(saved, swapped, where="file")
    for text, message in (
        ("no = TOML =", "is no valid TOML"),
        ("a = " + "[" * 3000, "is no valid TOML"),
        ("[count]\nper_update = 0x" + "f" * 4000, "an integer of more than 64 bits"),
        ('group = [{name = "body"}, 1]', "cannot be carried out"),
        ("group = [{name = [1]}]", "cannot be carried out"),
    ):
        broken = Snapshot({}, {}, {}, {}, {}, checkpoint.Origin(text))
        with pytest.raises(CheckpointError, match=f"file: the recipe in its metadata.*{message}"):
            checkpoint.require_recipe(broken, RECIPE, where="file")


def test_renamed_parameters_go_on(framework: str) -> None:
    saved = side("torch", SHAPES, updates=3).snapshot()
    names: dict[str, tuple[int, ...]] = {"body.up": (3, 4), "body.1": (4,), "head": (2, 4)}
    opt = side(framework, names)
    with pytest.raises(CheckpointError, match=r"lacks 'body.up' and has 'body.0'.*transplant"):
        opt.restore(saved)
    opt.restore(transplant.renamed(saved, {"body.0": "body.up"}))
    now = opt.snapshot()
    assert now.counts == {"": 192, "body.up": 192, "body.1": 192, "head": 192}
    assert bits(now.parameters["body.up"]) == bits(saved.parameters["body.0"])
    assert bits(now.state["body.up"]["v"]) == bits(saved.state["body.0"]["v"])
    swapped = transplant.renamed(saved, {"body.0": "body.1", "body.1": "body.0"})
    assert bits(swapped.parameters["body.0"]) == bits(saved.parameters["body.1"])
    for names_, message in (
        ({"body.2": "x"}, "no parameter 'body.2' was saved; did you mean 'body.1'"),
        ({"body.0": "head"}, "'body.0' and 'head' would both be 'head'|'head' and 'body.0'"),
        ({"body.0": ""}, "cannot be the name"),
    ):
        with pytest.raises(CheckpointError, match=message):
            transplant.renamed(saved, names_)


def test_a_part_goes_on_and_the_rest_starts(framework: str) -> None:
    saved = side("torch", SHAPES, updates=3).snapshot()
    names: dict[str, tuple[int, ...]] = {"body.0": (3, 4), "body.1": (4,), "top.w": (5, 4)}
    opt = side(framework, names)
    start = opt.snapshot()
    for lists, message in (
        ({}, r"'top.w' was not saved; name it in fresh="),
        ({"fresh": ["top.*"]}, "'head' was saved and is not in the model; name it in dropped="),
        ({"fresh": ["tpo.*"]}, "fresh: 'tpo.*' is none of the model; did you mean 'top.w'"),
        ({"fresh": "top.w", "dropped": ["heads"]}, "dropped: 'heads' is none of the saved"),
    ):
        with pytest.raises(CheckpointError, match=message):
            transplant.partial(saved, start, **lists)
    part = transplant.partial(saved, start, fresh=["top.*"], dropped=["head"])
    opt.restore(part)
    now = opt.snapshot()
    assert now.counts == {"": 192, "body.0": 192, "body.1": 192, "top.w": 0}
    assert bits(now.parameters["top.w"]) == bits(start.parameters["top.w"])
    assert bits(now.state["body.0"]["m"]) == bits(saved.state["body.0"]["m"])


def test_a_changed_row_begins_anew(framework: str) -> None:
    saved = side("torch", SHAPES, updates=3).snapshot()
    recipe = Recipe((Group("sf_adamw", {"step": 0.01}, name="body", match=("body.*",)), HEAD), RECIPE.count)
    opt = side(framework, SHAPES, recipe)
    with pytest.raises(CheckpointError, match="optimizer is 'adamw', here 'sf_adamw'"):
        opt.restore(saved)
    with pytest.raises(CheckpointError, match=r"state of 'body.0'.*transplant.restarted"):
        opt.restore(transplant.under(saved, recipe))
    opt.restore(transplant.restarted(transplant.under(saved, recipe), ["body.*"]))
    now = opt.snapshot()
    assert now.counts == {"": 192, "body.0": 0, "body.1": 0, "head": 192}
    assert bits(now.parameters["body.0"]) == bits(saved.parameters["body.0"])
    with pytest.raises(CheckpointError, match="restarted: 'nothing'"):
        transplant.restarted(saved, ["nothing"])


def test_counts_end_where_arrays_can_hold_them(framework: str) -> None:
    opt = side(framework, SHAPES, updates=1)
    before = opt.snapshot()
    for count in (2**63, 2**70):
        with pytest.raises(CheckpointError, match=r"at most 2\^63 - 1"):
            opt.restore(replace(before, counts={**before.counts, "": count}))
        same(opt.snapshot(), before)
    opt.restore(replace(before, counts={**before.counts, "": 2**63 - 1}))
    with pytest.raises(CountError, match=r"64 after 9223372036854775807 is past 2\^63 - 1"):
        updated(opt, framework)
    assert opt.snapshot().counts == {**before.counts, "": 2**63 - 1}


def test_before_the_first_update_the_step_is_what_it_was_at_the_start(framework: str) -> None:
    schedule = Schedule("linear", warmup=256, total=1024)
    opt = side(framework, SHAPES, Recipe((BODY, HEAD), RECIPE.count, schedule))
    start, steps = opt.snapshot(), steps_of(opt, framework)
    updated(opt, framework)
    assert steps_of(opt, framework) != steps
    opt.restore(start)
    assert steps_of(opt, framework) == steps


def test_a_refused_snapshot_leaves_an_update_that_has_been_prepared(framework: str) -> None:
    opt, other = side(framework, SHAPES), side(framework, SHAPES)
    good = opt.snapshot()
    for bad in (
        replace(good, counts={**good.counts, "w": 1}),
        replace(good, counts={**good.counts, "head": 1}),
        replace(good, sums={"head": {"s": 1.0}}),
    ):
        opt.advance(count=96)
        with pytest.raises(CheckpointError):
            opt.restore(bad)
        updated(opt, framework, count=None)
        updated(other, framework, count=96)
        same(opt.snapshot(), other.snapshot())


def steps_of(opt: Any, framework: str) -> list[float]:
    return list(opt.steps.values()) if framework == "mlx" else [group["lr"] for group in opt.param_groups]


def updated(opt: Any, framework: str, count: int | None = 64) -> None:
    grads = {n: np.ones(s, np.float32) for n, s in SHAPES.items()}
    if framework == "mlx":
        mx = pytest.importorskip("mlx.core")
        opt.update(opt._model, {n: mx.array(x) for n, x in grads.items()}, count=count)
        return
    for group in opt.param_groups:
        for name, p in zip(group["param_names"], group["params"], strict=True):
            p.grad = torch.from_numpy(grads[name])
    opt.step(count=count)


def test_other_types_are_refused(framework: str) -> None:
    opt = side(framework, SHAPES, updates=1)
    before, good = opt.snapshot(), side("torch", SHAPES, updates=2).snapshot()
    wide = {n: x.astype(np.float64) for n, x in good.parameters.items()}
    states = {n: {k: x.astype(np.float64) for k, x in s.items()} for n, s in good.state.items()}
    for change, message in (
        ({"parameters": wide}, "was saved as F64, in the model it is F32"),
        ({"parameters": {n: x.astype(np.int32) for n, x in wide.items()}}, "was saved as int32"),
        ({"state": states}, "is F64, it must be F32"),
    ):
        with pytest.raises(CheckpointError, match=message):
            opt.restore(Snapshot(**{**vars(good), **change}))
        same(opt.snapshot(), before)


def test_types_and_running_sums_go_with_their_parameter() -> None:
    one = {n: np.ones(1, np.float32) for n in ("a", "b")}
    counts, halves = {"": 7, "a": 7, "b": 7}, {"a": "BF16", "b": "F16"}
    saved = Snapshot(one, {"a": {}, "b": {}}, counts, halves, {"a": {"s": 1.0}, "b": {"s": 2.0}})
    moved = transplant.renamed(saved, {"a": "b", "b": "a"})
    assert moved.dtypes == {"b": "BF16", "a": "F16"}
    assert moved.sums == {"b": {"s": 1.0}, "a": {"s": 2.0}}
    new = Snapshot({"a": one["a"], "c": one["a"]}, {"a": {}, "c": {}}, {"": 0, "a": 0, "c": 0}, {"c": "F16"})
    part = transplant.partial(saved, new, fresh=["c"], dropped=["b"])
    assert part.dtypes == {"a": "BF16", "c": "F16"}
    assert part.sums == {"a": {"s": 1.0}}
    again = transplant.restarted(saved, ["b"])
    assert again.sums == {"a": {"s": 1.0}}
    assert again.dtypes == halves
