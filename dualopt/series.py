"""The last checkpoints of a training: written so that one of them can be read, whatever happens when.

    checkpoint.safetensors       the newest
    checkpoint.1.safetensors     the one before, and so on
    checkpoint.new.safetensors   complete, and about to become the newest

A file is complete and on the disk before it has a name, and what is older is renamed only then. So there is no moment
at which the newest complete one is lost. What is damaged is set aside, as checkpoint.damaged.safetensors, and the one
before is read. What is whole and cannot be read, such as one of another version, is an error: it is not passed over.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from . import checkpoint, durable
from .checkpoint import Snapshot
from .errors import CheckpointError, DamagedError

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Series:
    """The checkpoint ``path`` and those before it, ``keep`` in all."""

    path: Path
    keep: int = 2

    def files(self) -> list[Path]:
        """Those that are there, the newest first, complete or not."""
        names = [self._named("new"), self.path, *(self._named(i) for i in range(1, self.keep))]
        return [path for path in names if path.exists()]

    def save(self, snapshot: Snapshot, *, metadata: Mapping[str, str]) -> None:
        """Write the next one, and forget the oldest. Raises: CheckpointError; those before are as they were then."""
        new = self._named("new")
        try:
            if new.exists():
                self._advance()
            checkpoint.save(new, snapshot, metadata=metadata)
            self._advance()
        except OSError as error:
            raise CheckpointError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def load(self, tell: Tell) -> tuple[Snapshot, dict[str, str]] | None:
        """The newest that is intact, and its metadata; None without any file.

        ``tell``: called with what is wrong with a newer one, and what is used instead.

        Raises: CheckpointError if none of them is intact, or one that is newer than the first intact one is whole and
        cannot be read.
        """
        wrong: list[tuple[Path, DamagedError]] = []
        for path in self.files():
            try:
                found = checkpoint.load(path)
            except DamagedError as error:
                wrong.append((path, error))
                continue
            for damaged, reason in wrong:
                with contextlib.suppress(OSError):  # it is passed over again next time
                    damaged.replace(self._named("damaged"))
                tell(f"{reason}. Used instead: {path}")
            return found
        if wrong:
            told = "; ".join(str(reason) for _, reason in wrong)
            raise CheckpointError(f"no checkpoint here is intact: {told}. Restore a copy, or start a new run")
        return None

    def _advance(self) -> None:
        """Every name becomes that of the one after. OSError if the directory cannot be written."""
        names = [self._named("new"), self.path, *(self._named(i) for i in range(1, self.keep))]
        for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
            if newer.exists():
                newer.replace(older)
        durable.synchronise(self.path.parent)

    def _named(self, word: str | int) -> Path:
        return self.path.with_name(f"{self.path.stem}.{word}{self.path.suffix}")
