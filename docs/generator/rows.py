"""A page for every row of the catalogue, and one that lists them by family, as Markdown."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path

import dualopt
from dualopt.catalog import ENTRIES, FAMILIES, account, complete, moves_matrices, row
from dualopt.catalog.entry import Entry
from dualopt.catalog.ways import WAYS
from dualopt.plan import Plan

RECORD = Path(__file__).parents[1] / "rows.md"
SHAPES = {"blocks.0.weight": (64, 32), "head.weight": (96, 32), "norm.weight": (32,)}  # what recipes are tried on
REST = """
[[group]]
name = "vectors"
optimizer = "adamw"
step = 0.001
"""


def write(folder: Path) -> None:
    """The pages NAME.md and index.md in `folder`; one that has not changed is left alone, and so not built again."""
    folder = folder / "rows"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"index": overview()} | {name: page(entry) for name, entry in ENTRIES.items()}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def overview() -> str:
    """The catalogue by family, and the motions."""
    parts = [
        "# The catalogue\n\nEvery optimizer is a row: what is remembered, in which direction it goes, how weights "
        f"move. There are {len(ENTRIES)}; `dualopt list` shows them in a terminal."
    ]
    for family, members in FAMILIES.items():
        lines = [_cells(f"[`{e.name}`]({e.name}.md)", e.summary, e.source) for e in members]
        parts.append(f"## {family.capitalize()}\n\n" + _table(("row", "what it does", "source"), lines))
    ways = [_cells(f"`{w.name}`", w.summary, w.source) for w in WAYS.values()]
    parts.append("## Motions\n\nAny row that they take.\n\n" + _table(("motion", "how θ moves", "source"), ways))
    parts.append("```{toctree}\n:hidden:\n\n" + "\n".join(ENTRIES) + "\n```")
    return "\n\n".join(parts) + "\n"


def page(entry: Entry) -> str:
    """All that is known of a row."""
    tried(entry)
    told = account.described(entry)
    coordinates = [
        _cells(f"`{c.name}`", c.default, c.valid, c.meaning) for c in account.coordinates(entry, entry.motion)
    ]
    taken = ", ".join(f"`{name}`" for name in told["motions"])
    parts = [
        f"# {entry.name}\n\n{_upper(entry.summary)}.",
        f"*Family*: {told['family']}. *Source*: {entry.source}. *Motion*: `{entry.motion}`."
        + (f" *Ours*: {entry.ours}." if entry.ours else ""),
        f"## A recipe\n\nAll other coordinates have their defaults.\n\n```toml\n{recipe(entry)}```",
        "## Coordinates\n\n"
        + _table(("coordinate", "default", "values", "meaning"), coordinates)
        + f"\n\n{account.HALF_LIVES}",
        "## What it is made of\n\n" + "\n\n".join(_parts(entry)),
        f"## Motions\n\nIt moves by {taken}.",
    ]
    if told["meaningless"]:
        nothing = [_cells(one["what"], one["why"]) for one in told["meaningless"]]
        parts.append("## Without meaning\n\nRefused, with the reason:\n\n" + _table(("what", "why"), nothing))
    parts.append("## On every backend\n\n" + _recorded(entry.name))
    return "\n\n".join(parts) + "\n"


def recipe(entry: Entry) -> str:
    """A recipe that names the row and little else; rows of matrices leave vectors to another."""
    options = entry.defaults
    matrices = entry.least_ndim(options) > 1 or moves_matrices(options)
    lines = ["[count]", 'unit = "tokens"', "per_update = 16_384", "", "[[group]]"]
    lines += ['name = "matrices"', "ndim = 2"] if matrices else []
    lines += [f'optimizer = "{entry.name}"']
    lines += [f"step = {options['step']:g}"] if options.get("step") else []
    return "\n".join(lines) + "\n" + (REST if matrices else "")


def tried(entry: Entry) -> Plan:
    """The recipe of a row, read and bound to parameters. RecipeError if it cannot be."""
    return Plan(dualopt.Recipe.from_dict(tomllib.loads(recipe(entry))), SHAPES)


def _parts(entry: Entry) -> list[str]:
    """What each part says of itself."""
    made = row(entry.name, complete(entry.name, {}))
    geometry = getattr(made.direction, "geometry", None)
    named = {
        "Signal": made.signal,
        "Memory": made.memory,
        "Direction": geometry or made.direction,
        "Readout": getattr(made.direction, "read", None),
        "Motion": made.motion,
    }
    told = [_own_words(title, type(part)) for title, part in named.items() if part is not None]
    about = inspect.getdoc(inspect.getmodule(type(named["Direction"]))) or ""
    if len(about.splitlines()) > 1:
        told.append(f"The module of the direction says:\n\n{in_markdown(about)}")
    return told


def _own_words(title: str, kind: type) -> str:
    """The docstring of a part, with where to find it."""
    return f"**{title}**: `{kind.__module__}.{kind.__qualname__}`\n\n{in_markdown(inspect.getdoc(kind) or '')}"


def in_markdown(docstring: str) -> str:
    """Plain text with backticks: paragraphs flow, and blocks that are indented keep their lines."""
    found, block = [], False
    for line in docstring.splitlines():
        inside = line.startswith(" ") if line.strip() else block  # a blank line belongs to what it is in
        if inside is not block:
            found.append("```\n" if block else "\n```text")
            block = inside
        found.append(line if block else "".join(_escaped(part) for part in re.split(r"(`[^`]*`)", line)))
    return "\n".join([*found, *(["```"] if block else [])])


def _escaped(part: str) -> str:
    return part if part.startswith("`") else re.sub(r"([*_<>|\[\]\\]|^[-+#])", r"\\\1", part)


def _recorded(name: str) -> str:
    """Its line of docs/rows.md, a column a line."""
    lines = [line for line in RECORD.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    head = [cell.strip() for cell in lines[0].strip("|").split("|")]
    found = [line for line in lines if line.startswith(f"| `{name}` |")]
    if not found:
        return "Not measured yet."
    cells = [cell.strip() for cell in found[0].strip("|").split("|")]
    told = _table(("where", "result"), [_cells(*pair) for pair in zip(head[1:], cells[1:], strict=True)])
    return f"{told}\n\n[Every row on every backend](../../rows.md) says how this was measured."


def _cells(*cells: str) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _table(head: tuple[str, ...], lines: list[str]) -> str:
    return "\n".join([_cells(*head), f"|{'---|' * len(head)}", *lines])


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
