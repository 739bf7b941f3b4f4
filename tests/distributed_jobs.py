"""What one of several processes does in the tests of distributed training, and finds.

A job runs the same training twice: over all processes, and in this one alone on whole parameters. It returns the names
of what differs between the two, after every update.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor
from torch.distributed.tensor.debug import CommDebugMode

import dualopt
from dualopt import checkpoint
from dualopt.digest import snapshot_digest
from dualopt.errors import DualoptError, NonFiniteError
from dualopt.generator import Stream
from dualopt_torch import Optimizer, microbatches
from dualopt_torch.distributed import Traffic, gathered
from dualopt_torch.distributed.dtensors import local

Shapes = Mapping[str, tuple[int, ...]]

SHAPES: Shapes = {
    "layers.wide": (5, 7),
    "layers.tall": (9, 3),
    "layers.twin": (5, 7),
    "layers.one": (1, 6),
    "layers.many": (3, 2, 5),
    "layers.kernel": (4, 3, 2, 2),
    "bias.a": (7,),
    "bias.b": (1,),
    "empty": (0, 4),
    "late": (6, 5),
}


class Bag(torch.nn.Module):
    """A module of parameters, whose names may have dots."""

    def __init__(self, dtype: torch.dtype, shapes: Shapes = SHAPES) -> None:
        super().__init__()
        for name, shape in shapes.items():
            owner: torch.nn.Module = self
            *path, last = name.split(".")
            for part in path:
                if part not in owner._modules:
                    owner.add_module(part, torch.nn.Module())
                owner = owner._modules[part]
            x = torch.from_numpy(np.array(Stream(0, name).bell(shape))).to(dtype)
            owner.register_parameter(last, torch.nn.Parameter(x))


def recipe(row: str, **options: Any) -> dualopt.Recipe:
    """`row` for everything that has two dimensions and more, adamw for the rest."""
    nonfinite = options.pop("nonfinite", "raise")
    groups = [{"name": "rest", "optimizer": "adamw", "match": ["bias.*"]}]
    return dualopt.Recipe.from_dict(
        {
            "count": {"unit": "tokens", "per_update": 100},
            "nonfinite": nonfinite,
            "group": [*groups, {"name": "hidden", "optimizer": row, "match": ["*"], **options}],
        }
    )


def gradient(name: str, shape: tuple[int, ...], t: int, dtype: torch.dtype) -> torch.Tensor:
    g = torch.from_numpy(np.array(Stream(1, f"{name}/{t}").bell(shape))) * 10.0 ** (t % 5 - 2)
    return g.to(dtype)


def present(name: str, t: int) -> bool:
    """Whether a parameter has a gradient: "late" joins later, and "layers.tall" is left out once."""
    return not (name == "late" and t < 2) and not (name == "layers.tall" and t == 1)


def give(parameters: Mapping[str, torch.Tensor], t: int, dtype: torch.dtype, *, spoil: bool = False) -> None:
    for name, p in parameters.items():
        g = gradient(name, tuple(p.shape), t, dtype)
        if spoil and name == "layers.wide":
            g[-1, -1] = torch.nan  # the last row: in the piece of one process alone
        if not present(name, t):
            p.grad = None
        elif hasattr(p, "placements"):
            p.grad = distribute_tensor(g, p.device_mesh, p.placements, src_data_rank=None)
        else:
            p.grad = g


def mesh_of(size: int, replicas: int) -> Any:
    if replicas == 1:
        return init_device_mesh("cpu", (size,))
    return init_device_mesh("cpu", (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))


def sharded(dtype: torch.dtype, size: int, replicas: int = 1, shapes: Shapes = SHAPES) -> Bag:
    model = Bag(dtype, shapes)
    fully_shard(model, mesh=mesh_of(size, replicas))
    return model


def whole(x: Any) -> torch.Tensor:
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def differing(ours: Optimizer, alone: Optimizer) -> list[str]:
    """Everything of which the bits differ between the two."""
    found = []
    for name, p in ours._named.items():
        q = alone._named[name]
        mine, its = (x if x.get("tau") else {} for x in (ours.state.get(p, {}), alone.state.get(q, {})))
        if bits(p) != bits(q):
            found.append(name)
        if set(mine) != set(its):
            found.append(f"{name}: {sorted(mine)} {sorted(its)}")
        for key in set(mine) & set(its):
            x, y = mine[key], its[key]
            if (bits(x) != bits(y)) if isinstance(x, torch.Tensor) else x != y:
                found.append(f"{name}/{key}")
    if ours.plan.saved_counts() != alone.plan.saved_counts():
        found.append("counts")
    return found


def bits(x: Any) -> bytes:
    return whole(x.detach()).contiguous().view(torch.uint8).numpy().tobytes() if x.numel() else b""


def engine(kind: str, dtype: torch.dtype, size: int, shapes: Shapes = SHAPES) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A model as an engine has it, and options of its optimizer."""
    if kind == "replicated":
        return Bag(dtype, shapes), {"share": True}
    return sharded(dtype, size, 2 if kind == "mesh" else 1, shapes), {}


