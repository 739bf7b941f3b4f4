"""Evaluation weights and running sums on both native optimizers: eval and train, saving, resuming, moving across."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

from dualopt import Recipe, checkpoint, optimizer, replay
from dualopt.errors import EvaluationError, StaleScalarsError
from dualopt_conformance import inputs

SHAPES: dict[str, tuple[int, ...]] = {"a.w": (5, 3), "a.v": (70,), "late": (4, 6), "plain": (3,)}
AVERAGED: dict[str, Any] = {
    "match": ["a.*", "late"],
    "averaging": "largest_step",
    "shrink_half_life": 4e3,
    "step": 0.02,
}
FRAMEWORKS = ("torch", "mlx")
UPDATES = 8
LATE = 3  # the first update in which the parameter "late" has a gradient


def recipe(row: str = "sf_adamw", nonfinite: str = "raise", **options: Any) -> Recipe:
    motion = {} if row.startswith("sf_") else {"motion": "averaged"}
    table = {
        "count": {"unit": "tokens", "per_update": 100},
        "schedule": {"shape": "linear", "warmup": 300, "total": 2000},
        "nonfinite": nonfinite,
        "group": [
            {**AVERAGED, "name": "averaged", "optimizer": row, **motion, **options},
            {"name": "rest", "optimizer": "lion", "step": 0.01},
        ],
    }
    return Recipe.from_dict(table)


def data(half: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]], list[int]]:
    def narrow(x: Any) -> Any:
        return x.astype(np.float16).astype(np.float32) if half else x

    params = {n: narrow(x) for n, x in inputs.parameters(SHAPES).items()}
    grads = [
        {n: narrow(x) for n, x in g.items()} for g in inputs.gradients(SHAPES, UPDATES, kinds=("bell", "zeros", "ties"))
    ]
    for g in grads[:LATE]:
        del g["late"]
    return params, grads, inputs.increments(UPDATES)


class Twin:
    """One framework's native optimizer over a mapping, fed with numpy gradients."""

    def __init__(self, framework: str, made: Recipe, half: bool = False, **options: Any) -> None:
        self.framework, self.half = framework, half
        self.lib = pytest.importorskip("torch" if framework == "torch" else "mlx.core")
        self.named = {n: self.array(x) for n, x in data(half)[0].items()}
        if framework == "torch":
            self.named = {n: self.lib.nn.Parameter(x) for n, x in self.named.items()}
        self.opt = optimizer(self.named, made, **options)

    def array(self, x: Any) -> Any:
        if self.framework == "torch":
            return self.lib.from_numpy(np.array(x)).to(self.lib.float16 if self.half else self.lib.float32)
        return self.lib.array(x).astype(self.lib.float16 if self.half else self.lib.float32)

    def step(self, g: dict[str, Any], count: int) -> None:
        if self.framework == "torch":
            for n, p in self.named.items():
                p.grad = self.array(g[n]) if n in g else None
            self.opt.step(count=count)
        else:
            self.opt.update(self.named, {n: self.array(x) for n, x in g.items()}, count=count)

    def run(self, first: int = 0, last: int = UPDATES) -> None:
        _, grads, increments = data(self.half)
        for t in range(first, last):
            self.step(grads[t], increments[t])

    def numpy(self, x: Any) -> Any:
        return x.detach().float().numpy().copy() if self.framework == "torch" else np.array(x.astype(self.lib.float32))

    def bits(self) -> dict[str, bytes]:
        return {n: self.numpy(x).tobytes() for n, x in self.named.items()}

    def everything(self) -> dict[str, bytes]:
        saved = self.opt.snapshot()
        found = {n: x.tobytes() for n, x in saved.parameters.items()}
        for n, s in saved.state.items():
            found |= {f"{n}/{key}": x.tobytes() for key, x in s.items() if saved.counts[n]}
        return found | {
            "counts": repr(sorted(saved.counts.items())).encode(),
            "sums": repr(sorted(saved.sums.items())).encode(),
        }


