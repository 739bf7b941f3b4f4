"""The file that a monitor writes: JSON lines, the first a header, then one record for every measured update.

    header   format, recipe (digest), shapes (digest), count, schedule, end, warnings, starts {parameter: RMS}, and
             groups [{name, optimizer, entries, counts, curves, bands, most, settles, turns, ...}] as predicted
    record   count, dtau, groups {name: {"measured": {quantity: number}, "expected": {...}, "parameters": how many}},
             and "parameters" {name: {quantity: number}} of those that were asked for

Lines are appended and flushed one by one. A process that is killed leaves at most one line that was cut off, which is
not read. A run that goes on at an earlier count takes back what comes after it, so no count is there twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..durable import atomic
from ..errors import CheckpointError

FORMAT = "dualopt-watch 1"
NAME = "monitor.jsonl"  # in a run directory

Data = dict[str, Any]


@dataclass(frozen=True)
class Watched:
    """What a file holds: its header, and the records by ascending count."""

    header: Data
    records: tuple[Data, ...]


def read(path: str | Path) -> Watched:
    """The header and records of a file, or of `NAME` in a run directory.

    Raises:
        CheckpointError: it cannot be read, is no such file, or is damaged elsewhere than in a last line cut off.
    """
    path = located(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = text.split(b"\n")[:-1]
    if not lines:
        raise CheckpointError(f"{path}: nothing has been measured yet; the header comes with the first measurement")
    found = [_parsed(path, number, line) for number, line in enumerate(lines, 1)]
    header, records = found[0], found[1:]
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: not the file of a monitor: its first line has no format {FORMAT!r}")
    if problem := _header_problem(header):
        raise CheckpointError(f"{path}: line 1 is damaged ({problem})")
    last, groups = 0, {g["name"] for g in header["groups"]}
    for number, record in enumerate(records, 2):
        if problem := _record_problem(record, last, groups):
            raise CheckpointError(f"{path}: line {number} is damaged ({problem})")
        last = record["count"]
    return Watched(header, tuple(records))


def located(path: str | Path) -> Path:
    """`path`, or `NAME` in it if it is a directory."""
    path = Path(path)
    return path / NAME if path.is_dir() else path


def begin(path: Path, header: Mapping[str, Any]) -> None:
    """A new file of the header alone. Raises: OSError."""
    with atomic(path) as file:
        file.write(_line(header))


def append(path: Path, record: Mapping[str, Any]) -> None:
    """One more record. Raises: OSError."""
    with path.open("ab") as file:
        file.write(_line(record))


def rewind(path: Path, count: int) -> None:
    """Take back what was measured after `count`, and a last line that was cut off.

    Raises:
        OSError, CheckpointError: as `read`.
    """
    found = read(path)
    with atomic(path) as file:
        file.writelines(map(_line, (found.header, *(r for r in found.records if r["count"] <= count))))


def writable(path: Path) -> None:
    """Make the directory of `path`. Raises: CheckpointError if nothing can be written there."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(21, "it is a directory")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise PermissionError(13, "no permission")
    except OSError as error:
        raise CheckpointError(f"{path}: a monitor cannot write there: {error.strerror or error}") from error


def _line(data: Mapping[str, Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _parsed(path: Path, number: int, line: bytes) -> Data:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: line {number} is damaged ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: line {number} is damaged (no JSON object)")
    return found


def _header_problem(header: Data) -> str | None:
    kinds = {
        "recipe": str,
        "shapes": str,
        "schedule": str,
        "count": dict,
        "starts": dict,
        "groups": list,
        "end": int,
        "warnings": list,
    }
    for key, kind in kinds.items():
        if not isinstance(header.get(key), kind):
            return f"{key!r} is missing or no {kind.__name__}"
    inner = {
        "name": str,
        "optimizer": str,
        "parameters": int,
        "entries": int,
        "counts": list,
        "curves": dict,
        "bands": dict,
        "most": dict,
    }
    if not isinstance(header["count"].get("base"), str):
        return "'count' has no base"
    for group in header["groups"]:
        for key, kind in inner.items():
            if not isinstance(group, dict) or not isinstance(group.get(key), kind):
                return f"{key!r} of a group is missing or no {kind.__name__}"
        for name, curve in group["curves"].items():
            if not _numbers(curve) or len(curve) != len(group["counts"]):
                return f"the curve of {name!r} is not a number for every count"
        for name, most in group["most"].items():
            if not _number(most):
                return f"'most' of {name!r} is no number"
        for name, band in group["bands"].items():
            if not isinstance(band, list) or len(band) != 3 or not all(map(_number, band)):
                return f"the band of {name!r} is not three numbers"
    return None


def _record_problem(record: Data, last: int, groups: set[str]) -> str | None:
    count = record.get("count")
    if type(count) is not int or count <= last:
        return f"its count is {count!r}, after {last}"
    found = record.get("groups")
    if not isinstance(found, dict):
        return "it has no groups"
    for name, group in found.items():
        if name not in groups:
            return f"the header has no group {name!r}"
        for key in ("measured", "expected"):
            values = group.get(key) if isinstance(group, dict) else None
            if not isinstance(values, dict) or not all(map(_number, values.values())):
                return f"{key!r} of group {name!r} is not numbers"
        if type(group.get("parameters")) is not int:
            return f"'parameters' of group {name!r} is no whole number"
    return None


def _numbers(values: object) -> bool:
    """True for a list of numbers, and None where there is none."""
    return isinstance(values, list) and all(x is None or _number(x) for x in values)


def _number(x: object) -> bool:
    return isinstance(x, int | float) and not isinstance(x, bool)
