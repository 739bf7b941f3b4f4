"""Blocks: one stored array that holds several matrices, such as a fused QKV projection or the heads of attention.

    { axis = 0, parts = 3 }                       three equal pieces along axis 0
    { axis = 0, size = 64 }                       pieces of 64, one head each; queries, keys and values of
                                                  grouped-query attention differ in number, not in size
    { axis = 2, parts = 2, interleaved = true }   every other entry: gate, up, gate, up, ...
    { axis = 0, parts = 2, joined = true }        the pieces side by side as one matrix: row j is (gate_j, up_j)

The axis is one of the stored array, whatever the `orientation`; for a convolution kernel it counts in
(out, in, *k), the order of snapshots, on every framework. Without `joined` each piece gets the update that it
would get as a parameter of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import RecipeError, nearest
from .recursion import Shape


@dataclass(frozen=True)
class Blocks:
    """How an array is cut: exactly one of `parts` (their number) and `size` (their length) is given."""

    axis: int
    parts: int | None = None
    size: int | None = None
    interleaved: bool = False
    joined: bool = False

    @classmethod
    def of(cls, given: object, where: str) -> Blocks:
        """Checked blocks from a table or from `Blocks`; RecipeError says `where` and what would be valid."""
        if isinstance(given, Blocks):
            given = {f.name: getattr(given, f.name) for f in fields(cls) if getattr(given, f.name) is not None}
        if not isinstance(given, Mapping):
            raise RecipeError(f"{where}: blocks is a table such as {{ axis = 0, parts = 3 }}, got {given!r}")
        known = [f.name for f in fields(cls)]
        for key, value in given.items():
            if key not in known:
                raise RecipeError(f"{where}: blocks has no key {key!r}{nearest(str(key), known)}")
            if key in ("interleaved", "joined"):
                if not isinstance(value, bool):
                    raise RecipeError(f"{where}: blocks.{key} is true or false, got {value!r}")
                continue
            least = 0 if key == "axis" else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise RecipeError(f"{where}: blocks.{key} is a whole number >= {least}, got {value!r}")
        if "axis" not in given:
            raise RecipeError(f"{where}: blocks names no axis, which counts from 0")
        if ("parts" in given) == ("size" in given):
            raise RecipeError(f"{where}: blocks has either parts, their number, or size, their length")
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """The table; what stands at its default is left out."""
        return {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name == "axis" or getattr(self, f.name) not in (None, False)
        }

    def split(self, shape: Shape, axis: int) -> Shape:
        """`shape` with this axis in two: (pieces, length), or (length, pieces) if interleaved."""
        pieces = self.parts or shape[axis] // (self.size or 1)
        length = self.size or shape[axis] // pieces
        two = (length, pieces) if self.interleaved else (pieces, length)
        return (*shape[:axis], *two, *shape[axis + 1 :])

    def misfit(self, shape: Shape, kernel: bool) -> str | None:
        """Why these blocks do not fit a parameter of this shape, (out, in, *k) for a kernel; None: they do."""
        ndim = len(shape)
        if self.axis >= ndim:
            return f"blocks.axis = {self.axis} is out of range"
        if kernel and self.axis > 1:
            return f"blocks.axis = {self.axis} are kernel positions; outputs are 0, inputs 1"
        if not kernel and self.axis < ndim - 2:
            return f"blocks.axis = {self.axis} counts matrices of a stack, which are apart already"
        if self.joined and ndim < 2:
            return "blocks.joined needs a matrix"
        length, by = shape[self.axis], self.parts or self.size or 1
        if length % by:
            what = "parts" if self.parts else "size"
            return f"blocks.{what} = {by} does not divide the {length} entries of axis {self.axis}"
        return None
