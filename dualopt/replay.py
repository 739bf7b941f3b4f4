"""Drive one group of a recipe over given gradients: the door that conformance, tests and users share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .counts import Count, increment
from .errors import CountError, NonFiniteError, RecipeError
from .namespace import load
from .plan import Plan, check_gradient
from .recipe import Group, Recipe
from .recursion import Array, Arrays, Namespace, propose

Numpy = np.ndarray[Any, Any]


@dataclass
class Replay:
    """What happened, as numpy arrays; index t is the state *after* update t, counted from 0.

    Attributes:
        params: [t][name].
        state: [t][name][key].
        trace: [t][name] -> {"g": ..., "s": ..., "u": ...}, each {channel or key: array}; empty unless asked for.
        resolved: every coordinate that was used, stated or by default.
        scalars: [t][name] -> the derived scalars of update t, float64.
    """

    resolved: Mapping[str, Any]
    params: list[dict[str, Numpy]] = field(default_factory=list)
    state: list[dict[str, dict[str, Numpy]]] = field(default_factory=list)
    trace: list[dict[str, dict[str, dict[str, Numpy]]]] = field(default_factory=list)
    scalars: list[dict[str, dict[str, float]]] = field(default_factory=list)


def replay(
    group: Group | Mapping[str, Any],
    params: Mapping[str, Any],
    grads: Iterable[Mapping[str, Any]],
    counts: int | Iterable[int],
    *,
    backend: str = "numpy",
    tier: str = "exact",
    dtype: str = "float32",
    trace: bool = False,
) -> Replay:
    """Apply one recipe group to `params` along recorded gradients.

    Args:
        group: a `Group`, or a mapping such as ``{"optimizer": "scionc", "norm": "spectral", "step": 0.1,
            "memory_half_life": 1024, "shrink_half_life": 2560}``.
        params: name -> array, the parameters before the first update.
        grads: one name -> array per update; a parameter without gradient does not move or age.
        counts: Δτ, one number or one per update. Default half-lives are in updates of the first Δτ.
        backend: ``"numpy"``, ``"torch"``, ``"mlx"`` or a registered name.
        tier: ``"exact"`` (the same bits everywhere) or ``"fast"``.
        dtype: working type; ``"float64"`` on numpy is the oracle, where an unstated `polar` is exact.
        trace: also keep g, s and u of every update.

    Raises:
        DualoptError: bad group, counts, gradients, backend, tier or dtype; nothing is returned then.
    """
    group = group if isinstance(group, Group) else Group.from_dict(group)
    chosen = load(backend)
    xp = chosen.namespace(tier)
    if dtype not in chosen.dtypes:
        raise RecipeError(f"dtype {dtype!r}: {backend} has {', '.join(chosen.dtypes)}")
    first, increments = _increments(counts)
    recipe = Recipe(groups=(group,), count=Count("tokens", per_update=first))
    start = {name: np.asarray(x) for name, x in params.items()}
    plan = Plan(recipe, {name: x.shape for name, x in start.items()}, float64=dtype == "float64")
    planned = plan.groups[0]
    if tier == "exact" and planned.row.resolved.get("polar") == "exact" and dtype != "float64":
        raise RecipeError(
            "polar = 'exact' is a library's factorisation: not in the exact tier below float64; name a coefficient set"
        )
    execute = chosen.execute(tier)
    theta: Arrays = {name: chosen.from_numpy(x, dtype) for name, x in start.items()}
    state = {name: planned.row.init(xp, x) for name, x in theta.items()}
    found = Replay(resolved=dict(planned.action))
    for t, gradients in enumerate(grads):
        named = {name: np.asarray(g) for name, g in gradients.items()}
        proposal = plan.propose(next(increments, None) or _too_few(t), named)
        for name, g in named.items():
            check_gradient(name, start[name].shape, g.shape, _kind(g))
            if not np.isfinite(g).all():
                raise NonFiniteError(f"update {t}: the gradient of {name!r} holds NaN or infinity")
        evidence = {name: chosen.from_numpy(g, dtype) for name, g in named.items()}
        moving = {name: theta[name] for name in named}
        kept = {name: state[name] for name in named}
        if trace:
            found.trace.append(
                {n: _trace(xp, planned, n, moving, kept, evidence, proposal.scalars, chosen.to_numpy) for n in named}
            )
        for name, (moved, s) in execute(planned, moving, kept, evidence, proposal.scalars).items():
            theta[name], state[name] = moved, s
        plan.commit(proposal)
        found.params.append({name: chosen.to_numpy(x) for name, x in theta.items()})
        found.state.append({name: {key: chosen.to_numpy(x) for key, x in s.items()} for name, s in state.items()})
        found.scalars.append({name: dict(k) for name, k in proposal.scalars.items()})
    return found


def _increments(counts: int | Iterable[int]) -> tuple[int, Iterator[int]]:
    """(the first Δτ, all of them)."""
    if not isinstance(counts, Iterable):
        every = increment(counts)
        return every, itertools.repeat(every)
    head, rest = itertools.tee(iter(counts))
    return increment(next(head, 1)), rest


def _too_few(t: int) -> int:
    raise CountError(f"counts end before update {t}: give one number, or one per update")


def _kind(g: Numpy) -> str:
    return "real" if np.issubdtype(g.dtype, np.floating) else "complex" if np.iscomplexobj(g) else str(g.dtype)


def _trace(
    xp: Namespace, planned: Any, name: str, theta: Arrays, state: Any, evidence: Arrays, k: Any, to_numpy: Any
) -> dict[str, dict[str, Numpy]]:
    """g, s and u of one parameter, in its own shape."""
    seen = planned.views[name]
    if seen.size == 0:
        return {"g": {}, "s": {}, "u": {}}
    viewed = {key: seen.apply(xp, x) for key, x in state[name].items()}
    stages = propose(
        xp,
        planned.row,
        seen.apply(xp, theta[name]),
        viewed,
        {"gradient": seen.apply(xp, evidence[name])},
        k[name],
    )
    shown: list[dict[str, Array]] = [{key: seen.undo(xp, x) for key, x in stage.items()} for stage in stages]
    return dict(zip("gsu", [{key: to_numpy(x) for key, x in stage.items()} for stage in shown], strict=True))
