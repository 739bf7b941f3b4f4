"""The MLX backend: tiers against numpy, the native optimizer, compiled steps, saving, parity."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES, Group, Recipe, Schedule, checkpoint, half_life, optimizer, replay
from dualopt.catalog import complete, least_ndim
from dualopt.errors import (
    CheckpointError,
    CountError,
    DualoptError,
    GradientError,
    NonFiniteError,
    RecipeError,
    StaleScalarsError,
)
from dualopt.namespace import FACTORISING, missing

mx = pytest.importorskip("mlx.core")
from mlx import nn  # noqa: E402
from mlx import optimizers as peers  # noqa: E402
from mlx.utils import tree_flatten, tree_unflatten  # noqa: E402

import dualopt_mlx  # noqa: E402
from dualopt_mlx import BACKEND, Optimizer, execute, shapes_of  # noqa: E402
from dualopt_mlx import optimizer as optimizer_module  # noqa: E402

from .budgeted import assert_within, lockstep  # noqa: E402

Arrays = dict[str, Any]

MATRICES = {"a": (5, 7), "b": (7, 3), "c": (1, 9), "stack": (2, 4, 3), "none": (0, 4)}
ANY = {"a": (5, 7), "vector": (11,), "number": (), "none": (0, 3), "cube": (2, 3, 4)}
UPDATES = 20
NORMS = ("spectral", "spectral_max", "sign", "column", "row", "frobenius")
CASES: dict[str, tuple[dict[str, Any], dict[str, tuple[int, ...]]]] = {
    name: ({"optimizer": name}, MATRICES if least_ndim(name, complete(name, {})) else ANY) for name in ENTRIES
} | {
    "nesterov_l2": ({"optimizer": "sgdm", "readout": 0.9, "l2": 0.01, "bias_correction": True}, ANY),
    "cautious": ({"optimizer": "adamw", "shrink": "cautious", "shrink_half_life": 900}, ANY),
    "strict": ({"optimizer": "lion", "shrink": "cautious", "strict_mask": True, "shrink_half_life": 900}, ANY),
    "corrected": ({"optimizer": "lion", "shrink": "corrected", "shrink_half_life": 900}, ANY),
    "targeted": ({"optimizer": "sgdm", "target_rms": 0.9, "shrink_half_life": 900}, ANY),
    "bias_rms": ({"optimizer": "scionc", "norm": "bias_rms"}, {"v": (11,), "number": ()}),
    "moonlight": ({"optimizer": "muon", "scale": "moonlight", "polar": "polar_express"}, MATRICES),
    **{f"scionc_{norm}": ({"optimizer": "scionc", "norm": norm, "readout": 0.5}, MATRICES) for norm in NORMS},
}


def arrays(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    return {name: np.asarray(rng.standard_normal(shape), np.float32) for name, shape in shapes.items()}


def counts(updates: int = UPDATES, seed: int = 9) -> list[int]:
    return [int(n) for n in np.random.default_rng(seed).integers(1, 400, updates)]


def run(case: str, backend: str, tier: str) -> Any:
    group, shapes = CASES[case]
    gradients = [arrays(shapes, 1 + t) for t in range(UPDATES)]
    return replay(group, arrays(shapes), gradients, counts(), backend=backend, tier=tier)


def everything(result: Any, t: int) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, x in result.params[t].items():
        yield name, x
        for key, s in result.state[t][name].items():
            yield f"{name}.{key}", s


def ulps(x: Any, y: Any, scale: Any) -> float:
    """The largest |x − y| in units of the spacing of float32 at `scale`."""
    spacing = np.spacing(np.maximum(np.abs(scale), np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    difference = np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)) / spacing
    return float(difference.max(initial=0.0))


# The namespaces and tiers.


def test_the_namespaces_fulfil_the_contract() -> None:
    for xp in BACKEND.namespaces.values():
        assert missing(xp) == []
        assert all(hasattr(xp.linalg, name) for name in FACTORISING)
        assert float(xp.finfo(mx.float32).eps) == 2.0**-23
    with pytest.raises(RecipeError, match="did you mean 'fast'"):
        BACKEND.execute("fest")


@pytest.mark.parametrize(
    ("shape", "axis"), [((200_001,), None), ((3, 65, 129), (-2, -1)), ((129, 300), 0), ((4, 64), -1), ((0, 3), 0)]
)
def test_the_fast_sum_is_accurate(shape: tuple[int, ...], axis: Any) -> None:
    x = np.abs(arrays({"x": shape})["x"])
    for keepdims in (False, True):
        got = np.array(BACKEND.namespaces["fast"].sum(mx.array(x), axis=axis, keepdims=keepdims))
        want = x.astype(np.float64).sum(axis=axis, keepdims=keepdims)
        assert got.shape == want.shape
        np.testing.assert_allclose(got, want, rtol=5e-7)


def test_factorisations_are_reduced() -> None:
    x = arrays({"x": (2, 5, 3)})["x"]
    for z in (x, np.swapaxes(x, -1, -2)):
        u, s, vh = BACKEND.namespaces["fast"].linalg.svd(mx.array(z), full_matrices=False)
        assert (u.shape, vh.shape) == ((*z.shape[:-1], 3), (2, 3, z.shape[-1]))
        np.testing.assert_allclose(np.array((u * s[..., None, :]) @ vh), z, atol=2e-6)
        values = np.array(BACKEND.namespaces["fast"].linalg.svdvals(mx.array(z)))
        np.testing.assert_allclose(values, np.linalg.svd(z, compute_uv=False), rtol=2e-6)


SLOW = ("shampoo", "freon", "mimuon", "kaon")  # exact eigenvectors and singular values


@pytest.mark.parametrize("case", [pytest.param(c, marks=pytest.mark.long) if c in SLOW else c for c in CASES])
def test_exact_has_the_bits_of_numpy(case: str) -> None:
    ours, reference = run(case, "mlx", "exact"), run(case, "numpy", "exact")
    for t in range(UPDATES):
        for (name, x), (_, y) in zip(everything(ours, t), everything(reference, t), strict=True):
            assert x.tobytes() == y.tobytes(), f"{name} differs after update {t}"


BUDGETED = ("normuon", "sf_normuon", "shampoo")  # roundings grow in them: single updates are judged, by derived budgets


@pytest.mark.parametrize("case", ["normuon", "normuon.mup", "sf_normuon", "shampoo", "shampoo.always"])
def test_fast_is_within_budgets(case: str) -> None:
    assert_within(lockstep(f"{case}/usual", BACKEND, 8))


@pytest.mark.parametrize("case", [case for case in CASES if case not in ("kaon", *BUDGETED)])
def test_fast_is_close_to_exact(case: str) -> None:
    ours, reference = run(case, "mlx", "fast"), run(case, "numpy", "exact")
    local = not {"target_rms", "polar"} & {k for k, x in reference.resolved.items() if x}
    local = local and reference.resolved["motion"] == "additive"
    # Products: the worst case of an iteration, 3.4445^5 times rounding, would be 9e-5. Observed are 3.2e-7.
    seen: dict[str, Any] = {}
    for t in range(UPDATES):
        for (name, x), (_, y) in zip(everything(ours, t), everything(reference, t), strict=True):
            seen[name] = np.maximum(seen.get(name, 0), np.abs(y))
            if local:
                assert ulps(x, y, seen[name]) <= 4, f"{name} after update {t}"
            else:
                assert np.linalg.norm(x - y) <= 2e-6 * np.linalg.norm(seen[name]), f"{name} after update {t}"


def test_the_fast_tier_of_a_chaotic_map() -> None:
    """Kaon: five steps of slope 4.1 at most, so 4.1⁵ times some rounding after one update, and nothing after many."""
    ours, reference = run("kaon", "mlx", "fast"), run("kaon", "numpy", "exact")
    for (name, x), (_, y) in zip(everything(ours, 0), everything(reference, 0), strict=True):
        assert np.linalg.norm(x - y) <= 10 * 4.1**5 * 2.0**-24 * np.linalg.norm(y), name


@pytest.mark.parametrize("tier", ["fast", "exact"])
def test_the_exact_polar_factor(tier: str) -> None:
    group = Group("scionc", {"norm": "spectral", "polar": "exact"})
    model = {"w": mx.array(arrays({"w": (4, 6)})["w"])}
    before = np.array(model["w"])
    Optimizer(model, Recipe((group,)), tier=tier).update(model, {"w": mx.array(arrays({"w": (4, 6)}, 1)["w"])})
    moved = (np.array(model["w"]) - before) / 0.035
    np.testing.assert_allclose(np.linalg.svd(moved, compute_uv=False), math.sqrt(4 / 6), rtol=1e-4)


# The optimizer on a model.

TOKENS = {"unit": "tokens", "per_update": 64}
SCHEDULE = {"shape": "linear", "warmup": 500, "total": 60_000}
ADAMW = {"name": "rest", "optimizer": "adamw", "shrink": "cautious", "shrink_half_life": 9000.0}
LION = {"name": "last", "match": ["layers.2.*"], "optimizer": "lion", "shrink_half_life": 4000.0}
SPECTRAL = {"name": "hidden", "match": ["*weight"], "optimizer": "scionc", "shrink_half_life": 5000.0}


def recipe(*groups: dict[str, Any], **tables: Any) -> Recipe:
    return Recipe.from_dict({"count": TOKENS, "schedule": SCHEDULE, "group": list(groups) or [LION, ADAMW]} | tables)


def network(dtype: Any = mx.float32) -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))
    shapes, _ = shapes_of(model)
    model.load_weights([(name, mx.array(x)) for name, x in arrays(shapes, 3).items()])
    model.set_dtype(dtype)
    return model


def batch(t: int) -> tuple[Any, Any]:
    found = arrays({"x": (4, 5), "y": (4, 3)}, 100 + t)
    return mx.array(found["x"]), mx.array(found["y"])


def bits(*trees: Any) -> dict[str, bytes]:
    flat: Any = tree_flatten(list(trees))
    return {name: BACKEND.to_numpy(x).tobytes() for name, x in flat}


class Training:
    """A network, its optimizer, and one training step that counts how often Python runs it."""

    def __init__(self, made: Recipe, *, tier: str = "fast", dtype: Any = mx.float32, poison: bool = False) -> None:
        self.model = network(dtype)
        self.opt = Optimizer(self.model, made, tier=tier)
        self.traces = 0

        def loss(x: Any, y: Any) -> Any:
            return ((self.model(x.astype(dtype)) - y) ** 2).mean()

        gradient = nn.value_and_grad(self.model, loss)

        def step(x: Any, y: Any) -> Any:
            self.traces += 1
            value, gradients = gradient(x, y)
            self.opt.update(self.model, gradients)
            return value

        self.step = step

    def bits(self) -> dict[str, bytes]:
        """All but the scalars, which every update makes anew."""
        state = {key: tree for key, tree in self.opt.state.items() if key != "scalars"}
        return bits(self.model.parameters(), state)

    def eager(self, t: int, count: int | None = None) -> None:
        self.opt.advance(count)
        self.step(*batch(t))


def test_it_is_made_by_name_and_behaves_like_mlx() -> None:
    model = network()
    opt = optimizer(model, recipe())
    assert isinstance(opt, peers.Optimizer)
    assert opt.steps == {"last": 1e-4, "rest": 1e-3}
    opt.init(model.trainable_parameters())
    opt.update(model, model.parameters(), count=250)
    assert opt.step.item() == 1
    assert (opt.count, set(opt.counts.values())) == (250, {250})
    assert opt.steps == {"last": 5e-5, "rest": 5e-4}
    assert opt.learning_rate.item() == np.float32(5e-5)
    with pytest.raises(RecipeError, match="schedule"):
        opt.learning_rate = 0.1


@pytest.mark.parametrize(("groups", "dtype"), [((), mx.float32), ((), mx.bfloat16), ((SPECTRAL, ADAMW), mx.float32)])
def test_compiled_is_eager(groups: Any, dtype: Any) -> None:
    one, two = Training(recipe(*groups), dtype=dtype), Training(recipe(*groups), dtype=dtype)
    compiled = two.opt.compile(two.step)
    for t, count in enumerate(counts(40)):
        one.eager(t, count)
        compiled(*batch(t), count=count)
        assert two.opt.count == one.opt.count
    assert two.traces == 1
    assert one.bits() == two.bits()


def test_one_trace_in_200_steps() -> None:
    training = Training(recipe(ADAMW))
    compiled, increments = training.opt.compile(training.step), counts(200)
    for t, count in enumerate(increments):
        compiled(*batch(t), count=count)
    assert training.traces == 1
    assert training.opt.learning_rate.item() == np.float32(training.opt.steps["rest"]) > 0
    assert training.opt.count == sum(increments)
    assert training.opt.step.item() == 200


def test_the_exact_tier_stays_eager() -> None:
    one, two = Training(recipe(), tier="exact"), Training(recipe(), tier="exact")
    run_two = two.opt.compile(two.step)
    for t in range(3):
        one.eager(t, 50)
        run_two(*batch(t), count=50)
    assert two.traces == 3
    assert one.bits() == two.bits()
    captured = [two.model.state, two.opt.state]
    two.opt.advance()
    with pytest.raises(RecipeError, match="eager"):
        mx.compile(two.step, inputs=captured, outputs=captured)(*batch(0))


def test_it_works_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Training(recipe())
    monkeypatch.setattr(execute, "can_compile", lambda: False)
    monkeypatch.setattr(optimizer_module, "can_compile", lambda: False)
    two = Training(recipe())
    compiled = two.opt.compile(two.step)
    for t in range(3):
        one.eager(t, 50)
        compiled(*batch(t), count=50)
    assert two.traces == 3
    assert one.bits() == two.bits()


def test_extra_state_may_be_captured() -> None:
    model = {"w": mx.zeros(3)}
    opt = Optimizer(model, Recipe((Group("sgdm", {"step": 1.0, "memory_half_life": 1e-9}),)))
    mx.random.seed(1)
    noisy = opt.compile(
        lambda: opt.update(model, {"w": mx.random.normal((3,))}), inputs=mx.random.state, outputs=mx.random.state
    )
    noisy()
    first = np.array(model["w"])
    noisy()
    assert np.all(np.array(model["w"]) != 2 * first)


def test_dropout_before_a_matrix_in_a_compiled_step() -> None:
    """MLX does not mark the random keys of a trace as such; masks are drawn anew, and the step counts."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.dropout, self.linear = nn.Dropout(0.5), nn.Linear(8, 8)

        def __call__(self, x: mx.array) -> mx.array:
            return self.linear(self.dropout(x))

    model = Model()
    opt = Optimizer(model, Recipe((Group("sgdm", {"step": 0.0}),)))
    loss_and_grad = nn.value_and_grad(model, lambda x: model(x).square().sum())

    def step() -> mx.array:
        loss, gradients = loss_and_grad(mx.ones((4, 8)))
        opt.update(model, gradients)
        return loss

    compiled = opt.compile(step, inputs=mx.random.state, outputs=mx.random.state)
    assert len({compiled(count=5).item() for _ in range(4)}) == 4
    assert opt.count == 20


