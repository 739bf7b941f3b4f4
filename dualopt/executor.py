"""Carrying out one update of a planned group, in any namespace: what every faster way is held to."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .buckets import stacks
from .planned import PlannedGroup
from .recursion import Array, Arrays, Namespace, Scalars, Shape, step, step_group
from .rounding import Casts, drawn, opened

States = Mapping[str, Arrays]  # {parameter: {key: array}}
Execute = Callable[[PlannedGroup, Arrays, States, States, Mapping[str, Scalars]], dict[str, tuple[Array, Arrays]]]


def executor(xp: Namespace) -> Execute:
    """One update of a group by the core's recursion in `xp`.

    Matrices of one shape and one set of scalars are stacked, so that products and norms are batched; a stack
    has the bits of its members. Elementwise rows go parameter by parameter.

    Arguments of the result: the group, {name: θ}, {name: state}, {name: evidence}, {name: scalars}; all
    floating-point arrays in the working type, as they are stored. Returns {name: (θ+, s+)}. Empty parameters
    pass through.
    """

    def execute(
        planned: PlannedGroup,
        theta: Arrays,
        state: States,
        evidence: States,
        k: Mapping[str, Scalars],
    ) -> dict[str, tuple[Array, Arrays]]:
        row, views = planned.row, planned.views
        out = {name: (theta[name], state[name]) for name in theta}
        live = [name for name in theta if views[name].size > 0]
        seen = {name: views[name].apply(xp, theta[name]) for name in live}
        kept = {name: planned.seen(xp, name, state[name]) for name in live}
        measured = {name: planned.measured(xp, name, evidence[name]) for name in live}
        if row.motion.pools:
            new = step_group(xp, row, seen, kept, measured, {name: k[name] for name in live})
        elif row.local:
            new = {name: step(xp, row, seen[name], kept[name], measured[name], k[name]) for name in live}
        else:
            new = {}
            kinds = {name: kind(theta[name], k[name]) for name in live}
            for names in stacks({name: views[name].seen for name in live}, kinds):
                before, found = (stacked(xp, [a[name] for name in names]) for a in (kept, measured))
                joined = stacked(xp, [{"theta": seen[name]} for name in names])["theta"]
                moved, s = step(xp, row, joined, before, found, k[names[0]])
                new |= {name: (moved[i, ...], {key: x[i, ...] for key, x in s.items()}) for i, name in enumerate(names)}
        for name, (moved, s) in new.items():
            out[name] = views[name].undo(xp, moved), planned.stored(xp, name, s)
        return out

    return execute


def stored(execute: Execute, casts: Casts) -> Execute:
    """`execute` for parameters and gradients stored in a narrower type than they are computed in.

    Args:
        execute: as from `executor`.
        casts: between the two types. This is the only place where a parameter is rounded; how, the `storage` of
            its row says, or it is to nearest.
    """
    widen = casts.widen

    def run(
        planned: PlannedGroup,
        theta: Arrays,
        state: States,
        evidence: States,
        k: Mapping[str, Scalars],
    ) -> dict[str, tuple[Array, Arrays]]:
        storage = planned.row.storage
        measured = {name: {key: widen(x) for key, x in evidence[name].items()} for name in theta}
        found = {name: opened(storage, widen, x, state[name]) for name, x in theta.items()}
        here, rest = ({name: pair[i] for name, pair in found.items()} for i in range(2))
        moved = execute(planned, here, rest, measured, k)
        if storage is None:
            return {name: (casts.narrow(x, theta[name]), s) for name, (x, s) in moved.items()}
        out = {}
        for name, (x, s) in moved.items():
            view = planned.views[name]
            draws = view.placed(casts.xp, drawn(casts, name, k[name], view.size)) if storage.random else None
            kept, beside = storage.closed(casts, x, theta[name], draws)
            out[name] = kept, s | beside
        return out

    return run


def kind(x: Array, k: Scalars) -> tuple[object, ...]:
    """What is equal in one stack: dtype, device and scalars."""
    values = tuple(value if isinstance(value, float) else id(value) for value in k.values())
    return str(x.dtype), str(getattr(x, "device", "")), values


def stacked(xp: Namespace, members: list[Arrays]) -> Arrays:
    """{key: array} of every member -> {key: (members, ...)}."""
    whole: Shape = (1,)
    return {
        key: xp.concat([xp.reshape(m[key], whole + tuple(m[key].shape)) for m in members], axis=0) for key in members[0]
    }
