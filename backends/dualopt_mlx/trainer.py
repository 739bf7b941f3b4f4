"""The MLX side of the workload: a `dualopt.workload.train.Trainer`."""

# mlx.nn has neither annotations nor explicit exports:
# mypy: disable-error-code="attr-defined,no-untyped-call"

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from dualopt.checkpoint import Snapshot
from dualopt.errors import RecipeError
from dualopt.workload.model import GPTConfig, initial
from dualopt_mlx.gpt import GPT, loss

Array = np.ndarray[Any, Any]


class Stepper(Protocol):
    """What the trainer asks of its optimizer, whose snapshot covers the parameters too."""

    @property
    def state(self) -> Any: ...

    def update(self, model: GPT, gradients: Any, *, count: int) -> Any: ...

    def evaluating(self) -> AbstractContextManager[None]: ...

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...


class MLXTrainer:
    """A GPT with the initial values of ``seed`` on MLX's default device, and ``optimizer(model)``."""

    def __init__(self, config: GPTConfig, seed: int, optimizer: Callable[[GPT], Stepper]) -> None:
        self.config = config
        self.model = GPT(config, initial(config, seed))
        self.optimizer = optimizer(self.model)
        self._loss_and_gradients = nn.value_and_grad(
            self.model, lambda inputs, targets: loss(self.model, inputs, targets)
        )
        self._gradients: Any = {}

    def update(self, inputs: Array, targets: Array, count: int) -> float:
        value, self._gradients = self._loss_and_gradients(mx.array(inputs), mx.array(targets))
        self.optimizer.update(self.model, self._gradients, count=count)
        mx.eval(value, self._gradients, self.model.parameters(), self.optimizer.state)
        return _float(value)

    def gradients(self) -> dict[str, Array]:
        flat: Any = tree_flatten(self._gradients)
        return {name: np.array(array.astype(mx.float32)) for name, array in flat}

    def evaluate(self, inputs: Array, targets: Array) -> float:
        with self.optimizer.evaluating():
            return _float(loss(self.model, mx.array(inputs), mx.array(targets)))

    def snapshot(self) -> Snapshot:
        return self.optimizer.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self.optimizer.restore(snapshot)

    def describe(self) -> dict[str, Any]:
        return {
            "framework": "mlx",
            "version": importlib.metadata.version("mlx"),
            "device": mx.default_device().type.name,
            "threads": None,
        }


def _float(value: Any) -> float:
    return float(value.item())


def trainer(config: GPTConfig, recipe: Any, *, seed: int, tier: str = "fast", device: str | None = None) -> MLXTrainer:
    """A trainer with the optimizer of ``recipe``, whatever `dualopt.optimizer` accepts as one.

    ``device``: "cpu" or "gpu" becomes MLX's default device in this process.
    """
    import dualopt

    if device is not None:
        if device not in ("cpu", "gpu"):
            raise RecipeError(f"MLX has no device {device!r}; valid are 'cpu' and 'gpu'")
        mx.set_default_device(mx.Device(getattr(mx, device)))
    return MLXTrainer(config, seed, lambda model: dualopt.optimizer(model, recipe, tier=tier))
