"""What a backend does here, found out by trying."""

from __future__ import annotations

import numpy as np

from dualopt.namespace import Backend


def flushes(backend: Backend) -> bool:
    """True if a result below the normal range of float32 becomes 0 on the backend's current device."""
    smallest = backend.from_numpy(np.array([2.0**-126], np.float32), "float32")
    return not backend.to_numpy(smallest * 0.5).any()