def averages(twin: Twin) -> dict[str, bytes]:
    """What should be evaluated, from the snapshot: x where there is one, rounded as the parameter is stored."""
    saved = twin.opt.snapshot()
    kind = np.float16 if twin.half else np.float32
    found = {}
    for n, y in saved.parameters.items():
        x = saved.state[n]["x"] if "x" in saved.state[n] and saved.counts[n] else y
        found[n] = x.astype(kind).astype(np.float32).tobytes()
    return found


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_eval_and_train(framework: str, half: bool) -> None:
    twin = Twin(framework, recipe(), half)
    twin.opt.eval()
    twin.opt.train()
    twin.run(0, LATE)  # "late" has not begun
    before, expected = twin.bits(), averages(twin)
    assert expected["a.w"] != before["a.w"]
    assert expected["late"] == before["late"]
    whole = twin.everything()
    for _ in range(2):
        twin.opt.eval()
        assert twin.bits() == expected
        assert twin.everything() == whole
    for call in (twin.opt.advance, lambda: twin.step(data()[1][0], 10)):
        with pytest.raises(EvaluationError, match=r"opt\.train\(\)"):
            call()
    assert twin.bits() == expected
    for _ in range(2):
        twin.opt.train()
        assert twin.bits() == before
    with twin.opt.evaluating():
        assert twin.bits() == expected
        with twin.opt.evaluating():
            pass
        assert twin.bits() == expected
    with pytest.raises(ZeroDivisionError), twin.opt.evaluating():
        raise ZeroDivisionError
    assert twin.bits() == before
    tree = twin.opt.averaged()
    assert {n: twin.numpy(x).tobytes() for n, x in tree.items()} == expected
    assert twin.bits() == before
    assert {str(x.dtype) for x in tree.values()} == {str(x.dtype) for x in twin.named.values()}
    undisturbed = Twin(framework, recipe(), half)
    undisturbed.run()
    twin.run(LATE)
    assert twin.everything() == undisturbed.everything()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_without_an_averaged_row_eval_changes_nothing(framework: str) -> None:
    twin = Twin(framework, Recipe.from_dict({"group": [{"optimizer": "adamw"}]}))
    twin.run(0, 2)
    before = twin.bits()
    twin.opt.eval()
    assert twin.bits() == before == {n: twin.numpy(x).tobytes() for n, x in twin.opt.averaged().items()}
    twin.run(2, 3)


@pytest.mark.parametrize("row", ["sf_adamw", "lion", "scion"])
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_exact_native_runs_are_replays(framework: str, row: str) -> None:
    options = {"norm": "row"} if row == "scion" else {}
    made = recipe(row, match=["a.w", "late"], **options) if row == "scion" else recipe(row)
    twin = Twin(framework, made, tier="exact")
    twin.run()
    from dualopt.replay import drive

    params, grads, increments = data()
    *_, last = drive(made, params, grads, increments)
    saved = twin.opt.snapshot()
    for n, x in last.params.items():
        assert saved.parameters[n].tobytes() == x.tobytes()
        for key, s in last.state[n].items():
            assert saved.state[n][key].tobytes() == s.tobytes()


@pytest.mark.parametrize("at", [0, 2, LATE, 5])
@pytest.mark.parametrize("way", [("torch", "mlx"), ("mlx", "torch"), ("torch", "torch"), ("mlx", "mlx")])
def test_a_snapshot_continues_anywhere(way: tuple[str, str], at: int, tmp_path: Any) -> None:
    """Sums, z and x go from one framework to the other through a file, also out of eval, and the bits go on."""
    first, second = (Twin(name, recipe(), tier="exact") for name in way)
    first.run(0, at)
    first.opt.eval()
    checkpoint.save(tmp_path / "s", first.opt.snapshot(), metadata={})
    first.opt.train()
    first.run(at)
    second.run(0, 1)  # something to be replaced
    second.opt.eval()
    second.opt.restore(checkpoint.load(tmp_path / "s")[0])
    second.opt.eval()
    assert second.bits() == averages(second)
    second.opt.train()
    second.run(at)
    assert second.everything() == first.everything()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_memories_of_a_late_parameter_start_where_it_is(framework: str) -> None:
    """Weights that are loaded after the optimizer was made, or written before the first update, are z and x."""
    twin = Twin(framework, recipe())
    twin.run(0, LATE)
    new = np.full(SHAPES["late"], 3.5, np.float32)
    if framework == "torch":
        with twin.lib.no_grad():
            twin.named["late"].copy_(twin.array(new))
    else:
        twin.named["late"] = twin.array(new)
    twin.run(LATE, LATE + 1)
    saved = twin.opt.snapshot()
    assert (np.abs(saved.state["late"]["x"] - 3.5) < 0.2).all()  # shrink and one step, not the old weights


