"""The cases, as data: a variant of a row of the catalogue in a situation.

A *variant* is a recipe group. A *situation* says what the group meets: shapes, gradient spectra, storage type,
schedule and increments. Every entry of the catalogue meets every situation, and every variant the usual one.
All inputs are pure functions of the case, made from the integer generator; `Case.inputs_digest` pins them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from dualopt import ENTRIES
from dualopt.catalog import complete, least_ndim
from dualopt.catalog import row as row_of
from dualopt.counts import Count
from dualopt.errors import RecipeError, nearest
from dualopt.exact import Overlay, exact
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.recursion import Row, Shape
from dualopt.schedules import Schedule
from dualopt.storage import rounded

from . import inputs
from .variants import every

Array = np.ndarray[Any, Any]
LATE = 5  # the first update in which the parameter "late" has a gradient

ELEMENTWISE: Mapping[str, Shape] = {
    "scalar": (),
    "empty": (0,),
    "odd": (129,),  # long enough for a compiled kernel of its own
    "tall": (7, 3),
    "kernel": (4, 2, 3, 3),
    "late": (17,),
}
MATRICES: Mapping[str, Shape] = {
    "empty": (3, 0),
    "tall": (7, 3),
    "row": (1, 6),
    "column": (6, 1),
    "deep": (2, 300),  # more terms than one exact product or one block of a sum has
    "stack": (2, 5, 5),
    "kernel": (7, 1, 3, 1),  # seen like "tall", and updated as one stack with it
    "late": (7, 3),
}
FEW: Mapping[str, Shape] = {"tall": (7, 3), "wide": (3, 7), "stack": (2, 4, 3), "late": (7, 3)}  # in all but the usual
FEWER: Mapping[str, Shape] = {"empty": (3, 0), "tall": (7, 3), "stack": (2, 3, 5), "late": (7, 3)}  # of variants
VECTORS: Mapping[str, Shape] = {"scalar": (), "vector": (7,), "long": (300,), "tall": (7, 3), "late": (17,)}
KERNELS: Mapping[str, Shape] = {"line": (5, 3, 7), "kernel": (4, 2, 3, 3), "late": (3, 2, 1, 1)}
BLOCKS: Mapping[str, Shape] = {"tall": (6, 4), "wide": (4, 6), "late": (6, 4)}

STREAMED = 4, 5, 6  # microbatches of an update, in turn
SAMPLED = 3  # every third update has samples


@dataclass(frozen=True)
class Situation:
    """What a group meets. `updates` is the length of the free run, `spectral` that of rows with products (see `Case`).

    The long runs are those of the usual one. What the others try is in every update, and comes round every five.

    `increments` is (least, most) of Δτ; `schedule` counts updates of the mean increment. `subnormal`: gradients
    or their squares fall below the smallest normal number, which some hardware flushes to zero.
    """

    name: str
    kinds: tuple[str, ...]
    updates: int = 100
    spectral: int = 20
    dtype: str = "float32"
    increments: tuple[int, int] = (1, 1023)
    schedule: Mapping[str, Any] = field(default_factory=dict)
    start: str = "bell"  # the kind of the parameters
    subnormal: bool = False
    also: tuple[str, ...] = ()  # variants, besides the entries, that meet this situation


SITUATIONS = {
    s.name: s
    for s in (
        Situation(
            "usual",
            ("bell", "six_decades", "ties", "six_rows", "zeros", "low_rank"),  # "late" begins with zeros
            1000,
            100,
            schedule={"shape": "warmup-stable-decay", "warmup": 10, "total": 900, "decay": 300, "floor": 0.1},
        ),
        Situation("extremes", ("huge", "bell", "tiny", "bell", "bell"), increments=(1, 4095), subnormal=True),
        Situation(
            "underflow",
            ("subnormal", "faint", "tiny"),
            increments=(511, 512),
            start="zeros",
            subnormal=True,
            also=("sgdm.cautious",),
        ),
        Situation(
            "bfloat16",
            ("bell", "zeros", "six_decades"),
            dtype="bfloat16",
            schedule={"shape": "cosine", "warmup": 5, "total": 1000, "floor": 0.05, "drives": "both"},
        ),
        Situation("float16", ("bell", "zeros"), dtype="float16", schedule={"shape": "linear", "total": 1200}),
    )
}


@dataclass(frozen=True)
class Case:
    """A variant in a situation. `id` is ``variant/situation``.

    `streams`: the gradients of an update come as several microbatches, and what is folded from them depends on the
    state. Such a case runs freely and has no lockstep. `samples`: some updates have gradients of sampled labels, too.
    """

    variant: str
    table: Mapping[str, Any]
    situation: Situation
    streams: bool = False
    samples: bool = False

    @property
    def id(self) -> str:
        return f"{self.variant}/{self.situation.name}"

    @property
    def entry(self) -> str:
        """The row of the catalogue."""
        return str(self.table["optimizer"])

    @property
    def dtype(self) -> str:
        return self.situation.dtype

    @cached_property
    def recipe(self) -> Recipe:
        """In samples; a schedule's lengths are in mean increments."""
        mean = sum(self.situation.increments) // 2
        lengths = {"warmup", "total", "decay"}
        drives = "step" if self.table.get("shrink") == "corrected" else None
        stated = {key: value * mean if key in lengths else value for key, value in self.situation.schedule.items()}
        if drives and "drives" in stated:
            stated["drives"] = drives
        return Recipe((Group.from_dict(self.table),), Count("samples", per_update=mean), Schedule(**stated))

    @cached_property
    def row(self) -> Row:
        group = self.recipe.groups[0]
        return row_of(group.optimizer, complete(group.optimizer, group.options))

    @cached_property
    def spectral(self) -> bool:
        """True if an update multiplies matrices: found out by carrying one out."""
        name, shape = next((name, shape) for name, shape in self.shapes.items() if 0 not in shape)
        table = {key: value for key, value in self.table.items() if key != "estimator"}  # most need microbatches
        recipe = replace(self.recipe, groups=(Group.from_dict(table),))
        plan, tier, products = Plan(recipe, {name: shape}), exact(np), []

        def noticed(a: Array, b: Array) -> Array:
            products.append((a.shape, b.shape))
            return np.asarray(tier.matmul(a, b))

        (planned,), theta = plan.groups, np.ones(shape, np.float32)
        arrays = {name: theta}, {name: planned.start(np, name, theta)}, {name: {"gradient": theta}}
        executor(Overlay(tier, "noticing", matmul=noticed))(planned, *arrays, plan.propose(None, [name]).scalars)
        return bool(products)

    @property
    def updates(self) -> int:
        """The length of the free run: the longest of elementwise rows, a fifth of that of rows that take lengths.

        Long ones are for rows: what an option adds is in every update.
        """
        longest = self.situation.updates
        length = self.longest if self.spectral or self.row.local else longest // 5
        return length if self.variant in ENTRIES else min(length // 5, longest // 10)

    @cached_property
    def longest(self) -> int:
        """The length where time does not matter: that of the situation, shorter only if matrices are multiplied."""
        return self.situation.spectral if self.spectral else self.situation.updates

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        group = self.recipe.groups[0]
        least = least_ndim(group.optimizer, complete(group.optimizer, group.options))
        if self.table.get("norm") == "spectral_conv":
            return KERNELS
        if "blocks" in self.table:
            return BLOCKS
        if self.situation.name != "usual":
            matrices = FEW
        elif self.variant not in ENTRIES:
            matrices = FEWER
        else:
            matrices = MATRICES if self._fits(MATRICES["deep"]) else {**FEWER, "stack": MATRICES["stack"]}
        if self.table.get("orientation") == "in_out":
            return {name: shape for name, shape in matrices.items() if len(shape) == 2}
        return {0: ELEMENTWISE, 1: VECTORS, 2: matrices}[least]

    def _fits(self, shape: Shape) -> bool:
        """False where the state has matrices on the long side of θ: they would fill a record, and hours."""
        (planned,) = Plan(self.recipe, {"one": shape}).groups
        theta = np.zeros(shape, np.float32)
        return all(x.size <= theta.size for x in planned.start(np, "one", theta).values())

    def parameters(self) -> dict[str, Array]:
        """float32 arrays, not to be written to; those of narrower types hold values of that type."""
        return dict(self._parameters)

    @cached_property
    def _parameters(self) -> dict[str, Array]:
        kind = self.situation.start
        found = {n: rounded(inputs.array(kind, s, 0, f"parameter/{n}"), self.dtype) for n, s in self.shapes.items()}
        for x in found.values():
            x.setflags(write=False)
        return found

    def gradients(self, updates: int | None = None) -> Iterator[dict[str, Array]]:
        """One {name: array} per update; "late" has none before update `LATE`."""
        return map(self.gradient, range(1, (self.updates if updates is None else updates) + 1))

    def gradient(self, update: int) -> dict[str, Array]:
        """Those of one update, counted from 1; of its first microbatch if there are several."""
        return self._drawn("gradient", update, self._first(update))

    def microbatches(self, update: int) -> dict[str, Array] | list[dict[str, Array]]:
        """What `drive` reads: the gradients of an update, or its microbatches."""
        if not self.streams:
            return self.gradient(update)
        return [self._drawn("gradient", update, i) for i in range(self._first(update), self._first(update + 1))]

    def sampled(self, update: int) -> list[dict[str, Array]] | None:
        """The same of sampled labels, which most updates are without."""
        if not self.samples or update % SAMPLED:
            return None
        return [self._drawn("samples", update, i) for i in range(self._first(update), self._first(update + 1))]

    def _first(self, update: int) -> int:
        """How many gradients there are before those of an update."""
        rounds, rest = divmod(update - 1, len(STREAMED))
        return rounds * sum(STREAMED) + sum(STREAMED[:rest]) if self.streams else update - 1

    def _drawn(self, stream: str, update: int, at: int) -> dict[str, Array]:
        kinds, length = self.situation.kinds, max(self._first(self.updates + 1), 1)
        while length <= at:  # a longer run begins like a shorter one
            length *= 2
        names = (n for n in self.shapes if n != "late" or update >= LATE)
        return {n: _series(kinds, self.shapes[n], length, f"{stream}/{n}", self.dtype)[at] for n in names}

    def increments(self, updates: int | None = None) -> list[int]:
        least, most = self.situation.increments
        return inputs.increments(self.updates if updates is None else updates, 0, least, most)

    def inputs_digest(self) -> str:
        """SHA-256 of everything that a run of this case reads, except the text of the recipe."""
        found = hashlib.sha256(repr((sorted(self.shapes.items()), self.dtype, self.increments())).encode())
        for arrays in (self.parameters(), *self._read()):
            for name, x in arrays.items():
                found.update(f"{name}{x.shape}".encode() + x.tobytes())
        return found.hexdigest()

    def _read(self) -> Iterator[dict[str, Array]]:
        """All gradients in the order in which they are read."""
        for t in range(1, self.updates + 1):
            trees = self.microbatches(t)
            yield from trees if isinstance(trees, list) else [trees]
            yield from self.sampled(t) or []


@lru_cache(maxsize=256)
def _series(kinds: tuple[str, ...], shape: Shape, length: int, name: str, dtype: str) -> Array:
    found = rounded(inputs.series(kinds, shape, length, 0, name), dtype)
    found.setflags(write=False)
    return found


def _all() -> Iterator[Case]:
    for variant in every():
        for situation in SITUATIONS.values():
            if situation.name == "usual" or variant.name in (*ENTRIES, *situation.also):
                yield Case(variant.name, variant.table, situation, variant.streams, variant.samples)


EVERY: Mapping[str, Case] = {case.id: case for case in _all()}
CASES: Mapping[str, Case] = {name: case for name, case in EVERY.items() if not case.streams}  # those with lockstep
STREAMS: Mapping[str, Case] = {name: case for name, case in EVERY.items() if case.streams}


def chosen(globs: tuple[str, ...] = ("*",)) -> dict[str, Case]:
    """The cases whose id matches one of the globs. RecipeError for a glob that matches none."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in EVERY):
            raise RecipeError(f"no case matches {glob!r}{nearest(glob, EVERY)}; `dualopt conformance list` shows all")
    return {name: case for name, case in EVERY.items() if any(fnmatchcase(name, glob) for glob in globs)}
