"""The host's side of several gradients per update: reading the stream, counting, and refusing what does not fit.

`Folding` holds the accumulators of one update, apart from parameters and state, so that an error on the way
leaves no trace. `folded` reads an iterable of trees with it: once, or twice if a row's fold has two passes.
Every microbatch has gradients of the same parameters: one that a parameter has no part in is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .errors import GradientError
from .fold import Fold
from .plan import Plan
from .planned import PlannedGroup
from .proposal import Proposal
from .recursion import Arrays, Namespace, Scalars

GRADIENT, SAMPLES = "gradient", "samples"  # streams: of the loss, and of the loss under sampled labels
WHAT = {GRADIENT: "microbatches", SAMPLES: "samples"}

Named = Mapping[str, Any]  # name -> gradient
Take = Callable[[str, Any], "Named | None"]
Evidence = dict[str, Arrays]


def _few(planned: PlannedGroup, fold: Fold, count: int, stream: str) -> str:
    chosen = f" with estimator = {planned.action['estimator']!r}" if "estimator" in planned.action else ""
    return (
        f"group {planned.group.name!r}: {planned.row.name}{chosen} needs at least {fold.least} {WHAT[stream]} per "
        f"update, got {count}; give a list of gradient trees"
    )


class Folding:
    """The microbatches of one update, folded as they come.

    Args:
        plan: which parameter has which row.
        xp: the namespace of the arrays.
        state: name -> the stored state before the update, {key: array} in the working type.
        scalars: {name: k} of the update to come.
        stream: which one this is.
        working: stored array -> the array that is computed with.
        keep: what is done to the accumulators after every microbatch; lazy frameworks evaluate them.
    """

    def __init__(
        self,
        plan: Plan,
        xp: Namespace,
        state: Callable[[str], Arrays],
        scalars: Mapping[str, Scalars],
        *,
        stream: str = GRADIENT,
        working: Callable[[Any], Any] = lambda x: x,
        keep: Callable[[list[Any]], object] = lambda arrays: None,
    ) -> None:
        self._plan, self._xp, self._stream = plan, xp, stream
        self._working, self._keep = working, keep
        self._scalars = {name: k for name, k in scalars.items() if self._planned(name).views[name].size}
        self._names = frozenset(scalars)
        self._folds = {name: self._planned(name).row.folds[stream] for name in scalars}
        self._state = {name: self._planned(name).seen(xp, name, state(name)) for name in self._scalars}
        self._acc: dict[str, Arrays] = {}
        self.count = 0
        self._second = 0

    @property
    def passes(self) -> int:
        return max((fold.passes for fold in self._folds.values()), default=1)

    def add(self, named: Mapping[str, Any]) -> None:
        """The next microbatch of the first pass: {name: gradient}, checked already."""
        self._same(named, self.count)
        xp, new = self._xp, {}
        for name, k in self._scalars.items():
            g, fold = self._seen(name, named[name]), self._folds[name]
            acc = self._acc[name] if self.count else fold.start(xp, xp.zeros_like(g))
            new[name] = fold.add(xp, acc, g, self._state[name], k, self.count)
        self._settle(new)
        self.count += 1

    def turn(self) -> None:
        """The end of the first pass. GradientError for too few microbatches."""
        for name, fold in self._folds.items():
            if self.count < fold.least:
                raise GradientError(_few(self._planned(name), fold, self.count, self._stream))
        new = {n: self._folds[n].turn(self._xp, self._acc[n], self._state[n], k, self.count) for n, k in self._twice()}
        self._settle(new)

    def again(self, named: Mapping[str, Any]) -> None:
        """The next microbatch of the second pass."""
        self._same(named, self._second)
        if self._second >= self.count:
            raise GradientError(f"the second pass has more {WHAT[self._stream]} than the first, which had {self.count}")
        new = {}
        for name, k in self._twice():
            g, fold = self._seen(name, named[name]), self._folds[name]
            j, count = self._second, self.count
            new[name] = fold.again(self._xp, self._acc[name], g, self._state[name], k, j, count)
        self._settle(new)
        self._second += 1

    def evidence(self) -> Evidence:
        """{name: evidence}, in the stored shapes where it has that of the parameter."""
        if self.passes > 1 and self._second != self.count:
            raise GradientError(f"the second pass has {self._second} {WHAT[self._stream]}, the first had {self.count}")
        out: dict[str, Arrays] = {name: {} for name in self._names}
        for name, k in self._scalars.items():
            view, fold = self._planned(name).views[name], self._folds[name]
            found = fold.done(self._xp, self._acc[name], self._state[name], k, self.count)
            out[name] = {key: x if key in fold.apart else view.undo(self._xp, x) for key, x in found.items()}
        return out

    def _planned(self, name: str) -> PlannedGroup:
        return self._plan.groups[self._plan.group_of[name]]

    def _seen(self, name: str, x: Any) -> Any:
        return self._planned(name).views[name].apply(self._xp, self._working(x))

    def _twice(self) -> list[tuple[str, Scalars]]:
        return [(name, k) for name, k in self._scalars.items() if self._folds[name].passes > 1]

    def _settle(self, new: dict[str, Arrays]) -> None:
        self._keep([x for acc in new.values() for x in acc.values()])
        self._acc |= new

    def _same(self, named: Mapping[str, Any], j: int) -> None:
        odd = sorted(self._names ^ set(named))
        if odd:
            raise GradientError(
                f"microbatch {j}: {'a' if odd[0] in named else 'no'} gradient of {odd[0]!r}, unlike the others of "
                "this update; every microbatch has gradients of the same parameters, zeros where it has none"
            )


def stream_of(trees: object) -> Iterable[Any]:
    """Microbatches as they were given. GradientError for one tree, or no iterable."""
    if isinstance(trees, Mapping) or not isinstance(trees, Iterable):
        raise GradientError(f"microbatches are an iterable of gradient trees, got {type(trees).__name__}")
    return trees


def folded(trees: object, begin: Callable[[Named], Folding], take: Callable[[Any], Named | None]) -> Folding | None:
    """The folding of an iterable of trees; None if one of them says that the update is to be skipped.

    Args:
        trees: each a tree of gradients; read again from its beginning if a fold has two passes.
        begin: the gradients of the first microbatch -> an empty folding.
        take: tree -> {name: gradient}, checked; None: skip the update.

    Raises:
        GradientError: no microbatches, or too few of them, or an iterator where two passes are needed.
    """
    stream = iter(stream_of(trees))
    folding: Folding | None = None
    for tree in stream:
        named = take(tree)
        if named is None:
            return None
        if folding is None:
            folding = begin(named)
            if folding.passes > 1 and stream is trees:
                raise GradientError(
                    "leave-one-out reads the microbatches twice, and an iterator can be read once: give a list, or an "
                    "object whose __iter__ computes the gradients again"
                )
        folding.add(named)
    if folding is None:
        raise GradientError("no microbatches: an update has at least one")
    folding.turn()
    if folding.passes > 1:
        for tree in stream_of(trees):
            named = take(tree)
            if named is None:
                return None
            folding.again(named)
    return folding


def single(plan: Plan, named: Named) -> Evidence:
    """The evidence of an update that has one gradient. GradientError for rows that need several."""
    for name in named:
        planned = plan.groups[plan.group_of[name]]
        if planned.row.folds[GRADIENT].least > 1:
            raise GradientError(_few(planned, planned.row.folds[GRADIENT], 1, GRADIENT))
    return {name: {GRADIENT: g} for name, g in named.items()}


def measured(
    plan: Plan,
    gradients: object,
    samples: object,
    *,
    take: Take,
    propose: Callable[[Named], Proposal],
    begin: Callable[[Mapping[str, Scalars], str], Folding],
) -> tuple[Evidence, Proposal] | None:
    """({name: evidence}, proposal) of one update; None if it is to be skipped. Nothing in the plan has changed.

    Args:
        gradients: a mapping, which is the gradient, or an iterable of trees, which are its microbatches.
        samples: the same of sampled labels; None: there are none.
        take: (stream, tree) -> {name: gradient}, checked; None: skip the update.
        propose: the gradients of the first microbatch -> the update to come.
        begin: ({name: k}, stream) -> an empty folding.
    """
    proposals: list[Proposal] = []

    def first(named: Named) -> Folding:
        proposals.append(propose(named))
        return begin(proposals[0].scalars, GRADIENT)

    if isinstance(gradients, Mapping):
        named = take(GRADIENT, gradients)
        if named is None:
            return None
        evidence = single(plan, named)
        proposals.append(propose(named))
    else:
        folding = folded(gradients, first, lambda tree: take(GRADIENT, tree))
        if folding is None:
            return None
        evidence = folding.evidence()
    if samples is None:
        return evidence, proposals[0]

    def reads(name: str) -> bool:
        return SAMPLES in plan.groups[plan.group_of[name]].row.folds

    def taken(tree: Any) -> Named | None:
        named = take(SAMPLES, tree)
        return named and {name: g for name, g in named.items() if reads(name)}

    def second(named: Named) -> Folding:
        odd = next((name for name in named if name not in evidence), None)
        if odd is not None or not named:
            raise GradientError(
                f"samples: a gradient of {odd!r}, which has none of the loss in this update"
                if odd
                else "samples: no row reads gradients of sampled labels; sophia with hessian = 'samples' does"
            )
        return begin({name: proposals[0].scalars[name] for name in named}, SAMPLES)

    folding = folded([samples] if isinstance(samples, Mapping) else samples, second, taken)
    if folding is None:
        return None
    for name, found in folding.evidence().items():
        evidence[name] = {**evidence[name], **found}
    return evidence, proposals[0]
