"""What an experiment ends with: claim in the source, our prediction, our measurement, verdict."""

from __future__ import annotations

import argparse
import dataclasses
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dualopt import __version__

OUT = Path("docs/science")


@dataclass(frozen=True)
class Claim:
    """A line of the table."""

    source: str
    claim: str
    predicted: str
    measured: str
    holds: bool


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [list(head), ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def table(claims: Sequence[Claim]) -> str:
    """The claims."""
    head = "claim", "source", "predicted", "measured", "verdict"
    rows = [(c.claim, c.source, c.predicted, c.measured, "holds" if c.holds else "**does not hold**") for c in claims]
    return markdown(head, rows)


def opening(doc: str | None) -> str:
    """The docstring of an experiment as the head of its page: its first line a title, without its command."""
    title, _, rest = (doc or "").strip().partition("\n\n")
    command, _, text = rest.partition("\n\n")
    if not command.startswith("    python -m"):
        raise ValueError("the docstring of an experiment is a line, its command, and what it does")
    return f"# {title}\n\n{text}"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options that every experiment has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=OUT)
    return made


def finish(name: str, text: str, shown: str, claims: Sequence[Claim], data: dict[str, Any], out: Path) -> NoReturn:
    """Write the page and the data, print the tables `shown`, and exit with 1 unless all claims hold."""
    holds = write(name, f"{text}\n\n{shown}", claims, data, out)
    print(f"{shown}\n\n{table(claims)}")
    sys.exit(0 if holds else 1)


def write(name: str, text: str, claims: Sequence[Claim], data: dict[str, Any], out: Path = OUT) -> bool:
    """NAME.md and NAME.json in `out`; True if all claims hold."""
    out.mkdir(parents=True, exist_ok=True)
    module = f"benchmarks.science.{name}"
    command = shlex.join(["python", "-m", module, *sys.argv[1:]])
    made = f"`{command}`, dualopt {__version__}, numpy {np.__version__}, {platform.machine()}"
    page = f"{text}\n\n## What holds\n\n{table(claims)}\n\nMade by {made}.\n"
    (out / f"{name}.md").write_text(page, encoding="utf-8")
    found = {"command": command, "claims": [dataclasses.asdict(c) for c in claims], **data}
    (out / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return all(c.holds for c in claims)