# Compiled steps that cannot be carried out.


def test_tracing_needs_advance() -> None:
    training = Training(recipe())
    captured = [training.model.state, training.opt.state]
    with pytest.raises(StaleScalarsError, match="advance"):
        mx.compile(training.step, inputs=captured, outputs=captured)(*batch(0))


def test_a_compiled_step_without_advance_changes_nothing_and_is_reported() -> None:
    training, same = Training(recipe()), Training(recipe())
    captured = [training.model.state, training.opt.state]
    compiled = mx.compile(training.step, inputs=captured, outputs=captured)
    training.opt.advance(30)
    compiled(*batch(0))
    same.eager(0, 30)
    before = bits(training.model.parameters(), training.opt.state["memory"])
    for t in range(2):
        compiled(*batch(t))
    assert bits(training.model.parameters(), training.opt.state["memory"]) == before
    with pytest.raises(StaleScalarsError, match=r"2 compiled update\(s\)"):
        training.opt.advance(40)
    training.opt.advance(40)
    compiled(*batch(1))
    same.eager(1, 40)
    assert training.opt.counts == same.opt.counts
    assert training.bits() == same.bits()


def test_one_update_in_a_compiled_step() -> None:
    training = Training(recipe())
    before = training.bits()
    twice = training.opt.compile(lambda x, y: (training.step(x, y), training.step(x, y)))
    with pytest.raises(StaleScalarsError, match="one update"):
        twice(*batch(0))
    assert training.bits() == before


