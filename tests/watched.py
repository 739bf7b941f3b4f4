"""Small runs under a monitor, on either framework: what the tests of `dualopt.watch` have in common."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import dualopt
from dualopt.watch.stream import Watched, read

Arrays = dict[str, Any]
Grads = Mapping[str, Any] | None


def recipe(optimizer: str = "adamw", /, *, schedule: Mapping[str, Any] | None = None, **options: Any) -> dualopt.Recipe:
    """One group of everything, 10 samples an update."""
    table: dict[str, Any] = {
        "count": {"unit": "samples", "per_update": 10},
        "nonfinite": options.pop("nonfinite", "raise"),
    }
    if schedule:
        table["schedule"] = schedule
    return dualopt.Recipe.from_dict(
        {**table, "group": [{"name": "all", "optimizer": optimizer, "match": ["*"], **options}]}
    )


class Torch:
    """θ as tensors, gradients in ``grad``."""

    def __init__(self, theta: Arrays, made: dualopt.Recipe, dtype: str = "float32", tier: str = "fast") -> None:
        torch = pytest.importorskip("torch")
        self._torch, self._dtype = torch, getattr(torch, dtype)
        self._theta = {n: torch.nn.Parameter(torch.tensor(x).to(self._dtype)) for n, x in theta.items()}
        self.optimizer = importlib.import_module("dualopt_torch").Optimizer(self._theta, made, tier=tier)

    def step(self, grads: Mapping[str, Any], count: int | None = None) -> None:
        for name, p in self._theta.items():
            g = grads.get(name)
            p.grad = None if g is None else self._torch.tensor(g).to(self._dtype)
        self.optimizer.step(count=count)

    def theta(self) -> Arrays:
        return {n: p.detach().to(self._torch.float64).numpy().copy() for n, p in self._theta.items()}

    def state(self, name: str) -> Arrays:
        kept = self.optimizer.state.get(self._theta[name], {})
        return {k: x.to(self._torch.float64).numpy().copy() for k, x in kept.items() if hasattr(x, "numpy")}


class Mlx:
    """θ as a mapping of arrays, updated in place; `compiled` steps are traced by `Optimizer.compile`."""

    def __init__(
        self,
        theta: Arrays,
        made: dualopt.Recipe,
        dtype: str = "float32",
        tier: str = "fast",
        compiled: bool = False,
    ) -> None:
        mx = pytest.importorskip("mlx.core")
        self._mx, self._dtype = mx, getattr(mx, dtype)
        self._theta = {n: mx.array(x).astype(self._dtype) for n, x in theta.items()}
        self.optimizer = importlib.import_module("dualopt_mlx").Optimizer(self._theta, made, tier=tier)
        self._run: Callable[..., Any] = self._plain
        if compiled:
            self._run = self.optimizer.compile(lambda grads: self.optimizer.update(self._theta, grads))

    def _plain(self, grads: Arrays, count: int | None = None) -> None:
        self.optimizer.update(self._theta, grads, count)

    def step(self, grads: Mapping[str, Any], count: int | None = None) -> None:
        self._run({n: self._mx.array(g).astype(self._dtype) for n, g in grads.items()}, count=count)

    def theta(self) -> Arrays:
        return {n: np.array(x.astype(self._mx.float32), np.float64) for n, x in self._theta.items()}

    def state(self, name: str) -> Arrays:
        kept = self.optimizer.state["memory"][name]
        return {k: np.array(x, np.float64) for k, x in kept.items()}


def compiled(theta: Arrays, made: dualopt.Recipe, **options: Any) -> Mlx:
    return Mlx(theta, made, compiled=True, **options)


FRAMEWORKS = {"torch": Torch, "mlx": Mlx, "mlx compiled": compiled}


def normal(shapes: Mapping[str, Sequence[int]], seed: int = 0, scale: float = 1.0) -> Arrays:
    rng = np.random.default_rng(seed)
    return {n: np.asarray(scale * rng.standard_normal(s), np.float32) for n, s in shapes.items()}


def noise(
    path: Path,
    made: dualopt.Recipe,
    *,
    shapes: Mapping[str, Sequence[int]],
    updates: int,
    every: int = 10,
    scale: float = 0.1,
    framework: Any = Torch,
    mean: float = 0.0,
    dtype: str = "float32",
) -> Watched:
    """A run on gradients that are noise, around a constant `mean` of their standard deviation."""
    run = framework(normal(shapes, scale=scale), made, dtype=dtype)
    dualopt.Monitor(run.optimizer, path, every=every, end=10 * updates)
    still = normal(shapes, seed=1)
    for t in range(updates):
        run.step({n: g + mean * still[n] for n, g in normal(shapes, seed=2 + t).items()})
    return read(path)


def cosine(x: Any, y: Any) -> float:
    return float(np.sum(x * y)) / math.sqrt(float(np.sum(x * x)) * float(np.sum(y * y)))


def rms(x: Any) -> float:
    return math.sqrt(float(np.mean(np.square(x))))
