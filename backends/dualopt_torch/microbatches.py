"""Several gradients per update on torch: streams of gradient trees, and `accumulate` in loops of ``backward()``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from dualopt.errors import CountError, DistributionError, GradientError, RecipeError, StaleScalarsError
from dualopt.microbatches import GRADIENT, SAMPLES, Evidence, Folding, measured
from dualopt.plan import Plan
from dualopt.proposal import Proposal
from dualopt.recursion import Scalars

from .execute import recorded
from .kernels import working
from .namespace import EXACT, FAST
from .parameters import Named, named_parameters
from .remembering import Remembering

SEVERAL = "folding several gradients into one update (let them add up in p.grad instead)"


class Microbatches(Remembering):
    """The part of `Optimizer` that folds."""

    plan: Plan
    tier: str
    _named: Named
    _foldings: dict[str, Folding]
    _told: int | None
    _spoiled: bool

    def accumulate(self, *, count: int | None = None, samples: bool = False) -> None:
        """Fold the gradients of one microbatch, and clear them: after ``backward()``, in place of adding up.

        ``step()`` then carries out the update. The mean over the microbatches is what counts, so do not divide the
        losses by their number. Memory does not grow with it.

        Args:
            count: Δτ of the whole update, if not the recipe's `per_update`; with the first microbatch.
            samples: the loss was that of sampled labels: an estimate of the curvature, for rows that read it.

        Raises:
            GradientError, NonFiniteError: bad gradients; this microbatch is not in, those before it are.
            CountError: a count that is not that of the first microbatch.
        """
        self._refuse_sharded(SEVERAL)
        gradients = self._present()
        if not gradients:
            raise GradientError("accumulate() found no gradients: call it after backward()")
        finite = self._check(gradients)
        stream = SAMPLES if samples else GRADIENT
        if stream == SAMPLES:
            gradients = {n: g for n, g in gradients.items() if SAMPLES in self._row_streams(n)}
            if not gradients:
                raise GradientError("no row reads gradients of sampled labels; sophia with hessian = 'samples' does")
        if self._told is None:
            self._told = self._propose(count, gradients).dtau
        elif count not in (None, self._told):
            raise CountError(f"the microbatches before belong to an update of count = {self._told}, not {count}")
        if not finite:
            self._spoiled = True
        else:
            self._folded(stream, gradients)
        for p in self._named.values():
            p.grad = None

    def discard(self) -> None:
        """Forget what `accumulate` has folded since the last step."""
        self._foldings, self._told, self._spoiled = {}, None, False

    def _folded(self, stream: str, gradients: Named) -> None:
        """Add a microbatch to its stream, begun if it is the first."""
        found = self._foldings.get(stream)
        if found is None:
            found = self._begin(self._propose(self._told, gradients).scalars, stream)
            if found.passes > 1:
                raise GradientError(
                    "leave-one-out reads the microbatches twice, and accumulate() sees them once: "
                    "call step(microbatches=...) with a list, or dualopt_torch.microbatches(model, loss, batches)"
                )
        found.add(gradients)
        self._foldings[stream] = found

    def _accumulated(self) -> tuple[Evidence, Proposal] | None:
        """What `accumulate` has gathered; None if the update is to be skipped."""
        if self._present():
            raise GradientError("there are gradients beside the accumulated ones: call accumulate() for them too")
        if self._spoiled:
            return None
        if GRADIENT not in self._foldings:
            raise GradientError("accumulate(samples=True) alone is no update: accumulate gradients of the loss too")
        for folding in self._foldings.values():
            folding.turn()
        evidence = self._foldings[GRADIENT].evidence()
        for name, found in self._foldings[SAMPLES].evidence().items() if SAMPLES in self._foldings else ():
            if name not in evidence:
                raise GradientError(f"samples: a gradient of {name!r}, which has none of the loss in this update")
            evidence[name] = {**evidence[name], **found}
        return evidence, self._propose(self._told, evidence)

    def _streamed(
        self, gradients: object, samples: object, propose: Callable[[Mapping[str, Any]], Proposal]
    ) -> tuple[Evidence, Proposal] | None:
        """Evidence and proposal of the given gradients, a mapping or a stream; None: skip the update."""

        def take(stream: str, tree: object) -> Named | None:
            named = self._tensors(stream, tree)
            if recorded(named) and tree is not gradients:
                raise StaleScalarsError(
                    "microbatches are folded eagerly: call this step outside of traces and captures"
                )
            return named if self._check(named) else None

        given = gradients if isinstance(gradients, Mapping) else _Outside.around(gradients)
        sampled = samples if samples is None or isinstance(samples, Mapping) else _Outside.around(samples)
        return measured(self.plan, given, sampled, take=take, propose=propose, begin=self._begin)

    def _begin(self, scalars: Mapping[str, Scalars], stream: str) -> Folding:
        self._refuse_sharded(SEVERAL)
        xp = EXACT if self.tier == "exact" else FAST
        return Folding(self.plan, xp, self._memories, scalars, stream=stream, working=working)

    def _tensors(self, stream: str, tree: object) -> Named:
        """{name: tensor} of a tree. GradientError for anything else."""
        if not isinstance(tree, Mapping):
            raise GradientError(f"{stream}: a mapping of parameter names to tensors, got {type(tree).__name__}")
        for name, g in tree.items():
            self.plan.known(name)
            if g is not None and not isinstance(g, torch.Tensor):
                raise GradientError(f"gradient of {name!r} is a {type(g).__name__}, not a tensor")
        return {name: g.detach() if g.requires_grad else g for name, g in tree.items() if g is not None}

    def _row_streams(self, name: str) -> Mapping[str, Any]:
        return self.plan.groups[self.plan.group_of[name]].row.folds

    def _present(self) -> Named:
        return {name: p.grad for name, p in self._named.items() if p.grad is not None}

    def _check(self, gradients: Named) -> bool:
        raise NotImplementedError

    def _propose(self, count: int | None, names: Iterable[str]) -> Proposal:
        raise NotImplementedError


class _Outside:
    """A stream of trees that are computed outside of `no_grad`, in which a step runs."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self._stream = stream

    @classmethod
    def around(cls, trees: object) -> object:
        """`trees` as such a stream, which can be read again if `trees` can."""
        if not isinstance(trees, Iterable):
            return trees
        return cls(trees) if isinstance(trees, Iterator) else _Again(trees)

    def __iter__(self) -> _Outside:
        return self

    def __next__(self) -> Any:
        with torch.enable_grad():
            return next(self._stream)


