"""Scaled losses and bad updates: torch's GradScaler, clipping, microbatches; how rows follow the scale of a loss."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt import namespace
from dualopt.catalog import ENTRIES
from dualopt.clipping import clipped
from dualopt.errors import NonFiniteError, RecipeError
from dualopt.generator import Stream
from dualopt.namespace import Backend
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.replay import drive, replay

NATIVE = [name for name in ("torch", "mlx") if name in namespace.installed()]
SHAPES = {"a.w": (5, 4), "b.w": (3, 4), "b.v": (4,)}
BAD = (math.nan, math.inf, -math.inf)


def recipe(first: str = "adamw", second: str = "lion", nonfinite: str = "raise", **options: Any) -> Recipe:
    groups = [
        {"name": "a", "match": ["a.*"], "optimizer": first, **options},
        {"name": "b", "match": ["*"], "optimizer": second},
    ]
    return Recipe.from_dict({"count": {"unit": "tokens", "per_update": 100}, "nonfinite": nonfinite, "group": groups})


def gradients(t: int, shapes: Any = SHAPES) -> dict[str, Any]:
    return {n: np.asarray(Stream(1 + t, n).bell(s)) for n, s in shapes.items()}


class Run:
    """A model of one framework in float32, whose optimizer gets gradients."""

    def __init__(self, name: str, table: Recipe, **how: Any) -> None:
        self.array = namespace.load(name).from_numpy
        self.torch = name == "torch"
        self.model = {n: self.array(np.asarray(Stream(0, n).bell(s)), "float32") for n, s in SHAPES.items()}
        if self.torch:
            self.model = {n: x.requires_grad_() for n, x in self.model.items()}
        self.opt: Any = dualopt.optimizer(self.model, table, **how)

    def give(self, found: Any, scale: float = 1.0) -> None:
        """Gradients in their places (torch)."""
        for n, p in self.model.items():
            p.grad = self.array(found[n] * np.float32(scale), "float32") if n in found else None

    def update(self, found: Any, count: int | None = None) -> None:
        if self.torch:
            self.give(found)
            self.opt.step(count=count)
        else:
            self.opt.update(self.model, {n: self.array(g, "float32") for n, g in found.items()}, count=count)

    def seen(self) -> tuple[Any, ...]:
        """All of it."""
        here = self.opt.snapshot()
        state = {n: {k: x.tobytes() for k, x in s.items()} for n, s in here.state.items()}
        return {n: x.tobytes() for n, x in here.parameters.items()}, state, here.counts, here.sums


def spoiled(found: dict[str, Any], value: float, name: str = "b.v") -> dict[str, Any]:
    x = found[name].copy()
    x.reshape(-1)[-1] = value
    return {**found, name: x}


def scaler_of(torch: Any, scale: float = 2.0**16) -> Any:
    return torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)


def scaled_step(run: Run, scaler: Any, found: Any, count: int) -> None:
    """The scaled gradients of a loss, a step, and the scaler's own update."""
    run.give(found, scaler.scale(run.array(np.ones(()), "float32")).item())
    scaler.step(run.opt, count=count)
    scaler.update()


def test_a_grad_scaler_changes_no_bit() -> None:
    torch = pytest.importorskip("torch")
    plain, scaled, scaler = Run("torch", recipe()), Run("torch", recipe()), scaler_of(torch)
    for t in range(4):
        plain.update(gradients(t), 17 * t + 1)
        scaled_step(scaled, scaler, gradients(t), 17 * t + 1)
    assert plain.seen() == scaled.seen()


@pytest.mark.parametrize("bad", BAD)
def test_a_step_that_a_grad_scaler_skips_has_not_been(bad: float) -> None:
    """Two groups, and what is bad is in the second: no parameter, memory or count of either moves."""
    torch = pytest.importorskip("torch")
    plain, scaled, scaler = Run("torch", recipe()), Run("torch", recipe()), scaler_of(torch)
    for t in range(3):
        before = scaled.seen()
        scaled_step(scaled, scaler, spoiled(gradients(9), bad), 5)
        assert scaled.seen() == before
        assert scaler.get_scale() == 2.0 ** (15 - t)
        plain.update(gradients(t), 5)
        scaled_step(scaled, scaler, gradients(t), 5)
    assert plain.seen() == scaled.seen()
    assert scaled.opt.plan.tau == 15


def test_a_skipped_step_after_advance_has_not_been() -> None:
    torch = pytest.importorskip("torch")
    run, scaler = Run("torch", recipe()), scaler_of(torch)
    scaled_step(run, scaler, gradients(0), 5)
    before = run.seen()
    run.opt.advance(7)
    run.give(spoiled(gradients(1), math.nan), 1.0)
    scaler.step(run.opt)
    scaler.update()
    assert run.seen() == before
    run.opt.advance(7)
    assert run.opt.plan.tau == 12


