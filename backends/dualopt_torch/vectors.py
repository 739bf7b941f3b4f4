"""How many elements a compiled loop on the CPU takes at a time, where arrays of 16 bits stand beside float32 ones.

torch's compiler goes by the wide ones, and then loads and stores the narrow ones by half vectors: on processors that
cannot mask these (AVX2) by way of the stack, which costs more than the update. Here it goes by the narrow ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch


@contextmanager
def whole_vectors(dtypes: Iterable[torch.dtype]) -> Iterator[None]:
    """What is compiled meanwhile takes whole vectors of the narrowest of these types, if it is of 16 bits."""
    from torch._inductor import cpu_vec_isa
    from torch._inductor.codegen import cpp

    narrow = [dtype for dtype in dtypes if dtype.itemsize == 2]
    selecting = getattr(cpp, "TilingSelect", None)  # not an interface: where it is another, loops are as they were
    usual = getattr(selecting, "select_tiling", None)
    if not narrow or usual is None:
        yield
        return

    def select_tiling(*loops: Any, **more: Any) -> Any:
        found = usual(*loops, **more)
        if not (isinstance(found, tuple) and found and _all_whole_numbers(found[0])):
            return found
        whole = cpu_vec_isa.pick_vec_isa().nelements(dtype=narrow[0])
        return [max(whole, factor) for factor in found[0]], *found[1:]

    with mock.patch.object(selecting, "select_tiling", select_tiling):
        yield


def _all_whole_numbers(x: object) -> bool:
    return isinstance(x, list | tuple) and all(isinstance(n, int) for n in x)
