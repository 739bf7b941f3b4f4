"""What a record says of itself, `manifest.json`, and its safetensors files, read with numpy alone.

    schema, suite        of this layout, and of cases and experiments; another number is another record
    cases                {id: inputs (SHA-256), recipe, scalars ({update: {parameter: {name: float.hex}}})}
    closed               sha256 and name of the text, rows; or null
    tiers                the tiers recorded; one file of tensors each, and reference.safetensors
    tensors              {file: {group: SHA-256}}; a group is all tensors of one case and experiment
    facts                framework, device, threads, TF32, compiler, OS, Python, git revision, ...
    sha256               of all the rest

Tensors are hashed, not files: two libraries may order the same tensors differently.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import tensors
from dualopt.errors import CheckpointError, DualoptError
from dualopt.namespace import TIERS

Array = np.ndarray[Any, Any]
SCHEMA = 1
SUITE = 3  # raised with every change of a case, an experiment or a bit of the exact tier
MANIFEST, REFERENCE = "manifest.json", "reference"
KEYS = {"schema", "suite", "cases", "closed", "tiers", "tensors", "facts", "sha256"}


class NotComparableError(DualoptError):
    """Records that are damaged, or of different things: no verdict is possible."""


def group_of(key: str) -> str:
    """``adamw/usual/free/10/tall/m`` -> ``adamw/usual/free``; of the closed loop: ``closed/adamw/0``."""
    return "/".join(key.split("/")[:3])


def hashes(arrays: Mapping[str, Array]) -> dict[str, str]:
    """{group: SHA-256 over the names, types, shapes and bytes of its tensors, in the order of the names}."""
    found: dict[str, Any] = {}
    for key in sorted(arrays):
        x = np.ascontiguousarray(arrays[key])
        state = found.setdefault(group_of(key), hashlib.sha256())
        state.update(f"{key}:{x.dtype.newbyteorder('<').str}:{x.shape}:".encode())
        state.update(x.astype(x.dtype.newbyteorder("<"), copy=False).tobytes())
    return {group: state.hexdigest() for group, state in found.items()}


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its own hash."""
    return {**manifest, "sha256": _hash(manifest)}


def _hash(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class Record:
    """A record on disk, checked. `label` is its directory's name; `arrays` is {file stem: {key: array}}."""

    label: str
    manifest: Mapping[str, Any]
    arrays: Mapping[str, Mapping[str, Array]]

    @property
    def cases(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.manifest["cases"]
        return found

    @property
    def facts(self) -> Mapping[str, str]:
        found: Mapping[str, str] = self.manifest["facts"]
        return found

    @property
    def tiers(self) -> tuple[str, ...]:
        return tuple(self.manifest["tiers"])

    @property
    def flushes(self) -> bool:
        """True if the backend flushed subnormal numbers to zero."""
        return self.facts.get("flushes") == "yes"


def load(directory: str | Path) -> Record:
    """A record, every tensor checked against its manifest.

    Raises:
        NotComparableError: a missing, truncated, edited or foreign file, with what is wrong and where.
    """
    path = Path(directory)
    manifest = _manifest(path / MANIFEST)
    files = (REFERENCE, *manifest["tiers"])
    if set(manifest["tensors"]) != set(files):
        raise NotComparableError(
            f"{path / MANIFEST}: lists tensors of {sorted(manifest['tensors'])}, tiers {files[1:]}"
        )
    arrays = {}
    for stem in files:
        where = path / f"{stem}.safetensors"
        try:
            arrays[stem] = {key: widened(x) for key, x in tensors.read(where).tensors.items()}
        except CheckpointError as error:
            raise NotComparableError(f"{error}; record again") from error
        _same_hashes(where, hashes(arrays[stem]), manifest["tensors"][stem])
    return Record(path.resolve().name, manifest, arrays)


def widened(x: Array) -> Array:
    """float32 for stored float16, as bfloat16 already is: records hold float32 in memory."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotComparableError(f"{path}: cannot be read ({error.strerror or error}); is this a record?") from error
    except (ValueError, RecursionError) as error:
        raise NotComparableError(f"{path}: no valid JSON ({error}); record again") from error
    if not isinstance(found, dict) or set(found) != KEYS:
        odd = sorted(set(found) ^ KEYS) if isinstance(found, dict) else type(found).__name__
        raise NotComparableError(f"{path}: not the manifest of a record (missing or unknown: {odd})")
    for key, known in (("schema", SCHEMA), ("suite", SUITE)):
        if found[key] != known:
            raise NotComparableError(
                f"{path}: {key} {found[key]!r}, this suite has {known}; record again with one version of dualopt"
            )
    if found["sha256"] != _hash(found):
        raise NotComparableError(f"{path}: edited after it was recorded (its hash does not fit); record again")
    _check_types(path, found)
    return found


def _check_types(path: Path, found: Mapping[str, Any]) -> None:
    """A manifest that fits its hash may still have been made by something else."""
    facts, tiers, closed = found["facts"], found["tiers"], found["closed"]
    good = (
        isinstance(found["cases"], dict)
        and isinstance(facts, dict)
        and all(isinstance(value, str) for value in facts.values())
        and isinstance(tiers, list)
        and tiers != []
        and set(map(str, tiers)) <= set(TIERS)
        and isinstance(found["tensors"], dict)
        and all(isinstance(groups, dict) for groups in found["tensors"].values())
        and (closed is None or (isinstance(closed, dict) and {"sha256", "name", "rows"} <= set(closed)))
        and all(isinstance(c, dict) and {"inputs", "recipe", "scalars"} <= set(c) for c in found["cases"].values())
    )
    if not good:
        raise NotComparableError(f"{path}: its fields do not have the types of a manifest; record again")


def _same_hashes(where: Path, found: Mapping[str, str], stated: Mapping[str, str]) -> None:
    for group in _differing(found, stated):
        if group not in found:
            raise NotComparableError(f"{where}: the tensors of {group!r} are missing; record again")
        if group not in stated:
            raise NotComparableError(f"{where}: holds {group!r}, which its manifest does not list; record again")
        raise NotComparableError(f"{where}: {group!r} was changed after it was recorded; record again")


def _differing(found: Mapping[str, str], stated: Mapping[str, str]) -> Iterable[str]:
    return (group for group in sorted({*found, *stated}) if found.get(group) != stated.get(group))
