"""What all peers in torch share: parameters with gradients, and a look at them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from ..subject import Subject, Task, UnavailableError

Numpy = np.ndarray[Any, Any]
MOST_WITHOUT = 2e10  # operations of a step in bfloat16 that are waited for on a CPU that only emulates them


class Held:
    """The parameters of a task, by name, and gradients that are put into their places before every step.

    With `scratch` the gradients are copied there, for optimizers that write into them. With `stay` those that an
    optimizer has moved are left where they are now.
    """

    def __init__(self, task: Task, *, scratch: bool = False, stay: bool = False) -> None:
        dtype = getattr(torch, task.dtype)
        self.named = {name: torch.tensor(x, dtype=dtype).requires_grad_() for name, x in task.parameters()}
        self.gradients = {name: torch.tensor(x, dtype=dtype) for name, x in task.gradients()}
        self._given = {n: g.clone() for n, g in self.gradients.items()} if scratch else self.gradients
        self._pairs = [(x, self._given[n], self.gradients[n]) for n, x in self.named.items()]
        self._scratch, self._stay, self._sampled = scratch, stay, task.sampled

    @property
    def parameters(self) -> list[torch.Tensor]:
        return list(self.named.values())

    def prepare(self) -> None:
        for x, given, clean in self._pairs:
            if self._scratch:
                given.copy_(clean)
            if x.grad is None or not self._stay:
                x.grad = given

    def values(self) -> list[Numpy]:
        return looked_at(self.named.values(), self._sampled)

    def subject(self, start: Callable[[], Callable[[], object]], **more: Any) -> Subject:
        return Subject(start, self.values, self.prepare, **more)


def multiplies_bfloat16() -> bool:
    """Has this CPU instructions for products in bfloat16? Without them torch takes far longer than in float32."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def require_bfloat16(task: Task, package: str) -> None:
    """Raises: UnavailableError if a step that multiplies in bfloat16 would take minutes here."""
    operations = sum(2 * min(s[-2:]) * math.prod(s) * 15 for s in task.shapes.values() if len(s) > 1)
    if operations > MOST_WITHOUT and not multiplies_bfloat16():
        raise UnavailableError(f"{package} multiplies in bfloat16, for which this CPU has no instructions")


def looked_at(tensors: Iterable[torch.Tensor], sampled: int) -> list[Numpy]:
    """Some elements of each, evenly spread."""
    found = []
    for x in tensors:
        flat = x.detach().reshape(-1)
        found.append(flat[:: max(1, flat.numel() // sampled)][:sampled].to(torch.float32).numpy(force=True).copy())
    return found
