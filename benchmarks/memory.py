"""Memory of optimizers per parameter, measured: what lies there between steps, and the most that a step adds.

    python -m benchmarks.memory --page docs/memory.md      all of it
    python -m benchmarks.memory --only 'adamw*'            on the terminal

Every line is a process of its own. After two steps:

    parameters + state    torch: all tensors that exist then, less the gradients; MLX: its active memory, less these
    peak                  the most that the third step adds. torch: resident memory of the process, whose allocator
                          gives arrays back at once; MLX: the peak of its allocator, whose cache is off

Gradients are in the type of the parameters and are counted nowhere, unless they are copied.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import importlib.metadata
import json
import math
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from benchmarks.speed.subject import Subject, Task, UnavailableError
from dualopt.rounding import ROUNDINGS

SHAPES = {
    "embedding": (8192, 384),
    **{f"matrix.{i}": (768, 768) for i in range(6)},
    **{f"gain.{i}": (768,) for i in range(4)},
}
MATRICES = {name: shape for name, shape in SHAPES.items() if len(shape) > 1}
WARM = 2
PATIENCE = 150  # seconds for one line
TRIM = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed arrays leave the process


@dataclass(frozen=True, eq=False)
class Line:
    """One line: whose optimizer, for which rule, on parameters of which type."""

    rule: str
    who: str
    make: str
    distribution: str
    dtype: str = "bfloat16"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.rule} {self.who} {self.dtype}"

    @property
    def task(self) -> Task:
        return Task(self.make, self.rule, MATRICES if self.rule == "muon" else SHAPES, self.dtype, self.options)


def _lines() -> list[Line]:
    found = []
    for rule in ("adamw", "muon"):
        for module, where in (("ours_torch", "torch"), ("ours_mlx", "MLX")):
            for mode in ROUNDINGS:
                told = {"group": {"rounding": mode}}
                found.append(Line(rule, f"dualopt, {where}, {mode}", f"{module}:make", "dualopt-optim", options=told))
            found.append(Line(rule, f"dualopt, {where}", f"{module}:make", "dualopt-optim", "float32"))
        for dtype in ("bfloat16", "float32"):
            found.append(Line(rule, "torch.optim", "torch_optim:make", "torch", dtype))
            found.append(Line(rule, "mlx.optimizers", "mlx_optim:make", "mlx", dtype))
        found.append(Line(rule, "heavyball", "others:heavyball_", "heavyball"))
        found.append(Line(rule, "torch-optimi", "others:optimi_", "torch-optimi"))
        found.append(Line(rule, "pytorch-optimizer", "others:pytorch_optimizer_", "pytorch-optimizer"))
    return found


LINES = {line.name: line for line in _lines()}


@dataclass(frozen=True)
class Bytes:
    """Per parameter."""

    kept: float
    peak: float


def measure(line: Line) -> Bytes:
    """In this process, which does nothing else."""
    module, function = line.make.split(":")
    task = line.task
    subject: Subject = getattr(importlib.import_module(f"benchmarks.speed.peers.{module}"), function)(task)
    step = subject.start()
    for _ in range(WARM):
        subject.prepare()
        step()
    subject.prepare()
    n = sum(math.prod(shape) for shape in task.shapes.values())
    gradients = n * (2 if line.dtype == "bfloat16" else 4)
    kept, peak = (_mlx if "mlx" in module else _torch)(step)
    return Bytes((kept - gradients) / n, peak / n)


def _torch(step: Callable[[], object]) -> tuple[float, float]:
    import torch

    gc.collect()
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in _tensors(torch)}
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is of now
    step()
    return sum(storages.values()), max(0, _resident("VmHWM") - before)


def _tensors(torch: Any) -> list[Any]:
    return [x for x in gc.get_objects() if type(x) in (torch.Tensor, torch.nn.Parameter) and x.layout is torch.strided]


def _resident(key: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith(key)).split()[1])


def _mlx(step: Callable[[], object]) -> tuple[float, float]:
    import mlx.core as mx

    mx.set_cache_limit(0)
    mx.clear_cache()
    gc.collect()
    kept = mx.get_active_memory()
    mx.reset_peak_memory()
    step()
    return kept, mx.get_peak_memory() - kept


def run(line: Line) -> Bytes | str:
    """In a process of its own; why not, if it does not work."""
    command = [sys.executable, "-m", "benchmarks.memory", "--worker", line.name]
    told: dict[str, Any] = {"capture_output": True, "text": True, "env": {**os.environ, **TRIM}, "timeout": PATIENCE}
    try:
        done = subprocess.run(command, check=False, **told)
    except subprocess.TimeoutExpired:
        return f"not three steps within {PATIENCE} s"
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return said[-1] if said else f"stopped with {done.returncode}"
    found = json.loads(done.stdout.splitlines()[-1])
    return found["why"] if "why" in found else Bytes(**found)


def worker(name: str) -> None:
    try:
        found = vars(measure(LINES[name]))
    except (UnavailableError, ImportError) as error:
        found = {"why": str(error)}
    print(json.dumps(found))


def table(found: Mapping[str, Bytes | str]) -> str:
    """Markdown: a table for each rule, the least memory first."""
    out = []
    for rule in dict.fromkeys(LINES[name].rule for name in found):
        here = {LINES[n]: x for n, x in found.items() if LINES[n].rule == rule}
        measured = {line: x for line, x in here.items() if isinstance(x, Bytes)}
        out += [
            f"## {rule}",
            "",
            "| parameters | whose | between steps | a step adds | together |",
            "|---|---|--:|--:|--:|",
        ]
        for line, x in sorted(measured.items(), key=lambda pair: (pair[0].dtype, pair[1].kept, pair[1].peak)):
            out.append(f"| {line.dtype} | {line.who} | {x.kept:.1f} | {x.peak:.1f} | {x.kept + x.peak:.1f} |")
        out.append("")
        reasons: dict[str, list[str]] = {}
        for line, why in here.items():
            if isinstance(why, str):
                reasons.setdefault(why, []).append(f"{line.who} ({line.dtype})")
        out += [f"Not measured: {', '.join(who)}: {why}." for why, who in reasons.items()] + [""] * bool(reasons)
    return "\n".join(out)


def page(found: Mapping[str, Bytes | str], command: str) -> str:
    size = sum(math.prod(shape) for shape in SHAPES.values())
    names = dict.fromkeys(LINES[name].distribution for name, x in found.items() if isinstance(x, Bytes))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    return f"""# Memory

