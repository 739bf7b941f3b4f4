"""Between numpy arrays and tensors, on the device that a run has chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dualopt.errors import RecipeError
from dualopt.storage import working

HALF = {torch.bfloat16: "BF16", torch.float16: "F16"}
DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass
class Current:
    """The device of the tensors that `from_numpy` makes."""

    device: torch.device


CURRENT = Current(torch.device("cpu"))  # `environment` changes it


def from_numpy(x: np.ndarray[Any, Any], dtype: str) -> torch.Tensor:
    """A copy on the current device; half precision is rounded from float32.

    Raises:
        RecipeError: float64 on a device that has none.
    """
    if dtype == "float64" and CURRENT.device.type == "mps":
        raise RecipeError(f"dtype 'float64': torch on mps has {', '.join(d for d in DTYPES if d != 'float64')}")
    copy = torch.from_numpy(np.array(x, dtype=working(dtype)))
    return copy.to(CURRENT.device, getattr(torch, dtype))


def to_numpy(x: torch.Tensor) -> np.ndarray[Any, Any]:
    """A copy; half precision is widened to float32, which is exact."""
    return np.array((x.to(torch.float32) if x.dtype in HALF else x).numpy(force=True))
