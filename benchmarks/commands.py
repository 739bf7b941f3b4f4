"""How long the commands take that answer without training, as Markdown, in units of `import numpy`.

    python benchmarks/commands.py

Every command is a process of its own, with its start. Processor time is taken in turns with that of a process that
imports numpy alone, so that a slow or shared machine slows both; given are the median and the quartiles of the ratio,
and the median in seconds, which belongs to this machine.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
COMMANDS = {
    "predict": ["predict", str(ROOT / "recipes/muon.toml")],
    "predict, 7 groups": ["predict", str(ROOT / "recipes/symmetry-compatible.toml"), "--json"],
    "explain": ["explain", str(ROOT / "recipes/muon.toml"), "--scalars", "--dry"],
    "convert": ["convert", "torch-adamw", "lr=1e-3", "--per-update", "8", "--batch", "64"],
    "list": ["list"],
}
CHILD = "import sys; from dualopt.cli import main; sys.argv = ['dualopt', *sys.argv[1:]]; main()"


def seconds(*command: str) -> float:
    """Processor time of a process with its start."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description="Time of the commands in units of `import numpy`.")
    parser.add_argument("--repeats", type=int, default=9)
    stated = parser.parse_args()
    print("| command | times `import numpy` | seconds |")
    print("|---|---|---|")
    for name, command in COMMANDS.items():
        taken = [(seconds("import numpy"), seconds(CHILD, *command)) for _ in range(stated.repeats)]
        low, middle, high = np.quantile([own / unit for unit, own in taken], [0.25, 0.5, 0.75])
        own = float(np.median([own for _, own in taken]))
        print(f"| `{name}` | {middle:.1f} ({low:.1f} … {high:.1f}) | {own:.2f} |")


if __name__ == "__main__":
    main()
