"""What one update of the matrices of a GPT asks of MLX, counted and not timed: a Markdown table.

    python benchmarks/mlx_counts.py [--into docs/mlx.md]

Counted in the graph that an update builds, for `muon` of dualopt and `mlx.optimizers.Muon`, on the four matrices of
every layer (qkv, projection, and the two of a feed-forward block of four times the width):

    products         matrix products that are launched, a stack of them as one
    GFLOP            of these products, 2 m k n each
    kernels, eager   primitives that write an array: all but views of one
    MB, eager        what these read and write, if every array is read once
    kernels, compiled   the same in a compiled training step, where elementwise operations are joined; dualopt's search
                     for gradients that are not finite and its mask are among them

No time follows from that alone; on Metal none has been measured.
"""

from __future__ import annotations

import argparse
import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers

from dualopt import Group, Recipe
from dualopt.plan import Plan
from dualopt_mlx import Optimizer
from dualopt_mlx.execute import executor_of
from dualopt_mlx.namespace import EXACT

VIEWS = {"Broadcast", "BroadcastAxes", "Transpose", "ExpandDims", "Squeeze", "Flatten", "Unflatten", "Reshape", "Slice"}
PRODUCTS = {"Matmul", "AddMM"}
BEGIN, END = "<!-- counts -->", "<!-- end -->"  # of the table in a page
Arrays = dict[str, Any]
Counted = dict[str, float]


def matrices(layers: int, width: int) -> dict[str, tuple[int, int]]:
    kinds = {"qkv": (3, 1), "projection": (1, 1), "up": (4, 1), "down": (1, 4)}
    return {f"{i}.{kind}": (m * width, n * width) for i in range(layers) for kind, (m, n) in kinds.items()}


def made(shapes: dict[str, tuple[int, int]]) -> Arrays:
    found = {name: mx.zeros(shape) for name, shape in shapes.items()}
    mx.eval(found)
    return found


def eager(update: Callable[..., list[Any]], *arrays: list[Any]) -> Counted:
    """The counts of the primitives in `update`."""
    found: Counted = {"products": 0, "GFLOP": 0.0, "kernels, eager": 0, "MB, eager": 0.0}

    def seen(event: dict[str, Any]) -> None:
        if event["type"] != "primitive" or event["name"] in VIEWS:
            return
        shapes = [shape for _, shape, _ in event["inputs"] + event["outputs"]]
        found["kernels, eager"] += 1
        found["MB, eager"] += 4e-6 * sum(math.prod(shape) for shape in shapes)
        if event["name"] in PRODUCTS:
            found["products"] += 1
            found["GFLOP"] += 2e-9 * math.prod(event["outputs"][0][1]) * event["inputs"][0][1][-1]

    mx.export_function(seen, update, *[x for some in arrays for x in some])
    return found


def compiled(*outputs: Any) -> int:
    """The number of kernels in a graph that is still to be evaluated."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "graph.dot"
        mx.export_to_dot(str(path), *outputs)
        names = re.findall(r'label ?= ?"(\w+)', path.read_text())
    return sum(name not in VIEWS for name in names)


def ours(shapes: dict[str, tuple[int, int]], options: dict[str, Any]) -> Counted:
    made_of = Recipe((Group("muon", options),))
    plan, names = Plan(made_of, shapes, layout="channels_last"), list(shapes)
    planned, execute, n = plan.groups[0], executor_of("fast"), len(shapes)
    model, g = made(shapes), made(shapes)
    state = {name: planned.start(EXACT, name, x) for name, x in model.items()}
    keys = list(state[names[0]])
    scalars = plan.propose(None, names).scalars

    def update(*given: Any) -> list[Any]:
        theta, gradients = dict(zip(names, given, strict=False)), dict(zip(names, given[n:], strict=False))
        kept = {name: dict(zip(keys, given[2 * n + i * len(keys) :], strict=False)) for i, name in enumerate(names)}
        moved = execute(planned, theta, kept, {name: {"gradient": x} for name, x in gradients.items()}, scalars)
        return [y for x, s in moved.values() for y in (x, *s.values())]

    found = eager(update, list(model.values()), list(g.values()), [x for s in state.values() for x in s.values()])
    opt = Optimizer(model, made_of)
    opt.compile(lambda: opt.update(model, g))()
    return found | {"kernels, compiled": compiled(model, opt.state)}


def theirs(shapes: dict[str, tuple[int, int]]) -> Counted:
    model, g, names, n = made(shapes), made(shapes), list(shapes), len(shapes)

    def muon(memory: list[Any]) -> Any:
        opt = mlx.optimizers.Muon(0.02, weight_decay=0.01)  # type: ignore[no-untyped-call]
        opt.init(dict.fromkeys(names, mx.zeros(1)))
        for name, v in zip(names, memory, strict=False):
            opt.state[name]["v"] = v
        return opt

    def update(*given: Any) -> list[Any]:
        opt = muon(list(given[2 * n :]))
        gradients = dict(zip(names, given[n:], strict=False))
        new = opt.apply_gradients(gradients, dict(zip(names, given, strict=False)))
        return [*new.values(), *(opt.state[name]["v"] for name in names)]

    found = eager(update, list(model.values()), list(g.values()), list(made(shapes).values()))
    opt = muon(list(made(shapes).values()))
    kept = [model, opt.state]
    mx.compile(lambda: model.update(opt.apply_gradients(g, model)), inputs=kept, outputs=kept)()
    return found | {"kernels, compiled": compiled(model, opt.state)}


def table(layers: int, width: int) -> str:
    shapes = matrices(layers, width)
    rows = {
        "mlx.optimizers.Muon": theirs(shapes),
        "`muon`": ours(shapes, {}),
        '`muon`, polar_form = "gram"': ours(shapes, {"polar_form": "gram"}),
    }
    columns = list(next(iter(rows.values())))
    lines = [["", *columns], ["---"] * (1 + len(columns))]
    lines += [[name, *(f"{found[c]:,.0f}" for c in columns)] for name, found in rows.items()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Counts of an update of matrices on MLX, as Markdown.")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--into", type=Path, help="a page with a place for the table")
    stated = parser.parse_args()
    found = table(stated.layers, stated.width)
    if stated.into is None:
        print(found)
    else:
        before, _, rest = stated.into.read_text(encoding="utf-8").partition(BEGIN)
        stated.into.write_text(f"{before}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