def test_forgotten_captures_are_found() -> None:
    training = Training(recipe())
    training.opt.advance()
    with pytest.raises(StaleScalarsError, match="not among the inputs"):
        mx.compile(training.step, inputs=training.model.state, outputs=training.model.state)(*batch(0))
    training = Training(recipe())
    training.opt.advance()
    mx.compile(training.step, inputs=[training.model.state, training.opt.state], outputs=training.model.state)(
        *batch(0)
    )
    with pytest.raises(StaleScalarsError, match="outputs"):
        training.opt.advance()


def test_the_host_part_stays_outside() -> None:
    training = Training(recipe())
    with pytest.raises(StaleScalarsError, match="outside"):
        training.opt.compile(training.opt.advance)()


def test_a_step_that_raises_leaves_no_trace() -> None:
    training = Training(recipe())
    training.eager(0, 10)
    before = training.bits()

    def broken(x: Any, y: Any) -> None:
        training.step(x, y)
        raise KeyError("after the update")

    for step in (broken, lambda x, y: training.step(x[:, 1:], y)):
        with pytest.raises((KeyError, ValueError)):
            training.opt.compile(step)(*batch(1), count=10)
        assert training.bits() == before
        assert training.opt.count == 10


def test_a_late_trace_does_not_reuse_an_old_assignment_of_scalars() -> None:
    """Parameters that shared scalars when the step was traced, and have other counts now."""
    model, twin = ({"a": mx.ones(3), "b": mx.ones(3)} for _ in range(2))
    made = Recipe((Group("adamw", {"step": 0.1}),))
    opt, reference = Optimizer(model, made), Optimizer(twin, made)
    g = {"a": mx.array([1.0, -2.0, 3.0]), "b": mx.array([2.0, 1.0, -1.0])}
    compiled = opt.compile(lambda: opt.update(model, g))
    steps: list[tuple[Callable[[], Any], Arrays]] = [
        (compiled, g),
        (lambda: opt.update(model, {"a": g["a"]}), {"a": g["a"]}),
        (compiled, g),
        (compiled, g),
    ]
    for ours, gradients in steps:
        ours()
        reference.update(twin, gradients)
    assert opt.counts == {"a": 4, "b": 3}
    assert bits(model, opt.state["memory"]) == bits(twin, reference.state["memory"])


