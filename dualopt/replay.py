"""Drive one group of a recipe over given gradients: the door that conformance, tests and users share."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from . import cautions
from .clipping import clipped
from .counts import Count, increment
from .errors import CountError, NonFiniteError, RecipeError
from .microbatches import SAMPLES, Folding, measured
from .namespace import Backend, load
from .plan import Plan
from .planned import PlannedGroup, check_gradient
from .recipe import Group, Recipe
from .recursion import Arrays, Namespace, Scalars, propose
from .rounding import opened
from .storage import rounded, working

Numpy = np.ndarray[Any, Any]
Named = Mapping[str, Any]
Update = Named | Iterable[Named]  # the gradients of one update, or of its microbatches


@dataclass(frozen=True)
class Moment:
    """What one update left behind, as numpy arrays in the parameters' own shapes.

    Attributes:
        params: by name; half precision as float32 arrays of its values.
        state: [name][key]; float32 for half precision.
        scalars: [name] -> the derived scalars of this update, float64.
        trace: [name] -> {"g": ..., "s": ..., "u": ...}, each {channel or key: array}; empty unless asked for.
    """

    params: dict[str, Numpy]
    state: dict[str, dict[str, Numpy]]
    scalars: dict[str, dict[str, float]]
    trace: dict[str, dict[str, dict[str, Numpy]]]


@dataclass
class Replay:
    """What happened: the fields of every `Moment`; index t is the state *after* update t, counted from 0.

    `resolved` has every coordinate that was used, stated or by default.
    """

    resolved: Mapping[str, Any]
    params: list[dict[str, Numpy]] = field(default_factory=list)
    state: list[dict[str, dict[str, Numpy]]] = field(default_factory=list)
    scalars: list[dict[str, dict[str, float]]] = field(default_factory=list)
    trace: list[dict[str, dict[str, dict[str, Numpy]]]] = field(default_factory=list)


def replay(
    group: Group | Mapping[str, Any],
    params: Named,
    grads: Iterable[Update],
    counts: int | Iterable[int],
    *,
    samples: Iterable[Update | None] | None = None,
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
        grads: one name -> array per update, or an iterable of such, its microbatches, which are read as a
            stream; a parameter without gradient does not move or age.
        samples: the same for gradients of the loss under sampled labels, for rows that read them; None for
            an update without.
        counts: Δτ, one number or one per update. Default half-lives are in updates of the first Δτ.
        backend: ``"numpy"``, ``"torch"``, ``"mlx"`` or a registered name.
        tier: ``"exact"`` (the same bits everywhere) or ``"fast"``.
        dtype: of parameters and gradients; ``"bfloat16"`` and ``"float16"`` are computed in float32 and
            rounded once when stored. ``"float64"`` on numpy is the oracle, where an unstated `polar` is exact.
        trace: also keep g, s and u of every update.

    Raises:
        DualoptError: bad group, counts, gradients, backend, tier or dtype; nothing is returned then.
    """
    group = group if isinstance(group, Group) else Group.from_dict(group)
    first, increments = _increments(counts)
    recipe = Recipe(groups=(group,), count=Count("samples", per_update=first))  # any unit: all are stated in it
    how = {"backend": backend, "tier": tier, "dtype": dtype}
    moments = drive(recipe, params, grads, increments, samples=samples, trace=trace, **how)
    found = Replay(resolved=dict(_plan(recipe, params, dtype).groups[0].action))
    for moment in moments:
        found.params.append(moment.params)
        found.state.append(moment.state)
        found.scalars.append(moment.scalars)
        if trace:
            found.trace.append(moment.trace)
    return found


def drive(
    recipe: Recipe,
    params: Named,
    grads: Iterable[Update],
    increments: Iterable[int] | None = None,
    *,
    samples: Iterable[Update | None] | None = None,
    backend: str = "numpy",
    tier: str = "exact",
    dtype: str = "float32",
    trace: bool = False,
) -> Iterator[Moment]:
    """The same for a whole recipe, one update at a time; `increments` None: the recipe's `per_update`."""
    chosen = load(backend)
    xp, execute = chosen.namespace(tier), chosen.execute(tier)
    if dtype not in chosen.dtypes:
        raise RecipeError(f"dtype {dtype!r}: {backend} has {', '.join(chosen.dtypes)}")
    plan = _plan(recipe, params, dtype)
    cautions.too_fine(plan.recipe.count, plan.groups, dict.fromkeys(params, dtype))
    theta: Arrays = {name: chosen.from_numpy(np.asarray(x), dtype) for name, x in params.items()}
    state = {n: planned.start(xp, n, chosen.working(theta[n])) for planned in plan.groups for n in planned.names}
    counts = None if increments is None else iter(increments)
    sampled = itertools.repeat(None) if samples is None else iter(samples)
    for t, gradients in enumerate(grads):
        count = None if counts is None else next(counts, 0)
        if count == 0:
            raise CountError(f"counts end before update {t}, or are 0: give one number, or one per update")

        def take(stream: str, tree: object, t: int = t) -> Named:
            named = _arrays(tree, f"update {t}: {'samples' if stream == SAMPLES else 'grads'}")
            _check(t, plan, named, dtype)
            return {name: chosen.from_numpy(g, dtype) for name, g in named.items()}

        begin = partial(_fold, chosen, xp, plan, state)
        found = measured(
            plan, gradients, next(sampled, None), take=take, propose=partial(plan.propose, count), begin=begin
        )
        assert found is not None  # no gradient is skipped here
        evidence_of, proposal = clipped(xp, plan.groups, found[0], chosen.working), found[1]
        traced: dict[str, dict[str, dict[str, Numpy]]] = {}
        for planned in plan.groups:
            evidence = {name: evidence_of[name] for name in planned.names if name in evidence_of}
            names = list(evidence)
            moving, kept = {name: theta[name] for name in names}, {name: state[name] for name in names}
            if trace:
                stages = partial(_trace, chosen, xp, planned, moving, kept, evidence, proposal.scalars)
                traced |= {name: stages(name) for name in names}
            for name, (moved, s) in execute(planned, moving, kept, evidence, proposal.scalars).items():
                theta[name], state[name] = moved, s
        plan.commit(proposal)
        yield Moment(
            {name: chosen.to_numpy(x) for name, x in theta.items()},
            {name: {key: chosen.to_numpy(x) for key, x in state[name].items()} for name in theta},
            {name: dict(k) for name, k in proposal.scalars.items()},
            traced,
        )


