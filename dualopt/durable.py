"""Files that outlive the process and the machine that write them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under ``path`` complete or not at all, also when the machine stops.

    Raises: OSError. The temporary file is removed when the body raises.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            flush(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


def synchronise(directory: Path) -> None:
    """Put the names in a directory on the disk: a new one is durable only then. Raises: OSError."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def flush(descriptor: int) -> None:
    """Put what was written on the disk. Raises: OSError.

    macOS leaves it in the cache of the drive after `fsync`, and has a command for the rest of the way, which not
    every file system takes.
    """
    full = getattr(fcntl, "F_FULLFSYNC", None)
    if full is not None:
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, full)
            return
    os.fsync(descriptor)


@contextlib.contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other processes out of a directory that they ask for, too. The lock goes with the process, however it ends.

    A file system without locks keeps nobody out. Raises: BlockingIOError if another one is in; OSError.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:  # no locks here
            pass
        yield
    finally:
        os.close(descriptor)