# Gradients that are partial, wrong or not finite.


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("policy", ["raise", "skip"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_gradients_that_are_not_finite(policy: str, bad: float, compiled: bool) -> None:
    model = {"a": mx.ones(3), "b": mx.ones((2, 2))}
    falling = Schedule(shape="linear", total=10)
    opt = Optimizer(model, Recipe((Group("adamw", {"step": 0.1}),), schedule=falling, nonfinite=policy))
    inner = opt.compile(lambda g: opt.update(model, g))
    step = inner if compiled else lambda g: opt.update(model, g)
    good = {"a": mx.array([1.0, 2.0, 3.0]), "b": mx.ones((2, 2))}
    step(good)
    assert opt.count == 1
    before = bits(model, opt.state)
    steps = opt.steps

    def poisoned() -> None:
        step(good | {"b": mx.array([[1.0, bad], [1.0, 1.0]])})
        assert opt.count == 1  # a host touch

    if policy == "raise":
        with pytest.raises(NonFiniteError, match="'b'"):
            poisoned()
    else:
        poisoned()
    assert (opt.counts, opt.steps) == ({"a": 1, "b": 1}, steps)
    after = bits(model, opt.state)
    assert {k: v for k, v in after.items() if "scalars" not in k} == {
        k: v for k, v in before.items() if "scalars" not in k
    }
    step(good)
    assert (opt.count, opt.step.item()) == (2, 2)


@pytest.mark.parametrize("compiled", [False, True])
def test_trusted_gradients_are_not_read(compiled: bool) -> None:
    """The same bits as with the check, and a bad one goes where it belongs to."""
    after = []
    for policy in ("trust", "raise"):
        model = {"a": mx.ones(3), "b": mx.ones((2, 2))}
        opt = Optimizer(model, Recipe((Group("adamw", {"step": 0.1}),), nonfinite=policy))
        inner = opt.compile(lambda g, opt=opt, model=model: opt.update(model, g))
        step = inner if compiled else lambda g, opt=opt, model=model: opt.update(model, g)
        good = {"a": mx.array([1.0, 2.0, 3.0]), "b": mx.ones((2, 2))}
        step(good)
        step(good)
        after.append(bits(model, opt.state["memory"]))
        if policy == "trust":
            step(good | {"b": mx.array([[1.0, math.nan], [1.0, 1.0]])})
            assert opt.count == 3
            assert mx.isnan(model["b"]).tolist() == [[False, True], [False, False]]
            assert mx.isfinite(model["a"]).all()
    assert after[0] == after[1]


def test_an_advance_is_undone_by_an_error() -> None:
    training = Training(recipe())
    training.eager(0, 30)
    before = bits(training.model.parameters(), training.opt.state["memory"])
    steps = training.opt.steps
    training.opt.advance(70)
    with pytest.raises(NonFiniteError, match="weight"):
        training.step(batch(0)[0] * math.inf, batch(0)[1])
    assert (training.opt.count, training.opt.steps) == (30, steps)
    assert bits(training.model.parameters(), training.opt.state["memory"]) == before
    training.opt.advance(70)
    training.opt.advance(80)
    with pytest.raises(CountError, match="already counted"):
        training.opt.update(training.model, training.model.parameters(), count=80)
    assert training.opt.steps == steps
    training.opt.advance(80)
    training.opt.update(training.model, training.model.parameters())
    assert training.opt.count == 110


@pytest.mark.parametrize("compiled", [False, True])
def test_parameters_without_gradient_do_not_age(compiled: bool) -> None:
    made = Recipe((Group("adamw", {"step": 0.1, "shrink_half_life": 100.0}),))
    start, shapes = arrays({"early": (3, 2), "late": (3, 2)}), {"early": (3, 2), "late": (3, 2)}
    gradients = [arrays(shapes, 1 + t) for t in range(10)]
    for t, g in enumerate(gradients):
        if t < 6:
            del g["late"]
    model = {name: mx.array(x) for name, x in start.items()}
    opt = Optimizer(model, made, tier="fast")
    step = opt.compile(lambda g: opt.update(model, g)) if compiled else lambda g: opt.update(model, g)
    for t, g in enumerate(gradients):
        step({name: mx.array(x) for name, x in g.items()})
        if t == 0:
            assert np.array(model["late"]).tobytes() == start["late"].tobytes()
    assert opt.counts == {"early": 10, "late": 4}
    alone = replay(made.groups[0], {"late": start["late"]}, [{"late": g["late"]} for g in gradients[6:]], 1)
    both = replay(made.groups[0], start, gradients, 1)
    assert np.array(model["late"]).tobytes() == alone.params[-1]["late"].tobytes()
    assert np.array(model["early"]).tobytes() == both.params[-1]["early"].tobytes()


def test_advance_may_name_the_parameters() -> None:
    model = {"a": mx.ones(2), "b": mx.ones(2)}
    opt = Optimizer(model, Recipe((Group("adamw"),)))
    opt.advance(names=["a"])
    opt.update(model, {"a": mx.ones(2)})
    assert opt.counts == {"a": 1, "b": 0}
    opt.advance(names=["a"])
    with pytest.raises(StaleScalarsError, match="'b' has a gradient"):
        opt.update(model, {"b": mx.ones(2)})
    with pytest.raises(GradientError, match="no such parameter"):
        opt.advance(names=["z"])
    assert opt.count == 1


def test_scalars_are_filled_for_all_that_a_compiled_step_reads() -> None:
    model, twin = ({"a": mx.ones(2), "b": mx.ones((1, 2))} for _ in range(2))
    made = Recipe((Group("adamw", {"step": 0.1}),), schedule=Schedule(shape="linear", total=4))
    opt, reference = Optimizer(model, made), Optimizer(twin, made)
    g = {name: mx.ones_like(x) for name, x in model.items()}
    captured = [model, opt.state]
    compiled = mx.compile(lambda: opt.update(model, g), inputs=captured, outputs=captured)
    for names in (None, ["a"], ["a"]):
        opt.advance(names=names)
        compiled()
        reference.update(twin, g)
    assert opt.counts == reference.counts
    assert bits(model, opt.state["memory"]) == bits(twin, reference.state["memory"])


@pytest.mark.parametrize(
    ("name", "gradient", "message"),
    [
        ("layers.0.weight", mx.ones((7, 4)), r"shape \(7, 4\)"),
        ("layers.0.weight", mx.ones((7, 5), mx.complex64), "complex"),
        ("layers.0.weight", mx.ones((7, 5), mx.int32), "int32"),
        ("layers.0.weight", np.ones((7, 5), np.float32), "ndarray"),
        ("layers.0.weigth", mx.ones((7, 5)), "did you mean 'layers.0.weight'"),
    ],
)
def test_wrong_gradients_change_nothing(name: str, gradient: Any, message: str) -> None:
    training = Training(recipe())
    before = training.bits()
    with pytest.raises(GradientError, match=message):
        training.opt.update(training.model, {"layers.0.bias": mx.ones(7), name: gradient}, count=5)
    with pytest.raises(CountError):
        training.opt.update(training.model, {"layers.0.bias": mx.ones(7)}, count=0)
    assert training.bits() == before
    assert training.opt.count == 0


def test_wrong_parameters_are_refused() -> None:
    for bad, message in ((mx.ones(3, mx.complex64), "complex64"), (mx.ones(3, mx.int32), "int32"), (1.0, "float")):
        with pytest.raises(RecipeError, match=message):
            Optimizer({"w": mx.ones(3), "x": bad}, Recipe((Group("adamw"),)))
    opt = Optimizer({"w": mx.ones(3)}, Recipe((Group("adamw"),)))
    with pytest.raises(GradientError, match="is missing"):
        opt.apply_gradients({"w": mx.ones(3)}, {"v": mx.ones(3)})
    with pytest.raises(GradientError, match="has shape"):
        opt.apply_gradients({"w": mx.ones(3)}, {"w": mx.ones(4)})
    with pytest.raises(RecipeError, match="no group matches"):
        Optimizer({"w": mx.ones(3)}, Recipe((Group("adamw", match=("v",)),)))


# Trees and names.


def test_apply_gradients_is_pure_and_keeps_the_structure() -> None:
    parameters = {"blocks": [{"w": mx.ones(2)}, {"w": mx.ones(2), "v": mx.ones(3)}], "0": mx.ones(1)}
    opt = Optimizer(parameters, Recipe((Group("sign_sgdm", {"step": 0.5}),)))
    new = opt.apply_gradients({"blocks": [{}, {"v": mx.ones(3)}], "0": mx.ones(1)}, parameters)
    assert {k: v.tolist() for k, v in tree_flatten(new)} == {
        "blocks.0.w": [1, 1],
        "blocks.1.v": [0.5, 0.5, 0.5],
        "0": [0.5],
    }
    assert {float(x.max()) for _, x in tree_flatten(parameters)} == {1.0}
    opt.update(parameters, {"blocks.0.w": mx.ones(2)})
    assert parameters["blocks"][0]["w"].tolist() == [0.5, 0.5]
    flat = {"blocks.0.w": mx.ones(2)}
    assert opt.apply_gradients(flat, flat)["blocks.0.w"].tolist() == [0.5, 0.5]
    assert opt.counts == {"blocks.0.w": 2, "blocks.1.w": 0, "blocks.1.v": 1, "0": 1}


def test_tied_parameters_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
            self.outer.weight = self.inner.weight

        def __call__(self, x: Any) -> Any:
            return self.outer(mx.tanh(self.inner(x))).sum()

    model, start = Tied(), arrays({"w": (3, 3)})["w"]
    model.inner.weight = model.outer.weight = mx.array(start)
    assert shapes_of(model) == ({"inner.weight": (3, 3)}, {"outer.weight": "inner.weight"})
    opt = Optimizer(model, Recipe((Group("sgdm", {"step": 0.1, "memory_half_life": 1e-9}),)))
    x = mx.array(arrays({"x": (2, 3)}, 5)["x"])
    gradient = nn.value_and_grad(model, model.__call__)
    step = opt.compile(lambda x: opt.update(model, gradient(x)[1]))
    _, g = gradient(x)
    opt.update(model, g)
    total = np.array(g["inner"]["weight"]) + np.array(g["outer"]["weight"])
    np.testing.assert_allclose(np.array(model.outer.weight), start - 0.1 * total, atol=1e-7)
    step(x)
    assert bits(model.inner.parameters()) == bits(model.outer.parameters())
    opt.update(model, {"outer": {"weight": mx.ones((3, 3))}})
    assert bits(model.inner.parameters()) == bits(model.outer.parameters())
    assert opt.counts == {"inner.weight": 3}
    opt.restore(opt.snapshot())
    assert bits(model.inner.parameters()) == bits(model.outer.parameters())


def test_frozen_parameters_stay_out() -> None:
    model = network()
    model.layers[0].freeze()
    assert set(shapes_of(model)[0]) == {"layers.2.weight", "layers.2.bias"}
    opt = Optimizer(model, recipe(ADAMW))
    model.unfreeze()
    with pytest.raises(GradientError, match="frozen"):
        opt.update(model, model.parameters())


def test_convolution_kernels_are_channels_last() -> None:
    group = Group("scionc", {"norm": "spectral_conv", "shrink_half_life": 50.0})
    start = arrays({"w": (4, 3, 2, 2)})["w"]
    gradients = [arrays({"w": (4, 3, 2, 2)}, 1 + t)["w"] for t in range(5)]
    want = replay(group, {"w": start}, [{"w": g} for g in gradients], 1).params[-1]["w"]

    def last(x: np.ndarray[Any, Any]) -> Any:
        return mx.array(np.ascontiguousarray(np.moveaxis(x, 1, -1)))

    model = {"w": last(start)}
    opt = Optimizer(model, Recipe((group,)), tier="exact")
    for g in gradients:
        opt.update(model, {"w": last(g)})
    assert np.moveaxis(np.array(model["w"]), -1, 1).tobytes() == want.tobytes()


# Half precision, saving and resuming.


@pytest.mark.parametrize("dtype", [mx.bfloat16, mx.float16])
def test_half_precision_is_rounded_once(dtype: Any) -> None:
    start = {"w": mx.array(arrays({"w": (6, 5)})["w"]).astype(dtype)}
    gradients = [{"w": mx.array(arrays({"w": (6, 5)}, 1 + t)["w"]).astype(dtype)} for t in range(5)]
    made = Recipe((Group("adamw", {"step": 0.01}),))
    model = dict(start)
    opt = Optimizer(model, made)
    state: Arrays = {"w": start["w"].astype(mx.float32)}
    reference = Optimizer(state, made)
    for g in gradients:
        opt.update(model, g)
        reference.update(state, {"w": g["w"].astype(mx.float32)})
        state["w"] = state["w"].astype(dtype).astype(mx.float32)
    assert model["w"].dtype == dtype
    assert opt.state["memory"]["w"]["m"].dtype == mx.float32
    assert bits(model, opt.state["memory"]) == bits({"w": state["w"].astype(dtype)}, reference.state["memory"])
    with pytest.warns(RuntimeWarning, match="will not shrink"):
        Optimizer(model, Recipe((Group("adamw", {"shrink_half_life": 1e6}),)))


@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_resume_through_safetensors(tmp_path: Any, dtype: Any) -> None:
    made = recipe(LION, ADAMW)
    straight, first, second = (Training(made, dtype=dtype) for _ in range(3))
    increments = counts(12)
    for t, count in enumerate(increments):
        straight.eager(t, count)
    for t, count in enumerate(increments[:6]):
        first.eager(t, count)
    weights, state = str(tmp_path / "model.safetensors"), str(tmp_path / "optimizer.safetensors")
    first.model.save_weights(weights)
    mx.save_safetensors(state, tree_flatten(first.opt.state, destination={}))
    second.model.load_weights(weights)
    compiled = second.opt.compile(second.step)
    second.opt.state = tree_unflatten(list(mx.load(state).items()))
    assert (second.opt.count, second.opt.step.item()) == (sum(increments[:6]), 6)
    assert second.opt.steps == pytest.approx(first.opt.steps, rel=1e-12)
    for t, count in enumerate(increments[6:], 6):
        compiled(*batch(t), count=count)
    assert second.opt.counts == straight.opt.counts
    assert second.bits() == straight.bits()


def test_resume_through_a_snapshot(tmp_path: Any) -> None:
    made = recipe(LION, ADAMW)
    straight, first, second = (Training(made, dtype=mx.bfloat16) for _ in range(3))
    increments = counts(8)
    for t, count in enumerate(increments):
        straight.eager(t, count)
    compiled = first.opt.compile(first.step)
    for t, count in enumerate(increments[:4]):
        compiled(*batch(t), count=count)
    checkpoint.save(tmp_path / "c.safetensors", first.opt.snapshot(), metadata={})
    second.opt.restore(checkpoint.load(tmp_path / "c.safetensors")[0])
    for t, count in enumerate(increments[4:], 4):
        second.eager(t, count)
    assert second.opt.counts == straight.opt.counts
    kept = ("memory", "counts", "count", "learning_rate")
    for key in kept:
        assert bits(second.opt.state[key]) == bits(straight.opt.state[key])
    assert bits(second.model.parameters()) == bits(straight.model.parameters())
    fresh = Training(made, dtype=mx.bfloat16)
    fresh.opt.restore(fresh.opt.snapshot())
    assert fresh.opt.count == 0


def _saved(training: Training) -> Arrays:
    flat: Any = tree_flatten(training.opt.state, destination={})
    return dict(flat)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("counts"), "no array 'counts'"),
        (lambda s: s.pop("memory.layers.0.weight.m"), "layers.0.weight.m"),
        (lambda s: s.update({"memory.other.m": mx.ones(1)}), "does not have"),
        (lambda s: s.update({"memory.layers.0.bias.m": mx.ones(8)}), r"\(8,\)"),
        (lambda s: s.update({"memory.layers.0.bias.m": mx.ones(7, mx.bfloat16)}), "bfloat16"),
        (lambda s: s.update({"counts": s["counts"] + 1}), "whole numbers"),
    ],
)
def test_other_states_are_refused(change: Callable[[Arrays], Any], message: str) -> None:
    training = Training(recipe())
    training.eager(0, 10)
    before, saved = training.bits(), _saved(training)
    change(saved)
    with pytest.raises(CheckpointError, match=message):
        training.opt.state = tree_unflatten(list(saved.items()))
    assert training.bits() == before


