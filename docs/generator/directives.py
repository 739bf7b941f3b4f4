"""What pages ask for: the output of a command, the knobs of another library's optimizer, a picture.

On a code host, which knows none of them, they are code blocks that show what is asked for.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from dualopt.convert import source, tables

from . import pictures
from .blocks import files

ROOT = Path(__file__).parents[2]
COLUMNS = 80  # what a page is wide


def made(source_folder: str | Path) -> Path:
    """Where generated pages and pictures are."""
    folder = Path(source_folder) / "generated"
    folder.mkdir(exist_ok=True)
    return folder


class Command(SphinxDirective):
    """``{dualopt}``: command lines, run in a folder that has the TOML files of the page, and what they print."""

    has_content = True

    def run(self) -> list[Any]:
        page = Path(self.env.doc2path(self.env.docname)).read_text(encoding="utf-8")
        with working_folder(files(page)):
            text = "\n\n".join(f"{typed(line)}\n{output(line)}" for line in self.content)
        return [nodes.literal_block(text, text, language="text", classes=["command"])]


class KnobTable(SphinxDirective):
    """``{knobs}``: what becomes of every knob, of each source that is named, a line each."""

    has_content = True

    def run(self) -> list[Any]:
        return self.parse_text_to_nodes("\n\n".join(tables.knobs(source(name)) for name in self.content if name))


class Picture(SphinxDirective):
    """``{picture} NAME``: a function of `pictures`, drawn in light and in dark; the content describes it in words."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[Any]:
        page, alt = Path(self.env.doc2path(self.env.docname)).parent, " ".join(self.content)
        box = nodes.container(classes=["picture"])  # on a narrow screen it scrolls
        for shade in pictures.SHADES:
            path = made(self.env.srcdir) / f"{self.arguments[0]}-{shade}.svg"
            pictures.draw(self.arguments[0], shade, path)
            box += nodes.image(uri=os.path.relpath(path, page), alt=alt, classes=[f"only-{shade}"])
        return [box]


@contextlib.contextmanager
def working_folder(texts: dict[str, str]) -> Iterator[Path]:
    """A temporary folder with these files and the recipes of the repository, in which a command runs."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file, text in texts.items():
            (folder / file).write_text(text, encoding="utf-8")
        (folder / "recipes").symlink_to(ROOT / "recipes")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)


def output(line: str) -> str:
    """What a command prints on a terminal as wide as a page. RuntimeError if it fails."""
    from typer.testing import CliRunner

    from dualopt.cli.app import app

    program, *arguments = shlex.split(line)
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(COLUMNS)})
    if program != "dualopt" or done.exit_code:
        raise RuntimeError(f"{line}: {done.output}")
    return "\n".join(folded(part.rstrip(), "  ") for part in done.output.rstrip().splitlines())


def typed(line: str) -> str:
    """A command behind a prompt; a long one is continued."""
    return folded(f"$ {line}", "    ", " \\")


def folded(line: str, indent: str, end: str = "") -> str:
    """A line that is too long as several, which end in `end` but for the last."""
    if len(line) <= COLUMNS:
        return line
    width = COLUMNS - len(end)
    return f"{end}\n".join(textwrap.wrap(line, width, subsequent_indent=indent, break_on_hyphens=False))
