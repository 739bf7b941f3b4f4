"""torch.optim: AdamW, SGD and Muon."""

from __future__ import annotations

import torch

from ..rules import knobs
from ..subject import Subject, Task, UnavailableError
from .torch_arrays import Held, require_bfloat16


def optimizer(rule: str, parameters: list[torch.Tensor], **how: bool) -> torch.optim.Optimizer:
    """torch's optimizer for a rule; `how`: ``foreach`` or ``fused``."""
    if rule == "adamw":
        return torch.optim.AdamW(parameters, **knobs(rule), **how)
    if rule == "sgdm":
        return torch.optim.SGD(parameters, **knobs(rule), **how)
    if rule == "muon":
        return torch.optim.Muon(parameters, **knobs(rule))
    raise UnavailableError(f"torch.optim has no {rule}")


def make(task: Task) -> Subject:
    if task.rule == "muon":
        require_bfloat16(task, "torch.optim.Muon")
    held = Held(task)
    return held.subject(lambda: optimizer(task.rule, held.parameters, **task.options).step)
