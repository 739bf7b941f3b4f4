"""Files that torch wrote, read without executing anything in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from dualopt.errors import CheckpointError


def load_plain(path: Path) -> Any:
    """What `torch.save` wrote: tensors, numbers, strings and containers of them, on the CPU.

    Raises:
        CheckpointError: it cannot be read, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch raises what its unpickler, its archive reader and zipfile raise
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: torch.load(weights_only=True) refuses it ({reason})") from error
