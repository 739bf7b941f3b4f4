"""The coordinator's end of a worker: a process, a question, an answer in time."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WORKER = ("-m", "benchmarks.speed.worker")


class GoneError(Exception):
    """A worker that died or did not answer in time; the message says which, and its last words."""


class RefusedError(Exception):
    """A worker's answer that it cannot. `kind` is "absent" or "failed"."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind


class Link:
    """A worker process.

    Args:
        python: its interpreter.
        environment: its environment variables, all of them.
        checkout: the directory that holds `benchmarks`.
        arguments: of the interpreter.
    """

    def __init__(
        self,
        python: str,
        environment: Mapping[str, str],
        checkout: Path,
        arguments: tuple[str, ...] = WORKER,
    ) -> None:
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the link)
        self._process = subprocess.Popen(
            [python, *arguments],
            cwd=checkout,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
        )
        self._read = b""

    def send(self, **request: Any) -> None:
        """Ask without waiting. Raises: GoneError."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise GoneError(self._ended()) from error

    def receive(self, within: float) -> dict[str, Any]:
        """The answer to the last `send`, which may take so many seconds. Raises: GoneError, RefusedError."""
        assert self._process.stdout is not None
        until = time.monotonic() + within
        while b"\n" not in self._read:
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                raise GoneError(f"no answer within {within:g} s{self._last()}")
            piece = os.read(self._process.stdout.fileno(), 1 << 16)
            if not piece:
                raise GoneError(self._ended())
            self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        if not reply.pop("ok"):
            raise RefusedError(reply["kind"], reply["reason"])
        return reply

    def ask(self, within: float, **request: Any) -> dict[str, Any]:
        """`send`, then `receive`."""
        self.send(**request)
        return self.receive(within)

    def close(self) -> None:
        """End the process, whatever it is doing."""
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._words):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _ended(self) -> str:
        try:
            status = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            return f"it closed its pipe{self._last()}"
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"the process ended with {how}{self._last()}"

    def _last(self) -> str:
        """The last line that the worker wrote to stderr, as the end of a sentence."""
        self._words.seek(max(0, self._words.seek(0, os.SEEK_END) - 4096))
        said = self._words.read().decode(errors="replace").strip().splitlines()
        return f": {said[-1].strip()[:200]}" if said else ""
