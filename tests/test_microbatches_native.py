"""Microbatches in the loops of torch and MLX: the bits of `replay`, and nothing changed by what is refused."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

import dualopt
from dualopt import replay
from dualopt.errors import CountError, GradientError, NonFiniteError, RecipeError, StaleScalarsError
from dualopt.generator import Stream

torch = pytest.importorskip("torch")
mx = pytest.importorskip("mlx.core")

from mlx import nn  # noqa: E402

import dualopt_torch  # noqa: E402

SHAPES = {"w": (3, 2), "b": (4,)}
MATRICES = {"w": (3, 2)}
COUNTS = [5, 3, 8]
CASES = {
    "std": ({"optimizer": "adamw"}, SHAPES),
    "full": ({"optimizer": "adamw", "estimator": "full"}, SHAPES),
    "sym": ({"optimizer": "adamw", "estimator": "sym"}, SHAPES),
    "loo_jensen": ({"optimizer": "adamw", "estimator": "loo_jensen"}, SHAPES),
    "sgdm": ({"optimizer": "sgdm"}, SHAPES),
    "sophia": ({"optimizer": "sophia", "estimator": "inv", "hessian": "samples"}, SHAPES),
    "shampoo": ({"optimizer": "shampoo", "estimator": "full", "root_interval": 6}, MATRICES),
}


def arrays(shapes, t, count=4, label=""):
    return [{n: np.array(Stream(5, f"{label}{n}/{t}/{j}").bell(s)) for n, s in shapes.items()} for j in range(count)]


def start(shapes):
    return {n: np.array(Stream(0, n).bell(s)) for n, s in shapes.items()}


def sampled(case, t):
    options, shapes = CASES[case]
    return arrays(shapes, t, label="s") if options.get("hessian") == "samples" and t != 1 else None


def reference(case, updates=3):
    options, shapes = CASES[case]
    micro = [arrays(shapes, t) for t in range(updates)]
    given = [sampled(case, t) for t in range(updates)]
    return replay(options, start(shapes), micro, COUNTS[:updates], samples=given)


def recipe(options, **extra):
    count = {"unit": "samples", "per_update": COUNTS[0]}
    return dualopt.Recipe.from_dict({"count": count, "group": [{**options, "match": ["*"]}], **extra})


class Torch:
    """A model, its optimizer, and trees of tensors."""

    def __init__(self, case, tier="exact", **extra):
        self.options, self.shapes = CASES[case] if isinstance(case, str) else case
        self.model = {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in start(self.shapes).items()}
        self.opt = dualopt.optimizer(self.model, recipe(self.options, **extra), tier=tier)

    def trees(self, given):
        return given and [{n: torch.from_numpy(x) for n, x in tree.items()} for tree in given]

    def step(self, micro, count=None, samples=None):
        self.opt.step(microbatches=micro, samples=samples, count=count)

    @property
    def counts(self):
        return dict(self.opt.plan.counts)


class MLX(Torch):
    def __init__(self, case, tier="exact", **extra):
        self.options, self.shapes = CASES[case] if isinstance(case, str) else case
        self.model = {n: mx.array(x) for n, x in start(self.shapes).items()}
        self.opt = dualopt.optimizer(self.model, recipe(self.options, **extra), tier=tier)

    def trees(self, given):
        return given and [{n: mx.array(x) for n, x in tree.items()} for tree in given]

    def step(self, micro, count=None, samples=None):
        self.opt.update(self.model, microbatches=micro, samples=samples, count=count)

    @property
    def counts(self):
        return dict(self.opt.counts)


def bits(side):
    snapshot = side.opt.snapshot()
    out = {n: np.asarray(x).tobytes() for n, x in snapshot.parameters.items()}
    return out | {f"{n}/{k}": np.asarray(x).tobytes() for n, s in snapshot.state.items() for k, x in s.items()}


def expected(found):
    out = {n: x.tobytes() for n, x in found.params[-1].items()}
    return out | {f"{n}/{k}": x.tobytes() for n, s in found.state[-1].items() for k, x in s.items()}


both = pytest.mark.parametrize("side", [Torch, MLX])


@both
@pytest.mark.parametrize("case", CASES)
def test_a_loop_is_a_replay(side, case):
    run = side(case)
    for t, count in enumerate(COUNTS):
        run.step(run.trees(arrays(run.shapes, t)), count, run.trees(sampled(case, t)))
    assert bits(run) == expected(reference(case))
    assert set(run.counts.values()) == {sum(COUNTS)}  # once per update


@pytest.mark.parametrize("case", ["std", "full", "sym", "sgdm", "sophia"])
def test_accumulating_is_a_replay(case):
    run = Torch(case)

    def backward(tree):
        for n, g in tree.items():
            run.model[n].grad = torch.from_numpy(g)

    for t, count in enumerate(COUNTS):
        for stream, samples in ((arrays(run.shapes, t), False), (sampled(case, t) or [], True)):
            for tree in stream:
                backward(tree)
                run.opt.accumulate(count=count, samples=samples)
                assert all(p.grad is None for p in run.model.values())
        run.opt.step()
    assert bits(run) == expected(reference(case))


@both
@pytest.mark.parametrize("case", ["full", "sophia", "shampoo"])
def test_a_run_resumes_elsewhere(side, case):
    """Two updates here, the third on the other framework."""
    first, second = side(case), {Torch: MLX, MLX: Torch}[side](case)
    for t, count in enumerate(COUNTS[:2]):
        first.step(first.trees(arrays(first.shapes, t)), count, first.trees(sampled(case, t)))
    snapshot = first.opt.snapshot()
    second.opt.restore(snapshot)
    second.step(second.trees(arrays(second.shapes, 2)), COUNTS[2], second.trees(sampled(case, 2)))
    assert bits(second) == expected(reference(case))


@both
@pytest.mark.parametrize("bad", ["nan", "shape", "name", "missing", "few", "none", "count", "iterator", "tree"])
def test_what_is_refused_changes_nothing(side, bad):
    run = side("loo_jensen")
    run.step(run.trees(arrays(SHAPES, 0)), 5)
    before, counts = bits(run), run.counts
    given, count, error = arrays(SHAPES, 1), 3, GradientError
    if bad == "nan":
        given[3]["w"][0, 0], error = np.nan, NonFiniteError
    elif bad == "shape":
        given[2]["w"] = given[2]["w"].T.copy()
    elif bad == "name":
        given[1]["c"] = given[1].pop("b")
    elif bad == "missing":
        del given[3]["b"]
    elif bad in ("few", "none"):
        given = given[: 1 if bad == "few" else 0]
    elif bad == "count":
        count, error = 0, CountError
    trees = run.trees(given) or []
    trees = iter(trees) if bad == "iterator" else trees[0] if bad == "tree" else trees
    with pytest.raises(error):
        run.step(trees, count)
    assert (bits(run), run.counts) == (before, counts)
    run.step(run.trees(arrays(SHAPES, 1)), 3)
    assert set(run.counts.values()) == {8}


@both
def test_an_update_that_is_skipped(side):
    run = side((CASES["full"][0], SHAPES), nonfinite="skip")
    before, given = bits(run), arrays(SHAPES, 0)
    given[3]["w"][0, 0] = np.inf
    run.step(run.trees(given), 5)
    assert bits(run)["w"] == before["w"]
    assert set(run.counts.values()) == {0}


@both
def test_one_gradient_is_too_few(side):
    run = side("full")
    before, tree = bits(run), run.trees(arrays(SHAPES, 0))[0]
    for n, g in tree.items() if side is Torch else ():
        run.model[n].grad = g
    with pytest.raises(GradientError, match="at least 4"):
        run.opt.step() if side is Torch else run.opt.update(run.model, tree)
    assert bits(run) == before


def test_accumulating_is_refused():
    run = Torch("full")

    def backward(j=0, scale=1.0):
        for n, g in arrays(SHAPES, 0)[j].items():
            run.model[n].grad = torch.from_numpy(g) * scale

    with pytest.raises(GradientError, match="no gradients"):
        run.opt.accumulate()
    before = bits(run)
    for j in range(3):
        backward(j)
        run.opt.accumulate(count=5)
    backward(3, float("nan"))
    with pytest.raises(NonFiniteError):
        run.opt.accumulate()
    with pytest.raises(GradientError, match="beside"):
        run.opt.step()
    for p in run.model.values():
        p.grad = None
    with pytest.raises(GradientError, match="at least 4"):
        run.opt.step()
    assert bits(run) == before
    with pytest.raises(CountError):
        run.opt.step(count=6)
    backward(3)
    with pytest.raises(CountError):
        run.opt.accumulate(count=6)
    with pytest.raises(GradientError, match="waiting"):
        run.opt.step(microbatches=[])
    run.opt.accumulate()
    run.opt.step()
    assert bits(run) == expected(reference("full", 1))
    twice = Torch("loo_jensen")
    twice.model["w"].grad = torch.ones(3, 2)
    with pytest.raises(GradientError, match="sees them once"):
        twice.opt.accumulate()
    unread = Torch("std")
    unread.model["w"].grad = torch.ones(3, 2)
    with pytest.raises(GradientError, match="no row reads"):
        unread.opt.accumulate(samples=True)


def test_what_was_accumulated_can_be_discarded():
    run = Torch("std")
    run.model["w"].grad = torch.ones(3, 2)
    run.opt.accumulate()
    run.opt.discard()
    for tree in run.trees(arrays(SHAPES, 0)):
        for n, g in tree.items():
            run.model[n].grad = g
        run.opt.accumulate(count=5)
    run.opt.step()
    assert bits(run) == expected(reference("std", 1))


def test_gradients_of_batches():
    """`microbatches` of torch gives what backward() gives, twice the same with dropout, one at a time."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Dropout(0.5), torch.nn.Linear(4, 1))
    batches = [torch.randn(6, 3) for _ in range(5)]
    stream = dualopt_torch.microbatches(model, lambda x: model(x).square().mean(), batches)
    first, second, alive = list(stream), list(stream), []
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(one[n], other[n]) for n in one)
    for tree in stream:
        alive.append(weakref.ref(tree["0.weight"]))
        del tree
        gc.collect()
        assert sum(x() is not None for x in alive[:-1]) == 0
    opt = dualopt.optimizer(model, recipe({"optimizer": "adamw", "estimator": "loo"}))
    before = [p.detach().clone() for p in model.parameters()]
    opt.step(microbatches=stream)
    assert all(not torch.equal(x, p) for x, p in zip(before, model.parameters(), strict=True))
    with pytest.raises(RecipeError, match="list"):
        dualopt_torch.microbatches(model, lambda x: x.sum(), iter(batches))