def test_other_snapshots_are_refused() -> None:
    training = Training(recipe())
    training.eager(0, 10)
    before, good = training.bits(), training.opt.snapshot()
    name = "layers.0.bias"
    lost = {k: v for k, v in good.parameters.items() if k != name}
    wrong: list[dict[str, Any]] = [
        {"parameters": lost},
        {"parameters": good.parameters | {name: np.zeros(8, np.float32)}},
        {"state": good.state | {name: {}}},
        {"state": good.state | {name: {"m": np.zeros(7, np.float32)}}},
        {"dtypes": {name: "BF16"}},
        {"counts": {}},
    ]
    for change in wrong:
        fields = {f: getattr(good, f) for f in ("parameters", "state", "counts", "dtypes")} | change
        with pytest.raises(CheckpointError):
            training.opt.restore(checkpoint.Snapshot(**fields))
        assert training.bits() == before
    assert issubclass(CheckpointError, DualoptError)


# Parity with mlx.optimizers.

RATE, DECAY = 1e-2, 0.1
BETAS = (0.9, 0.99)


def in_lockstep(
    reference: Any, group: Group, keys: tuple[str, ...], updates: int = 20
) -> Iterator[tuple[Arrays, Arrays, Arrays, np.ndarray[Any, Any]]]:
    """(before, reference after, ours after, gradient), ours always starting from the reference's state."""
    start = mx.array(arrays({"w": (40, 30)})["w"])
    theirs, ours = {"w": start}, {"w": start}
    opt = Optimizer(ours, Recipe((group,)))
    reference.init(theirs)
    for t in range(updates):
        g = mx.array(arrays({"w": (40, 30)}, 1 + t)["w"])
        ours["w"] = theirs["w"]
        for key in keys:
            opt.state["memory"]["w"][key] = reference.state["w"][key]
        before = {"w": np.array(theirs["w"])} | {k: np.array(reference.state["w"][k]) for k in keys}
        theirs = reference.apply_gradients({"w": g}, theirs)
        opt.update(ours, {"w": g})
        after = {"w": np.array(theirs["w"])} | {k: np.array(reference.state["w"][k]) for k in keys}
        mine = {"w": np.array(ours["w"])} | {k: np.array(opt.state["memory"]["w"][k]) for k in keys}
        yield before, after, mine, np.array(g)


