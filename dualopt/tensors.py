"""Files of named arrays in the safetensors format, with numpy alone.

A file is ``length`` (8 bytes, little-endian), ``header`` (``length`` bytes of JSON) and the raw
little-endian data. The header maps a name to ``{"dtype", "shape", "data_offsets": [begin, end]}``,
offsets counted from the end of the header, and ``__metadata__`` to an object of strings.

The same arrays always give the same bytes. Everything the header claims is checked against the size
of the file before an array is allocated.

`write` adds the metadatum ``dualopt.sha256``, of the whole file with zeros in its own place, so that `read` finds
any bit that has changed since. Files of others are read without.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from dualopt.durable import atomic
from dualopt.errors import CheckpointError, DamagedError

Array = np.ndarray[Any, Any]

_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # numpy has no bfloat16: these are its bits
    "I64": "<i8",
    "I32": "<i4",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "|u1",
    "I8": "|i1",
    "BOOL": "|b1",
}
_NAME = {np.dtype(code): name for name, code in _NUMPY.items() if name != "BF16"}
_METADATA = "__metadata__"
CHECKSUM = "dualopt.sha256"
_ZEROS = "0" * 64
_HEADER_LIMIT = 100_000_000  # bytes, the limit of the reference implementation
_DIMENSION_LIMIT = 64  # of numpy


@dataclass(frozen=True)
class TensorFile:
    """What a file holds. ``dtypes`` gives the stored type of every tensor; BF16 is float32 in memory.

    ``sha256``: the checksum that the file has, and was found to keep; None for one without.
    """

    tensors: dict[str, Array]
    metadata: dict[str, str]
    dtypes: dict[str, str]
    sha256: str | None


@dataclass(frozen=True)
class _Entry:
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


class _Damage(Exception):  # noqa: N818
    """What is wrong with a file; `read` adds which file."""


def write(
    path: str | Path,
    tensors: Mapping[str, Array],
    metadata: Mapping[str, str],
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Write arrays of any shape atomically; ``dtypes`` may name BF16 or F16 for a float32 array.

    A narrower type must hold every value exactly, and the metadatum ``dualopt.sha256`` is taken. Raises:
    CheckpointError, with nothing written.
    """
    path = Path(path)
    if CHECKSUM in metadata:
        raise CheckpointError(f"{path}: the metadata key {CHECKSUM!r} is that of the checksum; choose another")
    wanted = dict(dtypes or {})
    for name in wanted.keys() - tensors.keys():
        raise CheckpointError(f"{path}: a dtype is given for {name!r}, which is not among the tensors")
    stored = {name: _store(path, name, array, wanted.get(name)) for name, array in tensors.items()}
    # Wide types first: with the header padded to 8 bytes every tensor is aligned to its own type.
    order = sorted(stored, key=lambda name: (-stored[name][1].itemsize, name))
    header: dict[str, Any] = {_METADATA: {CHECKSUM: _ZEROS, **_strings(path, metadata)}}
    position = 0
    for name in order:
        dtype, array = stored[name]
        offsets = [position, position + array.nbytes]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
        position += array.nbytes
    try:
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{path}: a name or metadata is not valid Unicode: {error}") from error
    text += b" " * (-len(text) % 8)
    if len(text) > _HEADER_LIMIT:
        raise CheckpointError(f"{path}: names and metadata take {len(text)} bytes, more than {_HEADER_LIMIT}")
    prefix = len(text).to_bytes(8, "little")
    data = [np.ascontiguousarray(stored[name][1]).reshape(-1).data.cast("B") for name in order]
    found = hashlib.sha256(prefix + text)
    for part in data:
        found.update(part)
    try:
        with atomic(path) as file:
            file.write(prefix + text.replace(*_places(_ZEROS, found.hexdigest()), 1))
            file.writelines(data)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def read(path: str | Path) -> TensorFile:
    """Read and check a whole file.

    Raises: DamagedError for one that is not what was written, CheckpointError for one that cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            metadata, entries, text = _header(file)
            checksum = metadata.pop(CHECKSUM, None)
            found = hashlib.sha256(text if checksum is None else text.replace(*_places(checksum, _ZEROS), 1))
            tensors = {}
            for name, entry in sorted(entries.items(), key=_place):
                tensors[name] = _array(file, name, entry, found.update)
            if checksum not in (None, found.hexdigest()):
                raise _Damage(f"its checksum says {checksum[:12]}..., its bytes are {found.hexdigest()[:12]}...")
    except OSError as error:
        kind = DamagedError if error.errno == errno.EIO else CheckpointError  # EIO: the disk is
        raise kind(f"{path}: cannot be read: {error.strerror or error}") from error
    except MemoryError as error:
        raise CheckpointError(f"{path}: does not fit into memory") from error
    except _Damage as error:
        raise DamagedError(
            f"{path}: {error}. The file is damaged or no safetensors file; use an earlier checkpoint"
        ) from error
    return TensorFile(tensors, metadata, {name: entry.dtype for name, entry in entries.items()}, checksum)


def _places(old: str, new: str) -> tuple[bytes, bytes]:
    """The checksum in a header, and what takes its place. Quotes within other strings are escaped: there is one."""
    return f'"{CHECKSUM}":"{old}"'.encode(), f'"{CHECKSUM}":"{new}"'.encode()


def _place(item: tuple[str, _Entry]) -> tuple[int, int]:
    return item[1].begin, item[1].end


def _store(path: Path, name: str, array: Array, wanted: str | None) -> tuple[str, Array]:
    """The stored type and the little-endian array of its bits."""
    if not isinstance(name, str) or name == _METADATA:
        raise CheckpointError(f"{path}: {name!r} cannot be the name of a tensor")
    natural = _NAME.get(array.dtype.newbyteorder("<"))
    if natural is None:
        raise CheckpointError(f"{path}: {name!r} has dtype {array.dtype}; valid are {', '.join(_NUMPY)}")
    array = array.astype(_NUMPY[natural], copy=False)
    if wanted in (None, natural):
        return natural, array
    if natural != "F32" or wanted not in ("BF16", "F16"):
        raise CheckpointError(
            f"{path}: {name!r} of dtype {natural} cannot be stored as {wanted}; "
            "only a float32 array can be narrowed, to BF16 or F16"
        )
    bits = array.view("<u4")
    if wanted == "BF16":
        narrow = (bits >> np.uint32(16)).astype("<u2")
        exact = not np.any(bits & np.uint32(0xFFFF))
    else:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            narrow = array.astype("<f2")
            exact = bool(np.array_equal(narrow.astype("<f4").view("<u4"), bits))
    if not exact:
        raise CheckpointError(
            f"{path}: {name!r} holds values that {wanted} cannot represent; round it first or store float32"
        )
    return wanted, narrow


def _strings(path: Path, metadata: Mapping[str, str]) -> dict[str, str]:
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise CheckpointError(f"{path}: metadata {key!r} must map a string to a string, not to {value!r}")
    return dict(sorted(metadata.items()))


def _header(file: BufferedReader) -> tuple[dict[str, str], dict[str, _Entry], bytes]:
    """Metadata, entries and the bytes before the data, every claim checked against the file's size."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    if len(prefix) < 8:
        raise _Damage(f"it has {size} bytes, too few for a header")
    length = int.from_bytes(prefix, "little")
    if length > size - 8 or length > _HEADER_LIMIT:
        raise _Damage(f"its header claims {length} bytes, the file has {size}")
    text = file.read(length)
    if text[:1] != b"{":
        raise _Damage("its header is no JSON object")
    try:
        header: dict[str, Any] = json.loads(text.decode(), object_pairs_hook=_unique, parse_constant=_no_constant)
        metadata = header.pop(_METADATA, {})
        json.dumps([list(header), metadata], ensure_ascii=False).encode()  # no lone surrogates
    except (ValueError, RecursionError) as error:
        raise _Damage(f"its header is no valid JSON ({error})") from error
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _Damage("its metadata is not an object of strings")
    entries = {name: _entry(name, claim) for name, claim in header.items()}
    position = 0
    for name, entry in sorted(entries.items(), key=_place):
        if entry.begin != position:
            raise _Damage(f"{name!r} begins at byte {entry.begin} of the data instead of {position}")
        position = entry.end
    if position != size - 8 - length:
        raise _Damage(f"its tensors cover {position} bytes of data, the file has {size - 8 - length}")
    return metadata, entries, prefix + text


