"""What a monitor costs, in units of an update of a GPT, as a Markdown table.

    python benchmarks/monitor.py [--into docs/watch.md]

Three runs of one GPT on the same batches take turns, update by update, and begin a round in turn: one that nothing
watches, one whose every update is measured, and one with a monitor at its defaults, whose clock counts its own time
alone. Given are medians with quartiles, of

    a measured update     its time over that of the same update unwatched, forward and backward pass included
    one in                updates that the default monitor lets pass after a measurement that took so long
    share                 of the time: what a measurement adds to an update, over the updates for each
    watched               the time of the watched run over the other's, in blocks of 20 rounds, as it is
"""

from __future__ import annotations

import argparse
import importlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import dualopt
from dualopt.watch.monitor import SHARE
from dualopt.workload.model import GPTConfig

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- costs -->", "<!-- end -->"  # of the table in a page
RECIPES = ("adamw", "muon")
FRAMEWORKS = {"torch": "torch", "mlx": "MLX"}
BATCH, WARM, BLOCK = 8, 4, 20


class Run:
    """A training and the seconds that it has taken."""

    def __init__(self, framework: str, recipe: dualopt.Recipe, config: GPTConfig) -> None:
        self._trainer = importlib.import_module(f"dualopt_{framework}.trainer").trainer(config, recipe, seed=0)
        self._spent, self._began = 0.0, time.perf_counter()
        self.seconds: list[float] = []

    def watch(self, path: Path, every: int | None, updates: int) -> dualopt.Monitor:
        end = BATCH * self._trainer.config.context * (updates + WARM)
        per_update = BATCH * self._trainer.config.context
        return dualopt.Monitor(
            self._trainer.optimizer, path, every=every, end=end, per_update=per_update, clock=self._clock
        )

    def _clock(self) -> float:
        return self._spent + time.perf_counter() - self._began

    def update(self, tokens: Any) -> None:
        self._began = time.perf_counter()
        self._trainer.update(tokens[:, :-1], tokens[:, 1:], BATCH * self._trainer.config.context)
        self.seconds.append(time.perf_counter() - self._began)
        self._spent += self.seconds[-1]
        self._began = time.perf_counter()


def row(framework: str, name: str, updates: int) -> str:
    config = GPTConfig()
    recipe = dualopt.Recipe.load(ROOT / f"recipes/{name}.toml")
    runs = {kind: Run(framework, recipe, config) for kind in ("plain", "measured", "watched")}
    with tempfile.TemporaryDirectory() as directory:
        monitor, costs = runs["measured"].watch(Path(directory) / "measured", 1, updates), []
        runs["watched"].watch(Path(directory) / "watched", None, updates)
        rng, kinds = np.random.default_rng(0), list(runs)
        for i in range(WARM + updates):
            tokens = rng.integers(0, 256, (BATCH, config.context + 1))
            for j in range(3):
                runs[kinds[(i + j) % 3]].update(tokens)
            costs.append(monitor.cost)
    plain, measured, watched = (np.array(run.seconds[WARM:]) for run in runs.values())
    each = np.quantile(measured / plain, [0.25, 0.5, 0.75])
    apart = float(np.median(np.array(costs[WARM:]) / plain)) / SHARE
    blocks = [x[: updates // BLOCK * BLOCK].reshape(-1, BLOCK).sum(axis=1) for x in (plain, watched)]
    whole = np.quantile(blocks[1] / blocks[0], [0.25, 0.5, 0.75])
    share = (each[1] - 1) / apart
    cells = (
        f"{FRAMEWORKS[framework]}, `{name}`",
        f"{each[1]:.2f} ({each[0]:.2f} … {each[2]:.2f})",
        f"{apart:.0f}",
        f"{100 * share:.2f} %",
        f"{whole[1]:.3f} ({whole[0]:.3f} … {whole[2]:.3f})",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a monitor costs, in units of an update of a GPT.")
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--into", type=Path, help=f"a page whose part between {BEGIN} and {END} is written anew")
    stated = parser.parse_args()
    head = ["| | a measured update | one in | share | watched |", "|---|---|---|---|---|"]
    table = "\n".join([*head, *(row(f, name, stated.updates) for f in FRAMEWORKS for name in RECIPES)])
    print(table)
    if stated.into:
        before, _, rest = stated.into.read_text(encoding="utf-8").partition(BEGIN)
        stated.into.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