def test_clipping_between_unscale_and_step() -> None:
    """torch's clipping sees gradients in their own size, and so do rows; one of signs does not notice it."""
    torch = pytest.importorskip("torch")
    plain, scaled, scaler = Run("torch", recipe("sgdm")), Run("torch", recipe("sgdm")), scaler_of(torch)
    unclipped = Run("torch", recipe("sgdm"))
    for run in (plain, scaled, unclipped):
        run.give(gradients(0), 2.0**16 if run is scaled else 1.0)
    scaler.scale(torch.ones(()))
    scaler.unscale_(scaled.opt)
    for run in (plain, scaled):
        assert torch.nn.utils.clip_grad_norm_(list(run.model.values()), 0.5) > 0.5
    plain.opt.step()
    scaler.step(scaled.opt)
    unclipped.opt.step()
    assert plain.seen() == scaled.seen()
    assert torch.equal(plain.model["b.w"], unclipped.model["b.w"])  # lion
    assert not torch.equal(plain.model["a.w"], unclipped.model["a.w"])  # sgdm


def test_gradients_that_add_up_count_as_one_update() -> None:
    """Microbatches of a scaled loss: Δτ is that of the whole batch."""
    torch = pytest.importorskip("torch")
    plain, scaled, scaler = Run("torch", recipe()), Run("torch", recipe()), scaler_of(torch)
    parts = [gradients(t) for t in range(4)]
    whole = {n: sum(part[n] * np.float32(2.0**-2) for part in parts) for n in SHAPES}
    plain.update(whole, 4 * 25)
    scale = scaler.scale(torch.ones(())).item()
    for n, p in scaled.model.items():
        for part in parts:
            g = scaled.array(part[n] * np.float32(scale / 4), "float32")
            p.grad = g if p.grad is None else p.grad + g
    scaler.step(scaled.opt, count=4 * 25)
    scaler.update()
    assert plain.seen() == scaled.seen()
    assert scaled.opt.plan.counts == dict.fromkeys(SHAPES, 100)


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize("policy", ["raise", "skip"])
def test_bad_gradients_of_one_group_leave_all_as_they_were(name: str, policy: str) -> None:
    plain, run = Run(name, recipe()), Run(name, recipe(nonfinite=policy))
    for t, bad in enumerate(BAD):
        for good in (plain, run):
            good.update(gradients(t), 5)
        before = run.seen()
        if policy == "raise":
            with pytest.raises(NonFiniteError, match=r"'b\.v' holds NaN, infinity"):
                run.update(spoiled(gradients(t), bad), 3)
        else:
            run.update(spoiled(gradients(t), bad), 3)
        assert run.seen() == before
    assert plain.seen() == run.seen()


def test_a_closure_whose_gradients_are_skipped_returns_its_loss() -> None:
    torch = pytest.importorskip("torch")
    run = Run("torch", recipe(nonfinite="skip"))
    run.update(gradients(0), 5)
    before = run.seen()

    def closure(factor: float) -> Any:
        run.opt.zero_grad()
        loss = sum((factor * p.square()).sum() for p in run.model.values())
        loss.backward()
        return loss

    assert math.isinf(run.opt.step(lambda: closure(math.inf)).item())
    assert run.seen() == before
    assert torch.isfinite(run.opt.step(lambda: closure(1.0), count=7))
    assert run.opt.plan.counts == dict.fromkeys(SHAPES, 12)


@pytest.mark.parametrize("name", NATIVE)
def test_microbatches_are_one_update_of_the_whole_batch(name: str) -> None:
    parts = [gradients(t) for t in range(4)]
    run, other = Run(name, recipe(), tier="exact"), Run(name, recipe(), tier="exact")
    trees = [{n: run.array(g, "float32") for n, g in part.items()} for part in parts]
    if name == "torch":
        run.opt.step(microbatches=trees, count=400)
        for tree in trees:
            for n, p in other.model.items():
                p.grad = tree[n]
            other.opt.accumulate(count=400)
        other.opt.step()
    else:
        run.opt.update(run.model, microbatches=trees, count=400)
        other.opt.update(other.model, microbatches=iter(trees), count=400)
    assert run.seen() == other.seen()
    assert run.seen()[2] == dict.fromkeys(("", *SHAPES), 400)


# Clipping by the recipe

CLIPPED = {"w": (7, 9), "k": (4, 3, 2, 2), "b": (5,), "none": (0, 2)}