def _fold(
    chosen: Backend,
    xp: Namespace,
    plan: Plan,
    state: Mapping[str, Arrays],
    scalars: Mapping[str, Scalars],
    stream: str,
) -> Folding:
    """The microbatches of one update, before the first."""
    return Folding(plan, xp, state.__getitem__, scalars, stream=stream, working=chosen.working)


def _arrays(given: object, where: str) -> dict[str, Numpy]:
    """name -> array. RecipeError for what is no mapping of names to arrays."""
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where}: a mapping of names to arrays, got {type(given).__name__}")
    try:
        return {name: np.asarray(x) for name, x in given.items()}
    except ValueError as error:
        raise RecipeError(f"{where}: not arrays ({error})") from error


def _plan(recipe: Recipe, params: Named, dtype: str) -> Plan:
    for name, x in _arrays(params, "params").items():
        if not np.issubdtype(x.dtype, np.floating) and not np.issubdtype(x.dtype, np.integer):
            raise RecipeError(f"params: {name!r} is {x.dtype}; parameters are real numbers")
    shapes = {name: np.shape(x) for name, x in params.items()}
    return Plan(recipe, shapes, float64=dtype == "float64", dtypes=dict.fromkeys(shapes, dtype))


def _check(t: int, plan: Plan, gradients: Mapping[str, Numpy], dtype: str) -> None:
    """GradientError or NonFiniteError for what no update can be made of."""
    for name, g in gradients.items():
        plan.known(name)
        real = np.issubdtype(g.dtype, np.floating)
        kind = "real" if real else "complex" if np.iscomplexobj(g) else str(g.dtype)
        check_gradient(name, plan.groups[plan.group_of[name]].views[name].stored, g.shape, kind)
        bound = np.float64(min(plan.largest(name), float(np.finfo(working(dtype)).max)))
        if not (np.abs(rounded(g, dtype)) <= bound).all():  # float16 makes an infinity of 65520
            raise NonFiniteError(
                f"update {t}: the gradient of {name!r} holds NaN, infinity or numbers too large to square"
            )


def _increments(counts: int | Iterable[int]) -> tuple[int, Iterator[int]]:
    """(the first Δτ, all of them)."""
    if not isinstance(counts, Iterable) or np.ndim(counts) == 0:  # type: ignore[arg-type]
        every = increment(counts)
        return every, itertools.repeat(every)
    head, rest = itertools.tee(iter(counts))
    return increment(next(head, 1)), rest


def _trace(
    chosen: Backend,
    xp: Namespace,
    planned: PlannedGroup,
    theta: Arrays,
    state: Mapping[str, Arrays],
    evidence: Mapping[str, Arrays],
    k: Mapping[str, Scalars],
    name: str,
) -> dict[str, dict[str, Numpy]]:
    """g, s and u of one parameter: what has its shape as it is stored, what has its own as the row sees it."""
    seen = planned.views[name]
    if seen.size == 0:
        return {"g": {}, "s": {}, "u": {}}
    widen = chosen.working
    here, kept = opened(planned.row.storage, widen, theta[name], state[name])
    g, s, u = propose(
        xp,
        planned.row,
        seen.apply(xp, here),
        planned.seen(xp, name, kept),
        planned.measured(xp, name, {key: widen(x) for key, x in evidence[name].items()}),
        k[name],
    )
    shown = {
        "g": {key: x if key else seen.undo(xp, x) for key, x in g.items()},
        "s": planned.stored(xp, name, {key: s[key] for key in kept}),
        "u": {key: x if key else seen.undo(xp, x) for key, x in u.items()},
    }
    return {stage: {key: chosen.to_numpy(x) for key, x in arrays.items()} for stage, arrays in shown.items()}
