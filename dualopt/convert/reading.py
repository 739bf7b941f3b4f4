"""Weights, and what optimizers remember, from the files that people keep: safetensors by numpy, .pt by torch.

.safetensors    NAME.KEY for every array of a state, such as "layers.0.weight.m", and "step" for all; a leading
                "state." is dropped, what begins with "param_groups." and "learning_rate" is left out
.pt, .pth       `optimizer.state_dict()`, and `model.state_dict()` for its weights, by torch.load(weights_only=True)
                in torch's backend: nothing in them is executed
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import tensors
from ..errors import CheckpointError
from ..frameworks import backend_module
from .sources import SOURCES

Array = np.ndarray[Any, Any]
HALVES = ("BF16", "F16")
NOT_STATE = ("learning_rate",)
SHARED = "step"
KEYS = {key for s in SOURCES.values() if s.layout for key in (*s.layout.memories, *s.layout.refused, s.layout.updates)}


@dataclass(frozen=True)
class Weights:
    """Arrays by name, float32, or what they are if they are no floats; `dtypes` names the half-precision ones."""

    arrays: dict[str, Array]
    dtypes: dict[str, str]
    ordered: bool  # as the model has them


@dataclass(frozen=True)
class SavedGroup:
    """A group of parameters of a saved optimizer: their names, and the knobs that were saved with them."""

    names: tuple[str, ...]
    knobs: Mapping[str, Any]


@dataclass(frozen=True)
class Saved:
    """A saved optimizer: {parameter: {key: array}}, and its groups."""

    kept: dict[str, dict[str, Any]]
    groups: tuple[SavedGroup, ...]


def weights(path: Path) -> Weights:
    """The weights of a model. CheckpointError for a file that holds none."""
    if path.suffix == ".safetensors":
        file = tensors.read(path)
        halves = {name: dtype for name, dtype in file.dtypes.items() if dtype in HALVES}
        return Weights({n: _single(x) for n, x in file.tensors.items()}, halves, ordered=False)
    torch = backend_module("torch")
    found = torch.load_plain(path)
    if not isinstance(found, Mapping) or not found or not all(map(torch.is_tensor, found.values())):
        raise CheckpointError(f"{path}: it is not the state_dict() of a model: names and tensors, and nothing else")
    dtypes = {str(n): torch.HALF[x.dtype] for n, x in found.items() if x.dtype in torch.HALF}
    return Weights({str(n): _single(torch.to_numpy(x)) for n, x in found.items()}, dtypes, ordered=True)


def saved(path: Path, model: Weights) -> Saved:
    """A saved optimizer, whose parameters are those of `model`.

    Raises:
        CheckpointError: the file is no such state, or does not tell which array belongs to which parameter.
    """
    if path.suffix == ".safetensors":
        return Saved(split(path, tensors.read(path).tensors), ())
    torch = backend_module("torch")
    found = torch.load_plain(path)
    try:
        groups, state = list(found["param_groups"]), dict(found["state"])
        sizes = [len(group["params"]) for group in groups]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: it is not the state_dict() of an optimizer") from error
    names = named(groups, sizes, tuple(model.arrays) if model.ordered else (), str(path))
    kept, made, at = {}, [], 0
    for group, size in zip(groups, sizes, strict=True):
        own = names[at : at + size]
        at += size
        made.append(SavedGroup(tuple(own), {k: x for k, x in group.items() if k not in ("params", "param_names")}))
        for name, i in zip(own, group["params"], strict=True):
            kept[name] = {
                k: _single(torch.to_numpy(x)) if torch.is_tensor(x) else x
                for k, x in state.get(i, {}).items()
                if x is not None
            }
    return Saved(kept, tuple(made))


def named(groups: Sequence[Mapping[str, Any]], sizes: Sequence[int], order: Sequence[str], where: str) -> list[str]:
    """The names of the parameters of saved torch groups, one after the other.

    They are in the groups if the optimizer was made from `model.named_parameters()`. Else they are `order`, the
    names of the model, if there is one group of as many.

    Raises:
        CheckpointError: they are not known.
    """
    if all("param_names" in group for group in groups):
        return [str(name) for group in groups for name in group["param_names"]]
    if len(groups) == 1 and sizes[0] == len(order):
        return list(order)
    raise CheckpointError(
        f"{where}: {sum(sizes)} parameters in {len(groups)} groups without names, and the model has {len(order)} in a "
        "known order; make the optimizer from model.named_parameters(), or take it over in Python: "
        "opt.adopt(optimizer, source)"
    )


def split(where: object, flat: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """{parameter: {key: array}} from {NAME.KEY: array}; a shared step number is given to all of them."""
    found: dict[str, dict[str, Any]] = {}
    for full, x in flat.items():
        name, _, key = full.removeprefix("state.").rpartition(".")
        if full.startswith("param_groups.") or (not name and key in (*NOT_STATE, SHARED)):
            continue
        if not name or key not in KEYS:
            raise CheckpointError(f"{where}: {full!r} is no NAME.KEY of an optimizer whose state can be taken over")
        found.setdefault(name, {})[key] = x
    if SHARED in flat:
        found = {name: {SHARED: flat[SHARED], **arrays} for name, arrays in found.items()}
    return found


def _single(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype.kind == "f" else x
