"""What a floating-point operation may make of its exact result z, with u = 2^-24:

    |fl(z) − z|  <=  max(unit · u |z|, min(|z|, tiny))

`unit` is 1 for a correctly rounded operation: half a spacing. `tiny` is half the spacing of subnormal numbers,
2^-150; sums and roots have no error below the normal numbers, so theirs is 0.

    PLAIN      one correct rounding per operation, sums and products of matrices in any order
    FMA        the same, where a product that is added is not rounded
    FUSED      nothing is rounded but what is stored
    NATIVE     quotients within 2 spacings and roots within 1: what compilers for GPUs may emit (PTX states 2 ulp
               for div.full.f32 and a relative error of 2^-23 for sqrt.approx.f32)
    FLUSHING   the same, and any number below 2^-126 may be taken for zero wherever it occurs

Every evaluation of FMA, of FUSED and of PLAIN is one of NATIVE, in which some roundings are 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

U = 2.0**-24
NORMAL = 2.0**-126  # the smallest normal number
GRADUAL = 2.0**-150


@dataclass(frozen=True)
class Arithmetic:
    """The units of the operations, in u; `store` is that of an array that leaves the update."""

    name: str
    add: float = 1.0
    mul: float = 1.0
    div: float = 1.0
    sqrt: float = 1.0
    store: float = 0.0  # what is computed is already a number of the type
    fma: bool = False
    flush: bool = False

    def unit(self, operation: str) -> float:
        """The `unit` of the module's inequality; ``shift`` is a product with a power of two."""
        return 0.0 if operation == "shift" else float(getattr(self, operation))

    def tiny(self, operation: str) -> float:
        """The `tiny` of the module's inequality."""
        exact = operation == "sqrt" or (operation == "add" and not self.fma)  # where the result is subnormal
        rounds = self.mul if operation == "shift" else self.unit(operation)
        return 0.0 if exact or rounds == 0 else GRADUAL


PLAIN = Arithmetic("plain")
FMA = Arithmetic("fma", fma=True)
FUSED = Arithmetic("fused", add=0, mul=0, div=0, sqrt=0, store=1)
NATIVE = Arithmetic("native", div=4, sqrt=2)
FLUSHING = Arithmetic("flushing", div=4, sqrt=2, flush=True)
