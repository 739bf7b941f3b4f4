"""Optimizers for torch from packages of their own.

Each function is one package. Knobs go by the names that it gives them; where it has no such rule, it says so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..rules import RULES, knobs
from ..subject import Subject, Task, UnavailableError
from .torch_arrays import Held, require_bfloat16

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def _subject(task: Task, package: str, known: dict[str, Make]) -> Subject:
    if task.rule not in known:
        raise UnavailableError(f"{package} has no {task.rule}")
    if task.rule == "muon":
        require_bfloat16(task, package)
    held = Held(task, scratch=bool(task.options.get("scratch")))
    return held.subject(lambda: known[task.rule](held.parameters).step)


def heavyball_(task: Task) -> Subject:
    import heavyball

    return _subject(
        task,
        "heavyball",
        {
            "adamw": lambda p: heavyball.AdamW(p, **knobs("adamw")),
            "sgdm": lambda p: heavyball.SGD(p, lr=RULES["sgdm"]["lr"], beta=RULES["sgdm"]["momentum"]),
            "muon": lambda p: heavyball.Muon(p, lr=RULES["muon"]["lr"], weight_decay=RULES["muon"]["weight_decay"]),
        },
    )


def pytorch_optimizer_(task: Task) -> Subject:
    import pytorch_optimizer as po

    if task.rule == "adamw":
        raise UnavailableError("its AdamW is torch.optim's")
    return _subject(
        task,
        "pytorch-optimizer",
        {
            "lion": lambda p: po.Lion(p, **knobs("lion")),
            "sgdm": lambda p: po.SGDW(p, **knobs("sgdm")),
            "muon": lambda p: po.Muon([{"params": p, "use_muon": True}], **knobs("muon")),
        },
    )


def optimi_(task: Task) -> Subject:
    import optimi

    return _subject(
        task,
        "torch-optimi",
        {
            "adamw": lambda p: optimi.AdamW(p, **knobs("adamw")),
            "lion": lambda p: optimi.Lion(p, **knobs("lion")),
            "sgdm": lambda p: optimi.SGD(p, **knobs("sgdm")),
        },
    )


def schedulefree_(task: Task) -> Subject:
    import schedulefree

    def averaged(p: list[torch.Tensor]) -> torch.optim.Optimizer:
        made = schedulefree.AdamWScheduleFree(p, **knobs("adamw"))
        made.train()
        return made

    return _subject(task, "schedulefree", {"adamw": averaged})


def emerging_(task: Task) -> Subject:
    from emerging_optimizers.orthogonalized_optimizers import Muon
    from emerging_optimizers.scalar_optimizers import Lion

    return _subject(
        task,
        "emerging-optimizers",
        {"lion": lambda p: Lion(p, **knobs("lion")), "muon": lambda p: Muon(p, **knobs("muon"))},
    )


def gram_newton_schulz_(task: Task) -> Subject:
    from gram_newton_schulz import Muon

    return _subject(task, "gram-newton-schulz", {"muon": lambda p: Muon(p, ns_use_kernels=False, **knobs("muon"))})
