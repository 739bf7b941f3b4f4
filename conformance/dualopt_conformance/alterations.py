"""How a wrong optimizer, or the same one written differently, is made from the right one: one change at a time.

`altered` is one update of a group by the core's recursion in numpy's exact tier, in which something is replaced:
a formula of a part (`rewired`), coordinates, clocks, scalars, views, what comes in or what goes out. Nothing else
differs, so what a comparison finds is the change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np

from dualopt.clock import Clock
from dualopt.exact import exact
from dualopt.executor import executor
from dualopt.planned import PlannedGroup
from dualopt.proposal import Proposal
from dualopt.recursion import Action, Namespace, Row
from dualopt.storage import rounded
from dualopt.views import View

from .walk import Arrays, Moved, States, Step, measured

Array = np.ndarray[Any, Any]
Scalars = dict[str, float]
Maker = Callable[[], Step]
RowChange = Callable[[Row], Row]
ClockChange = Callable[[Clock, Clock], Clock]  # (the parameter's, the oldest of the group's) -> the parameter's

Entry = tuple[str, str, Maker, str]  # name, what, step, globs of cases with spaces between: of one part

EXACT = exact(np)


@dataclass(frozen=True)
class Mutant:
    """A candidate update, and whether a comparison has to catch it.

    Attributes:
        name: unique.
        part: of the recursion, e.g. ``memory``.
        what: what it does instead, in a line.
        step: makes the update; it may remember the updates that it has carried out.
        cases: globs of the cases that it is tried on, in order.
        legitimate: the same mathematics, written differently.
    """

    name: str
    part: str
    what: str
    step: Maker
    cases: tuple[str, ...]
    legitimate: bool = False


def rewired(kind: type[Any], **methods: Any) -> RowChange:
    """A row in which the parts that are a `kind` have other methods (or properties)."""

    def within(x: Any) -> Any:
        if isinstance(x, kind):
            made = type(type(x).__name__, (type(x),), methods)
            return made(**{f.name: getattr(x, f.name) for f in fields(x)})
        if is_dataclass(x) and not isinstance(x, type):
            return replace(x, **{f.name: within(getattr(x, f.name)) for f in fields(x)})
        return x

    return within


def exchanged(kind: type[Any], part: Any) -> RowChange:
    """A row in which `part` stands in the place of every `kind`."""

    def within(x: Any) -> Any:
        if isinstance(x, kind):
            return part
        if is_dataclass(x) and not isinstance(x, type):
            return replace(x, **{f.name: within(getattr(x, f.name)) for f in fields(x)})
        return x

    return within


def having(kind: type[Any], **changed: Any) -> RowChange:
    """A row in which the parts that are a `kind` have other fields."""

    def within(x: Any) -> Any:
        if isinstance(x, kind):
            return replace(x, **changed)
        if is_dataclass(x) and not isinstance(x, type):
            return replace(x, **{f.name: within(getattr(x, f.name)) for f in fields(x)})
        return x

    return within


def altered(
    *rows: RowChange,
    action: Callable[[Action], Mapping[str, Any]] | None = None,
    clock: ClockChange | None = None,
    scalars: Callable[[Scalars, Action], Mapping[str, float]] | None = None,
    view: Callable[[View], View] | None = None,
    before: Callable[[Array, Arrays, Array], tuple[Array, Arrays, Array]] | None = None,
    after: Callable[[Arrays, Array, Arrays], tuple[Array, Arrays]] | None = None,
    xp: Namespace = EXACT,
    apart: bool = False,
) -> Maker:
    """Makes an update with these changes; without any, the reference itself.

    Args:
        rows: changes of the row, in order.
        action: coordinates -> those that differ.
        clock: of each parameter.
        scalars: (k, coordinates) -> the scalars that differ.
        view: of each parameter.
        before: (θ, s, gradient) of each parameter, as they come in.
        after: (θ+, s+) of each parameter, as they go out, from (s, θ+, s+).
        xp: the namespace.
        apart: every parameter is a group of its own.
    """
    execute = executor(xp)

    def step(planned: PlannedGroup, theta: Arrays, state: States, gradient: Arrays, proposal: Proposal) -> Moved:
        row, chosen = planned.row, planned.action
        for change in rows:
            row = change(row)
        if action:
            chosen = {**chosen, **action(chosen)}
        views = {name: view(v) if view else v for name, v in planned.views.items()}
        oldest = max(proposal.clocks.values(), key=lambda c: c.tau)
        here: dict[str, Any] = {}
        kept: dict[str, Any] = {}
        arriving: dict[str, Any] = {}
        k: dict[str, Scalars] = {}
        for name in theta:
            own = proposal.clocks[name]
            derived = row.scalars(chosen, clock(own, oldest) if clock else own, views[name].logical)
            k[name] = {**derived, **scalars(derived, chosen)} if scalars else derived
            arrays = theta[name], state[name], gradient[name]
            here[name], kept[name], arriving[name] = before(*arrays) if before else arrays
        group = replace(planned, row=row, action=chosen, views=views)
        moved: dict[str, tuple[Array, Arrays]] = {}
        for names in [[name] for name in theta] if apart else [list(theta)]:
            one, two, three = ({name: each[name] for name in names} for each in (here, kept, arriving))
            moved |= execute(group, one, two, measured(three), k)
        found = {}
        for name, (x, s) in moved.items():
            asked = {key: s[key] for key in state[name]}  # a changed memory may have passed on more
            found[name] = after(state[name], x, asked) if after else (x, asked)
        return found

    return lambda: step


def single(x: float) -> float:
    """A scalar as an array in float32 meets it."""
    return float(np.float32(x))


def bfloat16(x: Any) -> Array:
    """Rounded to the nearest bfloat16, as float32."""
    return rounded(np.asarray(x, np.float32), "bfloat16")


def marked(mark: Callable[[Array], Array], theta: Array, s: Arrays, g: Array) -> tuple[Array, Arrays, Array]:
    """`mark` of all that comes in."""
    return mark(theta), {key: mark(x) for key, x in s.items()}, mark(g)


def arithmetic(after: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Marks an array: it, and every result of an elementwise operation or product with it, goes through `after`."""

    class Marked(np.ndarray[Any, Any]):
        def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
            return _mark(getattr(ufunc, method)(*map(_plain, inputs), **options), after)

        def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
            return _mark(function(*map(_plain, args), **options), None)

    def _plain(x: Any) -> Any:
        if isinstance(x, list | tuple):
            return type(x)(map(_plain, x))
        return x.view(np.ndarray) if isinstance(x, Marked) else x

    def _mark(x: Any, rounding: Callable[[Array], Array] | None) -> Any:
        x = np.asarray(x)
        if rounding and x.dtype == np.float32:
            x = rounding(x)
        return x.view(Marked)

    return lambda x: _mark(x, after)