def _entry(name: str, claim: object) -> _Entry:
    if not isinstance(claim, dict) or claim.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Damage(f"{name!r} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = claim["dtype"], claim["shape"], claim["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _NUMPY:
        raise _Damage(f"{name!r} has the unknown dtype {dtype!r}; valid are {', '.join(_NUMPY)}")
    if not _naturals(shape) or len(shape) > _DIMENSION_LIMIT:
        raise _Damage(f"{name!r} has the shape {shape!r}")
    if not _naturals(offsets) or len(offsets) != 2:
        raise _Damage(f"{name!r} has the data_offsets {offsets!r}")
    itemsize = np.dtype(_NUMPY[dtype]).itemsize
    if math.prod(max(d, 1) for d in shape) * itemsize >= 2**63:
        raise _Damage(f"{name!r} has the impossible shape {shape!r}")
    begin, end = offsets
    if end - begin != math.prod(shape) * itemsize:
        raise _Damage(
            f"{name!r} of shape {shape!r} and dtype {dtype} has data_offsets {offsets!r}: "
            f"{end - begin} bytes instead of {math.prod(shape) * itemsize}"
        )
    return _Entry(dtype, tuple(shape), begin, end)


def _array(file: BufferedReader, name: str, entry: _Entry, seen: Callable[[memoryview], None]) -> Array:
    """The next tensor of the file; its bytes are shown to `seen`."""
    array = np.empty(entry.shape, _NUMPY[entry.dtype])
    raw = array.reshape(-1).data.cast("B")
    if file.readinto(raw) != len(raw):
        raise _Damage(f"it ends inside {name!r}")
    seen(raw)
    if entry.dtype == "BOOL" and np.any(array.view(np.uint8) > 1):
        raise _Damage(f"{name!r} of dtype BOOL holds bytes other than 0 and 1")
    if entry.dtype == "BF16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _naturals(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"the key {name!r} stands twice")
        result[name] = value
    return result


def _no_constant(word: str) -> NoReturn:
    raise ValueError(f"the number {word}")
