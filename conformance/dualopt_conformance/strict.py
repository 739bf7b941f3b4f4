"""array-api-strict as a backend: the core's contract, enforced with the strictest flags.

It computes with numpy and has no half precision: parameters of these types are stored as numpy stores them.
"""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np

from dualopt import numpy_backend, storage
from dualopt.environment import Facts, cpu_only
from dualopt.exact import exact
from dualopt.executor import executor, stored
from dualopt.namespace import Backend
from dualopt.rounding import Casts

array_api_strict.set_array_api_strict_flags(boolean_indexing=False, data_dependent_shapes=False, enabled_extensions=())
_NAMESPACES = {"exact": exact(array_api_strict), "fast": array_api_strict}


def from_numpy(x: np.ndarray[Any, Any], dtype: str) -> Any:
    """A copy: a strict array, or for half precision numpy's stored one."""
    kept = storage.store(x, dtype)
    return kept if dtype in storage.HALF else array_api_strict.asarray(kept)


def working(x: Any) -> Any:
    """The strict array of a stored one."""
    return array_api_strict.asarray(storage.widen(x)) if isinstance(x, np.ndarray) else x


def narrowed(x: Any, like: Any) -> Any:
    """A strict array as `like` is stored."""
    return storage.narrow(np.array(x), like) if isinstance(like, np.ndarray) else x


def casts(tier: str) -> Casts:
    """Bits are those of numpy's arrays."""
    return Casts(
        xp=_NAMESPACES[tier],
        widen=working,
        narrow=narrowed,
        dropped=lambda x: storage.dropped(x) if isinstance(x, np.ndarray) else 0,
        bits=lambda x: np.array(x).view(np.int32),
        floats=lambda x: array_api_strict.asarray(x.view(np.float32)),
        index=storage.index,
        word=storage.word,
    )


def environment(device: str | None, threads: int | None) -> Facts:
    """Those of the numpy underneath. RecipeError for a device other than "cpu"."""
    cpu_only("strict", device)
    return {**numpy_backend.environment(device, threads), "numpy": np.__version__}


BACKEND = Backend(
    name="strict",
    namespaces=_NAMESPACES,
    from_numpy=from_numpy,
    to_numpy=lambda x: np.array(working(x)),
    execute=lambda tier: stored(executor(_NAMESPACES[tier]), casts(tier)),
    dtypes=numpy_backend.BACKEND.dtypes,
    version=array_api_strict.__version__,
    working=working,
    environment=environment,
)
