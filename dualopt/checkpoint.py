"""One checkpoint layout for every backend: a safetensors file.

    parameter/NAME      a parameter, float32, or BF16/F16 where the snapshot says so
    state/NAME/KEY      an array of its optimizer state, averaged weights included
    metadata            dualopt.format
                        dualopt.counts         JSON: name -> integer
                        dualopt.sums           JSON: name -> {key: float.hex()}
                        dualopt.recipe         TOML, with its SHA-256 in dualopt.recipe_digest
                        dualopt.tier, dualopt.versions
                        dualopt.sha256         of the file (`tensors`)
                        and the caller's own keys

A state saved by one framework is loaded by another: nothing depends on which. Convolution kernels
are (out, in, *k) in the file, however a framework stores them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import tensors, toml
from dualopt.counts import LARGEST_COUNT
from dualopt.errors import CheckpointError, CountError, DamagedError, RecipeError
from dualopt.recipe import Recipe

Array = np.ndarray[Any, Any]

FORMAT = "2"
_RESERVED = "dualopt."
_FORMAT_KEY = _RESERVED + "format"
_COUNTS_KEY = _RESERVED + "counts"
_SUMS_KEY = _RESERVED + "sums"
_TYPES = {"float32": "F32", "float64": "F64"}


@dataclass(frozen=True)
class Origin:
    """What a snapshot was made with. Empty strings where that is not known.

    ``recipe``: the TOML text. ``tier``: "exact" or "fast". ``versions``: such as "dualopt 0.1.0, torch 2.9.1".
    """

    recipe: str = ""
    tier: str = ""
    versions: str = ""


@dataclass(frozen=True)
class Snapshot:
    """Everything that a training continues from.

    ``parameters``: name -> array. ``state``: parameter name -> {key: array}. ``counts``: name ->
    training count (non-negative). ``dtypes``: parameter name -> "BF16" or "F16" for the parameters of
    half precision, which are float32 arrays here with values that the narrow type represents.
    ``sums``: parameter name -> the running sums of the host, for rows that have some. ``origin``: what
    it was made with.
    """

    parameters: dict[str, Array]
    state: dict[str, dict[str, Array]]
    counts: dict[str, int]
    dtypes: dict[str, str]
    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    origin: Origin = Origin()


def save(path: str | Path, snapshot: Snapshot, *, metadata: Mapping[str, str]) -> None:
    """Write a snapshot atomically. ``metadata`` keys must not begin with "dualopt.".

    Raises: CheckpointError, with the previous file left as it was.
    """
    for key in metadata:
        if key.startswith(_RESERVED):
            raise CheckpointError(f"{path}: the metadata key {key!r} is reserved; do not begin it with {_RESERVED!r}")
    names = set(snapshot.parameters)
    _belong(path, "state", snapshot.state, names)
    _belong(path, "dtypes", snapshot.dtypes, names)
    _belong(path, "sums", snapshot.sums, names)
    _counts(path, snapshot.counts)
    arrays: dict[str, Array] = {}
    for name, array in snapshot.parameters.items():
        arrays[f"parameter/{_word(path, name)}"] = array
    for name, state in snapshot.state.items():
        for key, array in state.items():
            arrays[f"state/{name}/{_word(path, key)}"] = array
    sums = {name: {key: float(x).hex() for key, x in found.items()} for name, found in snapshot.sums.items()}
    reserved = {
        _FORMAT_KEY: FORMAT,
        _COUNTS_KEY: json.dumps(snapshot.counts, sort_keys=True),
        _SUMS_KEY: json.dumps(sums, sort_keys=True),
    }
    made = {key: x for key, x in asdict(snapshot.origin).items() if x}
    if "recipe" in made:
        made["recipe_digest"] = hashlib.sha256(made["recipe"].encode()).hexdigest()
    reserved |= {_RESERVED + key: x for key, x in made.items()}
    dtypes = {f"parameter/{name}": dtype for name, dtype in snapshot.dtypes.items()}
    tensors.write(path, arrays, {**metadata, **reserved}, dtypes)


def load(path: str | Path) -> tuple[Snapshot, dict[str, str]]:
    """The snapshot, with an entry of ``state`` for every parameter, and the caller's metadata.

    Raises: DamagedError for a damaged file, CheckpointError for another format, or state without its parameter.
    """
    file = tensors.read(path)
    version = file.metadata.get(_FORMAT_KEY)
    if version is None:
        raise CheckpointError(f"{path}: not a dualopt checkpoint (its metadata has no {_FORMAT_KEY!r})")
    if version != FORMAT:
        raise CheckpointError(f"{path}: checkpoint format {version!r}; this version of dualopt reads {FORMAT!r}")
    if file.sha256 is None:
        raise DamagedError(f"{path}: it has no checksum, so nobody can tell whether it is damaged; save it again")
    try:
        counts = json.loads(file.metadata.get(_COUNTS_KEY, ""))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the counts in its metadata are no valid JSON ({error})") from error
    _counts(path, counts)
    sums = _sums(path, file.metadata.get(_SUMS_KEY, "{}"))
    parameters: dict[str, Array] = {}
    states: dict[tuple[str, str], Array] = {}
    dtypes: dict[str, str] = {}
    for full, array in file.tensors.items():
        match full.split("/"):
            case ["parameter", name] if name:
                half = file.dtypes[full] in ("BF16", "F16")
                parameters[name] = array.astype(np.float32) if half else array
                if half:
                    dtypes[name] = file.dtypes[full]
            case ["state", name, key] if name and key:
                states[name, key] = array
            case _:
                raise CheckpointError(f"{path}: the tensor {full!r} is neither parameter/NAME nor state/NAME/KEY")
    _belong(path, "state", [name for name, _ in states], set(parameters))
    _belong(path, "sums", sums, set(parameters))
    state: dict[str, dict[str, Array]] = {name: {} for name in parameters}
    for (name, key), array in states.items():
        state[name][key] = array
    own = {key: value for key, value in file.metadata.items() if not key.startswith(_RESERVED)}
    origin = Origin(**{f.name: file.metadata.get(_RESERVED + f.name, "") for f in fields(Origin)})
    return Snapshot(parameters, state, counts, dtypes, sums, origin), own


def require(snapshot: Snapshot, shapes: Mapping[str, tuple[int, ...]], *, where: str) -> None:
    """Check that a snapshot has exactly these parameters with these shapes.

    ``where`` begins the message: the file that the snapshot came from. Raises: CheckpointError.
    """
    missing = sorted(shapes.keys() - snapshot.parameters.keys())
    extra = sorted(snapshot.parameters.keys() - shapes.keys())
    if missing or extra:
        raise CheckpointError(
            f"{where}: saved from another model: "
            f"it lacks {_some(missing)} and has {_some(extra)}, which the model does not have; "
            "say what is meant with transplant.renamed or transplant.partial"
        )
    for name, shape in shapes.items():
        saved = snapshot.parameters[name].shape
        if saved != tuple(shape):
            raise CheckpointError(
                f"{where}: saved from another model: {name!r} has shape {saved}, in the model {tuple(shape)}"
            )


def permuted(snapshot: Snapshot, axes: Mapping[str, tuple[int, ...]], apart: Mapping[str, Collection[str]]) -> Snapshot:
    """The snapshot with the axes of some parameters, and of their state, in another order.

    ``apart``: parameter name -> the keys of its state that have a shape of their own, and stay as they are. An
    array whose number of dimensions is not that of its permutation is left for `require` to refuse.
    """

    def turned(name: str, x: Array) -> Array:
        order = axes.get(name)
        return (
            x
            if order is None or len(order) != x.ndim
            else np.ascontiguousarray(np.transpose(x, order)).reshape(tuple(x.shape[i] for i in order))
        )

    return replace(
        snapshot,
        parameters={name: turned(name, x) for name, x in snapshot.parameters.items()},
        state={
            name: {key: x if key in apart.get(name, ()) else turned(name, x) for key, x in s.items()}
            for name, s in snapshot.state.items()
        },
    )


def require_dtypes(snapshot: Snapshot, dtypes: Mapping[str, str], *, where: str) -> None:
    """Check that parameters were saved as what they are here: ``F32``, ``F64``, ``BF16`` or ``F16``.

    State is in the working type: float64 of float64 parameters, else float32. Raises: CheckpointError.
    """
    for name, here in dtypes.items():
        saved = snapshot.dtypes.get(name) or _type(snapshot.parameters[name])
        if saved != here:
            raise CheckpointError(
                f"{where}: {name!r} was saved as {saved}, in the model it is {here}; make the model in {saved}"
            )
        working = "F64" if here == "F64" else "F32"
        for key, x in snapshot.state.get(name, {}).items():
            if _type(x) != working:
                raise CheckpointError(f"{where}: the state {key!r} of {name!r} is {_type(x)}, it must be {working}")


def require_recipe(snapshot: Snapshot, recipe: Recipe, *, where: str) -> None:
    """Check that a snapshot was made by this recipe, or by none that is known.

    Raises: CheckpointError with the first place where they differ.
    """
    text = snapshot.origin.recipe
    if not text or text == recipe.to_toml():
        return
    try:
        saved = Recipe.from_dict(toml.tables(text))
    except (RecipeError, CountError) as error:
        raise CheckpointError(f"{where}: the recipe in its metadata cannot be carried out ({error})") from error
    except ValueError as error:
        raise CheckpointError(f"{where}: the recipe in its metadata is no valid TOML ({error})") from error
    apart = _apart("", saved.to_dict(), recipe.to_dict())
    if apart:
        raise CheckpointError(
            f"{where}: saved under another recipe, where {apart}; continue with the recipe it was saved with, or "
            "change it on purpose: restore(transplant.under(snapshot, recipe))"
        )


def _apart(where: str, saved: object, here: object) -> str:
    """Where two values of recipes' tables differ first, in words; empty if they do not."""
    match saved, here:
        case dict(), dict():
            for key in dict.fromkeys((*saved, *here)):
                if found := _apart(f"{where}.{key}" if where else key, saved.get(key), here.get(key)):
                    return found
            return ""
        case list(), list() if where == "group":
            one, two = ({group["name"]: group for group in found} for found in (saved, here))
            found = _apart(where, one, two)
            return found or ("" if list(one) == list(two) else f"{where}: the groups are in another order")
    if saved == here:
        return ""
    said, now = ("not stated" if x is None else "there" if isinstance(x, dict) else repr(x) for x in (saved, here))
    return f"{where} is {said}, here {now}"


