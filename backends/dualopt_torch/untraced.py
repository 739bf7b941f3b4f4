"""Functions that torch's compiler leaves alone, without importing it: that takes about as long as importing torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from torch._compile import _disable_dynamo

P = ParamSpec("P")
R = TypeVar("R")


def untraced(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, which breaks the graph of a compiled caller. Whoever compiles has imported the compiler."""
    disabled: Callable[P, R] = _disable_dynamo(function)  # imports it when it is called

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return disabled(*args, **kwargs) if "torch._dynamo" in sys.modules else function(*args, **kwargs)

    return call
