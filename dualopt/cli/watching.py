"""`dualopt watch`: a run beside what was expected of it, on the terminal, as a picture or as a page."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live

from ..errors import RecipeError
from ..watch.stream import Watched, located, read
from ..watch.terminal import view
from ..watch.verdict import last, verdicts
from .output import emit, paths, stdout
from .training import Json

PAUSE = 1.0  # seconds between two looks at the file


def command(
    path: Annotated[Path, typer.Argument(help="What a monitor has written, or a run directory of `train --monitor`.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show what is added, until Ctrl-C.")] = False,
    png: Annotated[Path | None, typer.Option(help="Draw a picture instead.", show_default=False)] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a page instead, which needs no network.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what was measured in a run beside what was predicted, and where the two differ by more than they may."""
    if follow and (png or html or as_json):
        raise RecipeError("--follow shows the run on the terminal; leave out --png, --html and --json")
    watched = read(path)
    written = {}
    for kind, target in (("png", png), ("html", html)):
        if target is not None:
            _write(kind, target, watched)
            written[kind] = target
    if as_json:
        emit(described(watched))
    elif written:
        paths(**written)
    elif follow:
        _follow(path, watched)
    else:
        stdout().print(view(watched, stdout().width))


def _write(kind: str, target: Path, watched: Watched) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if kind == "png":
            from ..watch.picture import watched_plot

            watched_plot(target, watched)
        else:
            from ..watch.page import watched_page

            watched_page(target, watched)
    except OSError as error:
        raise RecipeError(f"--{kind} {target}: cannot be written ({error.strerror or error})") from error


def _follow(path: Path, watched: Watched) -> None:
    """Until Ctrl-C; a file is read again when it has changed."""
    file = located(path)
    seen = None
    console = stdout()
    shown = view(watched, console.width)
    with Live(shown, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        try:
            while True:
                now = file.stat()
                current = now.st_mtime_ns, now.st_size, now.st_ino, console.width
                if current != seen:
                    seen = current
                    live.update(view(read(path), console.width), refresh=True)
                time.sleep(PAUSE)
        except KeyboardInterrupt:
            pass
        except FileNotFoundError:
            raise RecipeError(f"{file}: is gone") from None


def described(watched: Watched) -> dict[str, object]:
    """The last measurement of every group, judged."""
    groups = []
    for group in watched.header["groups"]:
        found = last(watched, group)
        judged = [] if found is None else verdicts(group, found[1])
        groups.append(
            {
                "name": group["name"],
                "count": None if found is None else found[0],
                "quantities": {
                    one.quantity: {
                        "measured": one.measured,
                        "expected": one.expected,
                        "band": None if one.ends is None else list(one.ends),
                        "meaning": one.meaning,
                    }
                    for one in judged
                },
            }
        )
    count = watched.records[-1]["count"] if watched.records else 0
    return {"count": count, "end": watched.header["end"], "measured": len(watched.records), "groups": groups}
