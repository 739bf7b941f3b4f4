"""One update of MLX arrays: what was measured, by streams or at once, and what moves; eager, or traced with a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import mlx.core as mx
from mlx.optimizers import Optimizer as Base

from dualopt.agreement import agreed
from dualopt.clipping import clipped
from dualopt.errors import GradientError, RecipeError, StaleScalarsError
from dualopt.halves import divisible
from dualopt.microbatches import Evidence, Folding, measured, stream_of
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup
from dualopt.proposal import Proposal
from dualopt.recipe import TRUST
from dualopt.recursion import Shape
from dualopt.watch.measurement import Measurement

from .distributed import Given, Sharing
from .execute import Masked, can_compile, kept_where
from .finite import offending
from .namespace import EXACT, FAST
from .parameters import Named, Tree, gradients_of, traced, values_of, working
from .state import Memory, State
from .watching import Watching


class _BadError(Exception):
    """The gradient of `name` is not finite."""

    def __init__(self, name: str) -> None:
        self.name = name


class Updating(Base):
    """The part of `Optimizer` that carries out an update."""

    tier: str
    plan: Plan
    _execute: Masked
    _sharing: Sharing | None
    _shapes: dict[str, Shape]
    _largest: dict[str, float]
    _tied: dict[str, str]
    _store: State
    _ready: Proposal | None
    _used: bool
    _watching: Watching
    _require_training: Any  # of `evaluation`

    def _moved(
        self, tree: Tree, gradients: Tree | None, microbatches: object, samples: object, count: int | None
    ) -> Named:
        """The parameters that move; counts, scalars and memories follow."""
        theta: Named = {}
        xp = EXACT if self.tier == "exact" else FAST
        bad = mx.array(0, mx.int32)
        is_traced = False

        def take(stream: str, given: Any) -> Named:
            nonlocal bad, is_traced
            named = gradients_of(given, self._shapes, self._tied)
            theta.update(values_of(tree, named, self._shapes))
            if self.plan.recipe.nonfinite != TRUST:
                bad = mx.maximum(bad, offending(named, self._largest, self._store.places, compiled=can_compile()))
            is_traced = self._is_traced([bad, *islice(named.values(), 1)])
            place: Any = 0 if is_traced else bad.item()
            if place:
                raise _BadError(self._store.names[place - 1])
            return named

        def propose(named: Mapping[str, Any]) -> Proposal:
            proposal = self._begin(named, count, traced=is_traced)
            if not is_traced:
                self._anchor(theta, named)
            return proposal

        def begin(scalars: Any, stream: str) -> Folding:
            k, memory = self._store.scalars(scalars), self._store.tree["memory"]
            keep = (lambda arrays: None) if is_traced else mx.eval
            return Folding(self.plan, xp, memory.__getitem__, k, stream=stream, keep=keep)

        def find() -> tuple[Evidence, Proposal] | None:
            self._require_training("update()")
            if (gradients is None) == (microbatches is None):
                raise GradientError("an update has either gradients or microbatches")
            given = gradients if microbatches is None else stream_of(microbatches)
            try:
                return measured(self.plan, given, samples, take=take, propose=propose, begin=begin)
            except _BadError as error:
                self._settle()
                self._refuse(error.name)
                return None

        sharing = self._sharing
        together = sharing is not None and not self._store.captured()  # what is traced cannot be compared
        found = agreed(sharing, self.plan.tau, find) if sharing is not None and together else find()
        if found is None:  # skipped
            self._drop()
            return theta
        evidence, proposal = clipped(xp, self.plan.groups, found[0], working), found[1]
        if sharing is not None and is_traced:
            bad = sharing.worst(bad)
        ok = self._store.consume(bad, frozenset(evidence)) if is_traced else None
        at = self.plan.tau
        measurement = self._watching.measurement(proposal, at, traced=is_traced)
        moved, memory = self._updated(evidence, theta, ok, measurement)
        self._store.keep(memory)
        if not is_traced:
            self.plan.commit(proposal)
            self._store.updates += 1
            self._done()
        if measurement:
            self._watching.measured(measurement, proposal, at, traced=is_traced)
        return moved

    def _begin(self, named: Mapping[str, Any], count: int | None, *, traced: bool) -> Proposal:
        """The update of `named` that is ready, or a new one with its scalars in the store."""
        if not traced:
            self._settle()
            proposal = self._proposal(named, count)
            if self._ready is None:
                self._fill(proposal)
            return proposal
        if self.tier == "exact":
            raise RecipeError("the exact tier runs eagerly: a compiler may contract a·b + c. Use opt.compile(step)")
        if self._ready is None or self._used:
            raise StaleScalarsError(
                "update() is being traced without scalars of its own: call opt.advance(count) before every call of "
                "the compiled step, or use opt.compile(step); one update per step"
            )
        proposal = self._proposal(named, count)
        self._used = True
        return proposal

    def _is_traced(self, measured: list[mx.array]) -> bool:
        """Whether this update, of which these arrays are a part, is being traced; evaluates them otherwise."""
        try:
            inside, captured = traced(measured), self._store.captured()
        except RuntimeError:  # what dropout has drawn in a trace is not marked as such
            if not self._store.captured():
                raise
            return True
        if inside and not captured:
            raise StaleScalarsError(
                "update() is being traced, but opt.state is not among the inputs and outputs of mx.compile: counts "
                "and scalars would be frozen. Use opt.compile(step), or capture [model.state, opt.state] in both"
            )
        return captured

    def _updated(
        self, evidence: Evidence, theta: Named, ok: mx.array | None, measurement: Measurement | None
    ) -> tuple[Named, Memory]:
        """(parameters, memories) after the update that is ready, or before it where not `ok`; nothing is modified."""
        moved: Named = {}
        memory: Memory = {}
        updates = [self._given(planned, evidence, theta) for planned in self.plan.groups]
        sharing = self._sharing
        divided = [] if sharing is None else [u for u in updates if u.theta and divisible(u.planned)]
        directed = sharing.directed(divided) if sharing is not None and divided else {}
        for update in updates:
            planned, here, kept, given, scalars = update.planned, update.theta, update.state, update.evidence, update.k
            if measurement:
                measurement.before(planned, here, kept, given, scalars)
            if sharing is not None and divisible(planned):
                found = kept_where(ok, sharing.moved(update, directed), here, kept)
            else:
                found = self._execute(planned, here, kept, given, scalars, ok)
            for name, (x, s) in found.items():
                moved[name], memory[name] = x, s
            if measurement:
                measurement.after(planned, {name: moved[name] for name in here}, memory)
        return moved, memory

    def _given(self, planned: PlannedGroup, evidence: Evidence, theta: Named) -> Given:
        names = [name for name in planned.names if name in evidence]
        memory = self._store.tree["memory"]
        return Given(
            planned,
            {name: theta[name] for name in names},
            {name: memory[name] for name in names},
            {name: evidence[name] for name in names},
            self._store.scalars(names),
        )

    def _proposal(self, named: Mapping[str, Any], count: int | None) -> Proposal:
        raise NotImplementedError

    def _fill(self, proposal: Proposal) -> None:
        raise NotImplementedError

    def _anchor(self, model: Tree, names: Iterable[str]) -> None:
        raise NotImplementedError

    def _done(self) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError

    def _settle(self) -> None:
        raise NotImplementedError

    def _refuse(self, name: str) -> None:
        raise NotImplementedError
