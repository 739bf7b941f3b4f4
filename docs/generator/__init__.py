"""What the documentation site shows that is not written by hand: a Sphinx extension.

blocks         the code blocks of a page, which tests/test_docs.py executes
rows           a page for every row of the catalogue, and one by family
migration      what becomes of every knob of another library's optimizer
pictures       drawings in light and in dark, of functions of the library
directives     ``{dualopt}``, ``{knobs}`` and ``{picture}``, which put these into a page
docstrings     plain text as reStructuredText
"""

from __future__ import annotations

from typing import Any


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    from . import directives, docstrings, rows

    app.add_directive("dualopt", directives.Command)
    app.add_directive("knobs", directives.KnobTable)
    app.add_directive("picture", directives.Picture)
    app.connect("builder-inited", lambda app: rows.write(directives.made(app.srcdir)))
    app.connect("autodoc-process-docstring", docstrings.restructured, priority=100)  # before napoleon
    app.connect("autodoc-process-docstring", docstrings.restored, priority=900)  # and behind
    return {"parallel_read_safe": False, "parallel_write_safe": True}
