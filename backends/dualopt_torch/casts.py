"""What torch does with tensors of half precision: see `dualopt.rounding`."""

from __future__ import annotations

import torch

from dualopt.recursion import Namespace
from dualopt.rounding import Casts

from .kernels import working
from .namespace import FAST

_DROPPED = {torch.bfloat16: 16, torch.float16: 13}


def casts(device: torch.device, xp: Namespace = FAST) -> Casts:
    """Those of tensors on a device."""
    return Casts(
        xp=xp,
        widen=working,
        narrow=lambda x, like: x.to(like.dtype),
        dropped=lambda x: _DROPPED.get(x.dtype, 0),
        bits=lambda x: x.view(torch.int32),
        floats=lambda x: x.view(torch.float32),
        index=lambda start, n: torch.arange(n, dtype=torch.int32, device=device) + start,
        word=lambda high, low: high.to(torch.int32) * 2**16 + low.to(torch.int32),
    )
