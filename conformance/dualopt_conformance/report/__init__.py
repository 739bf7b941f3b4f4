"""What a verdict looks like: as Markdown, JUnit XML, one page of HTML, and text for a terminal.

Made with the standard library alone, so that any laptop can make it from two records.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dualopt.durable import atomic

from ..mutation_table import Mutation
from ..verdict import Verdict
from .junit import junit
from .markdown import markdown
from .page import html
from .terminal import mutation_table, terminal

__all__ = ["html", "junit", "markdown", "mutation_table", "terminal", "write"]


def write(verdict: Verdict, directory: str | Path, mutants: Sequence[Mutation] | None = None) -> list[Path]:
    """Write report.md, report.xml and report.html, each complete or not at all; their paths.

    Raises: OSError.
    """
    found = {
        "report.md": markdown(verdict, mutants),
        "report.xml": junit(verdict),
        "report.html": html(verdict, mutants),
    }
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in found.items():
        with atomic(directory / name) as file:
            file.write(text.encode())
    return [directory / name for name in found]
