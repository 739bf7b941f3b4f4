"""Every row of the catalogue on every backend: bits, fast error, and time relative to adamw, as a Markdown table.

    python benchmarks/rows.py --out docs/rows.md            all rows; `make rows`
    python benchmarks/rows.py --rows 'scion*' --repeats 3    a few, on stdout

Rows run with their defaults. A column is a backend and a tier:

    numpy, torch eager, MLX eager    the exact tier: elements whose bits differ from numpy's, of all parameters and
                                     state after each update of a free run
    torch fast, MLX fast             the fast tier: the largest normwise error ‖x − x_exact‖/‖x_exact‖ of any of them

Times are of native optimizers, from gradients at hand to parameters updated, each divided by the time of adamw in the
update before it: what else runs on the machine slows both. Given are the median and the quartiles. `make rows` leaves
numpy one thread: small products on a busy machine wait for the others, a hundred times as long as they take.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import ENTRIES, Replay, namespace, optimizer, replay
from dualopt.errors import DualoptError
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt_conformance import inputs
from dualopt_conformance.metric import normwise
from dualopt_conformance.replays import compare

COLUMNS = (("numpy", "exact"), ("torch", "exact"), ("torch", "fast"), ("mlx", "exact"), ("mlx", "fast"))
TITLES = {"numpy": "numpy", "torch": "torch", "mlx": "MLX"}
PROVED = {"square": (24, 24), "tall": (40, 12), "stack": (2, 8, 16)}
TIMED = {"exact": {f"w{i}": (64, 64) for i in range(4)}, "fast": {f"w{i}": (512, 512) for i in range(4)}}
KINDS = ("bell", "six_decades", "zeros", "low_rank")
SETTINGS = ("MLX_ENABLE_TF32", "OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS")  # of the environment, if set
WARM = 2  # updates before the clock runs

Update = Callable[[], None]


def updater(row: str, backend: str, tier: str) -> Update:
    """One update of a row at its defaults, carried out to the end."""
    shapes = TIMED[tier]
    chosen = namespace.load(backend)
    params: dict[str, Any] = {n: chosen.from_numpy(x, "float32") for n, x in inputs.parameters(shapes).items()}
    grads = {n: chosen.from_numpy(x, "float32") for n, x in next(inputs.gradients(shapes, 1)).items()}
    recipe = Recipe((Group(row),))
    if backend == "numpy":
        return _plain(recipe, params, grads, tier)
    if backend == "torch":
        for name, x in params.items():
            x.requires_grad_().grad = grads[name]
        stepped = optimizer(params, recipe, tier=tier)
        return lambda: stepped.step(count=1)
    import mlx.core as mx

    opt = optimizer(params, recipe, tier=tier)

    def update() -> None:
        opt.update(params, grads, count=1)
        mx.eval(params, opt.state)

    return update


def _plain(recipe: Recipe, params: dict[str, Any], grads: Mapping[str, Any], tier: str) -> Update:
    """The same without a native optimizer."""
    chosen = namespace.load("numpy")
    plan, execute = Plan(recipe, {n: x.shape for n, x in params.items()}), chosen.execute(tier)
    group = plan.groups[0]
    state = {n: group.start(chosen.namespace(tier), n, x) for n, x in params.items()}
    evidence = {n: {"gradient": g} for n, g in grads.items()}

    def update() -> None:
        proposal = plan.propose(1, params)
        for name, (moved, s) in execute(group, params, state, evidence, proposal.scalars).items():
            params[name], state[name] = moved, s
        plan.commit(proposal)

    return update


def seconds(update: Update) -> float:
    start = time.perf_counter()
    update()
    return time.perf_counter() - start


def relative(row: str, backend: str, tier: str, repeats: int) -> str:
    """Median and quartiles of the time of one update over that of adamw, in turns."""
    own, peer = updater(row, backend, tier), updater("adamw", backend, tier)
    for _ in range(WARM):
        own()
        peer()
    ratios = []
    for _ in range(repeats):
        before = seconds(peer)
        ratios.append(seconds(own) / before)
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return f"{_digits(middle)} × ({_digits(low)} … {_digits(high)})"


def _digits(x: float) -> str:
    return f"{x:.2f}" if x < 10 else f"{x:,.0f}"


def run(row: str, updates: int, backend: str, tier: str) -> Replay:
    """A free run with varying increments and kinds of gradients."""
    grads = inputs.gradients(PROVED, updates, kinds=KINDS)
    increments = inputs.increments(updates, least=1, most=3)
    return replay({"optimizer": row}, inputs.parameters(PROVED), grads, increments, backend=backend, tier=tier)


def agreement(row: str, updates: int, reference: Replay, backend: str, tier: str) -> str:
    """How far a backend is from numpy: differing elements in the exact tier, the normwise error in the fast one."""
    found = run(row, updates, backend, tier)
    if tier == "exact":
        return f"{compare(reference, found).differing} bits"
    worst = max(normwise(x, y) for x, y in zip(_arrays(reference), _arrays(found), strict=True))
    return f"{worst:.1e}" if worst else "0"


def _arrays(found: Replay) -> Iterator[Any]:
    """All parameters and states after every update, in one order."""
    for params, state in zip(found.params, found.state, strict=True):
        for name in PROVED:
            yield params[name]
            yield from (state[name][key] for key in sorted(state[name]))


def measured(rows: list[str], updates: int, repeats: int, columns: list[tuple[str, str]]) -> Iterator[list[str]]:
    """The cells of the table, row by row; what cannot be measured says why on stderr."""
    begun = time.perf_counter()
    for i, row in enumerate(rows, 1):
        reference, cells = run(row, updates, "numpy", "exact"), [f"`{row}`"]
        for backend, tier in columns:
            print(f"\r\033[K{i}/{len(rows)} {row}: {backend} {tier}", end="", file=sys.stderr, flush=True)
            try:
                near = agreement(row, updates, reference, backend, tier)
                cells.append(f"{near}, {relative(row, backend, tier, repeats)}")
            except DualoptError as error:
                print(f"\n{row} on {backend} {tier}: {error}", file=sys.stderr)
                cells.append("–")
        print(f"\r\033[K{i}/{len(rows)} {row}: {time.perf_counter() - begun:.0f} s", file=sys.stderr)
        yield cells


def document(rows: list[str], updates: int, repeats: int, columns: list[tuple[str, str]]) -> str:
    """The page."""
    cells = list(measured(rows, updates, repeats, columns))
    titles = ["row"] + [
        TITLES[name] if name == "numpy" else f"{TITLES[name]} {'eager' if tier == 'exact' else 'fast'}"
        for name, tier in columns
    ]
    setting = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    command = shlex.join([*setting, "python", "benchmarks/rows.py", *sys.argv[1:]])
    versions = [f"{name} {namespace.load(name).version}" for name in dict.fromkeys(name for name, _ in columns)]
    lines = [
        "# Every row on every backend",
        "",
        f"Made by `{command}` with {', '.join(versions)} and Python "
        f"{platform.python_version()} on {platform.system()} {platform.machine()}. All rows at their defaults.",
        "",
        f"*Eager* is the exact tier: the number of elements, of all parameters and state after each of {updates} "
        "updates, whose bits differ from numpy's. *Fast* is the fast tier: the largest normwise error of any of them. "
        "Where a direction is a sign, or a chaotic map, runs that differ by a rounding drift apart by whole steps; "
        "so do inverse roots of factors without full rank (`shampoo`), which the rounding of a zero eigenvalue "
        "decides.",
        "",
        f"Times are relative to `adamw` on the same backend, in turns with it: the median of {repeats} updates and the "
        f"quartiles. Four matrices of {' × '.join(map(str, TIMED['exact']['w0']))} eagerly, of "
        f"{' × '.join(map(str, TIMED['fast']['w0']))} in the fast tier.",
        "",
        "| " + " | ".join(titles) + " |",
        "|---" * len(titles) + "|",
        *("| " + " | ".join(line) + " |" for line in cells),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="The table of all rows on all backends, as Markdown.")
    parser.add_argument("--rows", default="*", help="a glob")
    parser.add_argument("--updates", type=int, default=10, help="of the run that is compared")
    parser.add_argument("--repeats", type=int, default=7, help="of the timed update")
    parser.add_argument("--out", type=Path, help="a file; default: stdout")
    stated = parser.parse_args()
    rows = [name for name in ENTRIES if fnmatchcase(name, stated.rows)]
    columns = [(name, tier) for name, tier in COLUMNS if name in namespace.installed()]
    if not rows:
        parser.error(f"no row matches {stated.rows!r}")
    page = document(rows, stated.updates, stated.repeats, columns)
    if stated.out is None:
        print(page)
    else:
        stated.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
