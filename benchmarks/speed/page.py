"""A record as a page of Markdown: no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .record import Record
from .tables import Table, goals, of, scaling

HOW = """
Every number is a ratio of times that were taken in turns, in one run on one machine: below 1 the first is faster.
Seconds would belong to that machine and that hour; even there they drift by a quarter while others use its memory, and
a ratio of neighbours by a tenth. So a difference below 10 % is no result, and numbers of different tables are not to be
divided by each other. Given are the median and, in brackets, the quartiles over all rounds; *once* is only a hint.

Every peer has a process of its own with its thread pools. In a round each takes a turn, one step that is not timed and
then timed ones, while the others wait; the order changes from round to round. For each of three runs all of them build
parameters and optimizers anew; a case whose steps are slow on this machine has fewer runs and rounds, which its heading
says, and no goal is judged by fewer than three rounds. A step is what a user calls, from gradients that are there to
parameters that have been updated, with all of the checks that a library makes. All libraries get the same parameters,
gradients and knobs. That each parameter moved, and stayed finite, is checked; *same first step* is the cosine between
what the first step added and what the reference's did.

*stream* is one compiled pass over as many contiguous arrays as the step reads and writes, in place: what memory allows.
*products* are the matrix products of five steps of Newton-Schulz, in the form that needs fewest at each shape, in one
batch per shape, in bfloat16 where the processor multiplies it and else in float32: what the matrix units allow. On a
processor without such instructions libraries that multiply in bfloat16 all the same are timed on small matrices only.
"""


def page(record: Record, pictures: Sequence[Path], beside: Path) -> str:
    """The page, with links to pictures as seen from the directory `beside`."""
    links = {path.stem: path.relative_to(beside).as_posix() for path in pictures}
    lines = ["# Speed", "", f"Made by `dualopt bench`: {_where(record)}.", *HOW.splitlines(), ""]
    lines += _section(goals(record), 2)
    if "peers" in links:
        lines += [f"![Time of each peer over the floor]({links['peers']})", ""]
    lines += ["## Peers", ""]
    for side in record.cases:
        if not side.name.startswith("scale ") and side.kind != "polar":
            lines += _section(of(side), 3)
    scale = scaling(record)
    if scale is not None:
        lines += _section(scale, 2)
        if "scaling" in links:
            lines += [f"![Time against size]({links['scaling']})", ""]
    polar = [side for side in record.cases if side.kind == "polar"]
    if polar:
        lines += ["## The polar factor: accuracy against time", ""]
        if "polar" in links:
            lines += [f"![Error against time over four spectra]({links['polar']})", ""]
        for side in polar:
            lines += _section(of(side), 3)
    return "\n".join(lines).rstrip() + "\n"


def _where(record: Record) -> str:
    s = record.surroundings
    settings = ", ".join(f"{key}={value}" for key, value in s["settings"].items())
    revision = f", revision {s['revision']}" if s.get("revision") else ""
    versions: dict[str, None] = {}
    for side in record.cases:
        for peer in side.peers:
            if peer.version and peer.family in ("torch", "mlx", "optax"):
                versions[f"{peer.family} {peer.version}"] = None
    named = f" with {', '.join(versions)}" if versions else ""
    minutes = sum(side.seconds for side in record.cases) / 60
    loads = [side.load for side in record.cases if side.load is not None]
    beside = f", with up to {max(loads):.1f} processes that wanted to run" if loads else ""
    return (
        f"{s['processor']}, {s['cores']} cores, {s['system']}, Python {s['python']}{named}{revision}, {settings}; "
        f"{minutes:.0f} minutes{beside}"
    )


def _section(table: Table, level: int) -> list[str]:
    head = ["#" * level + " " + table.title, "", *_rows([table.columns]), "|---" * len(table.columns) + "|"]
    return [*head, *_rows(table.rows), "", *(line for note in table.notes for line in (note, ""))]


def _rows(rows: Sequence[Sequence[str]]) -> list[str]:
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
