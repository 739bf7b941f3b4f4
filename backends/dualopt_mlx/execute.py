"""How MLX carries out one update of a group.

exact    the core's recursion in the exact namespace, eagerly
fast     elementwise rows by one compiled function per group (see `elementwise`), all others eagerly in the fast
         namespace. Inside a compiled training step all of it becomes part of that step.

Scalars are 0-d float32 arrays: a Python float would be a constant, and a new one compiles again.
Half-precision parameters are widened to float32, and rounded once when they are stored (`dualopt.rounding`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Protocol

import mlx.core as mx

from dualopt.errors import RecipeError, nearest
from dualopt.executor import Execute, executor, stored
from dualopt.namespace import TIERS
from dualopt.planned import PlannedGroup
from dualopt.recursion import Scalars

from .casts import casts
from .elementwise import masked, updated
from .namespace import EXACT, FAST
from .parameters import traced

Found = dict[str, tuple[mx.array, dict[str, mx.array]]]


class Masked(Protocol):
    """An `executor.Execute` that may be told, on the device, that nothing changes: `ok` is 0-d."""

    def __call__(
        self,
        planned: PlannedGroup,
        theta: Any,
        state: Any,
        evidence: Any,
        k: Mapping[str, Scalars],
        ok: mx.array | None = None,
    ) -> Found: ...


@lru_cache(maxsize=1)
def can_compile() -> bool:
    """True if `mx.compile` works here: it may be switched off, and on the CPU it calls a C++ compiler."""
    seen = []

    def probe(x: mx.array) -> mx.array:
        seen.append(traced([x]))
        return x * x + x

    try:
        mx.eval(mx.compile(probe)(mx.ones(1)))
    except RuntimeError:
        return False
    return seen[0]


def _arrays(k: Scalars, same: dict[str, mx.array] | None = None) -> dict[str, mx.array]:
    """The scalars as 0-d arrays; equal numbers are one array where `same` keeps them, so that parameters stack."""
    shared = {} if same is None else same

    def made(x: float) -> mx.array:
        bits = float(x).hex()  # −0 is not 0
        if bits not in shared:
            shared[bits] = mx.array(x, mx.float32)
        return shared[bits]

    return {name: x if isinstance(x, mx.array) else made(x) for name, x in k.items()}


def executor_of(tier: str) -> Masked:
    """How `tier` is carried out, with float32 state. RecipeError for an unknown tier."""
    if tier not in TIERS:
        raise RecipeError(f"tier: {tier!r} is not one of {', '.join(TIERS)}{nearest(str(tier), TIERS)}")
    xp = EXACT if tier == "exact" else FAST
    plain = stored(executor(xp), casts(xp))

    def execute(planned: PlannedGroup, theta: Any, state: Any, evidence: Any, k: Any, ok: Any = None) -> Any:
        same: dict[str, mx.array] = {}
        arrays: dict[int, dict[str, mx.array]] = {}
        scalars = {name: arrays.setdefault(id(k[name]), _arrays(k[name], same)) for name in theta}
        if tier == "fast" and planned.row.local:
            return updated(planned, theta, state, evidence, scalars, compiled=can_compile(), ok=ok)
        return kept_where(ok, plain(planned, theta, state, evidence, scalars), theta, state)

    return execute


def kept_where(ok: mx.array | None, new: Mapping[str, Any], theta: Any, state: Any) -> Found:
    """What an update made where it may happen; what was there elsewhere."""
    return {
        name: (masked(ok, x, theta[name]), {key: masked(ok, y, state[name][key]) for key, y in s.items()})
        for name, (x, s) in new.items()
    }


def evaluated(tier: str) -> Execute:
    """The same carried out at once: reading arrays one by one would evaluate the graph in pieces."""
    run = executor_of(tier)

    def execute(planned: PlannedGroup, theta: Any, state: Any, evidence: Any, k: Any) -> Any:
        moved = run(planned, theta, state, evidence, k)
        mx.eval(moved)
        return moved

    return execute
