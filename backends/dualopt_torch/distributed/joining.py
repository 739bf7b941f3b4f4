"""Whether an optimizer is one of several processes, and how its parameters lie over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist

from dualopt.errors import DistributionError
from dualopt.plan import Plan

from .dtensors import mesh_axis
from .execute import check, divides
from .layouts import Layout, Replicated, Sharded
from .wire import Wire

Share = bool | dist.ProcessGroup | None


def joined(
    model: torch.nn.Module | Mapping[str, torch.Tensor],
    parameters: Mapping[str, torch.Tensor],
    plan: Plan,
    share: Share,
) -> Layout | None:
    """The layout of the parameters; None where nothing depends on other processes.

    Args:
        share: as that of `Optimizer`.

    Raises:
        DistributionError: a layout or a row that cannot be updated, or nobody to share with.
    """
    named, device = dict(parameters), next(iter(parameters.values())).device
    axis = mesh_axis(named)
    if axis is not None:
        if share is not None:
            raise DistributionError("share is for replicated parameters; sharded ones always share their directions")
        check(plan)
        mesh, i = axis
        everybody = dist.group.WORLD if mesh.size() == dist.get_world_size() else None
        return Sharded(Wire(mesh.get_group(i), device, everybody), named)
    parallel = parallel_of(model)
    if share is False or (share is None and parallel is None) or not divides(plan):
        return None
    if len({x.device for x in named.values()}) > 1:
        if share is None:
            return None
        raise DistributionError("directions are shared out of parameters on one device, and these are on several")
    group: Any = share
    if parallel is not None and not isinstance(share, dist.ProcessGroup):
        group = parallel.process_group
    elif share is True and dist.is_initialized():
        group = dist.group.WORLD
    elif share is True:
        raise DistributionError("share = True: torch.distributed.init_process_group has not been called")
    if dist.get_world_size(group) == 1:
        return None
    return Replicated(Wire(group, device), named)


def parallel_of(
    model: torch.nn.Module | Mapping[str, torch.Tensor],
) -> torch.nn.parallel.DistributedDataParallel | None:
    """The wrapper that keeps the parameters of all processes equal; None if there is none."""
    if isinstance(model, torch.nn.Module):
        model = model._modules.get("_orig_mod") or model  # of torch.compile
    return model if isinstance(model, torch.nn.parallel.DistributedDataParallel) else None