def test_lion_is_mlx_lion() -> None:
    options = {
        "step": RATE,
        "memory_half_life": half_life(BETAS[1], 1),
        "readout": BETAS[0] / BETAS[1],
        "shrink_half_life": half_life(1 - RATE * DECAY, 1),
    }
    reference = peers.Lion(RATE, betas=list(BETAS), weight_decay=DECAY)
    ties = 0
    for before, after, mine, g in in_lockstep(reference, Group("lion", options), ("m",)):
        size = np.abs(before["m"]) + np.abs(g)
        readout = BETAS[0] * before["m"].astype(np.float64) + (1 - BETAS[0]) * g
        undecided = np.abs(readout) <= 8 * np.spacing(size)
        ties += int(undecided.sum())
        assert ulps(mine["m"], after["m"], size) <= 4
        decided = ~undecided
        assert ulps(mine["w"][decided], after["w"][decided], (np.abs(before["w"]) + RATE)[decided]) <= 4
    assert ties <= 2


def test_adamw_is_mlx_adamw() -> None:
    options = {
        "step": RATE,
        "memory_half_life": half_life(BETAS[0], 1),
        "second_memory_half_life": half_life(BETAS[1], 1),
        "shrink_half_life": half_life(1 - RATE * DECAY, 1),
        "bias_correction": False,
    }
    reference = peers.AdamW(RATE, betas=list(BETAS), weight_decay=DECAY)
    for before, after, mine, g in in_lockstep(reference, Group("adamw", options), ("m", "v")):
        assert ulps(mine["m"], after["m"], np.abs(before["m"]) + np.abs(g)) <= 4
        assert ulps(mine["v"], after["v"], before["v"] + g * g) <= 4
        moved = np.abs(before["w"]) + np.abs(after["w"] - before["w"])
        assert ulps(mine["w"], after["w"], moved) <= 4


