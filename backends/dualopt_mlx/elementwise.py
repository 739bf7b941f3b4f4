"""Elementwise rows of a group, as one compiled function of all its parameters.

Every array that is stored is written by a kernel of its own. The outputs of one kernel hold its inputs together, so
that none of their buffers can be reused: three times the memory of θ for a moment, and three times the time where
blocks are large enough to come fresh from the system. A reshape keeps the compiler from joining kernels: arrays are
worked on in another shape than the one they are stored in. A mask of the update is part of these kernels.

Small parameters that share their scalars are laid end to end and updated at once (see `buckets`).

Functions are kept for the last `KEPT` sets of parameters with gradients. Tracing one costs what running it eagerly
does, and the machine code of its kernels does not depend on sizes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

import mlx.core as mx

from dualopt.buckets import joined
from dualopt.motion import Averaged
from dualopt.planned import PlannedGroup
from dualopt.recursion import Arrays, Part, Row
from dualopt.rounding import drawn
from dualopt.views import View

from .casts import casts
from .namespace import FAST
from .parameters import Named, narrowed, working

CASTS = casts(FAST)
KEPT = 64  # functions, each for one set of parameters with gradients

Memory = dict[str, dict[str, mx.array]]
Pieces = tuple[tuple[int, tuple[str, ...]], ...]  # scalars, and the parameters that are updated as one array
Update = Callable[..., tuple[Named, Memory]]


def pieces(theta: Named, k: Mapping[str, Mapping[str, mx.array]]) -> tuple[Pieces, list[Mapping[str, mx.array]]]:
    """How parameters are updated together, and the sets of scalars. Empty parameters are left out."""
    at: dict[tuple[int, ...], int] = {}
    scalars: list[Mapping[str, mx.array]] = []
    place: dict[str, int] = {}
    for name in theta:
        place[name] = at.setdefault(tuple(map(id, k[name].values())), len(scalars))
        if place[name] == len(scalars):
            scalars.append(k[name])
    sizes = {name: x.size for name, x in theta.items()}
    kinds = {name: (place[name], x.dtype) for name, x in theta.items()}
    return tuple((place[names[0]], names) for names in joined(sizes, kinds)), scalars


def masked(ok: mx.array | None, new: mx.array, old: mx.array) -> mx.array:
    """`new` where the update may happen."""
    return new if ok is None else mx.where(ok, new, old)


def moved(
    row: Row, theta: mx.array, state: Arrays, evidence: Arrays, k: Mapping[str, mx.array], ok: mx.array | None
) -> tuple[mx.array, Arrays]:
    """`recursion.step`, with what is stored masked where it is made: what comes later reads the masked arrays."""

    def keep(new: Arrays) -> Arrays:
        """What a stage made, masked where it is stored."""
        return {key: masked(ok, x, state[key]) if key in state and x is not s.get(key) else x for key, x in new.items()}

    s = dict(state)
    g = row.signal(FAST, theta, evidence, k)
    s |= keep(row.memory(FAST, state, g, k))
    u = row.direction(FAST, s, g, k)
    if isinstance(row.motion, Averaged):
        s |= keep({"z": row.motion.lead(FAST, theta, u, s, k)})
        x, after = row.motion.average(FAST, s, k)
    else:
        x, after = row.motion(FAST, theta, u, s, k)
    s |= keep(after)
    return masked(ok, x, theta), {key: s[key] for key in state}


def _apart(x: mx.array) -> mx.array:
    """x in one axis, or with one more where it has one: what a kernel may not be joined across."""
    return mx.flatten(x) if x.ndim != 1 else mx.reshape(x, (1, -1))


def _piece(
    row: Row,
    names: tuple[str, ...],
    theta: Named,
    state: Memory,
    evidence: Memory,
    k: Any,
    ok: mx.array | None,
    views: Mapping[str, View],
) -> tuple[Named, Memory]:
    """The update of parameters that are worked on as one array."""
    first = names[0]
    shapes = {name: theta[name].shape for name in names}
    ends = [sum(math.prod(s) for s in list(shapes.values())[: i + 1]) for i in range(len(names))]

    def laid(arrays: Iterable[mx.array]) -> mx.array:
        found = [_apart(x) if len(names) == 1 else mx.flatten(x) for x in arrays]
        return found[0] if len(names) == 1 else mx.concatenate(found)

    def split(x: mx.array) -> Named:
        found = [x] if len(names) == 1 else mx.split(x, ends[:-1])
        return {name: mx.reshape(y, shapes[name]) for name, y in zip(names, found, strict=True)}

    x = laid(theta[name] for name in names)
    s = {key: laid(state[name][key] for name in names) for key in state[first]}
    e = {key: working(laid(evidence[name][key] for name in names)) for key in evidence[first]}
    if row.storage is None:
        new, after = moved(row, working(x), s, e, k, ok)
        new = narrowed(new, x)
    else:
        keys = row.storage.keys
        here = row.storage.opened(working, x, s)
        new, after = moved(row, here, {key: a for key, a in s.items() if key not in keys}, e, k, ok)
        draws = None
        if row.storage.random:
            draws = laid(views[name].placed(FAST, drawn(CASTS, name, k, theta[name].size)) for name in names)
        stored, beside = row.storage.closed(CASTS, new, x, draws)
        new = masked(ok, stored, x)
        after |= {key: masked(ok, a, s[key]) for key, a in beside.items()}
    parts = {key: split(a) for key, a in after.items()}
    return split(new), {name: {key: part[name] for key, part in parts.items()} for name in names}


@lru_cache(maxsize=KEPT)
def _update(parts: tuple[Part, ...], layout: Pieces, placed: tuple[tuple[str, View], ...], compiled: bool) -> Update:
    """The update of the parameters of `layout`: (θ, state, evidence, sets of scalars) -> (θ+, s+).

    `placed`: the views of parameters whose elements have places.
    """
    row = Row("", *parts)  # type: ignore[arg-type]
    views = dict(placed)

    def update(
        theta: Named, state: Memory, evidence: Memory, scalars: list[Any], ok: mx.array | None = None
    ) -> tuple[Named, Memory]:
        found: Named = {}
        memory: Memory = {}
        for at, names in layout:
            x, s = _piece(row, names, theta, state, evidence, scalars[at], ok, views)
            found |= x
            memory |= s
        return found, memory

    made: Update = mx.compile(update) if compiled else update
    return made


def updated(
    planned: PlannedGroup,
    theta: Named,
    state: Memory,
    evidence: Memory,
    k: Mapping[str, Mapping[str, mx.array]],
    *,
    compiled: bool,
    ok: mx.array | None = None,
) -> dict[str, tuple[mx.array, Arrays]]:
    """One update of a group whose row is elementwise, by name. Empty parameters pass through.

    Args:
        planned: the group.
        theta: the parameters, as they are stored.
        state: what is remembered of each, {key: array}; float32.
        evidence: {name: array} of each.
        k: the scalars of each, 0-d arrays; parameters may share them.
        compiled: whether a compiler may be called. A function that is being traced takes the update in either way.
        ok: 0-d, whether anything changes at all.
    """
    layout, scalars = pieces(theta, k)
    storage = planned.row.storage
    placed = tuple((name, planned.views[name]) for name in theta) if storage is not None and storage.random else ()
    update = _update(planned.row.parts, layout, placed, compiled and ok is None)
    x, s = update(theta, state, evidence, scalars) if ok is None else update(theta, state, evidence, scalars, ok)
    return {name: (x[name], s[name]) if name in x else (theta[name], state[name]) for name in theta}