def same(
    rank: int, size: int, kind: str, row: str, options: dict[str, Any], tier: str, dtype: str, updates: int
) -> list[list[str]]:
    """What differs from one process after each update."""
    stored = getattr(torch, dtype)
    model, extra = engine(kind, stored, size)
    wanted = recipe(row, **options)
    ours = Optimizer(model, wanted, tier=tier, **extra)
    alone = Optimizer(Bag(stored), wanted, tier=tier)
    found = []
    for t in range(updates):
        for opt in (ours, alone):
            give(opt._named, t, stored)
            opt.step(count=17 * (t % 9) + 1)
        found.append(differing(ours, alone))
    return found


def skipped(rank: int, size: int, kind: str, row: str) -> list[list[str]]:
    """An update whose gradient one process finds bad: skipped by all; under "raise" refused by all."""
    model, extra = engine(kind, torch.float32, size)
    ours = Optimizer(model, recipe(row, nonfinite="skip"), tier="exact", **extra)
    alone = Optimizer(Bag(torch.float32), recipe(row, nonfinite="skip"), tier="exact")
    found = []
    for t in range(3):
        for opt in (ours, alone):
            give(opt._named, t, torch.float32, spoil=t == 1)
            opt.step()
        found.append(differing(ours, alone))
    ours.plan.recipe = recipe(row, nonfinite="raise")  # the same otherwise
    give(ours._named, 4, torch.float32, spoil=True)
    try:
        ours.step()
    except NonFiniteError:
        found.append(differing(ours, alone))
    else:
        found.append(["no error"])
    return found


def apart(rank: int, size: int, kind: str, how: str) -> str:
    """What processes that come apart say; nothing may have changed."""
    model, extra = engine(kind, torch.float32, size)
    ours = Optimizer(model, recipe("muon"), tier="exact", **extra)
    alone = Optimizer(Bag(torch.float32), recipe("muon"), tier="exact")
    give(ours._named, 0, torch.float32)
    count = None
    if rank == 0 and how == "count":
        count = 7
    if rank == 0 and how == "lr":
        ours.param_groups[1]["lr"] *= 2
    if rank == 0 and how == "names":
        ours._named["layers.one"].grad = None
    if rank == 0 and how == "error":
        count = -1
    try:
        ours.step(count=count)
    except DualoptError as error:
        assert not differing(ours, alone)
        return f"{type(error).__name__}: {error}"
    return "no error"


def refused(rank: int, size: int, row: str, options: dict[str, Any]) -> str:
    try:
        Optimizer(sharded(torch.float32, size), recipe(row, **options))
    except DualoptError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


