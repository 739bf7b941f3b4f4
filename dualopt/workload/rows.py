"""Rows of metrics as lines of JSON. A loss that is not finite is null in the file and NaN in memory."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

Row = dict[str, Any]

LOSSES = ("loss", "validation_loss")
_NUMBERS = (*LOSSES, "elapsed")


def encoded(row: Mapping[str, Any]) -> bytes:
    """A row as a line, with its end."""
    finite = {k: None if k in LOSSES and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite, allow_nan=False).encode() + b"\n"


def parsed(text: bytes) -> Row:
    """A line as a row.

    Raises:
        ValueError: no object, without an integer ``update``, or with numbers that are none.
    """
    try:
        row = json.loads(text)
        json.dumps(row, allow_nan=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(row, dict) or type(row.get("update")) is not int:
        raise ValueError("it has no 'update'")
    row = {k: math.nan if k in LOSSES and v is None else v for k, v in row.items()}
    wrong = [key for key in _NUMBERS if key in row and type(row[key]) not in (int, float)]
    wrong += ["digest"] if not isinstance(row.get("digest", ""), str) else []
    if wrong:
        raise ValueError(f"its {wrong[0]!r} is {row[wrong[0]]!r}")
    return row