def test_gradients_are_computed_within_the_step():
    """A generator that calls backward runs outside of the no_grad of a step."""
    w = torch.nn.Parameter(torch.ones(3))
    opt = dualopt.optimizer({"w": w}, recipe({"optimizer": "adamw", "estimator": "inv"}))
    opt.step(microbatches=({"w": torch.autograd.grad((j * w).square().sum(), w)[0]} for j in range(1, 4)))
    assert (w < 1).all()


def test_torch_frees_gradients_as_it_goes():
    alive = []

    def trees():
        for j in range(6):
            gc.collect()
            assert sum(x() is not None for x in alive) <= 2  # the last one, and what the loop still holds
            tree = {n: torch.full(s, 1.0 + j) for n, s in SHAPES.items()}
            alive.append(weakref.ref(tree["w"]))
            yield tree

    Torch("sym").step(trees())
    assert len(alive) == 6


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = mx.array(start(MATRICES)["w"])


@pytest.mark.parametrize(("estimator", "m"), [("std", 3), ("full", 4), ("loo", 2)])
def test_compiled_steps_of_mlx(estimator, m):
    """A loop over microbatches inside of the step: unrolled, with the scalars of each update."""
    micro = mx.array(np.stack([np.stack([g["w"] for g in arrays(MATRICES, t)]) for t in range(3)]))
    ends = []
    for compiled in (False, True):
        model = Model()
        opt = dualopt.optimizer(model, recipe({"optimizer": "adamw", "estimator": estimator}))

        def step(x, model=model, opt=opt):
            opt.update(model, microbatches=[{"w": x[j]} for j in range(m)])

        run = opt.compile(step) if compiled else None
        for t, count in enumerate(COUNTS):
            if run is not None:
                run(micro[t], count=count)
            else:
                opt.update(model, microbatches=[{"w": micro[t, j]} for j in range(m)], count=count)
        assert set(opt.counts.values()) == {sum(COUNTS)}
        ends.append(np.array(model.w))
    np.testing.assert_allclose(ends[1], ends[0], rtol=1e-5)  # a compiler contracts a·b + c


