"""The cases, as data: a variant of a row of the catalogue in a situation.

A *variant* is a recipe group. A *situation* says what the group meets: shapes, gradient spectra, storage type,
schedule and increments. Every entry of the catalogue meets every situation, and every variant the usual one.
All inputs are pure functions of the case, made from the integer generator; `Case.inputs_digest` pins them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from dualopt import ENTRIES
from dualopt.catalog import complete, least_ndim
from dualopt.catalog import row as row_of
from dualopt.counts import Count
from dualopt.directions.norm_balls import MUON_SCALES, NORMS
from dualopt.errors import RecipeError, nearest
from dualopt.exact import Overlay, exact
from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.recipe import Group, Recipe
from dualopt.recursion import Row, Shape
from dualopt.schedules import Schedule
from dualopt.storage import rounded

from . import inputs

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
    "one": (1, 1),
    "empty": (3, 0),
    "square": (5, 5),
    "tall": (7, 3),
    "wide": (3, 7),
    "row": (1, 6),
    "column": (6, 1),
    "deep": (2, 300),  # more terms than one exact product or one block of a sum has
    "stack": (2, 4, 3),
    "kernel": (4, 2, 3, 3),
    "late": (7, 3),
}
FEW: Mapping[str, Shape] = {n: MATRICES[n] for n in ("tall", "wide", "stack", "late")}  # in all but the usual
VECTORS: Mapping[str, Shape] = {"scalar": (), "vector": (7,), "long": (300,), "tall": (7, 3), "late": (17,)}
KERNELS: Mapping[str, Shape] = {"line": (5, 3, 7), "kernel": (4, 2, 3, 3), "late": (3, 2, 1, 1)}


@dataclass(frozen=True)
class Situation:
    """What a group meets. `updates` is the length of the free run, `spectral` that of rows with products.

    `increments` is (least, most) of Δτ; `schedule` counts updates of the mean increment. `subnormal`: gradients
    or their squares fall below the smallest normal number, which some hardware flushes to zero.
    """

    name: str
    kinds: tuple[str, ...]
    updates: int
    spectral: int
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
        Situation(
            "extremes", ("huge", "bell", "tiny", "bell", "bell"), 1000, 100, increments=(1, 4095), subnormal=True
        ),
        Situation(
            "underflow",
            ("subnormal", "faint", "tiny"),
            1000,
            100,
            increments=(511, 512),
            start="zeros",
            subnormal=True,
            also=("sgdm.cautious",),
        ),
        Situation(
            "bfloat16",
            ("bell", "zeros", "six_decades"),
            1000,
            100,
            "bfloat16",
            schedule={"shape": "cosine", "warmup": 5, "total": 1000, "floor": 0.05, "drives": "both"},
        ),
        Situation("float16", ("bell", "zeros"), 1000, 100, "float16", schedule={"shape": "linear", "total": 1200}),
    )
}

# Half-lives are counts; the mean increment is 512.
_LIVES: dict[str, Any] = {"memory_half_life": 3370.0, "shrink_half_life": 15_000.0}
_SQUARES: dict[str, Any] = {"second_memory_half_life": 30_000.0}
_STATED: dict[str, dict[str, Any]] = {
    "rmsprop": {**_SQUARES, "shrink_half_life": 15_000.0, "step": 0.01},
    "adamw": {**_LIVES, **_SQUARES, "step": 0.01},
    "adam_l2": {**_LIVES, **_SQUARES, "step": 0.01, "l2": 0.02},
    "sgdm": {**_LIVES, "step": 0.1},
    "sf_adamw": {**_SQUARES, "shrink_half_life": 15_000.0, "step": 0.01},
    "pion": {"memory_half_life": 3370.0, **_SQUARES, "second_memory": True, "step": 0.1},
    "rotational_adamw": {**_LIVES, **_SQUARES},
    "rotational_lion": _LIVES,
    "rotational_sgdm": _LIVES,
    "single_half_life": {"memory_half_life": 3370.0},
    "hyperball": {"memory_half_life": 3370.0, "step": 0.02},
}


def _variants() -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, group) of every variant; the first of each entry bears the entry's name alone."""
    base = {name: {"optimizer": name, **_LIVES, "step": 0.02} for name in ENTRIES}
    base |= {name: {"optimizer": name, **stated} for name, stated in _STATED.items()}
    for name, table in base.items():  # the oracle runs the same coefficient set, so every case names it
        if "polar" in ENTRIES[name].defaults:
            table["polar"] = ENTRIES[name].defaults["polar"]
    yield from base.items()
    yield "sgdm.nesterov", {**base["sgdm"], "readout": 0.9, "bias_correction": True, "l2": 0.01}
    yield "sgdm.cautious", {**base["sgdm"], "shrink": "cautious", "step": 1e-9}  # u θ underflows
    yield "sgdm.unbounded", {**base["sgdm"], "shrink_half_life": float("inf")}
    yield "rmsprop.corrected", {**base["rmsprop"], "bias_correction": True, "shrink": "cautious"}
    yield "adamw.cautious", {**base["adamw"], "shrink": "cautious", "readout": 0.95}
    yield "adamw.strict", {**base["adamw"], "shrink": "cautious", "strict_mask": True}
    yield "adamw.corrected", {**base["adamw"], "shrink": "corrected"}
    yield "adamw.target", {**base["adamw"], "target_rms": 1.1, "step": 3.0}  # a root between 0 and the step
    yield "adamw.uncorrected", {**base["adamw"], "bias_correction": False, "readout": 0.5, "eps": 1e-3}
    yield "adamw.long", {**base["adamw"], "second_memory_half_life": 1e9, "shrink_half_life": 1e9}
    # Weights that are too large and a penalty that pulls them in: the smaller root.
    yield "adam_l2.target", {**base["adam_l2"], "l2": 1.0, "target_rms": 0.8, "step": 5.0}
    yield "lion.cautious", {**base["lion"], "shrink": "cautious"}
    for scale in MUON_SCALES:
        yield f"muon.{scale}", {**base["muon"], "scale": scale, "readout": 0.95}
    yield "muon.in_out", {**base["muon"], "orientation": "in_out"}
    plain = {name: {k: v for k, v in base[name].items() if k != "polar"} for name in ("scion", "scionc")}
    yield "scion.sign", {**plain["scion"], "norm": "sign"}
    for norm in NORMS:
        named = base if norm.startswith("spectral") else plain
        yield f"scionc.{norm}", {**named["scionc"], "norm": norm, "readout": 0.9}
    yield "scionc.target", {**plain["scionc"], "norm": "frobenius", "target_rms": 0.9}
    yield "scionc.cautious", {**base["scionc"], "shrink": "cautious"}


