"""The first gradients of a run in one file, so that another backend can be fed the same bits.

Keys are ``UPDATE/NAME`` with the update, from 1, in six digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import tensors
from dualopt.errors import CheckpointError

Gradients = dict[str, np.ndarray[Any, Any]]


class Recording:
    """Collects the gradients of updates 1 ... ``limit`` and writes them to ``path``."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self._updates: list[Gradients] = []
        self._written = 0

    def restart(self, update: int) -> None:
        """Continue after ``update``, with what the file holds of the updates before it.

        Raises: CheckpointError if the file lacks some of them.
        """
        wanted = min(update, self.limit)
        self._updates = read(self.path)[:wanted] if wanted else []
        if len(self._updates) < wanted:
            raise CheckpointError(
                f"{self.path}: holds {len(self._updates)} of the first {wanted} updates; "
                "start the run again to record them, or resume without recording"
            )

    def add(self, gradients: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Keep the gradients of the next update; the last one that is wanted completes the file."""
        self._updates.append({name: array.astype(np.float32, copy=False) for name, array in gradients.items()})
        if len(self._updates) == self.limit:
            self.save()

    def save(self) -> None:
        """Write what the file does not have yet. Raises: CheckpointError."""
        if len(self._updates) == self._written:
            return
        arrays = {
            f"{update:06d}/{name}": array
            for update, gradients in enumerate(self._updates, 1)
            for name, array in gradients.items()
        }
        tensors.write(self.path, arrays, {"updates": str(len(self._updates))})
        self._written = len(self._updates)


def read(path: Path) -> list[Gradients]:
    """name -> float32 array for update 1, 2, ... Raises: CheckpointError."""
    updates: dict[str, Gradients] = {}
    for key, array in sorted(tensors.read(path).tensors.items()):
        number, _, name = key.partition("/")
        updates.setdefault(number, {})[name] = array
    if list(updates) != [f"{update:06d}" for update in range(1, len(updates) + 1)]:
        raise CheckpointError(f"{path}: its keys are not UPDATE/NAME with updates 1, 2, ...; record them again")
    return list(updates.values())
