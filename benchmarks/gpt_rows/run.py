"""Rows of the catalogue on the small GPT: which step each needs, and where it gets in 300 updates.

    python -m benchmarks.gpt_rows.run [--out DIR] [--only GLOB]

Every row trains the matrices of the blocks (presets train everything), all other parameters are AdamW's, with the
step that AdamW itself came out with. Protocol: the step of a row is the best of a geometric grid by validation
loss with seed 0; with that step it is trained again with seed 1, other initial values and other batches, and this
run is what is reported and plotted. A grid whose best step is at its end is extended. Nothing else is tuned.

Writes DIR/table.md, DIR/table.json, DIR/curves.png and a run directory per run, which a later call reuses.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from dualopt import Recipe, __version__
from dualopt.cli.work import Trained, Work, carry_out
from dualopt.workload.model import GPTConfig
from dualopt.workload.run import Run
from dualopt.workload.settings import Settings
from dualopt.workload.text import load_text

from .picture import curves
from .rows import MLX, ROWS, recipe

UPDATES = 300
MARGIN = 0.1  # nats per byte above AdamW's validation loss that still counts as trained
GRID = (0.5, 1.0, 2.0)  # of the source's default step, extended by factors of 2 while the best is at an end
SWEEP_SEED, REPORT_SEED = 0, 1


@dataclass(frozen=True)
class Result:
    """One reported run."""

    row: str
    framework: str
    step: float
    loss: float
    tried: Mapping[float, float]  # step -> validation loss with the seed of the sweep
    run: Run


def trained(tables: dict[str, Any], framework: str, seed: int, path: Path) -> Trained:
    """The run in `path`, carried out or continued if it is not complete."""
    checked = Recipe.from_dict(tables)
    settings = Settings(updates=UPDATES, batch=16, seed=seed, unit=checked.count.base, evaluate_every=20)
    text = load_text(None)
    work = Work(checked, checked.to_toml(), text, GPTConfig(), settings)
    show = lambda update, updates, loss, validation: print(  # noqa: E731
        f"\r  {path.name}: update {update}/{updates}, loss {loss:.3f}", end="", file=sys.stderr, flush=True
    )
    found = carry_out(work, framework, path, resume=True, show=show)
    print(file=sys.stderr)
    return found


def final(found: Trained) -> float:
    """The last validation loss; infinite if the run diverged."""
    loss = found.last("validation_loss")
    return loss if math.isfinite(loss) else math.inf


def swept(row: str, rest: float, out: Path) -> dict[float, float]:
    """{step: validation loss} over the grid of a row, on torch."""
    losses: dict[float, float] = {}
    center = ROWS[row].step
    pending = [center * factor for factor in GRID]
    while pending:
        for step in pending:
            losses[step] = final(trained(recipe(row, step, rest), "torch", SWEEP_SEED, out / f"{row}-{step:.3g}-sweep"))
        best, tried = min(losses, key=losses.__getitem__), sorted(losses)
        pending = [best / 2] if best == tried[0] else [best * 2] if best == tried[-1] else []
        pending = pending if len(losses) < 8 else []
    return losses


def report(row: str, framework: str, step: float, rest: float, tried: Mapping[float, float], out: Path) -> Result:
    found = trained(recipe(row, step, rest), framework, REPORT_SEED, out / f"{row}-{framework}")
    return Result(row, framework, step, final(found), tried, found.run)


def markdown(results: Iterable[Result]) -> str:
    """The table, with the command and versions that made it."""
    listed = list(results)
    base = {r.framework: r.loss for r in listed if r.row == "adamw"}
    head = ("row", "framework", "trains", "step", "grid: loss, seed 0", "loss, seed 1", "− AdamW", "verdict")
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for r in listed:
        apart = r.loss - base[r.framework]
        verdict = "at or below" if apart <= 0 else "within" if apart <= MARGIN else "above"
        grid = ", ".join(f"{step:.3g}: {loss:.3f}" for step, loss in sorted(r.tried.items()))
        cells = (f"`{r.row}`", r.framework, ROWS[r.row].trains, f"{r.step:.3g}", grid, f"{r.loss:.3f}", f"{apart:+.3f}")
        lines.append(f"| {' | '.join(cells)} | {'baseline' if r.row == 'adamw' else verdict} |")
    made = f"Python {platform.python_version()}, dualopt {__version__}, {platform.machine()} {platform.system()}"
    return "\n".join(
        [
            "# Rows of the catalogue on the small GPT",
            "",
            f'{UPDATES} updates of 16 sequences of 64 bytes; validation loss in nats per byte. "within": at most '
            f"{MARGIN} above AdamW's on the same framework. The step is the best of the grid with seed 0; the figure "
            "reported is of another run, with seed 1. The number of `rotational_adamw` is no step but its shrink "
            "half-life in tokens, which sets its speed. Made by `python -m benchmarks.gpt_rows.run` "
            f"({made}).",
            "",
            *lines,
            "",
            "![validation losses](curves.png)",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpt_rows"))
    parser.add_argument("--only", default="*", help="glob of rows; adamw is always trained")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    rest = ROWS["adamw"].step
    results: list[Result] = []
    for row in ROWS:
        if row != "adamw" and not fnmatchcase(row, asked.only):
            continue
        tried = swept(row, rest, asked.out)
        step = min(tried, key=tried.__getitem__)
        rest = step if row == "adamw" else rest
        results.append(report(row, "torch", step, rest, tried, asked.out))
    results += [report(r.row, "mlx", r.step, rest, r.tried, asked.out) for r in results if r.row in MLX]
    results.sort(key=lambda r: (r.framework != "torch", r.loss))
    (asked.out / "table.md").write_text(markdown(results), encoding="utf-8")
    table = [
        {"row": r.row, "framework": r.framework, "step": r.step, "loss": r.loss, "tried": dict(r.tried)}
        for r in results
    ]
    (asked.out / "table.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    curves(asked.out / "curves.png", [(r.row, r.framework, r.run) for r in results])
    print((asked.out / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
