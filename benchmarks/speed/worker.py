"""The process of one peer: does what it is told on stdin, a line of JSON each, and answers on what was stdout.

    {"do": "build", "task": {...}}     imports, builds, two steps; again: all but the import anew
    {"do": "turn", "least": 3, "most": 50, "seconds": 0.1}     one untimed step, then timed ones
    {"do": "facts"}     whether the parameters are still finite, and what else is known

Answers have "ok"; if false, "kind" is "absent" (not installed, or does not do this here) or "failed", and "reason".
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from .subject import Subject, Task, UnavailableError

Request = Mapping[str, Any]
Reply = dict[str, Any]


class IdleError(Exception):
    """A peer that leaves parameters where they are, or makes them no numbers."""


class Session:
    """What the worker has built."""

    def __init__(self) -> None:
        self.subject: Subject | None = None
        self.step: Callable[[], object] | None = None

    def build(self, request: Request) -> Reply:
        """Seconds of import, of making the optimizer and of the first two steps; how parameters moved in the first."""
        task = Task.of(request["task"])
        self.subject = self.step = None
        gc.collect()
        module, _, function = task.make.partition(":")
        begun = time.perf_counter()
        made = getattr(importlib.import_module(f"benchmarks.speed.peers.{module}"), function)
        imported = time.perf_counter() - begun
        subject: Subject = made(task)
        before = subject.values() if subject.moves else []
        begun = time.perf_counter()
        self.step = step = subject.start()
        built = time.perf_counter() - begun
        first = self._timed(subject, step)
        moved = _moved(before, subject.values()) if subject.moves else []
        second = self._timed(subject, step)
        self.subject = subject
        phases = {"import": imported, "build": built, "first": first, "second": second}
        return {"phases": phases, "moved": moved, "version": _version(request.get("distribution"))}

    def turn(self, request: Request) -> Reply:
        """The seconds of every timed step."""
        subject, step = self._built()
        self._timed(subject, step)
        taken: list[float] = []
        gc.disable()  # as timeit does
        try:
            while len(taken) < request["least"] or (len(taken) < request["most"] and sum(taken) < request["seconds"]):
                taken.append(self._timed(subject, step))
        finally:
            gc.enable()
        return {"times": taken}

    def facts(self, request: Request) -> Reply:
        subject, _ = self._built()
        if subject.moves:
            _finite(subject.values())
        return {"facts": subject.facts()}

    def _built(self) -> tuple[Subject, Callable[[], object]]:
        if self.subject is None or self.step is None:
            raise RuntimeError("nothing has been built")
        return self.subject, self.step

    @staticmethod
    def _timed(subject: Subject, step: Callable[[], object]) -> float:
        subject.prepare()
        begun = time.perf_counter()
        step()
        return time.perf_counter() - begun


def _version(distribution: str | None) -> str | None:
    try:
        return None if distribution is None else importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _finite(values: list[Any]) -> None:
    import numpy as np

    if not all(np.isfinite(x).all() for x in values):
        raise IdleError("parameters are no longer finite")


def _moved(before: list[Any], after: list[Any]) -> list[float]:
    """What was added to the sampled elements. Raises: IdleError if a parameter is where it was."""
    import numpy as np

    _finite(after)
    added = [y - x for x, y in zip(before, after, strict=True)]
    still = sum(not x.any() for x in added)
    if still:
        raise IdleError(f"a step left {still} of {len(added)} parameters where they were")
    return [float(f"{x:.6g}") for x in np.concatenate(added)]


def answered(session: Session, line: str) -> Reply:
    """The reply to a line; errors become one, too."""
    try:
        request = json.loads(line)
        return {"ok": True, **getattr(session, request["do"])(request)}
    except UnavailableError as error:
        return {"ok": False, "kind": "absent", "reason": str(error)}
    except ModuleNotFoundError as error:
        return {"ok": False, "kind": "absent", "reason": f"{error.name} is not installed"}
    except Exception as error:
        first = (str(error).strip() or "no message").splitlines()[0]
        return {"ok": False, "kind": "failed", "reason": f"{type(error).__name__}: {first}"}


def main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    session = Session()
    for line in sys.stdin:
        print(json.dumps(answered(session, line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
