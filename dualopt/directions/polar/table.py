"""The coefficient sets, and the presets, as tables of Markdown: `python -m dualopt.directions.polar.table`.

Errors are over singular values from the least that a set is designed for to 1. In float32 they are those of the
polynomial; in bfloat16 what a matrix with such singular values comes to, in the exact tier, is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ...exact import exact
from ...generator import Stream
from . import FORMS, PRESETS, Way, iterated, polar
from .sets import AOL, EXACT, QUINTIC, SETS, Coefficients
from .work import BFLOAT16, FLOAT32

SIDE, LONG, DRAWS, FEWER = 64, 128, 16, 4  # of the matrices that are measured
SMALL = 5e-3  # errors below have a power of ten

Numpy = np.ndarray[Any, Any]


def orthogonal(n: int, name: str) -> Numpy:
    """An orthogonal matrix (n, n), n a power of two: Hadamard's with random signs of rows and columns, twice."""
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    signs = [np.where(Stream(0, f"{name}{i}").bell((n,)) > 0, 1.0, -1.0) for i in range(3)]
    return np.asarray((signs[0][:, None] * h * signs[1]) @ (h * signs[2]) / n)


@cache
def measured(name: str, form: str, work: str = BFLOAT16) -> float:
    """max |σ − 1| of some (SIDE, LONG) whose scaled singular values are spaced evenly in log σ up to 1."""
    chosen = SETS[name]
    sigma = np.logspace(np.log10(chosen.least), 0, SIDE) / chosen.safety
    draws = range(DRAWS)
    x = np.stack([(orthogonal(SIDE, f"left{i}") * sigma) @ orthogonal(LONG, f"right{i}")[:SIDE] for i in draws])
    found = iterated(exact(np), x.astype(np.float32), chosen, Way(form, work=work))
    return float(np.abs(np.linalg.svd(found.astype(np.float64), compute_uv=False) - 1).max())


def shown(form: str, chosen: Coefficients) -> str:
    """The error in bfloat16; beyond 1 it says no more than that."""
    error = measured(chosen.name, form)
    return f"{error:.2f}" if error < 1 else "> 1"


def table() -> str:
    """The table."""
    columns: dict[str, Callable[[Coefficients], str]] = {
        "set": lambda s: f"`{s.name}`",
        "steps": lambda s: str(len(s.steps)),
        "products": lambda s: str(3 * len(s.steps) + (s.normalise == AOL)),
        "scaled by": lambda s: s.normalise + (f" / {s.safety:g}" if s.safety != 1 else ""),
        "least σ": lambda s: f"{s.least:g}",
        "max \\|σ − 1\\|": lambda s: f"{s.error:.3f}",
        **{f"bfloat16, {form}": partial(shown, form) for form in FORMS},
        "source": lambda s: s.source,
    }
    rows = [[show(s) for show in columns.values()] for s in SETS.values()]
    lines = [list(columns), ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


SPECTRA: dict[str, Numpy | None] = {
    "Gaussian": None,  # the matrix itself is
    "1/i": 1 / np.arange(1, SIDE + 1),
    "low rank": np.where(np.arange(SIDE) < SIDE // 16, 1.0, 0.02),
    "logarithmic": np.logspace(0, -3, SIDE),
}


def spectrum_of(name: str) -> tuple[Numpy, Numpy]:
    """(some (SIDE, LONG) in float32, their polar factors in float64)."""
    if SPECTRA[name] is None:
        z = Stream(0, "Gaussian").bell((FEWER, SIDE, LONG)).astype(np.float64)
        u, _, vh = np.linalg.svd(z, full_matrices=False)
        return z.astype(np.float32), u @ vh
    sides = [(orthogonal(SIDE, f"left{i}"), orthogonal(LONG, f"right{i}")[:SIDE]) for i in range(FEWER)]
    z = np.stack([(u * SPECTRA[name]) @ vh for u, vh in sides])
    return z.astype(np.float32), np.stack([u @ vh for u, vh in sides])


def deviation(spectrum: str, way: Way, name: str) -> float:
    """‖found − polar factor‖_F over that of the polar factor, in the exact tier."""
    z, true = spectrum_of(spectrum)
    return float(np.linalg.norm(polar(exact(np), z, name, way) - true) / np.linalg.norm(true))


def presets() -> str:
    """The presets and the exact factor as a table of Markdown, below the iteration that they stand beside."""
    rows = {
        f"(`{QUINTIC.name}`)": (QUINTIC.name, Way(work=BFLOAT16)),
        **{f"`{preset}`": (stated["polar"], Way.of(stated)) for preset, stated in PRESETS.items()},
        f"`{EXACT}`": (EXACT, Way()),
    }
    head = ["polar", "set", "form", "scaling", "work", "products", *SPECTRA]
    lines = [head, ["---"] * len(head)]
    for shown_as, (name, way) in rows.items():
        found = [deviation(spectrum, way, name) for spectrum in SPECTRA]
        errors = [f"{x:.2f}" if x >= SMALL else f"{x:.0e}" for x in found]
        lines.append([shown_as, *_iteration(name, way), *errors])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _iteration(name: str, way: Way) -> tuple[str, ...]:
    """Set, form, scaling, work and products."""
    if name == EXACT:
        return "", "", "", FLOAT32, ""
    found = SETS[name]
    return f"`{name}`", way.form, way.normalise or found.normalise, way.work, f"{3 * len(found.steps)}"


if __name__ == "__main__":
    print(table(), presets(), sep="\n\n")