Bytes per parameter, measured by `{command}`: a model of {size / 1e6:.1f} million parameters,
an embedding, {sum(n.startswith("matrix") for n in SHAPES)} matrices and some gains (muon: without these), on the CPU.
What lies there between steps are parameters and the state of the optimizer; a step adds what it needs for a moment.
Gradients are not counted. [Half precision](half_precision.md) says what the modes are.

{table(found)}
Measured with {versions}. Memory of torch in a step is that of the process, with some megabytes of it that do not grow
with the model.
"""


def main() -> None:
    asked = argparse.ArgumentParser(description="Memory of optimizers per parameter")
    asked.add_argument("--only", nargs="+", default=["*"], help="names of lines, globs")
    asked.add_argument("--page", type=Path, help="write the page; default: print the tables")
    asked.add_argument("--worker", choices=LINES, help=argparse.SUPPRESS)
    told = asked.parse_args()
    if told.worker:
        worker(told.worker)
        return
    found: dict[str, Bytes | str] = {}
    for name, line in LINES.items():
        if any(fnmatchcase(name, glob) for glob in told.only):
            found[name] = run(line)
            print(name, found[name], file=sys.stderr)
    if told.page:
        told.page.write_text(page(found, "python -m benchmarks.memory " + shlex.join(sys.argv[1:])), encoding="utf-8")
    else:
        print(table(found))


if __name__ == "__main__":
    main()