def test_torch_state_dict_carries_sums(tmp_path: Any) -> None:
    torch = pytest.importorskip("torch")
    one, two = Twin("torch", recipe()), Twin("torch", recipe())
    one.run(0, 5)
    one.opt.eval()
    with pytest.raises(EvaluationError, match="state_dict"):
        one.opt.state_dict()
    with pytest.raises(EvaluationError, match="load_state_dict"):
        one.opt.load_state_dict({})
    one.opt.train()
    buffer = io.BytesIO()
    torch.save([one.named, one.opt.state_dict()], buffer)
    buffer.seek(0)
    named, saved = torch.load(buffer, weights_only=False)
    with torch.no_grad():
        for n, p in two.named.items():
            p.copy_(named[n])
    two.opt.load_state_dict(saved)
    copied = copy.copy(one)
    copied.named, copied.opt = copy.deepcopy((one.named, one.opt))
    for twin in (one, two, copied):
        twin.run(5)
    assert one.everything() == two.everything() == copied.everything()


@pytest.mark.parametrize("optimizer_", ["sf_adamw", "adamw"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compiled_torch_kernels_have_the_bits_of_the_exact_tier(optimizer_: str, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    from dualopt_torch import execute

    if not execute.can_compile():
        pytest.skip("torch has no compiler here")
    options = {"motion": "averaged"} if optimizer_ == "adamw" else {}
    made = Recipe.from_dict(
        {"group": [{"optimizer": optimizer_, "shrink": "cautious", "shrink_half_life": 300.0, **options}]}
    )
    found = []
    for tier, compiled in (("exact", False), ("fast", True), ("fast", False)):
        named = {
            n: torch.nn.Parameter(torch.from_numpy(np.array(x)).to(getattr(torch, dtype))) for n, x in data()[0].items()
        }
        from dualopt_torch import Optimizer

        opt = Optimizer(named, made, tier=tier, compiled=compiled)
        for g in data()[1]:
            for n, p in named.items():
                p.grad = torch.from_numpy(np.array(g[n])).to(p.dtype) if n in g else None
            opt.step()
        saved = opt.snapshot()
        found.append([x.tobytes() for n, s in saved.state.items() for x in (saved.parameters[n], *s.values())])
    assert found[0] == found[1] == found[2]


def test_tied_torch_parameters_are_evaluated_once() -> None:
    torch = pytest.importorskip("torch")
    from torch import nn

    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False), nn.Linear(4, 1))
    model[1].weight = model[0].weight
    model[2].weight.requires_grad_(False)
    opt = optimizer(model, {"group": [{"optimizer": "sf_adamw", "step": 0.1}]})
    for _ in range(3):
        model.zero_grad()
        model(torch.ones(2, 4)).square().sum().backward()
        opt.step()
    frozen, y = model[2].weight.detach().clone(), model[0].weight.detach().clone()
    tree = opt.averaged()
    assert set(tree) == {"0.weight", "2.bias"}
    by_tree = torch.func.functional_call(model, tree, torch.ones(2, 4))
    with opt.evaluating():
        assert model[1].weight is model[0].weight
        assert not torch.equal(model[0].weight, y)
        assert torch.equal(model(torch.ones(2, 4)), by_tree)
    assert torch.equal(model[0].weight, y)
    assert torch.equal(model[2].weight, frozen)


# ---- MLX: compiled steps, the tree of arrays


def network(mx: Any, nn: Any) -> Any:
    mx.random.seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


class MLXRun:
    """A compiled or eager training of a small model on fixed batches."""

    def __init__(self, compiled: bool, nonfinite: str = "raise", **options: Any) -> None:
        self.mx = mx = pytest.importorskip("mlx.core")
        from mlx import nn

        self.model = network(mx, nn)
        made = {
            "count": {"unit": "tokens", "per_update": 100},
            "schedule": {"shape": "linear", "warmup": 300, "total": 2000},
            "nonfinite": nonfinite,
            "group": [
                {"optimizer": "sf_adamw", "match": ["*.weight"], "step": 0.02, **options},
                {"optimizer": "adamw", "motion": "averaged", "step": 0.01},
            ],
        }
        self.opt = optimizer(self.model, made)
        gradient = nn.value_and_grad(self.model, lambda x: (self.model(x) ** 2).mean())

        def step(x: Any) -> Any:
            value, gradients = gradient(x)
            self.opt.update(self.model, gradients)
            return value

        self.plain, self.compiled = step, compiled
        self.step = self.opt.compile(step) if compiled else step

    def batch(self, t: int, bad: bool = False) -> Any:
        return self.mx.array(np.random.default_rng(t).standard_normal((6, 4)).astype(np.float32)) * (
            np.nan if bad else 1
        )

    def run(self, first: int, last: int, bad: tuple[int, ...] = ()) -> None:
        for t in range(first, last):
            count = 50 + 7 * t
            if self.compiled:
                self.step(self.batch(t, t in bad), count=count)
            else:
                self.opt.advance(count)
                self.step(self.batch(t, t in bad))
            self.mx.eval(self.model.parameters(), self.opt.state)

    def everything(self) -> dict[str, bytes]:
        return Twin.everything(self)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [(), (0, 4)])
