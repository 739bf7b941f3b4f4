"""HTML and SVG that is escaped and balanced because nothing but `tag` makes it."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_VOID = {"meta", "link", "br", "col"}


class Markup(str):
    """Text that is markup already. Any other string is escaped."""

    __slots__ = ()


def tag(name: str, /, *children: str, **attributes: str | int | None) -> Markup:
    """An element. An attribute that is None is left out; ``class_`` and ``stroke_width`` are written as in HTML."""
    stated = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{stated}>")
    return Markup(f"<{name}{stated}>{joined(children)}</{name}>")


def joined(children: Iterable[str], between: str = "") -> Markup:
    """Several pieces as one."""
    return Markup(between.join(x if isinstance(x, Markup) else escape(x) for x in children))
