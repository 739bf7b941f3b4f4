"""Compiled and captured steps on torch: nothing is compiled anew, and a replay has the bits of a step.

There is no CUDA graph on a CPU. `Tape` stands for one: it writes down every operation on tensors with the very tensors
that it read and wrote, and a replay carries these out again in the same memory, without any Python of the step. A value
that the host reads while it records is an error, as it is on a GPU.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

import dualopt  # noqa: E402
from dualopt.digest import snapshot_digest  # noqa: E402
from dualopt.errors import NonFiniteError, RecipeError, StaleScalarsError  # noqa: E402
from dualopt.generator import Stream  # noqa: E402
from dualopt_torch import Optimizer  # noqa: E402

COUNTS = (7, 64, 64, 3, 100, 64)


class Tape(TorchDispatchMode):
    """What would happen while it is entered, to be replayed: recording leaves all memory as it was."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple] = []
        self._before: dict[int, tuple] = {}  # storages by address, and what was in those that were there before
        self._patch = pytest.MonkeyPatch()

    def __enter__(self):
        def read(*args, **kwargs):
            raise AssertionError("the host reads a tensor while a graph is captured")

        self._patch.setattr(torch.cuda, "is_available", lambda: True)
        self._patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
        for name in ("tolist", "numpy", "item"):
            self._patch.setattr(torch.Tensor, name, read)
        return super().__enter__()

    def __exit__(self, *error):
        self._patch.undo()
        super().__exit__(*error)
        for storage, held in self._before.values():
            if held is not None:
                storage.copy_(held)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if op is torch.ops.aten._local_scalar_dense.default:
            raise AssertionError("the host reads a tensor while a graph is captured")
        self._note((args, kwargs), known=True)
        found = op(*args, **(kwargs or {}))
        self._note(found, known=False)
        self.calls.append((op, args, kwargs or {}, found))
        return found

    def _note(self, tree, *, known: bool) -> None:
        for x in tree_leaves(tree):
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in self._before:
                storage = x.untyped_storage()
                self._before[storage.data_ptr()] = storage, storage.clone() if known else None

    @torch.no_grad()
    def replay(self) -> None:
        for op, args, kwargs, found in self.calls:
            for new, old in zip(tree_leaves(op(*args, **kwargs)), tree_leaves(found), strict=True):
                if isinstance(old, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


class Model(torch.nn.Module):
    """Matrices of two shapes, vectors, and a scalar."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"a": (6, 5), "b": (5, 6), "c": (5,), "d": ()}
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.from_numpy(np.array(Stream(0, name).bell(shape)))))

    def forward(self, x):
        x = x.to(self.a.dtype)
        return ((torch.tanh(x @ self.a) * self.c) @ self.b + self.d).square().mean()


def recipe(group, **tables):
    rest = {"name": "rest", "optimizer": "adamw", "shrink_half_life": 500.0}
    groups = [{"match": ["a", "b"], **group}, rest]
    return dualopt.Recipe.from_dict({"count": {"unit": "tokens", "per_update": 64}, "group": groups, **tables})


def batch(t):
    return torch.from_numpy(np.array(Stream(1, str(t)).bell((4, 6))))


def trained(model, opt, x):
    """The step that is captured."""
    for p in model.parameters():
        p.grad = None
    model(x).backward()
    opt.step()


def captured(model, opt, count):
    """(tape, its static input): the first replay is of `count`."""
    x = batch(0)
    opt.advance(count)
    with Tape() as tape:
        trained(model, opt, x)
    return tape, x


def pair(group, *, tier="fast", dtype=torch.float32, **tables):
    """(model, optimizer) twice, the second of them capturable."""
    models = Model().to(dtype), Model().to(dtype)
    opts = [Optimizer(m, recipe(group, **tables), tier=tier, compiled=False) for m in models]
    opts[1].capturable()
    return (*zip(models, opts, strict=True),)


ROWS = [
    ({"optimizer": "adamw", "shrink": "cautious", "shrink_half_life": 300.0}, "fast"),
    ({"optimizer": "muon", "shrink_half_life": 300.0}, "fast"),
    ({"optimizer": "scionc", "norm": "spectral", "target_rms": 0.2, "shrink_half_life": 300.0}, "fast"),
    ({"optimizer": "sf_adamw"}, "fast"),
    ({"optimizer": "rotational_adamw"}, "exact"),
    ({"optimizer": "shampoo"}, "fast"),
    ({"optimizer": "sgdm", "clip": 1e-3}, "fast"),
    ({"optimizer": "adamw", "rounding": "stochastic"}, "fast"),
    ({"optimizer": "muon", "rounding": "kahan"}, "fast"),
    ({"optimizer": "adamw", "rounding": "master"}, "fast"),
]


@pytest.mark.parametrize(
    ("group", "tier"), ROWS, ids=lambda x: x if isinstance(x, str) else "-".join(map(str, x.values()))
)
def test_replays_have_the_bits_of_steps(group, tier):
    """Counts and the schedule change from replay to replay; a step outside of the graph changes nothing between."""
    dtype = torch.bfloat16 if "rounding" in group else torch.float32
    schedule = {"shape": "linear", "total": 400, "warmup": 80}
    (model, opt), (twin, held) = pair(group, tier=tier, dtype=dtype, schedule=schedule)
    steps = [(t, COUNTS[t % len(COUNTS)]) for t in range(8)]
    for t, count in steps:
        trained_with_count(model, opt, batch(t), count)
    tape = None
    for t, count in steps:
        if t < 2:  # warm-up, outside of the graph
            held.advance(count)
            trained(twin, held, batch(t))
            continue
        if tape is None:
            tape, x = captured(twin, held, count)
        else:
            held.advance(count)
        x.copy_(batch(t))
        tape.replay()
    assert snapshot_digest(held.snapshot()) == snapshot_digest(opt.snapshot())
    assert held.param_groups[0]["lr"] == opt.param_groups[0]["lr"]


@pytest.mark.long
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_compiled_kernels_read_scalars_of_the_device(dtype):
    """The same update by kernels that take their scalars in a tensor, of every type of parameters."""
    models = Model().to(dtype), Model().to(dtype)
    opt, held = (Optimizer(m, recipe({**ADAMW, "shrink": "cautious"}), compiled=True) for m in models)
    held.capturable()
    for t, count in enumerate(COUNTS):
        trained_with_count(models[0], opt, batch(t).to(dtype), count)
        held.advance(count)
        trained(models[1], held, batch(t).to(dtype))
    assert snapshot_digest(held.snapshot()) == snapshot_digest(opt.snapshot())


def trained_with_count(model, opt, x, count):
    for p in model.parameters():
        p.grad = None
    model(x).backward()
    opt.step(count=count)


ADAMW = {"optimizer": "adamw", "shrink_half_life": 300.0}


@pytest.mark.parametrize("nonfinite", ["raise", "skip"])
def test_a_bad_replay_changes_nothing_and_does_not_count(nonfinite):
    (model, opt), (twin, held) = pair(ADAMW, nonfinite=nonfinite)
    tape, x = captured(twin, held, COUNTS[0])
    for t, count in enumerate(COUNTS):
        if t == 3:
            held.advance(999)
            x.fill_(float("inf"))
            tape.replay()
            if nonfinite == "raise":
                with pytest.raises(NonFiniteError, match="'a'"):
                    held.advance(count)
        if t:
            held.advance(count)
        x.copy_(batch(t))
        tape.replay()
        trained_with_count(model, opt, batch(t), count)
    assert held.state_dict()["param_groups"][0]["tau"] == sum(COUNTS)
    assert snapshot_digest(held.snapshot()) == snapshot_digest(opt.snapshot())


def test_an_unused_advance_is_taken_back_and_a_replay_without_one_is_reported():
    (model, opt), (twin, held) = pair(ADAMW)
    tape, x = captured(twin, held, 5)
    x.copy_(batch(1))
    tape.replay()
    trained_with_count(model, opt, batch(1), 5)
    held.advance(77)
    held.advance(6)  # in its place
    tape.replay()
    trained_with_count(model, opt, batch(1), 6)
    tape.replay()
    with pytest.raises(StaleScalarsError, match="1 captured update"):
        held.snapshot()
    assert snapshot_digest(held.snapshot()) == snapshot_digest(opt.snapshot())
    other = copy.deepcopy((twin, held))  # an ordinary one: what a graph refers to stays behind
    for m, o in (other, (model, opt)):
        trained_with_count(m, o, batch(2), 9)
    assert snapshot_digest(other[1].snapshot()) == snapshot_digest(opt.snapshot())


def test_steps_outside_of_graphs_need_no_advance():
    (model, opt), (twin, held) = pair(ADAMW)
    for t, count in enumerate(COUNTS):
        trained_with_count(model, opt, batch(t), count)
        trained_with_count(twin, held, batch(t), count)
    assert snapshot_digest(held.snapshot()) == snapshot_digest(opt.snapshot())
    assert held.snapshot().counts == opt.snapshot().counts


def test_what_a_graph_refers_to_may_not_move():
    """Other parameters, other cohorts, or memories that a checkpoint has replaced: the graph is of none of these."""
    _, (twin, held) = pair(ADAMW)
    tape, _ = captured(twin, held, 5)
    with pytest.raises(StaleScalarsError, match="capture again"):
        held.advance(5, names=["a", "b"])
    held.advance(5)
    tape.replay()
    held.load_state_dict(copy.deepcopy(held.state_dict()))
    with pytest.raises(StaleScalarsError, match="capture again"):
        held.advance(5)
    held.capturable()
    before = twin.a.detach().clone()
    tape, _ = captured(twin, held, 5)
    tape.replay()
    assert not torch.equal(twin.a, before)
    assert held.snapshot().counts[""] == 10


def test_what_cannot_be_captured_is_refused():
    (model, opt), (twin, held) = pair(ADAMW)
    opt.advance(5)
    with Tape(), pytest.raises(StaleScalarsError, match="capturable"):
        trained(model, opt, batch(0))
    with Tape(), pytest.raises(StaleScalarsError, match="advance"):
        trained(twin, held, batch(0))
    with pytest.raises(StaleScalarsError, match="folded by the host"):
        held.step(microbatches=[{}])
    elsewhere = {"a": torch.nn.Parameter(torch.ones(2)), "c": torch.nn.Parameter(torch.ones(2, device="meta"))}
    with pytest.raises(RecipeError, match="one device"):
        Optimizer(elsewhere, recipe(ADAMW)).capturable()


# --- torch.compile ----------------------------------------------------------------------------------------------


def test_a_compiled_train_step_is_compiled_once_whatever_counts_and_batches():
    """Forward, backward and step in one function; after two sizes of batches nothing is compiled anew."""
    group = {"optimizer": "muon"}
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    model, twin = Model(), Model()
    opt, eager = (Optimizer(m, recipe(group, schedule={"shape": "linear", "total": 900})) for m in (model, twin))

    def step(x):
        for p in model.parameters():
            p.grad = None
        loss = model(x)
        loss.backward()
        opt.step()
        return loss.detach()

    compiled = opt.compile(step, backend="aot_eager", dynamic=True)
    compiled(batch(0), count=4)
    compiled(batch(1)[:3], count=3)
    before = dict(counters["stats"]), dict(counters["frames"])
    assert before[0]["unique_graphs"] > 0
    for t in range(2, 8):
        compiled(batch(t)[: 2 + t % 3], count=COUNTS[t % 6])
    assert (dict(counters["stats"]), dict(counters["frames"])) == before
    for t, count in enumerate((4, 3, *(COUNTS[t % 6] for t in range(2, 8)))):
        trained_with_count(twin, eager, batch(t)[: 4 if t == 0 else 3 if t == 1 else 2 + t % 3], count)
    assert opt.snapshot().counts == eager.snapshot().counts
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_full_graph_is_refused_by_torch_where_it_holds_the_step():
    torch._dynamo.reset()
    model = Model()
    opt = Optimizer(model, recipe(ADAMW))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        opt.compile(opt.step, backend="eager", fullgraph=True)()
    assert opt.plan.tau == 0  # the count was taken back
