"""Numbers, columns and paragraphs as plain text."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

_GLUE = "\u00a0"  # textwrap does not break here


def readable(x: float) -> str:
    """A number with six digits, or all digits before the point of a larger one, and separated thousands."""
    return f"{x:,.0f}" if math.isfinite(x) and abs(x) >= 1e6 else f"{x:,.6g}"


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as left-aligned columns two spaces apart."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows), default=0))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=False)).rstrip() for row in rows)


def paragraph(text: str, width: int, *, indent: int = 0, hanging: int = 0) -> str:
    """`text` wrapped at spaces to `width` columns, `indent`ed, its later lines by `hanging` more."""
    first = " " * indent
    wrapped = textwrap.fill(
        text,
        width,
        initial_indent=first,
        subsequent_indent=first + " " * hanging,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return wrapped.replace(_GLUE, " ")


def listing(items: Iterable[str]) -> str:
    """Items joined by commas, to be broken by `paragraph` between items only."""
    return ", ".join(item.replace(" ", _GLUE) for item in items)
