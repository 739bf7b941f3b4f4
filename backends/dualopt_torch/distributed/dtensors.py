"""Between sharded parameters (DTensors) and the pieces that this process holds.

A sharded parameter is cut along its first axis into as many pieces of ⌈n/P⌉ rows as there are; what is left over is
shorter, or empty.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch

from dualopt.errors import DistributionError, GradientError


def is_sharded(x: object) -> bool:
    """True for DTensors, which exist only where their module was imported."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: torch.Tensor) -> torch.Tensor:
    """The piece of x that this process holds; x itself if it is not sharded."""
    shards: Any = x
    piece: torch.Tensor = shards.to_local() if is_sharded(x) else x
    return piece


def locals_of(arrays: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: local(x) for name, x in arrays.items()}


def sharded_like(piece: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The tensor of which this process holds `piece`, sharded as `like` is; a plain `like`: the piece itself."""
    if not is_sharded(like):
        return piece
    from torch.distributed.tensor import DTensor

    shards: Any = like
    found: torch.Tensor = DTensor.from_local(
        piece, shards.device_mesh, shards.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return found


def piece_of(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The piece of x, sharded or whole on every process, that this process holds of `like`. Nothing is sent.

    Raises:
        DistributionError: x is sharded in another way.
    """
    if is_sharded(x):
        if is_sharded(like) and _sharding(x) == _sharding(like):
            return local(x)
        raise DistributionError(f"a tensor sharded as {_sharding(x)[1]} where {_sharding(like)[1]} is needed")
    if not is_sharded(like):
        return x
    from torch.distributed.tensor import distribute_tensor

    shards: Any = like
    x = x.to(like.device)
    return local(distribute_tensor(x, shards.device_mesh, shards.placements, src_data_rank=None))


def gradient_pieces(
    gradients: Mapping[str, torch.Tensor], parameters: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """What this process holds of every gradient. GradientError for one that is not sharded as its parameter is."""
    for name, g in gradients.items():
        if _sharding(g) != _sharding(parameters[name]):
            raise GradientError(
                f"gradient of {name!r} has {_sharding(g)[1]}, its parameter {_sharding(parameters[name])[1]}: give it "
                "as backward() leaves it"
            )
    return locals_of(gradients)


def whole(x: torch.Tensor) -> torch.Tensor:
    """All of x, on every process of its mesh, which all call this."""
    shards: Any = x
    full: torch.Tensor = shards.full_tensor() if is_sharded(x) else x
    return full


def _sharding(x: Any) -> tuple[Any, Any]:
    return (x.device_mesh, tuple(x.placements)) if is_sharded(x) else (None, "no sharding")


def mesh_axis(parameters: Mapping[str, torch.Tensor]) -> tuple[Any, int] | None:
    """(mesh, its axis) along which all parameters are sharded; None if none is.

    Raises:
        DistributionError: naming the parameter that is laid out in another way than by `fully_shard`.
    """
    kinds = {name: is_sharded(x) for name, x in parameters.items()}
    if not any(kinds.values()):
        return None
    from torch.distributed.tensor import Replicate, Shard

    plain = next((name for name, kind in kinds.items() if not kind), None)
    if plain is not None:
        raise DistributionError(f"{plain!r} is not sharded and others are: apply fully_shard to the root module too")
    first: Any = next(iter(parameters.values()))
    for name, x in parameters.items():
        mesh, placements = _sharding(x)
        cut = [i for i, placement in enumerate(placements) if type(placement) is Shard]
        rest = [p for i, p in enumerate(placements) if i not in cut]
        plain_cut = len(cut) == 1 and placements[cut[0]].dim == 0
        if not plain_cut or not all(isinstance(p, Replicate) for p in rest):
            raise DistributionError(
                f"{name!r} is laid out as {placements}; what can be updated is cut along the first axis, over one axis "
                "of the mesh: fully_shard with a mesh of one dimension, or of replicate × shard"
            )
        if (mesh, placements) != _sharding(first):
            raise DistributionError(f"{name!r} is laid out as {placements} on {mesh}, unlike the parameters before it")
    return first.device_mesh, next(i for i, p in enumerate(first.placements) if type(p) is Shard)
