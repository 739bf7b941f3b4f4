"""Every peer, as data. Its module imports the library, and is itself imported in the worker only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Peer:
    """Something that can be timed.

    Attributes:
        name: in tables.
        make: ``module:function`` in this package; the function takes a `Task` and returns a `Subject`.
        distribution: whose version is recorded.
        options: of the task.
        family: "dualopt", "floor", or that of the library: the colour in pictures.
    """

    name: str
    make: str
    distribution: str
    options: Mapping[str, Any] = field(default_factory=dict)
    family: str = "other"

    def called(self, name: str, **options: Any) -> Peer:
        """The same with another name and more options."""
        return replace(self, name=name, options={**self.options, **options})


def _ours(name: str, module: str = "ours_torch", **options: Any) -> Peer:
    return Peer(name, f"{module}:make", "dualopt-optim", options, "dualopt")


def _torch(name: str, **options: Any) -> Peer:
    return Peer(name, "torch_optim:make", "torch", options, "torch")


def _mlx(name: str, **options: Any) -> Peer:
    return Peer(name, "mlx_optim:make", "mlx", options, "mlx")


OURS = _ours("dualopt")
OURS_MLX = _ours("dualopt (MLX)", "ours_mlx")
TORCH_FUSED = _torch("torch fused", fused=True)
TORCH_MUON = Peer("torch Muon", "torch_optim:make", "torch", {}, "torch")
NO_OPTIMIZER = Peer("no optimizer", "training_torch:make", "torch", {"optimizer": "none"}, "floor")

_ALL = (
    OURS,
    _ours("dualopt, no compiler", compiled=False),
    _ours("dualopt, trusted gradients", nonfinite="trust"),
    _ours("dualopt, flat storage", keywords={"flat": True}),
    _ours("dualopt direct", group={"shrink": "direct", "shrink_half_life": 6931.0}),
    _ours("dualopt cautious", group={"shrink": "cautious", "shrink_half_life": 6931.0}),
    _ours("dualopt corrected", group={"shrink": "corrected", "shrink_half_life": 6931.0}),
    _ours("dualopt, schedule and changing count", varying=True),
    TORCH_FUSED,
    _torch("torch foreach", foreach=True),
    _torch("torch for-loop", foreach=False),
    TORCH_MUON,
    Peer("heavyball", "others:heavyball_", "heavyball", {}, "heavyball"),
    Peer("pytorch-optimizer", "others:pytorch_optimizer_", "pytorch-optimizer", {}, "pytorch-optimizer"),
    Peer("torch-optimi", "others:optimi_", "torch-optimi", {"scratch": True}, "torch-optimi"),
    Peer("schedulefree", "others:schedulefree_", "schedulefree", {}, "schedulefree"),
    Peer("emerging-optimizers", "others:emerging_", "emerging-optimizers", {}, "emerging-optimizers"),
    Peer("gram-newton-schulz", "others:gram_newton_schulz_", "gram-newton-schulz", {}, "gram-newton-schulz"),
    Peer("optax", "jax_optax:make", "optax", {}, "optax"),
    _mlx("mlx eager"),
    _mlx("mlx compiled", compiled=True),
    OURS_MLX,
    _ours("dualopt (MLX) compiled", "ours_mlx", compiled=True),
    _ours("dualopt (MLX), schedule and changing count", "ours_mlx", compiled=True, varying=True),
    Peer("dualopt trains", "training_torch:make", "dualopt-optim", {"optimizer": "ours"}, "dualopt"),
    Peer("torch.optim trains", "training_torch:make", "torch", {"optimizer": "torch"}, "torch"),
    NO_OPTIMIZER,
    Peer("dualopt trains (MLX)", "training_mlx:make", "dualopt-optim", {"optimizer": "ours"}, "dualopt"),
    Peer("mlx.optimizers trains", "training_mlx:make", "mlx", {"optimizer": "mlx"}, "mlx"),
    Peer("no optimizer (MLX)", "training_mlx:make", "mlx", {"optimizer": "none"}, "floor"),
    Peer("import numpy", "imports:make", "numpy", {"module": "numpy"}, "floor"),
    Peer("import dualopt", "imports:make", "dualopt-optim", {"module": "dualopt"}, "dualopt"),
    Peer("import torch", "imports:make", "torch", {"module": "torch"}, "torch"),
    Peer("import dualopt_torch", "imports:make", "dualopt-optim", {"module": "dualopt_torch"}, "dualopt"),
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in _ALL}


def stream(read: tuple[str, ...], written: tuple[str, ...]) -> Peer:
    """The floor of an elementwise step: one pass over as many bytes. Types of arrays that are read, and of those
    that are read and written, each with one element per parameter."""
    return Peer("stream", "floors:stream", "torch", {"read": list(read), "written": list(written)}, "floor")


def products(work: str) -> Peer:
    """The floor of a spectral step: the products of the shortest iteration at the same shapes."""
    return Peer("products", "floors:products", "torch", {"work": work}, "floor")


def polar(name: str, method: str, family: str, distribution: str, **options: Any) -> Peer:
    """A way to the polar factor."""
    return Peer(name, f"polar:{method}", distribution, options, family)
