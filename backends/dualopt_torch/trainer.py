"""The torch side of the workload: a `dualopt.workload.train.Trainer`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np
import torch

from dualopt.checkpoint import Snapshot
from dualopt.workload.model import GPTConfig, initial
from dualopt_torch.gpt import GPT, loss

Array = np.ndarray[Any, Any]


class Stepper(Protocol):
    """What the trainer asks of its optimizer, whose snapshot covers the parameters too."""

    def step(self, *, count: int) -> Any: ...

    def evaluating(self) -> AbstractContextManager[None]: ...

    def snapshot(self) -> Snapshot: ...

    def restore(self, snapshot: Snapshot) -> None: ...


class TorchTrainer:
    """A GPT with the initial values of ``seed`` on ``device``, and ``optimizer(model)``."""

    def __init__(self, config: GPTConfig, seed: int, optimizer: Callable[[GPT], Stepper], device: str = "cpu") -> None:
        self.config = config
        self.device = torch.device(device)
        self.model = GPT(config, initial(config, seed)).to(self.device)
        self.optimizer = optimizer(self.model)

    def update(self, inputs: Array, targets: Array, count: int) -> float:
        self.model.zero_grad()
        value = loss(self.model, self._tensor(inputs), self._tensor(targets))
        value.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(count=count)
        return value.item()

    def gradients(self) -> dict[str, Array]:
        return {
            name: np.array(parameter.grad.numpy(force=True), np.float32)
            for name, parameter in self.model.named_parameters()
            if parameter.grad is not None
        }

    def evaluate(self, inputs: Array, targets: Array) -> float:
        with self.optimizer.evaluating(), torch.no_grad():
            return loss(self.model, self._tensor(inputs), self._tensor(targets)).item()

    def snapshot(self) -> Snapshot:
        return self.optimizer.snapshot()

    def restore(self, snapshot: Snapshot) -> None:
        self.optimizer.restore(snapshot)

    def describe(self) -> dict[str, Any]:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        return {
            "framework": "torch",
            "version": torch.__version__,
            "device": name,
            "threads": torch.get_num_threads(),
        }

    def _tensor(self, tokens: Array) -> torch.Tensor:
        return torch.from_numpy(tokens).to(self.device, torch.int64)


def trainer(config: GPTConfig, recipe: Any, *, seed: int, tier: str = "fast", device: str = "cpu") -> TorchTrainer:
    """A trainer with the optimizer of ``recipe``, whatever `dualopt.optimizer` accepts as one."""
    import dualopt

    return TorchTrainer(config, seed, lambda model: dualopt.optimizer(model, recipe, tier=tier), device)
