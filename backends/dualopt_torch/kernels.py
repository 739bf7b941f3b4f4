"""The update of an elementwise row on arrays of one dimension, in place: (θ, k, *evidence, *state).

compiled    one kernel per rule, traced from the core's own `step` with symbolic sizes and compiled by inductor. It
            is called without the guards of `torch.compile` and the wrappers of autograd, which cost as much as
            updating 10⁵ elements: what they would look at is the key that it is kept under, no array needs a gradient,
            and sizes 0 and 1 never come here

Where there is no compiler, or little to do, `registers` carries it out eagerly. On the CPU both have the bits of the
exact tier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from dualopt.buckets import pieces
from dualopt.recursion import Row, step

from .namespace import COMPILED
from .vectors import whole_vectors

Kernel = Callable[..., None]

LONGEST = 2**30  # elements of one call: indices of kernels on a GPU have 32 bits
TRACED = 2**20  # elements that a kernel is made for; it takes any number from 2


def working(x: torch.Tensor) -> torch.Tensor:
    """x in the type that it is computed in: float32, or float64 for float64."""
    return x if x.dtype == torch.float64 else x.to(torch.float32)


def _update(xp: Any, row: Row, keys: tuple[str, ...], measured: tuple[str, ...]) -> Kernel:
    """One in-place update in the namespace `xp`, its scalars by name."""

    def update(theta: torch.Tensor, k: Mapping[str, Any], *arrays: torch.Tensor) -> None:
        evidence = {key: working(x) for key, x in zip(measured, arrays, strict=False)}
        kept = dict(zip(keys, arrays[len(measured) :], strict=True))
        moved, s = step(xp, row, working(theta), kept, evidence, k)
        theta.copy_(moved)
        for key, old in kept.items():
            old.copy_(s[key])

    return update


def compiled(row: Row, keys: tuple[str, ...], measured: tuple[str, ...], arrays: tuple[torch.Tensor, ...]) -> Kernel:
    """The kernel of a row for arrays (θ, *evidence, *state) like these; its k is a tensor in the order of `row.needs`.

    The arrays have one length of at least 2.
    """
    like = tuple((x.dtype, x.device) for x in arrays)
    kernel = _kernel(row.parts, row.name, keys, measured, like)
    if arrays[0].numel() <= LONGEST:
        return kernel

    def run(theta: torch.Tensor, k: torch.Tensor, *others: torch.Tensor) -> None:
        for start, end in pieces(theta.numel(), LONGEST):
            kernel(theta[start:end], k, *(x[start:end] for x in others))

    return run


@lru_cache(maxsize=256)
def _kernel(
    parts: tuple[Any, ...],
    name: str,
    keys: tuple[str, ...],
    measured: tuple[str, ...],
    like: tuple[tuple[torch.dtype, torch.device], ...],
) -> Kernel:
    """Traced and compiled once for these parts, types and devices."""
    row = Row(name, *parts)
    scalars = tuple(row.needs)
    update = _update(COMPILED, row, keys, measured)

    def unpacked(theta: torch.Tensor, k: torch.Tensor, *arrays: torch.Tensor) -> tuple[()]:
        update(theta, dict(zip(scalars, k.unbind(), strict=True)), *arrays)
        return ()

    theta, *arrays = (torch.empty(TRACED, dtype=dtype, device=device) for dtype, device in like)
    k = torch.empty(len(scalars), dtype=working(theta[:0]).dtype, device=theta.device)
    return inductor(unpacked, theta, k, *arrays)


def inductor(update: Callable[..., tuple[()]], *like: torch.Tensor) -> Kernel:
    """A function that works in place, compiled for any number of elements from 2; `like`: tensors like its own."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.compile_fx import compile_fx_inner
    from torch._inductor.decomposition import select_decomp_table
    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(update, decomposition_table=select_decomp_table(), tracing_mode="symbolic")(*like)
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
    # Threads are those at the time of the call, not of compilation; sizes and strides are those of `elementwise`.
    options = {"cpp.dynamic_threads": True, "size_asserts": False, "alignment_asserts": False}
    fake = TracingContext(inputs[0].fake_mode)
    with tracing(fake), config.patch(options), whole_vectors(x.dtype for x in like):
        made: Any = compile_fx_inner(graph, inputs)

    def run(*tensors: torch.Tensor) -> None:
        made(list(tensors))

    return run
