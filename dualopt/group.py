"""A group of a recipe: parameters that share a row and its coordinates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

from . import catalog, clipping
from .blocks import Blocks
from .coordinates import COORDINATES, Coordinate, Value, hint
from .errors import RecipeError, nearest
from .recursion import Shape
from .rounding import NEAREST, ROUNDINGS
from .views import ORIENTATIONS, VIEWS

OWN = ("name", "match", "ndim", "optimizer", "orientation", "view", "blocks", "optional", "rounding", "clip")
_CLIP = Coordinate("clip", "number", "the largest norm of the gradients of a group", open_low=True)


@dataclass(frozen=True)
class Group:
    """Parameters that share a row and its coordinates.

    Args:
        optimizer: a name of the catalogue.
        options: the stated coordinates, {name: value}; the others have the catalogue's defaults.
        name: for messages, tables and checkpoints.
        match: globs on dotted parameter names; ``*`` crosses dots. Any of them suffices.
        ndim: only parameters with this many dimensions.
        orientation: ``out_in`` or ``in_out``: how matrices are stored (see `views`).
        view: ``stack`` or ``conv``: what three and more dimensions mean to a row that sees matrices; by
            default three are a stack, and four or more a convolution kernel.
        blocks: how one stored array is cut into several matrices, a `Blocks` or its table (see `blocks`).
        optional: the group may match nothing, and is left out then.
        rounding: how parameters of half precision are kept between updates (see `rounding`). A group that has one
            keeps the same beside its float32 parameters; one that has none keeps nothing.
        clip: the largest ‖g‖ over all gradients of the group, which are scaled down to it (see `clipping`); None: any.
    """

    optimizer: str
    options: Mapping[str, Value] = field(default_factory=dict)
    name: str = "all"
    match: tuple[str, ...] = ("*",)
    ndim: int | None = None
    orientation: str = "out_in"
    view: str | None = None
    blocks: Blocks | None = None
    optional: bool = False
    rounding: str = NEAREST
    clip: float | None = None

    def __post_init__(self) -> None:
        where = f"group {self.name!r}"
        if not isinstance(self.name, str) or not self.name:
            raise RecipeError(f"group name: a non-empty string, got {self.name!r}")
        given = (self.match,) if isinstance(self.match, str) else self.match
        patterns = tuple(given) if isinstance(given, Iterable) else ()
        if not patterns or not all(isinstance(p, str) and p for p in patterns):
            raise RecipeError(f"{where}: match is a list of one or more globs, got {self.match!r}")
        if self.ndim is not None and (isinstance(self.ndim, bool) or not isinstance(self.ndim, int) or self.ndim < 0):
            raise RecipeError(f"{where}: ndim is a whole number >= 0, got {self.ndim!r}")
        if self.orientation not in ORIENTATIONS:
            raise RecipeError(f"{where}: orientation is one of {', '.join(ORIENTATIONS)}, got {self.orientation!r}")
        if self.view not in (None, *VIEWS):
            raise RecipeError(f"{where}: view is one of {', '.join(VIEWS)}, got {self.view!r}")
        if self.options.get("norm") == "spectral_conv" and self.view == "stack":
            raise RecipeError(f"{where}: norm = 'spectral_conv' sees convolution kernels; drop view = 'stack'")
        if self.blocks is not None:
            object.__setattr__(self, "blocks", Blocks.of(self.blocks, where))
            if self.options.get("norm") == "spectral_conv":
                raise RecipeError(f"{where}: norm = 'spectral_conv' scales whole kernels; drop blocks")
        if not isinstance(self.optional, bool):
            raise RecipeError(f"{where}: optional is true or false, got {self.optional!r}")
        if self.rounding not in ROUNDINGS:
            hinted = nearest(str(self.rounding), ROUNDINGS)
            raise RecipeError(f"{where}: rounding is one of {', '.join(ROUNDINGS)}, got {self.rounding!r}{hinted}")
        if self.clip is not None:
            object.__setattr__(self, "clip", _CLIP.check(self.clip, where))
        object.__setattr__(self, "match", patterns)
        if not isinstance(self.options, Mapping):
            raise RecipeError(f"{where}: options are a mapping of coordinates to values, got {self.options!r}")
        checked = catalog.check(self.optimizer, self.options, where)
        inorder = {key: checked[key] for key in COORDINATES if key in checked}  # one order: one digest
        object.__setattr__(self, "options", MappingProxyType(inorder))
        row = catalog.row(self.optimizer, catalog.complete(self.optimizer, inorder))
        if self.rounding != NEAREST and row.motion.averages:
            raise RecipeError(
                f"{where}: {self.optimizer} keeps the weights that it moves in float32, and makes parameters of them "
                f"in every update; drop rounding = {self.rounding!r}"
            )
        if self.clip is not None and (why := clipping.refused(row)) is not None:
            raise RecipeError(f"{where}: clip = {self.clip:g}: {why}")

    def __reduce__(self) -> tuple[Any, ...]:
        own = (getattr(self, f.name) for f in fields(self)[2:])
        return Group, (self.optimizer, dict(self.options), *own)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any], name: str = "all") -> Group:
        """A group from the flat form of a recipe file: own keys and coordinates side by side."""
        if not isinstance(table, Mapping):
            raise RecipeError(f"group {name!r}: a table of keys and values, got {table!r}")
        own = {key: table[key] for key in OWN if key in table}
        where = f"group {own.get('name', name)!r}"
        if "optimizer" not in own:
            raise RecipeError(f"{where}: names no optimizer; known are {', '.join(catalog.ENTRIES)}")
        for key in table:
            if key not in OWN and key not in COORDINATES:
                raise RecipeError(f"{where}: unknown key {key!r}{hint(str(key), (*OWN, *COORDINATES))}")
        options = {key: value for key, value in table.items() if key not in OWN}
        return cls(**{"name": name, **own, "options": options})

    def to_dict(self) -> dict[str, Any]:
        """The flat form; keys at their defaults are left out."""
        own: dict[str, Any] = {
            "name": self.name,
            "match": list(self.match),
            "ndim": self.ndim,
            "optimizer": self.optimizer,
        }
        if self.orientation != "out_in":
            own["orientation"] = self.orientation
        own["view"] = self.view
        own["blocks"] = self.blocks and self.blocks.to_dict()
        own["optional"] = self.optional or None
        own["clip"] = self.clip
        own["rounding"] = self.rounding if self.rounding != NEAREST else None
        return {key: value for key, value in own.items() if value is not None} | dict(self.options)

    def matches(self, name: str, shape: Shape) -> bool:
        return (self.ndim is None or self.ndim == len(shape)) and any(fnmatchcase(name, glob) for glob in self.match)

    def __hash__(self) -> int:
        return hash((self.name, self.optimizer, tuple(sorted(self.options.items()))))
