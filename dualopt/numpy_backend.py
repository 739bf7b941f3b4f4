"""numpy as a backend: the reference of the exact tier, and in float64 the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .environment import Facts, cpu_only, settings
from .exact import exact
from .executor import executor, stored
from .namespace import Backend
from .rounding import Casts
from .storage import HALF, dropped, index, narrow, store, widen, word

_NAMESPACES = {"exact": exact(np), "fast": np}
CASTS = {
    tier: Casts(
        xp=xp,
        widen=widen,
        narrow=narrow,
        dropped=dropped,
        bits=lambda x: np.asarray(x).view(np.int32),
        floats=lambda x: x.view(np.float32),
        index=index,
        word=word,
    )
    for tier, xp in _NAMESPACES.items()
}
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def environment(device: str | None, threads: int | None) -> Facts:
    """The facts of numpy, whose BLAS reads the number of threads from the environment at import.

    Raises:
        RecipeError: a device other than "cpu".
    """
    cpu_only("numpy", device)
    built: Mapping[str, Any] = dict(np.show_config(mode="dicts") or {})
    blas = built.get("Build Dependencies", {}).get("blas", {})
    vectors = built.get("SIMD Extensions", {})
    return {
        "device": "cpu",
        "threads": settings(*_THREADS),
        "blas": f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip(),
        "simd": " ".join(vectors.get("found") or vectors.get("baseline") or ["unknown"]),
    }


BACKEND = Backend(
    name="numpy",
    namespaces=_NAMESPACES,
    from_numpy=store,
    to_numpy=lambda x: widen(np.array(x)),
    execute=lambda tier: stored(executor(_NAMESPACES[tier]), CASTS[tier]),
    dtypes=("float32", "float64", *HALF),
    version=np.__version__,
    working=widen,
    environment=environment,
)