def test_compiled_steps_with_and_without_samples():
    options = {"optimizer": "sophia", "hessian": "samples"}
    model, eager = Model(), Model()
    opt, other = (dualopt.optimizer(m, recipe(options)) for m in (model, eager))
    plain = opt.compile(lambda g: opt.update(model, {"w": g}))
    measured = opt.compile(lambda g, s: opt.update(model, {"w": g}, samples={"w": s}))
    for t, count in enumerate(COUNTS):
        g, s = (mx.array(arrays(MATRICES, t, label=label)[0]["w"]) for label in ("", "s"))
        if t == 1:
            plain(g, count=count)
        else:
            measured(g, s, count=count)
        other.update(eager, {"w": g}, count=count, samples=None if t == 1 else {"w": s})
    np.testing.assert_allclose(np.array(model.w), np.array(eager.w), rtol=1e-5)
    assert np.array_equal(np.array(opt.state["memory"]["w"]["h"]) > 0, np.ones((3, 2), bool))


def test_a_bad_microbatch_in_a_compiled_step():
    model = Model()
    opt = dualopt.optimizer(model, recipe({"optimizer": "adamw", "estimator": "inv"}))
    step = opt.compile(lambda x: opt.update(model, microbatches=[{"w": x[j]} for j in range(3)]))
    before = np.array(model.w)
    step(mx.array(np.stack([np.ones((3, 2)), np.full((3, 2), np.nan), np.ones((3, 2))])), count=5)
    with pytest.raises(NonFiniteError):
        opt.counts  # noqa: B018
    assert np.array_equal(np.array(model.w), before)
    assert set(opt.counts.values()) == {0}


def test_captured_steps_of_torch_are_refused():
    run = Torch("std", tier="fast")
    run.opt.advance(5)
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(StaleScalarsError):
        run.step([{n: torch.ones(s) for n, s in SHAPES.items()}])


def test_mlx_takes_gradients_or_microbatches():
    run = MLX("std")
    for given in ({}, {"gradients": {}, "microbatches": []}):
        with pytest.raises(GradientError, match="either"):
            run.opt.update(run.model, **given)
