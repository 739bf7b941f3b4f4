"""Names of tensors in records, and their digests.

VARIANT/SITUATION/EXPERIMENT/UPDATE/PARAMETER          θ
VARIANT/SITUATION/EXPERIMENT/UPDATE/PARAMETER/KEY      a state array
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from dualopt.digest import digest_array

Array = np.ndarray[Any, Any]
DATAFLOW = ("m", "v")  # the order in which an update computes; θ is last


def tensors_of(params: Mapping[str, Array], state: Mapping[str, Mapping[str, Array]]) -> Iterator[tuple[str, Array]]:
    """(name or name/key, array) of all parameters and state: for every parameter state first, then θ."""
    for name, theta in params.items():
        for key in sorted(state[name], key=lambda k: (DATAFLOW.index(k) if k in DATAFLOW else len(DATAFLOW), k)):
            yield f"{name}/{key}", state[name][key]
        yield name, theta


def digest_of(params: Mapping[str, Array], state: Mapping[str, Mapping[str, Array]]) -> int:
    """The 64-bit digest of θ and state after one update."""
    return sum(digest_array(name, x) for name, x in tensors_of(params, state)) % 2**64


def spoken(tensor: str) -> str:
    """``tall/m`` as it is said: ``m of tall``."""
    name, _, key = tensor.partition("/")
    return f"{key} of {name}" if key else name
