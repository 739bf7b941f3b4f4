"""What a monitor costs, in units of an update of a GPT, as a Markdown table.

    python benchmarks/monitor.py [--into docs/watch.md]

Two runs of one GPT on the same batches take turns, update by update, and begin a round in turn: one that nothing
watches, and one whose every update is measured, by a clock that counts its own time alone. Given are

    a measured update     its time over that of the same update unwatched, forward and backward pass included: the
                          median of all rounds, and quartiles
    one in                updates that a monitor at its defaults lets pass after a measurement that took so long
    share                 of the time: what a measurement adds to an update, over the updates for each
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
BATCH, WARM = 8, 4


class Run:
    """A training and the seconds that it has taken."""

    def __init__(self, framework: str, recipe: dualopt.Recipe, config: GPTConfig) -> None:
        self._trainer = importlib.import_module(f"dualopt_{framework}.trainer").trainer(config, recipe, seed=0)
        self._spent, self._began = 0.0, time.perf_counter()
        self.seconds: list[float] = []

    def watch(self, path: Path, updates: int) -> dualopt.Monitor:
        usual = BATCH * self._trainer.config.context
        made: Any = self._trainer.optimizer
        return dualopt.Monitor(made, path, every=1, end=usual * updates, per_update=usual, clock=self._clock)

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
    runs = [Run(framework, recipe, config) for _ in ("plain", "measured")]
    with tempfile.TemporaryDirectory() as directory:
        monitor, costs = runs[1].watch(Path(directory) / "monitor.jsonl", WARM + updates), []
        rng = np.random.default_rng(0)
        for i in range(WARM + updates):
            tokens = rng.integers(0, 256, (BATCH, config.context + 1))
            for j in range(2):
                runs[(i + j) % 2].update(tokens)
            costs.append(monitor.cost)
    plain, measured = (np.array(run.seconds[WARM:]) for run in runs)
    each = np.quantile(measured / plain, [0.25, 0.5, 0.75])
    apart = float(np.median(np.array(costs[WARM:]) / plain)) / SHARE
    share = (each[1] - 1) / apart
    cells = (
        f"{FRAMEWORKS[framework]}, `{name}`",
        f"{each[1]:.2f} ({each[0]:.2f} … {each[2]:.2f})",
        f"{apart:.0f}",
        f"{100 * share:.2f} %",
    )
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description="What a monitor costs, in units of an update of a GPT.")
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--into", type=Path, help=f"a page whose part between {BEGIN} and {END} is written anew")
    stated = parser.parse_args()
    head = ["| | a measured update | one in | share |", "|---|---|---|---|"]
    table = "\n".join([*head, *(row(f, name, stated.updates) for f in FRAMEWORKS for name in RECIPES)])
    print(table)
    if stated.into:
        before, _, rest = stated.into.read_text(encoding="utf-8").partition(BEGIN)
        stated.into.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
