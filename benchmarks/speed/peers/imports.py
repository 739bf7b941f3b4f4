"""The import of a module, as what a peer builds."""

from __future__ import annotations

import importlib

from ..subject import Subject, Task, nothing


def make(task: Task) -> Subject:
    def start() -> object:
        importlib.import_module(task.options["module"])
        return nothing

    return Subject(start, list, moves=False)  # type: ignore[arg-type]