class _Again:
    def __init__(self, trees: Iterable[Any]) -> None:
        self._trees = trees

    def __iter__(self) -> _Outside:
        return _Outside(iter(self._trees))


class microbatches:  # noqa: N801  (reads as a function)
    """The gradients of ``loss(batch)`` for every batch, as a stream that computes them anew when read again.

    ``opt.step(microbatches=microbatches(model, loss, batches), count=...)``: one gradient is alive at a time,
    whatever the number of batches. A second reading starts from the random state of the first, so dropout falls on
    the same entries; what a forward pass changes in the model (running statistics) changes twice.

    Args:
        model: as the optimizer got it.
        loss: one batch -> a scalar tensor.
        batches: a list, or anything else that can be read twice if the estimator does.
    """

    def __init__(
        self,
        model: torch.nn.Module | Mapping[str, torch.Tensor],
        loss: Callable[[Any], torch.Tensor],
        batches: Iterable[Any],
    ) -> None:
        if isinstance(batches, Iterator):
            raise RecipeError("batches are read more than once by some estimators: give a list, not an iterator")
        if isinstance(model, torch.nn.parallel.DistributedDataParallel):
            raise DistributionError(
                "DistributedDataParallel averages gradients in backward(), which is not called here: each process "
                "would go its own way. Call backward() and opt.accumulate() for every batch"
            )
        self._parameters = named_parameters(model).parameters
        self._loss, self._batches = loss, batches
        self._random: list[torch.Tensor] | None = None

    def __iter__(self) -> Iterator[Named]:
        if self._random is None:
            self._random = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        else:
            torch.set_rng_state(self._random[0])
            torch.cuda.set_rng_state_all(self._random[1:])
        for batch in self._batches:
            found = torch.autograd.grad(self._loss(batch), tuple(self._parameters.values()), materialize_grads=True)
            yield dict(zip(self._parameters, found, strict=True))
