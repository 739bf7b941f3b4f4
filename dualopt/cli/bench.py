"""`dualopt bench`: how fast this is beside other optimizers, from the checkout that it is part of."""

from __future__ import annotations

import importlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import DualoptError
from .output import emit, lines, paths
from .training import Json

CHECKOUT = Path(__file__).parents[2]


def harness() -> Any:
    """The module that carries it out.

    Raises: DualoptError where there is no `benchmarks/`, as beside a dualopt that was installed from a wheel.
    """
    if not (CHECKOUT / "benchmarks" / "speed" / "run.py").is_file():
        raise DualoptError(
            f"the benchmarks are not part of an installed dualopt, and {CHECKOUT} has no benchmarks/; "
            "clone the repository and run `make bench` in it"
        )
    sys.path.insert(0, str(CHECKOUT))
    return importlib.import_module("benchmarks.speed.run")


def bench(
    only: Annotated[
        list[str] | None, typer.Option(help="Only cases whose name matches this glob; repeatable.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Directory of record.json, with all that was timed.")] = Path("runs/bench"),
    page: Annotated[
        Path | None,
        typer.Option(help="A page of Markdown to write; its pictures go beside it.", show_default=False),
    ] = None,
    python: Annotated[
        str,
        typer.Option(help="The peers' interpreter: `make bench` has one with all. Default: this.", show_default=False),
    ] = sys.executable,
    runs: Annotated[
        int | None, typer.Option(min=1, help="How often all is built anew. Default: 3.", show_default=False)
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Turns of each peer in a run. Default: 2 or 3.", show_default=False)
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds of turns for a case; slow ones have fewer. Default: 25.", show_default=False),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="Peers that start at a time, untimed. Default: one per core.", show_default=False),
    ] = None,
    record: Annotated[
        Path | None, typer.Option(help="Show this record.json instead of measuring.", show_default=False)
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Keep the other cases of the record in --out.")] = False,
    names: Annotated[bool, typer.Option("--list", help="List the cases and their peers.")] = False,
    as_json: Json = False,
) -> None:
    """Time dualopt beside other optimizers, in turns. Shows ratios; nothing fails on time.

    A peer that is not installed, or fails, is reported and stops no other.
    """
    run = harness()
    if names:
        lines(
            ("case", "peers"), [(case.name, ", ".join(p.name for p in case.peers)) for case in run.chosen(only or [])]
        )
        return
    kept = out / "record.json"
    if record is None:
        cases = run.chosen(only or [], runs=runs, rounds=rounds, budget=budget)
        before = run.Record.load(kept) if add and kept.exists() else None
        found = run.measured(
            cases, checkout=CHECKOUT, python=python, kept=kept, before=before, jobs=jobs, quiet=as_json
        )
    else:
        found = run.Record.load(record)
    made = [] if page is None else run.written(found, page)
    if as_json:
        emit(asdict(found))
        return
    run.shown(found)
    paths(record=kept if record is None else record, **({"page": made[0]} if made else {}))