class Counted:
    """Counts what this process sends, beside the library's own account: wraps torch's collectives."""

    def __enter__(self) -> Counted:
        self.sent, self.decided, self.calls = 0, 0, []
        self._kept = {name: getattr(dist, name) for name in ("all_to_all_single", "broadcast", "all_reduce")}
        for name in self._kept:
            setattr(dist, name, partial(getattr(self, name), self._kept[name]))
        self._debug = CommDebugMode()
        self._debug.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._debug.__exit__(*error)
        for name, function in self._kept.items():
            setattr(dist, name, function)
        assert self._debug.get_total_counts() == len(self.calls)  # no collective but these, DTensor's own included

    def all_to_all_single(self, function: Any, out: Any, x: torch.Tensor, to: Any, of: Any, **options: Any) -> Any:
        self.calls.append("all_to_all")
        own = of[dist.get_rank(options["group"])]
        self.sent += (x.numel() - own) * x.element_size()
        return function(out, x, to, of, **options)

    def broadcast(self, function: Any, x: torch.Tensor, **options: Any) -> Any:
        self.calls.append("broadcast")
        if dist.get_rank(options["group"]) == options["group_src"]:
            self.sent += x.numel() * x.element_size() * (dist.get_world_size(options["group"]) - 1)
        return function(x, **options)

    def all_reduce(self, function: Any, x: torch.Tensor, **options: Any) -> Any:
        self.calls.append("all_reduce")
        self.decided += x.numel() * x.element_size()
        return function(x, **options)


def traffic(rank: int, size: int, kind: str, row: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, Any]:
    """What one update moves, by two accounts, and who computes what."""
    model, extra = engine(kind, torch.float32, size, shapes)
    ours = Optimizer(model, recipe(row), tier="exact", **extra)
    give(ours._named, 3, torch.float32)
    with Counted() as counted:
        ours.step()
    moved = ours.traffic or Traffic()
    assert (moved.sent, moved.decided, moved.collectives) == (counted.sent, counted.decided, len(counted.calls))
    owners = [x for x in getattr(ours._execute, "_owners", {}).values() if x]
    return {
        "sent": moved.sent,
        "received": moved.received,
        "decided": moved.decided,
        "calls": counted.calls,
        "owners": owners[0] if owners else {},
        "pieces": {name: local(p).numel() for name, p in ours._named.items()},
    }


def trained(opt: Optimizer, updates: Iterable[int]) -> None:
    for t in updates:
        give(opt._named, t, torch.float32)
        opt.step(count=17 * (t % 9) + 1)


def alone_after(row: str, options: dict[str, Any], updates: int) -> Optimizer:
    alone = Optimizer(Bag(torch.float32), recipe(row, **options), tier="exact")
    trained(alone, range(updates))
    return alone


def saves(rank: int, size: int, kind: str, row: str, options: dict[str, Any], directory: str) -> bool:
    """Train two updates and save them in every way; True if the gathered snapshot is that of one process."""
    model, extra = engine(kind, torch.float32, size)
    ours = Optimizer(model, recipe(row, **options), tier="exact", **extra)
    trained(ours, range(2))
    held, optim = get_state_dict(model, ours)
    dcp.save({"model": held, "optim": optim}, checkpoint_id=f"{directory}/dcp")
    found = gathered(ours)
    if found is None:
        return rank > 0
    checkpoint.save(f"{directory}/one.safetensors", found, metadata={})
    return snapshot_digest(found) == snapshot_digest(alone_after(row, options, 2).snapshot())


