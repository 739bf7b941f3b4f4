"""Progress and tables on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualopt.cli import output

from .record import Side
from .tables import Table

Show = Callable[[int, str], None]  # (cases done, what is going on)


@contextmanager
def progress(cases: int, *, quiet: bool) -> Iterator[Show]:
    """A bar of cases on a terminal; elsewhere a line for each case that begins."""
    console = output.stderr()
    if quiet:
        yield lambda done, note: None
    elif console.is_terminal:
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            task = bars.add_task("", total=cases, note="")
            yield lambda done, note: bars.update(task, completed=done, note=note)
    else:
        begun, last = time.monotonic(), [-1]

        def line(done: int, note: str) -> None:
            if done > last[0]:
                last[0] = done
                console.print(f"{done}/{cases}, {time.monotonic() - begun:.0f} s: {note}", markup=False, soft_wrap=True)

        yield line


def show(table: Table) -> None:
    """A table and its notes."""
    output.table(table.title, table.columns, table.rows)
    for note in table.notes:
        output.say(note, style="dim", hanging=2)
    if table.notes:
        output.stdout().print()


def failed(side: Side) -> bool:
    """Did any peer end in another way than by saying that it is not here?"""
    return any(peer.status in ("failed", "died") for peer in side.peers)
