"""A recipe: what is counted, how step and shrink follow the count, and which parameter gets which row.

Recipes are TOML files without framework or device in them, read into frozen dataclasses. Everything is
checked on the way in; a `Recipe` that exists can be carried out on any model whose parameters it matches.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import catalog, toml
from .counts import Count
from .errors import CountError, RecipeError, nearest
from .group import Group
from .recursion import Shape
from .schedules import Schedule
from .views import is_kernel

__all__ = ["LARGEST", "NONFINITE", "RAISE", "SKIP", "TRUST", "Group", "Recipe"]

NONFINITE = RAISE, SKIP, TRUST = "raise", "skip", "trust"
LARGEST = 2**20  # bytes of a recipe file


@dataclass(frozen=True)
class Recipe:
    """Everything that determines training apart from model, data and seed.

    Args:
        groups: in order; the first that matches a parameter gets it.
        count: the unit of τ and of every half-life and length.
        schedule: of the step (and, by its `drives`, of the shrink).
        shrink_schedule: of the shrink apart from the step.
        nonfinite: ``raise`` or ``skip`` an update whose gradients hold NaN or infinity. ``trust``: somebody else has
            looked (a `GradScaler`, clipping that raises), so gradients are read once less, and bad ones go into
            parameters and memories.
    """

    groups: tuple[Group, ...]
    count: Count = Count()
    schedule: Schedule = Schedule()
    shrink_schedule: Schedule | None = None
    nonfinite: str = "raise"

    def __post_init__(self) -> None:
        if not self.groups:
            raise RecipeError("the recipe has no [[group]]: nothing would be trained")
        names = [g.name for g in self.groups]
        twice = next((n for n in names if names.count(n) > 1), None)
        if twice is not None:
            raise RecipeError(f"two groups are called {twice!r}; names tell them apart in checkpoints")
        if self.nonfinite not in NONFINITE:
            raise RecipeError(f"nonfinite is one of {', '.join(NONFINITE)}, got {self.nonfinite!r}")
        drives = self.schedule.drives == "both" or self.schedule.equal_weight or self.shrink_schedule is not None
        corrected = next((g.name for g in self.groups if g.options.get("shrink") == "corrected"), None)
        if drives and corrected is not None:
            raise RecipeError(
                f"group {corrected!r}: shrink = 'corrected' follows the step by itself; drop drives = 'both', the "
                "equal-weight shape or [shrink_schedule]"
            )
        if self.shrink_schedule is not None:
            if self.schedule.drives == "both" or self.schedule.equal_weight:
                raise RecipeError("[schedule] already drives the shrink; drop [shrink_schedule]")
            if self.shrink_schedule.equal_weight or self.shrink_schedule.drives != "step":
                raise RecipeError("[shrink_schedule] is a plain shape without 'drives'")
            if self.shrink_schedule == Schedule():  # it changes nothing, and is not written either
                object.__setattr__(self, "shrink_schedule", None)

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a TOML file. RecipeError for anything that is not a valid recipe, naming the file."""
        try:
            with Path(path).open("rb") as file:
                content = file.read(LARGEST + 1)
        except (OSError, ValueError) as error:  # ValueError: no path at all
            raise RecipeError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
        if len(content) > LARGEST:
            raise RecipeError(f"{path}: too large for a recipe, more than {LARGEST} bytes")
        try:
            table = toml.tables(content.decode())
        except ValueError as error:
            raise RecipeError(f"{path}: not valid TOML ({error})") from error
        try:
            return cls.from_dict(table)
        except (RecipeError, CountError) as error:
            raise RecipeError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Recipe:
        """A recipe from the tables of its TOML file.

        Raises:
            RecipeError, CountError: unknown keys (with the nearest valid name) and bad values.
        """
        if not isinstance(table, Mapping):
            raise RecipeError(f"a recipe is a table, got {table!r}")
        known = ("count", "schedule", "shrink_schedule", "nonfinite", "group")
        for key in table:
            if key not in known:
                raise RecipeError(f"unknown key {key!r}{nearest(str(key), known)}")
        groups = table.get("group", [])
        if not isinstance(groups, list | tuple):
            raise RecipeError("groups are written [[group]], with two brackets")
        shrink = table.get("shrink_schedule")
        return cls(
            groups=tuple(Group.from_dict(g, f"group {i + 1}") for i, g in enumerate(groups)),
            count=_table(Count, table.get("count", {}), "count"),
            schedule=_table(Schedule, table.get("schedule", {}), "schedule"),
            shrink_schedule=None if shrink is None else _table(Schedule, shrink, "shrink_schedule"),
            nonfinite=table.get("nonfinite", "raise"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The tables of the TOML file; what stands at its default is left out."""
        tables: dict[str, Any] = {} if self.nonfinite == "raise" else {"nonfinite": self.nonfinite}
        for name, value in (
            ("count", self.count),
            ("schedule", self.schedule),
            ("shrink_schedule", self.shrink_schedule),
        ):
            if value is not None and value != type(value)():
                fields = {f.name: (getattr(value, f.name), f.default) for f in dataclasses.fields(value)}
                tables[name] = {key: v for key, (v, default) in fields.items() if v != default}
        return tables | {"group": [g.to_dict() for g in self.groups]}

    def to_toml(self) -> str:
        """The recipe as a TOML text; `from_dict` of it is this recipe again."""
        return toml.text(self.to_dict())

    def digest(self) -> str:
        """SHA-256 of the canonical text: equal digests mean equal training."""
        return hashlib.sha256(self.to_toml().encode()).hexdigest()

    def fitted(self, shapes: Mapping[str, Shape]) -> Recipe:
        """This recipe without the optional groups that none of these parameters belongs to."""
        first = (next((i for i, g in enumerate(self.groups) if g.matches(n, shape)), -1) for n, shape in shapes.items())
        used = set(first)
        kept = tuple(g for i, g in enumerate(self.groups) if i in used or not g.optional)
        return self if kept == self.groups else dataclasses.replace(self, groups=kept)

    def assign(self, shapes: Mapping[str, Shape]) -> dict[str, int]:
        """{parameter name: index of its group}; the first match wins.

        Raises:
            RecipeError: a parameter that nothing matches, a group that matches nothing, or a row that
                needs matrices and got a vector.
        """
        found = {
            name: next((i for i, g in enumerate(self.groups) if g.matches(name, shape)), -1)
            for name, shape in shapes.items()
        }
        lost = [name for name, i in found.items() if i < 0]
        if lost:
            raise RecipeError(f"no group matches {_listed(lost, shapes)}; add a last group with match = ['*']")
        for i, group in enumerate(self.groups):
            if i not in found.values():
                raise RecipeError(f"group {group.name!r} is empty: no parameter is left for {', '.join(group.match)}")
            options = catalog.complete(group.optimizer, group.options)
            own = catalog.least_ndim(group.optimizer, options)
            conv = options.get("norm") == "spectral_conv" or (group.view == "conv" and own > 1)
            least = 3 if conv else own
            least = max(least, 2) if group.orientation == "in_out" else least
            flat = [name for name, j in found.items() if j == i and len(shapes[name]) < least]
            if flat and least > 1:
                what = f"norm = {options['norm']!r}" if "norm" in options else group.optimizer
                what = "view = 'conv'" if group.view == "conv" else what
                what = f"motion = {options['motion']!r}" if catalog.moves_matrices(options) else what
                what = "orientation = 'in_out'" if group.orientation == "in_out" and own < least else what
                kind = "a matrix" if least == 2 else "a convolution kernel"
                raise RecipeError(
                    f"group {group.name!r}: {what} needs {kind}, but got {_listed(flat, shapes)}; set ndim or match"
                )
            for name in (name for name, j in found.items() if j == i and group.blocks is not None):
                misfit = group.blocks and group.blocks.misfit(
                    shapes[name], is_kernel(len(shapes[name]), None, group.view)
                )
                if misfit:
                    raise RecipeError(f"group {group.name!r}: {_listed([name], shapes)}: {misfit}")
        return found


def _table(cls: type[Any], table: object, name: str) -> Any:
    """A dataclass from a TOML table, with the nearest name for a misspelt key."""
    if not isinstance(table, Mapping):
        raise RecipeError(f"[{name}] is a table, got {table!r}")
    valid = [f.name for f in dataclasses.fields(cls)]
    for key in table:
        if key not in valid:
            raise RecipeError(f"[{name}] unknown key {key!r}{nearest(str(key), valid)}; keys are {', '.join(valid)}")
    return cls(**table)


def _listed(names: Iterable[str], shapes: Mapping[str, Shape], most: int = 5) -> str:
    listed = [f"{name!r} {tuple(shapes[name])}" for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