def test_clipping_is_of_the_whole_group_and_has_the_same_bits_everywhere(backend: Backend) -> None:
    params = {n: np.asarray(Stream(0, n).bell(s)) for n, s in CLIPPED.items()}
    series = [{n: g * np.float32(10.0**e) for n, g in gradients(e + 40, CLIPPED).items()} for e in (-30, 0, 2, 25)]
    table = {"optimizer": "sgdm", "step": 1.0, "readout": 0.0, "clip": 3.0}
    expected = replay(table, params, series, 1)
    found = replay(table, params, series, 1, backend=backend.name)
    before = params
    for t, gradient in enumerate(series):
        g = {n: x.astype(np.float64) for n, x in gradient.items()}
        factor = min(1.0, 3.0 / math.sqrt(sum((x * x).sum() for x in g.values())))
        for n, x in expected.params[t].items():
            assert x.tobytes() == found.params[t][n].tobytes()
            np.testing.assert_allclose(
                x, before[n] - factor * g[n], rtol=0, atol=32 * 2.0**-24
            )  # 5 roundings of a step <= 3, and one of θ <= 17
        before = expected.params[t]


@pytest.mark.parametrize("name", NATIVE)
def test_native_optimizers_clip_the_same(name: str) -> None:
    params = {n: np.asarray(Stream(0, n).bell(s)) for n, s in SHAPES.items()}
    table = recipe("adamw", "lion", clip=0.25)
    series = [gradients(t) for t in range(3)]
    *_, last = drive(table, params, series)
    *_, unclipped = drive(recipe("adamw", "lion"), params, series)
    run = Run(name, table, tier="exact")
    for found in series:
        run.update(found)
    here = run.opt.snapshot().parameters
    assert all(here[n].tobytes() == x.tobytes() for n, x in last.params.items())
    assert not np.array_equal(last.state["a.w"]["m"], unclipped.state["a.w"]["m"])
    assert np.array_equal(last.params["b.w"], unclipped.params["b.w"])  # another group


def test_clipping_a_direction_of_length_1_is_an_error() -> None:
    for row, options in (
        ("lion", {}),
        ("muon", {}),
        ("normuon", {}),
        *(("scionc", {"norm": n}) for n in ("sign", "row")),
    ):
        with pytest.raises(RecipeError, match=r"clip = 1: the direction of \w+ has length 1 .* is as long as step"):
            Group.from_dict({"optimizer": row, "clip": 1.0, **options})
    with pytest.raises(RecipeError, match="makes more of its microbatches than their mean"):
        Group("adamw", {"estimator": "inv"}, clip=1.0)
    with pytest.raises(RecipeError, match="clip must be finite and > 0"):
        Group("sgdm", clip=0.0)
    group = Group("adamw", clip=2.5)
    assert Recipe.from_dict(Recipe((group,)).to_dict()).groups == (group,)


@pytest.mark.parametrize("name", ENTRIES)
def test_rows_follow_the_scale_of_the_loss_as_they_say(name: str) -> None:
    """Gradients 2^10 times as large: the updates are (2^10)^degree times as large, but for ε."""
    row = _row(name)
    params = {"w": np.asarray(Stream(0, "w").bell((4, 6)), np.float64)}
    series = [{"w": 50.0 * np.asarray(Stream(1 + t, "w").bell((4, 6)), np.float64)} for t in range(3)]
    if row.degree is None:
        assert not row.unit
        return
    runs = []
    for scale in (1.0, 2.0**10):
        grads = [{"w": scale * g["w"]} for g in series]
        given = [[g, g] for g in grads] if any(f.least > 1 for f in row.folds.values()) else grads
        found = replay({"optimizer": name}, params, given, 1, dtype="float64", trace=True)
        runs.append([u for t in found.trace for u in t["w"]["u"].values()])
    for small, large in zip(*runs, strict=True):
        np.testing.assert_allclose(large, small * 2.0 ** (10 * row.degree), rtol=1e-6, atol=1e-7)


def _row(name: str, **options: Any) -> Any:
    return Plan(Recipe((Group(name, options),)), {"w": (4, 6)}).groups[0].row


def test_what_is_known_of_some_rows() -> None:
    degrees = {"sgdm": 1.0, "adamw": 0.0, "lion": 0.0, "muon": 0.0, "scionc": 0.0, "sophia": None}
    assert {name: _row(name).degree for name in degrees} == degrees
    assert _row("adam_l2", l2=0.1).degree is None
    assert [name for name in degrees if _row(name).unit] == ["lion", "muon", "scionc"]


def test_gradients_without_a_bound_are_not_touched():
    """Not widened either, which would take 4 bytes for each of their entries."""
    plan = Plan(recipe("adamw", "lion"), {"a.w": (2, 2), "b.w": (3,)})
    evidence = {"a.w": {"gradient": object()}, "b.w": {"gradient": object()}}
    assert clipped(np, plan.groups, evidence, widen=None) == evidence