def test_compiled_mlx_steps_carry_sums(bad: tuple[int, ...]) -> None:
    """Compiled and eager agree to the bit in all of the state and the sums, with updates that are skipped on the
    device too; weights, which a compiled step computes with other gradients' last bits, are those of the gradients."""
    runs = [MLXRun(compiled, "skip") for compiled in (False, True)]
    for run in runs:
        run.run(0, 7, bad)
        run.opt.eval()
        run.opt.train()
        run.run(7, 9)
    eager, compiled = (run.opt.snapshot() for run in runs)
    assert eager.sums == compiled.sums
    assert eager.counts == compiled.counts
    assert set(eager.sums) == set(eager.parameters)
    for n, x in eager.parameters.items():
        np.testing.assert_allclose(x, compiled.parameters[n], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(eager.state[n]["x"], compiled.state[n]["x"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("at", [1, 4])
def test_the_tree_continues_bit_equally(compiled: bool, at: int, tmp_path: Any) -> None:
    """opt.state saved by MLX's own means, in safetensors, and assigned to a new optimizer."""
    one, two = MLXRun(compiled, "skip"), MLXRun(compiled, "skip")
    mx = one.mx
    from mlx.utils import tree_flatten, tree_unflatten

    one.run(0, at, bad=(0,))
    mx.save_safetensors(str(tmp_path / "o.safetensors"), dict(tree_flatten(one.opt.state)))
    one.model.save_weights(str(tmp_path / "m.safetensors"))
    loaded = tree_unflatten(list(mx.load(str(tmp_path / "o.safetensors")).items()))
    two.run(0, 2)
    two.model.load_weights(str(tmp_path / "m.safetensors"))
    two.opt.state = loaded
    words = np.array(one.opt.state["sums"])
    assert words.dtype == np.uint32
    assert words.shape == (2 * 2 + 2, 2)
    for run in (one, two):
        run.run(at, 7, bad=(5,))
    assert one.everything() == two.everything()
    assert one.opt.snapshot().sums
    one.opt.eval()
    with pytest.raises(EvaluationError, match="state"):
        one.opt.state = loaded
    with pytest.raises(EvaluationError):
        one.step(one.batch(0))


def test_slots_split_where_sums_differ() -> None:
    """Two parameters of one shape and count that met different steps are averaged with shares of their own."""
    shapes: dict[str, tuple[int, ...]] = {"p": (3,), "q": (3,)}
    params, grads = inputs.parameters(shapes), list(inputs.gradients(shapes, 3))
    present = [{"p": grads[0]["p"]}, {"q": grads[1]["q"]}, grads[2]]
    mx = pytest.importorskip("mlx.core")
    made = {
        "count": {"unit": "tokens", "per_update": 100},
        "schedule": {"shape": "linear", "warmup": 300, "total": 2000},
        "group": [{"optimizer": "sf_adamw", "averaging": "step"}],
    }

    def fresh() -> tuple[Any, Any]:
        named = {n: mx.array(x) for n, x in params.items()}
        return named, optimizer(named, made, tier="exact")

    named, opt = fresh()
    for g in present[:2]:
        opt.update(named, {n: mx.array(x) for n, x in g.items()})
    assert opt.plan.counts["p"] == opt.plan.counts["q"]
    again, resumed = fresh()
    resumed.restore(opt.snapshot())
    for tree, o in ((named, opt), (again, resumed)):
        o.update(tree, {n: mx.array(x) for n, x in present[2].items()})
    from dualopt.replay import drive

    *_, last = drive(Recipe.from_dict(made), params, present)
    assert last.scalars["p"]["c_x"] != last.scalars["q"]["c_x"]
    for tree in (named, again):
        assert {n: np.array(x).tobytes() for n, x in tree.items()} == {n: x.tobytes() for n, x in last.params.items()}


def test_compiled_mlx_functions_have_the_bits_of_the_exact_tier() -> None:
    """The functions of one update, cut after z, against eager numpy; 4 units of the running magnitude at most."""
    pytest.importorskip("mlx.core")
    params, grads, increments = data()
    for group in (
        {"optimizer": "sf_adamw", "shrink_half_life": 4e3, "step": 0.02},
        {"optimizer": "adamw", "motion": "averaged", "shrink": "cautious", "shrink_half_life": 4e3},
    ):
        ours, exact = (
            replay(group, params, grads, increments, backend=b, tier=t)
            for b, t in (("mlx", "fast"), ("numpy", "exact"))
        )
        for t in range(UPDATES):
            for n in SHAPES:
                pairs = [(ours.params[t][n], exact.params[t][n])]
                pairs += [(ours.state[t][n][key], x) for key, x in exact.state[t][n].items()]
                for x, y in pairs:
                    unit = np.spacing(np.maximum(np.abs(y), np.abs(params[n]).max()).astype(np.float32))
                    assert (np.abs(x - y) <= 4 * unit).all()


def test_tied_mlx_parameters_are_evaluated_together() -> None:
    mx = pytest.importorskip("mlx.core")
    from mlx import nn

    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model.layers[1].weight = model.layers[0].weight
    opt = optimizer(model, {"group": [{"optimizer": "sf_adamw", "step": 0.1}]})
    gradient = nn.value_and_grad(model, lambda x: (model(x) ** 2).sum())
    for _ in range(3):
        opt.update(model, gradient(mx.ones((2, 4)))[1])
    y = np.array(model.layers[0].weight)
    with opt.evaluating():
        first, second = (np.array(layer.weight) for layer in model.layers)
        assert first.tobytes() == second.tobytes() != y.tobytes()
    assert all(np.array(layer.weight).tobytes() == y.tobytes() for layer in model.layers)
    other = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    other.update(opt.averaged())
    assert all(np.array(layer.weight).tobytes() == first.tobytes() for layer in other.layers)


def test_mlx_weights_loaded_before_a_compiled_first_update() -> None:
    run = MLXRun(compiled=True)
    run.model.update({"layers": [{"weight": run.mx.full((8, 4), 2.0)}]}, strict=False)
    run.run(0, 1)
    assert (np.abs(run.opt.snapshot().state["layers.0.weight"]["x"] - 2.0) < 0.1).all()


def test_evaluation_stays_outside_compiled_functions() -> None:
    run = MLXRun(compiled=False)

    def step(x: Any) -> Any:
        run.opt.advance(10)
        run.opt.eval()
        return run.step(x)

    run.run(0, 1)
    with pytest.raises((EvaluationError, StaleScalarsError)):
        run.opt.compile(step)(run.batch(1))


def test_compiled_steps_leave_the_sums_of_parameters_without_gradient() -> None:
    """A layer that is frozen for three updates has no sums until then, and its own afterwards."""
    runs = [MLXRun(compiled) for compiled in (False, True)]
    for run in runs:
        run.model.layers[2].freeze()
        run.run(0, 3)
        assert set(run.opt.snapshot().sums) == {"layers.0.weight", "layers.0.bias"}
        run.model.layers[2].unfreeze()
        run.step = run.opt.compile(run.plain) if run.compiled else run.plain  # MLX does not see that it must trace
        run.run(3, 5)
    eager, compiled = (run.opt.snapshot() for run in runs)
    assert eager.sums == compiled.sums
    assert eager.counts == compiled.counts
    assert eager.sums["layers.0.weight"] != eager.sums["layers.2.weight"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_workload_is_evaluated_at_the_average(framework: str) -> None:
    pytest.importorskip("torch" if framework == "torch" else "mlx.core")
    import importlib

    from dualopt.workload.model import GPTConfig

    config = GPTConfig(layers=1, width=8, heads=1, context=6)
    made = Recipe.from_dict({"group": [{"optimizer": "sf_adamw", "step": 0.05}]})
    trainer = importlib.import_module(f"dualopt_{framework}.trainer").trainer(config, made, seed=0)
    tokens = np.random.default_rng(0).integers(0, 256, (3, 6)).astype(np.int32)
    for _ in range(4):
        trainer.update(tokens, tokens, 1)
    found = trainer.evaluate(tokens, tokens)
    at_y = trainer.update(tokens, tokens, 1)  # the loss before the update
    trainer.optimizer.eval()
    later = trainer.evaluate(tokens, tokens)
    trainer.optimizer.train()
    assert later == trainer.evaluate(tokens, tokens)
    assert abs(found - at_y) > 1e-3
    assert abs(found - later) > 1e-3
