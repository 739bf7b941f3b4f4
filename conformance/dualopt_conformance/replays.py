"""A group of your own on two backends, compared bit by bit after every update.

Both sides get the same parameters, gradients and increments through `dualopt.replay`. The claim of the
exact tier is that nothing differs; the report names the first thing that does, in the order in which
an update computes it: state before parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dualopt import Replay, replay

from .metric import bit_differences

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Difference:
    """One element that differs. `key` is that of the state, or "" for the parameter itself."""

    update: int
    name: str
    key: str
    index: tuple[int, ...]
    reference: str  # the hexadecimal value, as float.hex
    other: str

    def __str__(self) -> str:
        what = f"state {self.key!r} of {self.name!r}" if self.key else f"parameter {self.name!r}"
        at = f"{what} at {list(self.index)}"
        return f"update {self.update}: {at} is {self.reference} and {self.other}"


@dataclass(frozen=True)
class Report:
    """How many elements were compared, how many differ, and the first of them."""

    compared: int
    differing: int
    first: Difference | None = None

    def __str__(self) -> str:
        counts = f"{self.differing} of {self.compared} elements differ in bits"
        return f"{counts}; first: {self.first}" if self.first else counts


def compare(reference: Replay, other: Replay) -> Report:
    """Every parameter and state array of two replays, after every update.

    Raises:
        ValueError: an update, a parameter or a state array is on one side only, its shape or dtype
            differs, or there is nothing to compare.
    """
    left, right = list(_arrays(reference)), list(_arrays(other))
    if [at for at, _ in left] != [at for at, _ in right]:
        odd = next(iter({at for at, _ in left} ^ {at for at, _ in right}))
        raise ValueError(f"(update, parameter, key) {odd} is on one side only, or the order differs")
    compared = differing = 0
    first: Difference | None = None
    for ((t, name, key), x), (_, y) in zip(left, right, strict=True):
        differ = bit_differences(x, y)
        compared += x.size
        differing += int(differ.sum())
        if first is None and differ.any():
            index = tuple(int(i) for i in np.argwhere(differ)[0])
            first = Difference(t, name, key, index, float(x[index]).hex(), float(y[index]).hex())
    if compared == 0:
        raise ValueError("there is nothing to compare: no updates, or empty arrays only")
    return Report(compared, differing, first)


def lockstep(
    group: Any,
    params: Mapping[str, Array],
    grads: Iterable[Mapping[str, Array]],
    counts: int | Iterable[int],
    *,
    backends: tuple[str, str],
    tier: str = "exact",
    dtype: str = "float32",
) -> Report:
    """Drive `group` on two backends over the same inputs (see `dualopt.replay`) and compare.

    Raises:
        DualoptError: as `dualopt.replay`.
        ValueError: as `compare`.
    """
    gradients = list(grads)
    every = counts if isinstance(counts, int) else list(counts)
    reference, other = (
        replay(group, params, gradients, every, backend=backend, tier=tier, dtype=dtype) for backend in backends
    )
    return compare(reference, other)


def _arrays(found: Replay) -> Iterator[tuple[tuple[int, str, str], Array]]:
    for t, params in enumerate(found.params):
        for name, theta in params.items():
            for key, x in found.state[t][name].items():
                yield (t, name, key), x
            yield (t, name, ""), theta
