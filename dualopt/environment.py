"""What a library is told before a recorded run, and how it says what it runs on.

An environment is a function (device, threads) -> facts, all strings, which `Backend.prepare` calls. It sets the
library up, or refuses; what it cannot change, such as threads that are read from the environment at import, it
reports as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .errors import RecipeError

Facts = dict[str, str]
Environment = Callable[[str | None, int | None], Facts]


def cpu_only(name: str, device: str | None) -> None:
    """RecipeError for another device than None and "cpu"."""
    if device not in (None, "cpu"):
        raise RecipeError(f"device {device!r}: {name} runs on cpu")


def check_threads(threads: int | None) -> None:
    """RecipeError for what is no number of threads; None leaves the library's own choice."""
    if threads is not None and (type(threads) is not int or threads < 1):
        raise RecipeError(f"threads: a positive whole number, got {threads!r}")


def settings(*variables: str) -> str:
    """Those of the environment variables that are set, as ``NAME=value``; "unset" if none is."""
    found = [f"{name}={os.environ[name]}" for name in variables if os.environ.get(name)]
    return " ".join(found) or "unset"