def _type(x: Array) -> str:
    return _TYPES.get(str(x.dtype), str(x.dtype))


def _belong(path: str | Path, what: str, names: Iterable[str], parameters: set[str]) -> None:
    for name in names:
        if name not in parameters:
            raise CheckpointError(f"{path}: {what} of {name!r}, which is not among its parameters")


def _counts(path: str | Path, counts: object) -> None:
    if not isinstance(counts, dict):
        raise CheckpointError(f"{path}: counts must map names to integers")
    for name, count in counts.items():
        if not isinstance(name, str) or type(count) is not int or not 0 <= count <= LARGEST_COUNT:
            shown = repr(count) if type(count) is not int or abs(count) < 2**99 else "a number of many digits"
            raise CheckpointError(f"{path}: the count of {name!r} must be an integer from 0 to 2^63 - 1, not {shown}")


def _sums(path: str | Path, text: str) -> dict[str, dict[str, float]]:
    """{name: {key: number}} from its JSON of hexadecimal numbers."""
    try:
        found = {
            str(name): {str(key): float.fromhex(x) for key, x in sums.items()}
            for name, sums in json.loads(text).items()
        }
    except (AttributeError, OverflowError, RecursionError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: the running sums in its metadata cannot be read ({error})") from error
    for name, sums in found.items():
        if not all(math.isfinite(x) for x in sums.values()):
            raise CheckpointError(f"{path}: the running sums of {name!r} must be finite, not {sums}")
    return found


def _word(path: str | Path, word: str) -> str:
    if not word or "/" in word:
        raise CheckpointError(f"{path}: {word!r} cannot name a saved array: it must not be empty or contain '/'")
    return word


def _some(names: list[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) or "nothing"
    return shown + (f" and {len(names) - 3} more" if len(names) > 3 else "")
