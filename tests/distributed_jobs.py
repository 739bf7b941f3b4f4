"""What one of several processes does in the tests of distributed training, and finds.

A job runs the same training twice: over all processes, and in this one alone on whole parameters. It returns the names
of what differs between the two, after every update.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

import dualopt
from dualopt.generator import Stream
from dualopt_torch import Optimizer

SHAPES = {
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

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
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


def gradient(name: str, t: int, dtype: torch.dtype) -> torch.Tensor:
    g = torch.from_numpy(np.array(Stream(1, f"{name}/{t}").bell(SHAPES[name]))) * 10.0 ** (t % 5 - 2)
    return g.to(dtype)


def present(t: int) -> Iterable[str]:
    """The parameters that have gradients: "late" joins later, and "layers.tall" is left out at times."""
    return [n for n in SHAPES if not (n == "late" and t < 2) and not (n == "layers.tall" and t == 1)]


def give(parameters: Mapping[str, torch.Tensor], t: int, dtype: torch.dtype, *, spoil: bool = False) -> None:
    names = present(t)
    for name, p in parameters.items():
        g = gradient(name, t, dtype)
        if spoil and name == "layers.wide":
            g[-1, -1] = torch.nan  # the last row: in the piece of one process alone
        if name not in names:
            p.grad = None
        elif hasattr(p, "placements"):
            p.grad = distribute_tensor(g, p.device_mesh, p.placements, src_data_rank=None)
        else:
            p.grad = g


def mesh_of(size: int, replicas: int) -> Any:
    if replicas == 1:
        return init_device_mesh("cpu", (size,))
    return init_device_mesh("cpu", (replicas, size // replicas), mesh_dim_names=("replicate", "shard"))


def sharded(dtype: torch.dtype, size: int, replicas: int = 1) -> Bag:
    model = Bag(dtype)
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


def engine(kind: str, dtype: torch.dtype, size: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """A model as an engine has it, and options of its optimizer."""
    if kind == "replicated":
        return Bag(dtype), {"share": True}
    return sharded(dtype, size, 2 if kind == "mesh" else 1), {}


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
    from dualopt.errors import NonFiniteError

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
    from dualopt.errors import DualoptError

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
    from dualopt.errors import DualoptError

    try:
        Optimizer(sharded(torch.float32, size), recipe(row, **options))
    except DualoptError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def traffic(rank: int, size: int, kind: str, updates: int) -> dict[str, Any]:
    """Bytes and collectives per update, and who computes what."""
    model, extra = engine(kind, torch.float32, size)
    ours = Optimizer(model, recipe("muon"), tier="fast", **extra)
    for t in range(3, 3 + updates):
        give(ours._named, t, torch.float32)
        ours.step()
    moved = ours._layout.wire.traffic if ours._layout is not None else None
    return {
        "sent": moved.sent,
        "received": moved.received,
        "decided": moved.decided,
        "collectives": moved.collectives,
        "owners": ours._execute._assigned([]) if False else next(iter(ours._execute._owners.values())),
    }


def barrier() -> None:
    dist.barrier()