@dataclass(frozen=True)
class Case:
    """A variant in a situation. `id` is ``variant/situation``."""

    variant: str
    table: Mapping[str, Any]
    situation: Situation

    @property
    def id(self) -> str:
        return f"{self.variant}/{self.situation.name}"

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
        plan, tier, products = Plan(self.recipe, {name: shape}), exact(np), []

        def noticed(a: Array, b: Array) -> Array:
            products.append((a.shape, b.shape))
            return np.asarray(tier.matmul(a, b))

        (planned,), theta = plan.groups, np.ones(shape, np.float32)
        arrays = {name: theta}, {name: planned.start(np, name, theta)}, {name: {"gradient": theta}}
        executor(Overlay(tier, "noticing", matmul=noticed))(planned, *arrays, plan.propose(None, [name]).scalars)
        return bool(products)

    @property
    def updates(self) -> int:
        """The length of the free run."""
        return self.situation.spectral if self.spectral else self.situation.updates

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        group = self.recipe.groups[0]
        least = least_ndim(group.optimizer, complete(group.optimizer, group.options))
        if self.table.get("norm") == "spectral_conv":
            return KERNELS
        if self.table.get("orientation") == "in_out":
            return {name: shape for name, shape in MATRICES.items() if len(shape) == 2}
        matrices = MATRICES if self.situation.name == "usual" else FEW
        return {0: ELEMENTWISE, 1: VECTORS, 2: matrices}[least]

    def parameters(self) -> dict[str, Array]:
        """float32 arrays; those of narrower types hold values of that type."""
        kind, seed = self.situation.start, 0
        found = {n: inputs.array(kind, s, seed, f"parameter/{n}") for n, s in self.shapes.items()}
        return {n: rounded(x, self.dtype) for n, x in found.items()}

    def gradients(self, updates: int | None = None) -> Iterator[dict[str, Array]]:
        """One {name: array} per update; "late" has none before update `LATE`."""
        return map(self.gradient, range(1, (self.updates if updates is None else updates) + 1))

    def gradient(self, update: int) -> dict[str, Array]:
        """Those of one update, counted from 1."""
        every = {n: _series(self.situation.kinds, s, self.updates, n, self.dtype) for n, s in self.shapes.items()}
        return {n: x[update - 1] for n, x in every.items() if n != "late" or update >= LATE}

    def increments(self, updates: int | None = None) -> list[int]:
        least, most = self.situation.increments
        return inputs.increments(self.updates if updates is None else updates, 0, least, most)

    def inputs_digest(self) -> str:
        """SHA-256 of everything that a run of this case reads, except the text of the recipe."""
        found = hashlib.sha256(repr((sorted(self.shapes.items()), self.dtype, self.increments())).encode())
        for arrays in (self.parameters(), *self.gradients()):
            for name, x in arrays.items():
                found.update(f"{name}{x.shape}".encode() + x.tobytes())
        return found.hexdigest()


@lru_cache(maxsize=256)
def _series(kinds: tuple[str, ...], shape: Shape, updates: int, name: str, dtype: str) -> Array:
    found = rounded(inputs.series(kinds, shape, updates, 0, f"gradient/{name}"), dtype)
    found.setflags(write=False)
    return found


def _all() -> Iterator[Case]:
    for name, table in _variants():
        for situation in SITUATIONS.values():
            if situation.name == "usual" or name in ENTRIES or name in situation.also:
                yield Case(name, table, situation)


CASES: Mapping[str, Case] = {case.id: case for case in _all()}


def chosen(globs: tuple[str, ...] = ("*",)) -> dict[str, Case]:
    """The cases whose id matches one of the globs. RecipeError for a glob that matches none."""
    for glob in globs:
        if not any(fnmatchcase(name, glob) for name in CASES):
            raise RecipeError(f"no case matches {glob!r}{nearest(glob, CASES)}; `dualopt conformance list` shows all")
    return {name: case for name, case in CASES.items() if any(fnmatchcase(name, glob) for glob in globs)}
