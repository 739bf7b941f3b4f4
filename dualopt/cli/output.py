"""How commands speak: tables and JSON on stdout, progress and complaints on stderr."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ..plaintext import paragraph
from ..workload.train import Progress as Losses

Tick = Callable[[int, str, bool], None]  # (done, what to say, whether that is worth a line)


def stdout() -> Console:
    """The console of results. Made on demand: stdout may have been replaced since the import."""
    return Console(highlight=False)


def stderr() -> Console:
    """The console of progress and complaints."""
    return Console(stderr=True, highlight=False)


def say(text: str, *, style: str = "", indent: int = 0, hanging: int = 0) -> None:
    """A paragraph on stdout, wrapped to the width of the terminal."""
    console = stdout()
    wrapped = paragraph(text, console.width, indent=indent, hanging=hanging)
    console.print(Text(wrapped, style=style), soft_wrap=True)


def paths(**named: object) -> None:
    """Names and paths or commands, unbroken, to be copied."""
    for name, value in named.items():
        stdout().print(Text.assemble((f"{name:<6} ", "bold"), str(value)), soft_wrap=True)


def warn(text: str) -> None:
    """One yellow line on stderr."""
    stderr().print(Text(f"warning: {text}", style="yellow"), soft_wrap=True)


def complain(error: object) -> None:
    """One red line on stderr."""
    stderr().print(Text(f"error: {error}", style="red"), soft_wrap=True)


def emit(data: Mapping[str, Any] | Sequence[Any]) -> None:
    """`data` as JSON on stdout; numbers that JSON does not have become null (NaN) or strings ("inf")."""
    print(json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False))


def plain(value: Any) -> Any:
    """`value` without numbers that JSON does not have: null for NaN, a string for infinity."""
    if isinstance(value, Mapping):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A title and a table without frame; all columns but the first are numbers."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    if title:
        say(title, style="bold")
    stdout().print(made)
    stdout().print()


def lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table of texts, which wrap within their columns; the first stays whole."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for i, column in enumerate(columns):
        made.add_column(column, no_wrap=i == 0, overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    stdout().print(made)
    stdout().print()


@contextmanager
def progress(label: str, total: int, *, quiet: bool = False) -> Iterator[Tick]:
    """A progress bar on a terminal; elsewhere a line now and then."""
    console = stderr()
    if quiet:
        yield lambda done, note, notable: None
    elif console.is_terminal:
        with Progress(
            TextColumn("{task.description:<6}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        ) as bars:
            task = bars.add_task(label, total=total, note="")
            yield lambda done, note, notable: bars.update(task, completed=done, note=note)
    else:

        def line(done: int, note: str, notable: bool) -> None:
            if notable:
                console.print(f"{label:<6} update {done:>{len(str(total))}}/{total}  {note}".rstrip(), markup=False)

        yield line


def losses(tick: Tick) -> Losses:
    """`tick` as the training loop calls it; the last validation loss stays in view."""
    seen = math.nan

    def show(update: int, updates: int, loss: float, validation: float | None) -> None:
        nonlocal seen
        seen = seen if validation is None else validation
        tick(update, f"loss {loss:.3f}  validation {seen:.3f}", validation is not None)

    return show
