"""Docstrings are plain text with backticks: this makes reStructuredText of them, before napoleon reads their sections.

Outside of backticks nothing is markup, so * and | and a trailing _ are characters. A block that is indented behind a
blank line is a formula or a table, and keeps its lines.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

_CODE = re.compile(r"(``[^`]+``|`[^`]+`)")
_MARKUP = re.compile(r"[*|\\]|(?<=\w)_(?!\w)")


def restructured(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Called by autodoc; `lines` are changed in place."""
    lines[:] = converted(lines, tables=what == "module")


def restored(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The same behind napoleon, of properties: it takes what stands before a colon of theirs for a type."""
    if what == "property":
        lines[:] = converted((inspect.getdoc(obj) or "").splitlines())


def converted(lines: list[str], *, tables: bool = False) -> list[str]:
    """The lines as reStructuredText; with `tables` a block needs no blank line in front: there are no sections."""
    found: list[str] = []
    base, block = 0, False  # the indent of the last text, and whether we are in a block below it
    for line in lines:
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            found.append("")
            continue
        if block and indent > base:
            found.append(line)
            continue
        block = False
        if indent > base and found and (tables or not found[-1]):
            block = True
            found += ["", " " * base + "::", "", line]
            continue
        base = indent
        found.append(escaped(line))
    return found


def escaped(line: str) -> str:
    """One line of text: what stands in single backticks is code, and nothing else is markup."""
    parts = _CODE.split(line)  # text, code, text, ..., text
    for i, part in enumerate(parts):
        if i % 2:
            code = part if part.startswith("``") else f"`{part}`"
            parts[i] = _apart(parts[i - 1][-1:]) + code + _apart(parts[i + 1][:1])
        else:
            parts[i] = _MARKUP.sub(lambda found: "\\" + found[0], part)
    return "".join(parts)


def _apart(neighbour: str) -> str:
    """An empty escape between code and a letter, as reStructuredText needs it."""
    return "\\ " if neighbour.isalnum() else ""
