"""Parameters and their gradients end to end in memory, so that one call updates all of a group, without copies.

Of every group with an elementwise row the parameters of one type and device become pieces of one array, each in its
place in the model, and their gradients pieces of another one. A gradient that is made elsewhere, as by the first
``backward()`` after ``zero_grad()``, is copied to its place by the next step. With ``zero_grad(set_to_none=False)``
gradients stay where they are, and ``backward()`` adds to them there; parameters then have a gradient of 0 where the
loss does not depend on them.
"""

from __future__ import annotations

from operator import is_

import torch

from dualopt.microbatches import GRADIENT, Evidence
from dualopt.plan import Plan

from .parameters import Named


class Flat:
    """The arrays of gradients, the places of them by parameter, and the evidence that they are where all have one."""

    def __init__(self, named: Named, plan: Plan) -> None:
        self.arrays: Named = {}  # by numbers
        self.places: Named = {}
        for planned in plan.groups:
            alike: dict[tuple[torch.dtype, torch.device], list[str]] = {}
            for name in planned.names if planned.row.local else ():
                p = named[name]
                if p.numel() and p.is_contiguous():
                    alike.setdefault((p.dtype, p.device), []).append(name)
            for names in alike.values():
                self._lay({name: named[name] for name in names})
        self._named, self._shapes = named, [plan.shapes[name] for name in named]
        self._places = [self.places.get(name) for name in named]
        folds = [planned.row.folds for planned in plan.groups]
        single = all(fold.least <= 1 for found in folds for fold in found.values())
        self._complete = single and len(self.places) == len(named)
        self._evidence: Evidence = {name: {GRADIENT: self.places[name]} for name in named if name in self.places}

    def whole(self) -> Evidence | None:
        """Gather, and the evidence, the same every time; None where a parameter has no gradient, or no place for it."""
        if not self._complete:
            self.gather()
            return None
        if not self._placed():
            self.gather()
        fit = self._placed() and [p.shape for p in self._named.values()] == self._shapes
        return self._evidence if fit else None

    def _placed(self) -> bool:
        """True if every parameter has its gradient in its place."""
        return all(map(is_, [p.grad for p in self._named.values()], self._places))

    @torch.no_grad()
    def _lay(self, parameters: Named) -> None:
        here = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        gradients = torch.zeros_like(here)
        self.arrays[str(len(self.arrays))] = gradients
        end = 0
        for name, p in parameters.items():
            start, end = end, end + p.numel()
            p.data = here[start:end].view(p.shape)
            self.places[name] = gradients[start:end].view(p.shape)

    @torch.no_grad()
    def gather(self) -> None:
        """Put gradients in their places, those that fit there."""
        away = [
            (p, place, p.grad)
            for p, place in ((self._named[name], place) for name, place in self.places.items())
            if p.grad is not None and p.grad is not place and _fits(p.grad, place)
        ]
        if away:
            torch._foreach_copy_([place for _, place, _ in away], [g for _, _, g in away])
            for p, place, _ in away:
                p.grad = place

    def zero(self) -> bool:
        """Make all gradients 0; False, and nothing happens, where one is not in its place."""
        if any(p.grad is not None and p.grad is not self.places.get(name) for name, p in self._named.items()):
            return False
        for x in self.arrays.values():
            x.zero_()
        return True


def _fits(g: torch.Tensor, place: torch.Tensor) -> bool:
    same = g.shape == place.shape and g.dtype == place.dtype and g.device == place.device
    return same and g.layout == torch.strided and g.untyped_storage().data_ptr() != place.untyped_storage().data_ptr()
