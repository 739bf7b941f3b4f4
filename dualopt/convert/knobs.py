"""Knobs: the arguments of another library's optimizer, under the names and with the defaults that they have there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..errors import RecipeError, nearest
from .family import Family, Fields
from .layout import Layout

REQUIRED = object()  # the default of an argument that has none


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(_number(b) and 0 <= b < 1 for b in value)


KINDS: Mapping[str, tuple[str, Callable[[Any], bool]]] = {  # what is valid, in words and as a test
    "rate": ("a finite number >= 0", lambda v: _number(v) and v >= 0),
    "retention": ("a number in [0, 1)", lambda v: _number(v) and 0 <= v < 1),
    "pair": ("two numbers in [0, 1)", _pair),
    "fraction": ("a number in [0, 1]", lambda v: _number(v) and 0 <= v <= 1),
    "weight": ("a number in (0, 1]", lambda v: _number(v) and 0 < v <= 1),
    "positive": ("a number > 0", lambda v: _number(v) and v > 0),
    "steps": ("a whole number in [1, 100]", lambda v: _number(v) and v == int(v) and 1 <= v <= 100),
    "switch": ("true or false", lambda v: isinstance(v, bool)),
    "table": ("a table", lambda v: isinstance(v, Mapping)),
    "any": ("", lambda v: True),
}


@dataclass(frozen=True)
class Knob:
    """One argument.

    Attributes:
        default: as in the signature of the library; `REQUIRED` if there is none.
        kind: which values are valid: a key of `KINDS`.
        means: the fields of its family that it states: one, or two for a pair; none: it is no part of the mathematics.
        choices: value -> what it is in the field, if it is one of a few.
        only: the values that an action has an image of, and ...
        why: ... why of no others.
        none: what None stands for, where it is a value.
        added: it is not an argument, but a transform that is put beside it, or a key of another argument.
    """

    default: Any = REQUIRED
    kind: str = "any"
    means: tuple[str, ...] = ()
    choices: Mapping[Any, Any] = field(default_factory=dict)
    only: tuple[Any, ...] = ()
    why: str = ""
    none: Any = None
    added: bool = False

    def check(self, value: Any, where: str) -> Any:
        """`value`, a list as a tuple. RecipeError if it is not valid, or has no image."""
        value = tuple(value) if isinstance(value, list) else value
        if value is None and self.none is not None:
            return None
        if self.choices:
            words, valid = f"one of {', '.join(map(str, self.choices))}", _among(value, self.choices)
        else:
            words, test = KINDS[self.kind]
            valid = test(value)
        if not valid:
            raise RecipeError(f"{where} must be {words}, got {value!r}")
        if self.only and not _among(value, self.only):
            raise RecipeError(f"{where} = {value!r} has no image: {self.why}")
        return value

    def stated(self, value: Any) -> Fields:
        """The fields that a value states."""
        if not self.means:
            return {}
        value = self.choices[value] if self.choices else self.none if value is None else value
        return {self.means[0]: value} if len(self.means) == 1 else dict(zip(self.means, value, strict=True))

    def value(self, fields: Fields) -> Any:
        """The inverse of `stated`: the value that states these fields; where they are free, the default.

        Raises: KeyError if there is none.
        """
        wanted = tuple(fields[name] for name in self.means)
        if not wanted or None in wanted:
            return self.default if not self.only or _among(self.default, self.only) else self.only[0]
        if self.none is not None and wanted == (self.none,):
            return None
        if self.choices:
            return next(value for value, stands in self.choices.items() if stands == wanted[0])
        return wanted[0] if len(wanted) == 1 else wanted


def _among(value: Any, values: Any) -> bool:
    """Membership that tells True from 1, and that an unhashable value does not break."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


@dataclass(frozen=True)
class Source:
    """An optimizer of another library.

    Attributes:
        name: as commands and files write it.
        path: where the library has it.
        family: the rows that do the same, and the maps.
        knobs: its arguments, in the order of its signature.
        fixed: fields of the family that it has no knob for, where they are not neutral.
        layout: what it remembers, if states of it can be taken over.
        refused: fields -> why these have no image, or nothing.
        inexact: fields -> what an action does otherwise, in words.
    """

    name: str
    path: str
    family: Family
    knobs: Mapping[str, Knob]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    layout: Layout | None = None
    refused: Callable[[Fields], str] = lambda fields: ""
    inexact: Callable[[Fields], tuple[str, ...]] = lambda fields: ()

    @property
    def library(self) -> str:
        """What `to_knobs` accepts for all optimizers of one library."""
        root = self.path.partition(".")[0]
        return root if self.name.startswith(f"{root}-") else self.name

    @property
    def signature(self) -> str:
        """The knobs and their defaults, in words."""
        return ", ".join(
            name if knob.default is REQUIRED else f"{name}={knob.default!r}" for name, knob in self.knobs.items()
        )


@dataclass(frozen=True, init=False)
class Knobs:
    """The knobs of a source, all of them: what is not stated has the default of the library.

    Raises:
        RecipeError: a knob that it does not have, one that it needs, a bad value, one without image.
    """

    source: Source
    values: Mapping[str, Any]

    def __init__(self, source: Source, **stated: Any) -> None:
        for name in stated:
            if name not in source.knobs:
                hint = nearest(name, source.knobs)
                raise RecipeError(f"{source.name} has no {name}{hint}; it has {source.signature}")
        values = {}
        for name, knob in source.knobs.items():
            value = stated.get(name, knob.default)
            if value is REQUIRED:
                raise RecipeError(f"{source.name} needs {name}; it has {source.signature}")
            values[name] = knob.check(value, f"{source.name}: {name}")
        object.__setattr__(self, "source", source)
        object.__setattr__(self, "values", MappingProxyType(values))

    @property
    def fields(self) -> Fields:
        """What the family reads."""
        found: Fields = {**self.source.family.neutral, **self.source.fixed}
        for name, knob in self.source.knobs.items():
            found |= knob.stated(self.values[name])
        return found

    @classmethod
    def stating(cls, source: Source, fields: Fields, where: str) -> Knobs:
        """The knobs of `source` that state `fields`; of None any value will do.

        Raises:
            RecipeError: it has no knob for a field that needs another value than it has without.
        """
        named = {field for knob in source.knobs.values() for field in knob.means}
        without = {**source.family.neutral, **source.fixed}
        for name, value in fields.items():
            if name not in named and value is not None and value != without[name]:
                raise RecipeError(f"{where}: {source.name} has {name} = {without[name]!r} only, not {value!r}")
        values = {}
        for name, knob in source.knobs.items():
            try:
                values[name] = knob.value(fields)
            except StopIteration as error:
                wanted = fields[knob.means[0]]
                raise RecipeError(f"{where}: {name} of {source.name} has no choice for {wanted!r}") from error
        try:
            return cls(source, **values)
        except RecipeError as error:
            raise RecipeError(f"{where}: {error}") from error

    def changed(self) -> dict[str, Any]:
        """The knobs that are not at their defaults."""
        return {name: value for name, value in self.values.items() if value != self.source.knobs[name].default}

    def to_dict(self) -> dict[str, Any]:
        """The source and its knobs; in a file of knobs that is a group."""
        return {"from": self.source.name, **self.changed()}