def continues(
    rank: int, size: int, kind: str, row: str, options: dict[str, Any], directory: str, how: str
) -> list[list[str]]:
    """Go on from what `saves` has saved, for two updates; what differs from one process."""
    model, extra = engine(kind, torch.float32, size)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    ours = Optimizer(model, recipe(row, **options), tier="exact", **extra)
    if how == "dcp":
        held, optim = get_state_dict(model, ours)
        dcp.load({"model": held, "optim": optim}, checkpoint_id=f"{directory}/dcp")
        set_state_dict(model, ours, model_state_dict=held, optim_state_dict=optim)
    else:
        ours.restore(checkpoint.load(f"{directory}/one.safetensors")[0])
    alone = alone_after(row, options, 2)
    found = [differing(ours, alone)]
    if how == "state_dict":
        again = Optimizer(model, recipe(row, **options), tier="exact", **extra)
        again.load_state_dict(ours.state_dict())
        ours = again
    for t in (2, 3):
        trained(ours, [t])
        trained(alone, [t])
        found.append(differing(ours, alone))
    return found


def evaluates(rank: int, size: int) -> list[list[str]]:
    """The weights to evaluate at, in the model and beside it, and back."""
    options = {"motion": "averaged"}
    model, extra = engine("sharded", torch.float32, size)
    ours = Optimizer(model, recipe("muon", **options), tier="exact", **extra)
    trained(ours, range(3))
    alone = alone_after("muon", options, 3)
    found = [[n for n, x in alone.averaged().items() if bits(x) != bits(ours.averaged()[n])]]
    for change in ("eval", "train"):
        getattr(ours, change)()
        getattr(alone, change)()
        found.append(differing(ours, alone))
    return found


class Layers(torch.nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(torch.nn.Linear(5, 7), torch.nn.Tanh(), torch.nn.Linear(7, 3, bias=False))


def engines(rank: int, size: int, kind: str, row: str) -> list[list[str]]:
    """Gradients by the engine itself, from another batch in every process."""
    model: torch.nn.Module = Layers()
    if kind == "replicated":
        model = torch.nn.parallel.DistributedDataParallel(model)
    else:
        for layer in model:
            fully_shard(layer, mesh=mesh_of(size, 1))
        fully_shard(model, mesh=mesh_of(size, 1))
    groups = [{"optimizer": row, "match": ["*"], "ndim": 2}, {"optimizer": "adamw", "match": ["*"]}]
    wanted = dualopt.Recipe.from_dict({"count": {"unit": "samples", "per_update": 4}, "group": groups})
    ours = Optimizer(model, wanted, tier="exact")
    assert (ours._layout is None) == (size == 1 and kind == "replicated")
    alone = Optimizer(Layers(), wanted, tier="exact")
    found = []
    for t in range(3):
        x = torch.from_numpy(np.array(Stream(rank, f"batch/{t}").bell((4, 5))))
        model.zero_grad()
        model(x).square().mean().backward()
        for name, p in alone._named.items():
            p.grad = whole(ours._named[name].grad).clone()
        ours.step()
        alone.step()
        found.append(differing(ours, alone))
    return found


def misused(rank: int, size: int) -> list[str]:
    """What is refused of an optimizer of sharded parameters, or of one of several."""

    def said(what: Any) -> str:
        try:
            what()
        except DualoptError as error:
            return f"{type(error).__name__}: {error}"
        return "no error"

    model = sharded(torch.float32, size)
    ours = Optimizer(model, recipe("muon"))
    give(ours._named, 3, torch.float32)
    before = {name: bits(p) for name, p in ours._named.items()}
    tree = {name: p.grad for name, p in ours._named.items()}
    found = [
        said(ours.accumulate),
        said(lambda: ours.step(microbatches=[tree])),
        said(lambda: ours.adopt({}, "torch-adamw")),
        said(lambda: copy.deepcopy(ours)),
        said(lambda: Optimizer(model, recipe("muon"), share=True)),
        said(lambda: microbatches(torch.nn.parallel.DistributedDataParallel(Layers()), torch.sum, [])),
        said(lambda: Optimizer({**ours._named, "plain": torch.nn.Parameter(torch.ones(3, 3))}, recipe("muon"))),
    ]
    ours.monitor = object()  # refused before anything is asked of it
    found.append(said(ours.step))
    assert before == {name: bits(p) for name, p in ours._named.items()}
    return found
