"""The training text: bytes are tokens, and a batch is a pure function of (text, seed, step).

Nothing is downloaded: the default text is the language reference that ships with CPython.
"""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualopt.errors import DataError
from dualopt.generator import Stream

VOCABULARY = 256

Tokens = np.ndarray[Any, np.dtype[np.uint8]]
Batch = tuple[np.ndarray[Any, np.dtype[np.int32]], np.ndarray[Any, np.dtype[np.int32]]]


@dataclass(frozen=True)
class Text:
    """``tokens`` (n,) with the SHA-256 of their bytes; the last tenth is for validation."""

    tokens: Tokens
    sha256: str
    name: str

    @property
    def train(self) -> Tokens:
        return self.tokens[: len(self.tokens) - len(self.tokens) // 10]

    @property
    def validation(self) -> Tokens:
        return self.tokens[len(self.tokens) - len(self.tokens) // 10 :]


def load_text(path: str | None = None) -> Text:
    """The text of a file, or CPython's topics. Raises: DataError for a missing or empty file."""
    if path is None:
        data, name = _topics(), f"pydoc_data.topics of CPython {platform.python_version()}"
    else:
        try:
            data, name = Path(path).read_bytes(), Path(path).name
        except OSError as error:
            raise DataError(f"{path}: cannot be read as training text: {error.strerror or error}") from error
        if not data:
            raise DataError(f"{path}: the file is empty; give a text file of at least a few kilobytes")
    return Text(np.frombuffer(data, np.uint8), hashlib.sha256(data).hexdigest(), name)


def _topics() -> bytes:
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise DataError("this Python comes without pydoc_data.topics; name a text file instead") from error
    return "\n\n".join(topics[key] for key in sorted(topics)).encode()


def unigram_entropy(text: Text) -> float:
    """The loss in nats of the best prediction that ignores the context."""
    counts = np.bincount(text.tokens, minlength=VOCABULARY)
    shares = counts[counts > 0] / len(text.tokens)
    return float(-(shares * np.log(shares)).sum())


def batch(text: Text, seed: int, step: int, batch: int, context: int) -> Batch:
    """Inputs and targets of step 0, 1, ...: int32 (batch, context), the targets one token later.

    Any step can be made alone. Raises: DataError if the text is too short for ``context``.
    """
    bound = _windows(text, text.train, "training", context)
    starts = Stream(seed, "batches").below(bound, batch, step * batch)
    return _cut(text.train, starts, context)


def validation(text: Text, batches: int, batch: int, context: int) -> list[Batch]:
    """The fixed validation batches: ``batches * batch`` windows spread evenly over the last tenth."""
    bound = _windows(text, text.validation, "validation", context)
    starts = np.arange(batches * batch, dtype=np.int64) * bound // (batches * batch)
    return [_cut(text.validation, part, context) for part in starts.reshape(batches, batch)]


def _windows(text: Text, part: Tokens, what: str, context: int) -> int:
    if len(part) <= context:
        raise DataError(
            f"{text.name}: {len(part)} bytes for {what} are too few for a context of {context}; "
            f"use a text of at least {10 * (context + 1)} bytes or a shorter context"
        )
    return len(part) - context


def _cut(part: Tokens, starts: np.ndarray[Any, Any], context: int) -> Batch:
    windows = part[starts[:, None] + np.arange(context + 1)].astype(np.int32)
    return np.ascontiguousarray(windows[:, :-1]), np.ascontiguousarray(windows[:, 1:])
