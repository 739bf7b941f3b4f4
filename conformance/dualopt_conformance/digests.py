"""Names of tensors in records, and their digests.

VARIANT/SITUATION/EXPERIMENT/UPDATE/PARAMETER          θ
VARIANT/SITUATION/EXPERIMENT/UPDATE/PARAMETER/KEY      a state array
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from dualopt.digest import Words, places, total, words

Array = np.ndarray[Any, Any]
DATAFLOW = ("m", "v")  # the order in which an update computes, channel by channel; other state follows, θ is last


def _stage(key: str) -> tuple[int, str]:
    name = key.partition("_")[0]
    return DATAFLOW.index(name) if name in DATAFLOW else len(DATAFLOW), key


def tensors_of(params: Mapping[str, Array], state: Mapping[str, Mapping[str, Array]]) -> Iterator[tuple[str, Array]]:
    """(name or name/key, array) of all parameters and state: for every parameter state first, then θ."""
    for name, theta in params.items():
        for key in sorted(state[name], key=_stage):
            yield f"{name}/{key}", state[name][key]
        yield name, theta


def digest_of(params: Mapping[str, Array], state: Mapping[str, Mapping[str, Array]]) -> int:
    """The 64-bit digest of θ and state after one update, as `dualopt.digest` has it."""
    return digest_of_all(tensors_of(params, state))


def digest_of_all(named: Iterable[tuple[str, Array]]) -> int:
    """The same of tensors by name; all of them are mixed at once."""
    names, arrays = zip(*named, strict=True)
    where = _places(tuple((name, x.size) for name, x in zip(names, arrays, strict=True)))
    return total(np.concatenate([words(x) for x in arrays]), where)


@lru_cache(maxsize=64)
def _places(sizes: tuple[tuple[str, int], ...]) -> Words:
    """The places of arrays one after the other: the same for every update of a run."""
    return np.concatenate([places(name, 0, size) for name, size in sizes])


def spoken(tensor: str) -> str:
    """``tall/m`` as it is said: ``m of tall``."""
    name, _, key = tensor.partition("/")
    return f"{key} of {name}" if key else name