def test_bias_corrected_adamw_is_the_float64_oracle() -> None:
    """MLX's own correction loses digits: it computes 1 − β^t in float32."""
    options = {
        "step": RATE,
        "memory_half_life": half_life(BETAS[0], 1),
        "second_memory_half_life": half_life(BETAS[1], 1),
        "shrink_half_life": half_life(1 - RATE * DECAY, 1),
    }
    group, start = Group("adamw", options), arrays({"w": (40, 30)})
    gradients = [arrays({"w": (40, 30)}, 1 + t) for t in range(20)]
    oracle = replay(group, start, gradients, 1, dtype="float64")
    ours, theirs = ({"w": mx.array(start["w"])} for _ in range(2))
    opt = Optimizer(ours, Recipe((group,)))
    reference = peers.AdamW(RATE, betas=list(BETAS), weight_decay=DECAY, bias_correction=True)
    for t, g in enumerate(gradients):
        opt.update(ours, {"w": mx.array(g["w"])})
        theirs = reference.apply_gradients({"w": mx.array(g["w"])}, theirs)
        scale = np.maximum(np.abs(start["w"]), np.abs(oracle.params[t]["w"])) + RATE
        assert ulps(np.array(ours["w"]), oracle.params[t]["w"], scale) <= 4 + t
    np.testing.assert_allclose(np.array(theirs["w"]), oracle.params[-1]["w"], atol=1e-5)


