"""How MLX carries out one update of a group.

exact    the core's recursion in the exact namespace, eagerly
fast     elementwise rows by functions compiled from the core's parts, over arrays of one dimension: a
         new size is traced again, but runs the machine code of the others; everything else eagerly in
         the fast namespace. Inside a compiled training step all of it becomes part of that step.

Scalars are 0-d float32 arrays: a Python float would be a constant, and a new one compiles again.
Half-precision parameters are widened to float32, and rounded once when they are stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import mlx.core as mx

from dualopt.errors import RecipeError, nearest
from dualopt.executor import Execute, executor, stored
from dualopt.motion import Averaged
from dualopt.namespace import TIERS
from dualopt.planned import PlannedGroup
from dualopt.recursion import Part, Row, Scalars, propose

from .namespace import EXACT, FAST
from .parameters import narrowed, traced, working

Kernel = Callable[..., Any]


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


@lru_cache(maxsize=256)
def _kernel(parts: tuple[Part, ...]) -> Kernel:
    """The update of all rows with these parts: (θ, state, evidence, k) -> (θ+, s+), all of one dimension.

    One compiled function per memory, then one for θ: a function of one output writes into the buffer of an
    input, one of several does not, and its expression would be too deep to stay in one piece. A motion that
    averages is cut once more, after z.
    """
    row = Row("", *parts)  # type: ignore[arg-type]
    averaged = row.motion if isinstance(row.motion, Averaged) else None
    moving = row.motion.init(FAST, mx.zeros(0)).keys()
    memories: dict[str, Kernel] = {}

    def memory(key: str) -> Kernel:
        return mx.compile(lambda theta, s, evidence, k: propose(FAST, row, theta, s, evidence, k)[1][key])

    def direction(theta: mx.array, s: Any, evidence: Any, k: Any) -> Any:
        return row.direction(FAST, s, row.signal(FAST, theta, evidence, k), k)

    def move(theta: mx.array, s: Any, evidence: Any, k: Any) -> Any:
        if averaged is None:
            moved, s = row.motion(FAST, theta, direction(theta, s, evidence, k), s, k)
        else:
            moved, s = averaged.average(FAST, s, k)
        return moved, {key: s[key] for key in moving}

    def lead(theta: mx.array, s: Any, evidence: Any, k: Any) -> Any:
        return averaged and averaged.lead(FAST, theta, direction(theta, s, evidence, k), s, k)

    leading, motion = mx.compile(lead), mx.compile(move)

    def update(theta: mx.array, state: Any, evidence: Any, k: Any) -> Any:
        for key in state.keys() - moving - memories.keys():
            memories[key] = memory(key)
        s = {key: x if key in moving else memories[key](theta, state, evidence, k) for key, x in state.items()}
        if averaged is not None:
            s["z"] = leading(theta, s, evidence, k)
        moved, others = motion(theta, s, evidence, k)
        return moved, s | others

    return update


def _arrays(k: Scalars, same: dict[str, mx.array] | None = None) -> dict[str, mx.array]:
    """The scalars as 0-d arrays; equal numbers are one array where `same` keeps them, so that parameters stack."""
    shared = {} if same is None else same

    def made(x: float) -> mx.array:
        bits = float(x).hex()  # −0 is not 0
        if bits not in shared:
            shared[bits] = mx.array(x, mx.float32)
        return shared[bits]

    return {name: x if isinstance(x, mx.array) else made(x) for name, x in k.items()}


def _flat(
    planned: PlannedGroup,
    theta: Mapping[str, mx.array],
    state: Mapping[str, Any],
    evidence: Mapping[str, Any],
    k: Mapping[str, Scalars],
) -> dict[str, tuple[mx.array, dict[str, mx.array]]]:
    """The update of an elementwise row by its kernel. Empty parameters pass through."""
    update, out = _kernel(planned.row.parts), {}
    for name, x in theta.items():
        if x.size == 0:
            out[name] = x, state[name]
            continue
        flat = {key: mx.flatten(s) for key, s in state[name].items()}
        measured = {key: mx.flatten(e) for key, e in evidence[name].items()}
        moved, new = update(mx.flatten(x), flat, measured, _arrays(k[name]))
        out[name] = mx.reshape(moved, x.shape), {key: mx.reshape(s, x.shape) for key, s in new.items()}
    return out


def executor_of(tier: str) -> Execute:
    """How `tier` is carried out, with float32 state. RecipeError for an unknown tier."""
    if tier not in TIERS:
        raise RecipeError(f"tier: {tier!r} is not one of {', '.join(TIERS)}{nearest(str(tier), TIERS)}")
    plain = executor(EXACT if tier == "exact" else FAST)
    compiled = tier == "fast" and can_compile()

    def execute(planned: PlannedGroup, theta: Any, state: Any, evidence: Any, k: Any) -> Any:
        if compiled and planned.row.local:
            return _flat(planned, theta, state, evidence, k)
        same: dict[str, mx.array] = {}
        return plain(planned, theta, state, evidence, {name: _arrays(k[name], same) for name in theta})

    return stored(execute, working, narrowed)


def evaluated(tier: str) -> Execute:
    """The same carried out at once: reading arrays one by one would evaluate the graph in pieces."""
    run = executor_of(tier)

    def execute(planned: PlannedGroup, theta: Any, state: Any, evidence: Any, k: Any) -> Any:
        moved = run(planned, theta, state, evidence, k)
        mx.eval(moved)
        return moved

    return execute


@lru_cache(maxsize=8)
def _bounded(largest: float) -> Kernel:
    bound = min(largest, float(mx.finfo(mx.float32).max))

    def within(x: mx.array, bound: mx.array) -> mx.array:
        return mx.all(mx.abs(x) <= bound)

    kernel = mx.compile(within) if can_compile() else within
    return lambda x: kernel(x, mx.array(bound, mx.float32))


def finite(x: mx.array, largest: float = math.inf) -> mx.array:
    """Whether all elements are finite and at most `largest`, a 0-d boolean. (`sign` and `max` may hide a NaN.)"""
    within: mx.array = _bounded(largest)(mx.flatten(x))
    return within
