"""One launch for all tensors of a group: elementwise rows on CUDA, whatever the number and sizes of tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from dualopt.recursion import Part, Row
from dualopt.trace import Program, traced

from ..route import Update
from .source import BLOCK, OPTIONS, kernel

Tensors = Mapping[str, torch.Tensor]
ALIGNED = 16  # bytes, of an access of 128 bits
TYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


@lru_cache(maxsize=256)
def program_of(parts: tuple[Part, ...], keys: tuple[str, ...], measured: tuple[str, ...] = ("gradient",)) -> Program:
    """The program that is launched for rows of these parts."""
    return traced(Row("", *parts), keys, measured)  # type: ignore[arg-type]


def fits(theta: torch.Tensor, state: Tensors, evidence: Tensors) -> bool:
    """True if a kernel can walk through θ and its state together, and knows all types."""
    kept = (theta, *state.values())
    return (
        theta.numel() > 0
        and all(x.is_contiguous() for x in kept)
        and all(x.dtype in TYPES for x in (*kept, *evidence.values()))
    )


@lru_cache(maxsize=64)
def chunks(sizes: tuple[int, ...], aligned: tuple[bool, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(chunks, 3): tensor, block, elements; those of partial or unaligned blocks with the sign turned.

    Raises: ValueError for an empty tensor.
    """
    if min(sizes) < 1:
        raise ValueError("an empty tensor has no chunks")
    n = np.array(sizes, np.int64)
    blocks = -(-n // BLOCK)
    tensor = np.repeat(np.arange(n.size), blocks)
    block = np.arange(tensor.size) - np.repeat(np.cumsum(blocks) - blocks, blocks)
    elements = np.minimum(n[tensor] - block * BLOCK, BLOCK)
    whole = (elements == BLOCK) & np.array(aligned)[tensor]
    return np.stack([tensor, block, np.where(whole, elements, -elements)], axis=1)


class MultiTensor:
    """Launches the kernels of rows, and owns their tables on the device.

    A table is written only where it changed, and stays where it is as long as its size does.

    Args:
        interpreted: run on the CPU, by Triton's interpreter.
    """

    def __init__(self, interpreted: bool = False) -> None:
        self.interpreted = interpreted
        self.launches = 0
        self._tables: dict[tuple[Any, ...], tuple[bytes, torch.Tensor]] = {}

    def __call__(self, update: Update) -> Collection[str]:
        """One update in place of the tensors that are for this route; their names.

        Those are the tensors of elementwise rows on CUDA devices, or on the CPU if interpreted, that `fits` accepts.
        One launch for each device and set of types.
        """
        kind_of_device, state, k = "cpu" if self.interpreted else "cuda", update.state, update.k
        here = [x for x in update.theta.items() if x[1].device.type == kind_of_device]
        theta = {n: x for n, x in here if fits(x, state[n], update.evidence[n])}
        if not update.planned.row.local or not theta:
            return ()
        evidence = {n: {key: x.contiguous() for key, x in update.evidence[n].items()} for n in theta}
        alike: dict[tuple[Any, ...], list[str]] = {}
        for name, x in theta.items():
            arrays = _arrays(x, evidence[name], state[name])
            kind = (x.device, tuple(state[name]), tuple(evidence[name]), *(a.dtype for a in arrays))
            alike.setdefault(kind, []).append(name)
        for (device, keys, measured, *types), names in alike.items():
            program = program_of(update.planned.row.parts, keys, measured)
            given = {name: _arrays(theta[name], evidence[name], state[name]) for name in names}
            sets = {id(k[name]): tuple(k[name].values()) for name in names}
            place = list(sets)
            slot = (update.planned.group.name, device, *types, keys, measured)
            pointers = np.array([[x.data_ptr() for x in given[name]] for name in names], np.int64)
            aligned = tuple((pointers % ALIGNED == 0).all(axis=1).tolist())
            cut = chunks(tuple(theta[name].numel() for name in names), aligned)
            self._launch(
                program,
                types,
                len(cut),
                self._table((*slot, "chunks"), cut, device),
                self._table((*slot, "pointers"), pointers, device),
                self._table((*slot, "which"), np.array([place.index(id(k[n])) for n in names], np.int64), device),
                self._table((*slot, "scalars"), np.array(list(sets.values()), np.float32), device),
            )
        torch.autograd.graph.increment_version(list(theta.values()))  # as every in-place operation does
        return theta

    def _table(self, slot: tuple[Any, ...], values: np.ndarray[Any, Any], device: torch.device) -> torch.Tensor:
        """`values` on the device, at the address that the slot had before if the size is the same."""
        told, table = values.tobytes(), self._tables.get(slot)
        if table is None or table[1].shape != values.shape:
            table = told, torch.from_numpy(values).to(device)
        elif table[0] != told:
            table[1].copy_(torch.from_numpy(values), non_blocking=True)
            table = told, table[1]
        self._tables[slot] = table
        return table[1]

    def _launch(self, program: Program, types: Sequence[torch.dtype], grid: int, *tables: torch.Tensor) -> None:
        import triton.language as tl

        update = kernel(program, self.interpreted)
        named = {f"T_{name}": getattr(tl, TYPES[t]) for name, t in zip(program.arrays, types, strict=True)}
        update[(grid,)](*tables, BLOCK=BLOCK, **named, **OPTIONS)
        self.launches += 1


def _arrays(theta: torch.Tensor, evidence: Tensors, state: Tensors) -> tuple[torch.Tensor, ...]:
    """What the program's arrays are, in its order."""
    return theta, *evidence.values(), *state.values()
