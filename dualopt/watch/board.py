"""Numbers for TensorBoard, where that is installed: nothing here needs it, and a framework is not needed either."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

INSTALL = "pip install tensorboard"


class Board:
    """Writes event files into a directory; what was written before from the first count on is taken back."""

    def __init__(self, directory: str | Path, events: Any, records: Any) -> None:
        self._events, self._records = events, records
        self._writer = importlib.import_module("tensorboard.summary.writer.event_file_writer").EventFileWriter(
            str(directory)
        )
        self._begun = False

    def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
        """One number at a count."""
        if not self._begun:
            self._begun = True
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._writer.add_event(self._events.Event(wall_time=time.time(), step=global_step, session_log=start))
        value = self._records.Summary.Value(tag=tag, simple_value=scalar_value)
        summary = self._records.Summary(value=[value])
        self._writer.add_event(self._events.Event(wall_time=time.time(), step=global_step, summary=summary))

    def flush(self) -> None:
        """Let readers see it."""
        self._writer.flush()


def board(directory: str | Path) -> Board | None:
    """What writes into `directory`; None where TensorBoard is not installed."""
    try:
        events = importlib.import_module("tensorboard.compat.proto.event_pb2")
        records = importlib.import_module("tensorboard.compat.proto.summary_pb2")
    except ImportError:
        return None
    return Board(directory, events, records)
