"""Gains beside weights of fixed length, and such weights in the native optimizers of both frameworks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualopt import Group, Recipe, checkpoint, optimizer
from dualopt.counts import Count
from dualopt.errors import RecipeError
from dualopt_conformance import inputs

mx = pytest.importorskip("mlx.core")
torch = pytest.importorskip("torch")

from mlx import nn as mnn  # noqa: E402
from mlx.utils import tree_flatten  # noqa: E402

from dualopt_mlx import Optimizer as MlxOptimizer  # noqa: E402
from dualopt_mlx.gain import Gain as MlxGain  # noqa: E402
from dualopt_mlx.gain import with_gains as mlx_gains  # noqa: E402
from dualopt_torch import Optimizer as TorchOptimizer  # noqa: E402
from dualopt_torch.gain import Gain, with_gains  # noqa: E402

SHAPES = {"first.weight": (6, 5), "first.bias": (6,), "last.weight": (3, 6)}


class TorchNet(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(5, 6), torch.nn.Linear(6, 3, bias=False)
        self.load_state_dict({n: torch.from_numpy(x) for n, x in inputs.parameters(SHAPES).items()})

    def forward(self, x: Any) -> Any:
        return self.last(torch.relu(self.first(x)))


class MlxNet(mnn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = mnn.Linear(5, 6), mnn.Linear(6, 3, bias=False)
        self.load_weights([(n, mx.array(x)) for n, x in inputs.parameters(SHAPES).items()])

    def __call__(self, x: Any) -> Any:
        return self.last(mnn.relu(self.first(x)))


def batch(t: int) -> np.ndarray[Any, Any]:
    return inputs.array("bell", (4, 5), t, "x")


def test_a_gain_of_one_changes_nothing_and_learns() -> None:
    """The output is that of the plain model; ∂f/∂g = Σ_j W_ij ∂f/∂W_ij of the plain layer; the same on MLX."""
    plain, wrapped = TorchNet(), with_gains(TorchNet())
    x = torch.from_numpy(batch(0))
    assert torch.equal(plain(x), wrapped(x))
    for model in (plain, wrapped):
        model(x).square().sum().backward()
    names = [name for name, _ in wrapped.named_parameters()]
    assert sorted(names) == ["first.gain", "first.inner.bias", "first.inner.weight", "last.gain", "last.inner.weight"]
    w = plain.first.weight
    expected = (w * w.grad).sum(1).detach()
    torch.testing.assert_close(wrapped.first.gain.grad, expected)

    other = mlx_gains(MlxNet())
    assert sorted(dict(tree_flatten(other.parameters()))) == sorted(names)
    assert (other(mx.array(batch(0))) == MlxNet()(mx.array(batch(0)))).all()
    _, grads = mnn.value_and_grad(other, lambda y: mx.square(other(y)).sum())(mx.array(batch(0)))
    # terms of size 100 cancel: their roundings are absolute
    np.testing.assert_allclose(np.array(grads["first"]["gain"]), expected.numpy(), rtol=1e-5, atol=1e-4)
    assert isinstance(other.first["inner"]["weight"], mx.array)


def test_a_gain_multiplies_rows() -> None:
    """Of kernels and embedding tables too: the first axis is that of rows, in both layouts."""
    conv, table = Gain(torch.nn.Conv2d(2, 3, 3)), Gain(torch.nn.Embedding(4, 5))
    for module in (conv, table):
        module.gain.data.copy_(torch.arange(1.0, 1 + len(module.gain)))
    image = torch.randn(1, 2, 5, 5)
    bias = conv.inner.bias[:, None, None]
    torch.testing.assert_close(conv(image) - bias, (conv.inner(image) - bias) * conv.gain[:, None, None])
    torch.testing.assert_close(table(torch.tensor([2])), 3 * table.inner.weight[2:3])
    kernel = MlxGain(mnn.Conv2d(2, 3, 3, bias=False))
    kernel.gain = mx.array([1.0, 2.0, 3.0])
    seen = mx.random.normal((1, 5, 5, 2))
    assert mx.allclose(kernel(seen), kernel.inner(seen) * kernel.gain, rtol=1e-4, atol=1e-5)


def test_which_weights_get_gains() -> None:
    for wrap, net, gain in ((with_gains, TorchNet, Gain), (mlx_gains, MlxNet, MlxGain)):
        model = wrap(net(), "last.*")
        assert isinstance(model.last, gain)
        assert not isinstance(model.first, gain)
        with pytest.raises(RecipeError, match="matches last"):
            wrap(model, ["last.*"])  # it has one already
        assert isinstance(wrap(model).first, gain)
        assert isinstance(model.last.inner, type(model.first.inner))
    assert isinstance(with_gains(torch.nn.Linear(2, 3)), Gain)
    assert isinstance(mlx_gains(mnn.Linear(2, 3)), MlxGain)
    with pytest.raises(RecipeError, match="two or more dimensions"):
        Gain(torch.nn.LayerNorm(3))
    with pytest.raises(RecipeError, match="two or more dimensions"):
        MlxGain(mnn.RMSNorm(3))


# ---- resumed on the other framework


ROTATION = {"optimizer": "rotational_adamw", "shrink_half_life": 900.0, "memory_half_life": 70.0}
MOTIONS: dict[str, dict[str, Any]] = {
    "rotational": {**ROTATION, "second_memory_half_life": 900.0},
    "tensor": {**ROTATION, "rotation_unit": "tensor", "second_memory_half_life": 900.0},
    "sphere": {"optimizer": "single_half_life", "memory_half_life": 300.0},
    "hyperball": {"optimizer": "hyperball", "norm": "row", "memory_half_life": 70.0},
    "steady": {"optimizer": "lion", "steady_rms": 0.5, "shrink_half_life": 900.0, "memory_half_life": 70.0},
    "held": {"optimizer": "lion", "target_rms": 0.5, "solve": "shrink", "memory_half_life": 70.0},
}
SHAPED = {"stack": (2, 4, 3), "matrix": (5, 7)}


@pytest.mark.parametrize("motion", MOTIONS)
def test_resumed_on_the_other_framework(motion: str, tmp_path: Any) -> None:
    """Three updates on torch, three on MLX from its snapshot, and three more on torch: the bits of nine on torch.

    The parameter "matrix" has no gradient before the fourth update.
    """
    made = Recipe((Group.from_dict(MOTIONS[motion]),), Count("samples", 10))
    start, grads = inputs.parameters(SHAPED), list(inputs.gradients(SHAPED, 9))
    for g in grads[:3]:
        del g["matrix"]

    def on_torch() -> tuple[Any, Any]:
        named = {n: torch.nn.Parameter(torch.from_numpy(x.copy())) for n, x in start.items()}
        return named, TorchOptimizer(named, made, tier="exact")

    def advance(named: Any, opt: Any, steps: range) -> None:
        for t in steps:
            for n, p in named.items():
                p.grad = torch.from_numpy(grads[t][n]) if n in grads[t] else None
            opt.step(count=10 + t)

    straight, opt = on_torch()
    advance(straight, opt, range(9))

    first, before = on_torch()
    advance(first, before, range(3))
    checkpoint.save(tmp_path / "a.safetensors", before.snapshot(), metadata={})

    tree = {n: mx.array(x + 1) for n, x in start.items()}  # replaced by what was saved
    middle = MlxOptimizer(tree, made, tier="exact")
    middle.restore(checkpoint.load(tmp_path / "a.safetensors")[0])
    for t in range(3, 6):
        middle.update(tree, {n: mx.array(g) for n, g in grads[t].items()}, count=10 + t)
    checkpoint.save(tmp_path / "b.safetensors", middle.snapshot(), metadata={})

    last, after = on_torch()
    after.restore(checkpoint.load(tmp_path / "b.safetensors")[0])
    advance(last, after, range(6, 9))
    for n, p in straight.items():
        assert p.detach().numpy().tobytes() == last[n].detach().numpy().tobytes()
        for key, x in opt.state[p].items():
            y = after.state[last[n]][key]
            assert x.numpy().tobytes() == y.numpy().tobytes() if isinstance(x, torch.Tensor) else x == y


def test_training_with_rotation_and_gains() -> None:
    """A recipe for both kinds: loss falls on both frameworks, rows keep their lengths, gains move."""
    table = {
        "group": [
            {"name": "gains", "match": ["*.gain", "*.bias"], "optimizer": "adamw", "step": 0.02},
            {"name": "weights", "optimizer": "rotational_adamw", "shrink_half_life": 300.0, "rotation_centred": False},
        ]
    }
    x = batch(0)
    net = with_gains(TorchNet())
    lengths = net.first.inner.weight.detach().norm(dim=1).clone()
    opt: Any = optimizer(net, Recipe.from_dict(table))
    losses = []
    for _ in range(60):
        opt.zero_grad()
        loss = (net(torch.from_numpy(x)) - 1).square().mean()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    torch.testing.assert_close(net.first.inner.weight.detach().norm(dim=1), lengths)
    assert (net.first.gain != 1).all()

    other = mlx_gains(MlxNet())
    mopt: Any = optimizer(other, Recipe.from_dict(table))
    value = mnn.value_and_grad(other, lambda y: mx.square(other(y) - 1).mean())
    found = []
    for _ in range(60):
        loss, grads = value(mx.array(x))
        mopt.update(other, grads)
        found.append(loss.item())
    np.testing.assert_allclose(found, losses, rtol=1e-3)  # forward passes round differently
