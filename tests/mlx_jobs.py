"""What one of several MLX processes does in the tests of distributed training: a program.

Every job runs the same training twice, with the others and alone, and finds the names of what differs. It prints one
line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn

import dualopt
from dualopt.digest import snapshot_digest
from dualopt.errors import DualoptError
from dualopt.generator import Stream
from dualopt_mlx import Optimizer

Shapes = dict[str, tuple[int, ...]]

SHAPES: Shapes = {
    "wide": (5, 7),
    "tall": (9, 3),
    "twin": (5, 7),
    "one": (1, 6),
    "many": (3, 2, 5),
    "kernel": (4, 3, 3, 2),
    "bias": (7,),
    "empty": (0, 4),
    "late": (6, 5),
}
LONELY: Shapes = {"a": (4, 3), "bias": (3,)}  # fewer matrices than processes
EVEN: Shapes = {"a": (32, 48), "b": (64, 16), "c": (32, 48), "d": (64, 16), "bias": (16,)}
UPDATES = 2


def recipe(row: str, **options: Any) -> dualopt.Recipe:
    """`row` for everything that has two dimensions and more, adamw for the rest."""
    nonfinite = options.pop("nonfinite", "raise")
    rest = {"name": "rest", "optimizer": "adamw", "match": ["*bias"]}
    hidden = {"name": "hidden", "optimizer": row, "match": ["*"], **options}
    return dualopt.Recipe.from_dict(
        {"count": {"unit": "tokens", "per_update": 100}, "nonfinite": nonfinite, "group": [rest, hidden]}
    )


def parameters(dtype: Any = mx.float32, shapes: Shapes = SHAPES) -> dict[str, mx.array]:
    return {n: mx.array(np.array(Stream(0, n).bell(s))).astype(dtype) for n, s in shapes.items()}


def gradients(t: int, shapes: Shapes = SHAPES) -> dict[str, mx.array]:
    """ "late" joins later, and "tall" is left out once."""
    there = {n: s for n, s in shapes.items() if not (n == "late" and t < 2) and not (n == "tall" and t == 1)}
    scale = np.float32(10.0 ** (t % 5 - 2))
    return {n: mx.array(Stream(1, f"{n}/{t}").bell(s) * scale) for n, s in there.items()}


def differing(ours: Optimizer, here: dict[str, mx.array], alone: Optimizer, there: dict[str, mx.array]) -> list[str]:
    """Everything of which the bits differ between the two."""
    found = [n for n, x in here.items() if not np.array_equal(bits(x), bits(there[n]))]
    if ours.counts != alone.counts or ours.count != alone.count:
        found.append("counts")
    if snapshot_digest(ours.snapshot()) != snapshot_digest(alone.snapshot()):
        found.append("snapshot")
    return found


def bits(x: mx.array) -> Any:
    return np.array(x.view(mx.uint32 if x.dtype == mx.float32 else mx.uint16))


def same(
    row: str,
    options: dict[str, Any] | None = None,
    tier: str = "exact",
    dtype: Any = mx.float32,
    shapes: Shapes = SHAPES,
) -> list[list[str]]:
    here, there, group = parameters(dtype, shapes), parameters(dtype, shapes), recipe(row, **(options or {}))
    ours = Optimizer(here, group, tier=tier, share=True)
    alone = Optimizer(there, group, tier=tier)
    found = []
    for t in range(4):
        for opt, theta in ((ours, here), (alone, there)):
            opt.update(theta, gradients(t, shapes), count=100 + 30 * t)
        found.append(differing(ours, here, alone, there))
    return found


def compiled() -> list[list[str]]:
    """A compiled step in which gradients are averaged; one that is not finite in one process masks it for all."""
    group = mx.distributed.init()
    model = Bag(EVEN)
    opt = Optimizer(model, recipe("muon", nonfinite="skip"), share=True)

    def step(grads: Any) -> None:
        opt.update(model, nn.average_gradients(grads))

    run = opt.compile(step)
    found = []
    for t in range(4):
        before = {n: bits(x) for n, x in model.parameters().items()}
        grads = gradients(t, EVEN)
        bad = t == 2 and group.rank() == group.size() - 1
        run({n: g * mx.nan for n, g in grads.items()} if bad else grads, count=100 + t)
        now = {n: bits(x) for n, x in model.parameters().items()}
        off = [n for n in now if np.array_equal(before[n], now[n]) != (t == 2)]
        mine = mx.array(int(snapshot_digest(opt.snapshot()), 16) >> 1, mx.int64)
        if (mx.distributed.all_max(mine) != mx.distributed.all_min(mine)).item():
            off.append("processes")
        if opt.count != sum(100 + u for u in range(t + 1) if u != 2):
            off.append("count")
        found.append(off)
    return found


class Bag(nn.Module):
    """A module of parameters."""

    def __init__(self, shapes: Shapes) -> None:
        super().__init__()
        for name, x in parameters(shapes=shapes).items():
            setattr(self, name, x)


def skipped() -> list[list[str]]:
    """One process finds a gradient that is not finite: nobody moves, and the next update is as if it had not been."""
    here, there = parameters(), parameters()
    ours = Optimizer(here, recipe("muon", nonfinite="skip"), tier="exact", share=True)
    alone = Optimizer(there, recipe("muon", nonfinite="skip"), tier="exact")
    found = []
    for t in range(3):
        grads = gradients(t)
        if t == 1 and ours._sharing.rank == 1:
            grads["wide"] = grads["wide"] * mx.inf
        ours.update(here, grads)
        if t != 1:
            alone.update(there, grads)
        found.append(differing(ours, here, alone, there))
    return found


def apart(how: str) -> list[str]:
    """What is said, and whether anything has changed."""
    here = parameters()
    ours = Optimizer(here, recipe("muon"), tier="exact", share=True)
    rank = ours._sharing.rank
    before = snapshot_digest(ours.snapshot())
    grads, count = gradients(0), 100
    if how == "count":
        count += rank
    elif how == "names" and rank == 1:
        del grads["one"]
    elif how == "nan" and rank == 1:
        grads["one"] = grads["one"] * mx.nan
    elif how == "error" and rank == 1:
        count = -1
    said = ""
    try:
        if how == "advance":
            ours.advance(count + rank)
        else:
            ours.update(here, grads, count=count)
    except DualoptError as error:
        said = f"{type(error).__name__}: {error}"
    return [said, "same" if snapshot_digest(ours.snapshot()) == before else "changed"]


def moved_by(row: str) -> list[int]:
    """(sent, received, decided, collectives) of `UPDATES` updates."""
    theta = parameters(shapes=EVEN)
    opt = Optimizer(theta, recipe(row), share=True)
    for t in range(UPDATES):
        opt.update(theta, gradients(t, EVEN))
    found = opt.traffic
    return [found.sent, found.received, found.decided, found.collectives]


def refused() -> str:
    """A layer that holds a piece of a matrix."""
    group = mx.distributed.init()
    model = nn.Sequential(nn.layers.distributed.AllToShardedLinear(8, 4 * group.size(), group=group))
    Optimizer(model, recipe("adamw"))
    try:
        Optimizer(model, recipe("muon"))
    except DualoptError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def resumed() -> list[list[str]]:
    """From a file of one process to several, and on."""
    here, there = parameters(), parameters()
    ours = Optimizer(here, recipe("scionc"), tier="exact", share=True)
    alone = Optimizer(there, recipe("scionc"), tier="exact")
    alone.update(there, gradients(0))
    ours.restore(alone.snapshot())
    here.update(there)
    found = []
    for t in range(1, 3):
        for opt, theta in ((ours, here), (alone, there)):
            opt.update(theta, gradients(t))
        found.append(differing(ours, here, alone, there))
    return found


WHOLE: dict[str, Callable[[], list[list[str]]]] = {
    "adamw": partial(same, "adamw"),
    "muon": partial(same, "muon"),
    "scionc, spectral": partial(same, "scionc", {"norm": "spectral"}),
    "scionc, column": partial(same, "scionc", {"norm": "column"}),
    "kaon": partial(same, "kaon"),
    "polargrad": partial(same, "polargrad"),
    "normuon, which is not divided": partial(same, "normuon"),
    "single_half_life, likewise": partial(same, "single_half_life"),
    "averaged": partial(same, "muon", {"motion": "averaged", "shrink": "cautious"}),
    "bfloat16": partial(same, "muon", dtype=mx.bfloat16),
    "bfloat16, stochastic": partial(same, "scionc", {"rounding": "stochastic"}, dtype=mx.bfloat16),
    "bfloat16, kahan": partial(same, "muon", {"rounding": "kahan"}, dtype=mx.bfloat16),
    "fewer matrices than processes": partial(same, "muon", shapes=LONELY),
    "elementwise, fast": partial(same, "lion", tier="fast"),
    "compiled": compiled,
    "skipped": skipped,
    "resumed": resumed,
}


if __name__ == "__main__":
    report: dict[str, Any] = {"rank": mx.distributed.init(strict=True, backend="ring").rank()}  # raises if it is alone
    report |= {name: job() for name, job in WHOLE.items()}
    report["apart"] = {how: apart(how) for how in ("count", "names", "nan", "error", "advance")}
    report["traffic"] = {row: moved_by(row) for row in ("muon", "adamw")}
    report["refused"] = refused()
    sys.stdout.write(json.dumps(report) + "\n")