def test_the_package_exports_what_it_promises() -> None:
    assert set(dualopt_mlx.__all__) == {"BACKEND", "Optimizer", "shapes_of"}
    assert BACKEND.version.count(".") == 2
    half = mx.array([1.5, -2.0], mx.bfloat16)
    assert BACKEND.to_numpy(half).tolist() == [1.5, -2.0]
    assert BACKEND.from_numpy(np.array([1.5]), "float32").dtype == mx.float32


@pytest.mark.parametrize("row", ["muon", "scionc", "adamw"])
def test_convolutions_train_alike_and_move_between_frameworks(row):
    """The same kernels, (out, in, *k) in torch and (out, *k, in) here: the same bits, and portable snapshots."""
    torch = pytest.importorskip("torch")
    from dualopt.generator import Stream

    shape = (6, 3, 3, 3)  # in and k alike: a transposed load would not be noticed by its shape
    table = {"group": [{"optimizer": row, "step": 0.05, "shrink_half_life": 100.0}]}
    start = Stream(0, "kernel").bell(shape)
    there = torch.nn.Parameter(torch.from_numpy(start.copy()))
    here = {"k": mx.array(np.moveaxis(start, 1, -1))}
    theirs, mine = optimizer({"k": there}, table, tier="exact"), optimizer(here, table, tier="exact")

    def both(t, first, second):
        g = Stream(1, str(t)).bell(shape)
        there.grad = torch.from_numpy(g.copy())
        first.step()
        second.update(here, {"k": mx.array(np.moveaxis(g, 1, -1))})
        return np.array_equal(np.moveaxis(np.array(here["k"]), -1, 1), there.detach().numpy())

    assert all(both(t, theirs, mine) for t in range(4))
    saved, other = mine.snapshot(), theirs.snapshot()
    assert np.array_equal(saved.parameters["k"], other.parameters["k"])
    assert np.array_equal(saved.state["k"]["m"], other.state["k"]["m"])
    mine.restore(other)
    theirs.restore(saved)
    assert all(both(t, theirs, mine) for t in range(4, 7))


def test_gradients_too_large_to_square_are_refused_and_normalised_rows_take_them():
    for row, fits in (("adamw", False), ("muon", True)):
        model = {"w": mx.ones((4, 3))}
        opt = optimizer(model, {"group": [{"optimizer": row}]})
        if fits:
            opt.update(model, {"w": mx.full((4, 3), 1e20)})
            assert np.isfinite(np.array(model["w"])).all()
            continue
        with pytest.raises(NonFiniteError, match="too large to square"):
            opt.update(model, {"w": mx.full((4, 3), 1e20)})
        assert opt.count == 0
