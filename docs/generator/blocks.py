"""The code blocks of a Markdown page: fenced ones of any language, and indented ones, commands or formulas."""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<text>.*?)^(?P=fence)`*[ ]*$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:\A|\n\n)(?P<text>(?: {4}[^\n]*\n|\n(?= {4}))+)")
_ONLY = re.compile(r"<!-- (torch|mlx) -->\n\Z")
_FIRST = re.compile(r"# (?P<name>[\w.-]+\.toml)\b")
_ABOVE = re.compile(r"`(?P<name>[\w.-]+\.(?:toml|json))`:\n\n\Z")


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        language: what stands behind the fence, ``python``, ``toml``, ``{dualopt}``, ...; empty if it is indented.
        text: its lines, without the indent.
        line: where the first of them stands, from 1.
        only: ``torch`` or ``mlx`` if a comment above says so, ``<!-- torch -->``; else empty.
        file: the name of the file that it is, which its first line says, ``# recipe.toml``, or the sentence above,
            that ends in ```shapes.json`:``; else empty.
    """

    language: str
    text: str
    line: int
    only: str = ""
    file: str = ""

    @property
    def commands(self) -> list[str]:
        """Its lines that a shell would run, without their comments; those that end in a backslash with the next."""
        if self.language not in ("", "{dualopt}", "shell"):
            return []
        lines = [re.sub(r"\s+#.*", "", line).strip() for line in self.text.replace("\\\n", " ").splitlines()]
        return [line for line in lines if self.language == "shell" or line.split(" ")[0] in TOOLS]


TOOLS = ("dualopt", "make", "pip", "python", "pytest")


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in order."""
    found, prose = [], page
    for match in _FENCE.finditer(page):
        only = _ONLY.search(page[: match.start()])
        line = page.count("\n", 0, match.start("text")) + 1
        named = _FIRST.match(match["text"]) or _ABOVE.search(page[: match.start()])
        found.append(
            Block(match["info"].strip(), match["text"], line, only[1] if only else "", named["name"] if named else "")
        )
        blank = re.sub(r"[^\n]", "`", match[0])  # the fence is no indented block, and its lines still count
        prose = prose[: match.start()] + blank + prose[match.end() :]
    for match in _INDENTED.finditer(prose):
        start = match.start("text")
        text = re.sub(r"^ {4}", "", page[start : match.end("text")], flags=re.MULTILINE)
        found.append(Block("", text, page.count("\n", 0, start) + 1))
    return sorted(found, key=lambda block: block.line)


def files(page: str) -> dict[str, str]:
    """{name: text} of the files that a page shows."""
    return {block.file: block.text for block in blocks(page) if block.file}
