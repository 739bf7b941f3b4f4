"""dualopt on PyTorch: namespaces, execution and the native optimizer."""

import numpy as np
import torch

from dualopt.namespace import Backend

from .execute import functional
from .namespace import EXACT, FAST
from .optimizer import Optimizer
from .parameters import shapes_of

BACKEND = Backend(
    name="torch",
    namespaces={"exact": EXACT, "fast": FAST},
    from_numpy=lambda x, dtype: torch.from_numpy(np.array(x, dtype=dtype)),
    to_numpy=lambda x: np.array(x.numpy(force=True)),
    execute=functional,
    dtypes=("float32", "float64"),
    version=torch.__version__,
)

__all__ = ["BACKEND", "Optimizer", "shapes_of"]
