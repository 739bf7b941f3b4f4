"""`dualopt convert`: raw knobs of a library as an action, its time constants, and another batch size."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from ..convert import SIGNATURES, Coupled, to_action, to_coupled, transfer
from ..coordinates import COORDINATES
from ..counts import Count, Unit, retention
from ..errors import RecipeError, nearest
from ..plaintext import listing, readable
from ..recipe import Group, Recipe
from .output import emit, say, stdout, table
from .training import Json

_SOURCES = {
    (library if library in ("lion-pytorch", "scion") else f"{library}-{optimizer}"): (library, optimizer)
    for library, optimizer in SIGNATURES
}


def _knob(words: str) -> Any:
    return typer.Option(help=words, show_default=False)


def convert(
    source: Annotated[str, typer.Option("--from", help=f"One of {', '.join(_SOURCES)}.")],
    lr: Annotated[float, typer.Option(help="The peak learning rate.")],
    batch: Annotated[int | None, _knob("Sequences per update. Without it, counts are updates.")] = None,
    sequence: Annotated[int | None, _knob("Tokens per sequence. Without it, counts are samples.")] = None,
    to_batch: Annotated[int | None, _knob("Also the raw knobs at this batch size.")] = None,
    memories: Annotated[str, typer.Option(help="What keeps its half-life at --to-batch: all, or second.")] = "all",
    weight_decay: Annotated[float | None, _knob("Default of every knob: that of the library.")] = None,
    betas: Annotated[str | None, _knob("Two numbers: 0.9,0.95")] = None,
    momentum: Annotated[float | None, _knob("Polyak's, or Scion's weight of the newest gradient.")] = None,
    nesterov: Annotated[bool | None, typer.Option(show_default=False)] = None,
    dampening: Annotated[float | None, _knob("SGD only.")] = None,
    eps: Annotated[float | None, _knob("Adam and AdamW.")] = None,
    bias_correction: Annotated[bool | None, _knob("MLX's Adam and AdamW.")] = None,
    scale_rule: Annotated[str | None, _knob("torch's Muon: original or match_rms_adamw.")] = None,
    norm: Annotated[str | None, _knob("Scion: the norm of the layer.")] = None,
    scale: Annotated[float | None, _knob("Scion: the radius of the layer.")] = None,
    unconstrained: Annotated[bool | None, typer.Option(show_default=False)] = None,
    as_json: Json = False,
) -> None:
    """Turn the knobs of a library's optimizer into a recipe in half-lives, and move it to another batch size."""
    if source not in _SOURCES:
        raise RecipeError(f"--from is one of {', '.join(_SOURCES)}, got {source!r}{nearest(source, _SOURCES)}")
    library, optimizer = _SOURCES[source]
    stated = Coupled(
        optimizer, lr, library, weight_decay, _pair(betas), momentum, nesterov, dampening, eps,
        bias_correction, scale_rule, norm, scale, unconstrained,
    )  # fmt: skip
    count = _count(batch, sequence)
    group = to_action(stated, count.per_update)
    found: dict[str, Any] = {
        "from": stated.to_dict(),
        "recipe": Recipe((group,), count).to_dict(),
        "toml": Recipe((group,), count).to_toml(),
        "half_lives": _lives(group, count),
    }
    if to_batch is not None:
        found["to"] = _moved(
            group, count, _count(_positive(to_batch, "--to-batch"), sequence), batch, memories, library
        )
    if as_json:
        emit(found)
    else:
        _print(found, count)


def _positive(value: int, option: str) -> int:
    if value < 1:
        raise RecipeError(f"{option} is a whole number of at least 1, got {value}")
    return value


def _count(batch: int | None, sequence: int | None) -> Count:
    """Tokens if both are known, samples if only the batch is, updates if neither."""
    if batch is None:
        if sequence is not None:
            raise RecipeError("--sequence needs --batch: the tokens of an update are their product")
        return Count()
    tokens = 1 if sequence is None else _positive(sequence, "--sequence")
    unit: Unit = "samples" if sequence is None else "tokens"
    return Count(unit, _positive(batch, "--batch") * tokens)


def _pair(betas: str | None) -> tuple[float, float] | None:
    if betas is None:
        return None
    try:
        first, second = (float(part) for part in betas.split(","))
    except ValueError as error:
        raise RecipeError(f"--betas are two numbers such as 0.9,0.95, got {betas!r}") from error
    return first, second


def _lives(group: Group, count: Count) -> dict[str, dict[str, float]]:
    """Every finite half-life of a group, in counts and updates, with the retention per update."""
    return {
        key: {
            count.base: life,
            "updates": life / count.per_update,
            "retention": retention(count.per_update, life),
        }
        for key, life in group.options.items()
        if COORDINATES[key].kind == "half-life" and isinstance(life, float) and life != math.inf
    }


def _moved(group: Group, count: Count, to: Count, batch: int | None, memories: str, library: str) -> dict[str, Any]:
    """The action and the raw knobs at another batch size; `knobs` is null, with a reason, without an image."""
    if batch is None:
        raise RecipeError("--to-batch needs --batch: the ratio of the two is what matters")
    moved, notes = transfer(group, count.per_update, to.per_update, memories)
    found: dict[str, Any] = {"per_update": to.per_update, "toml": Recipe((moved,), to).to_toml()}
    found |= {"notes": list(notes), "knobs": None}
    try:
        found["knobs"] = to_coupled(moved, to.per_update, library).to_dict()
    except RecipeError as error:
        found["reason"] = str(error)
    return found


def _print(found: dict[str, Any], count: Count) -> None:
    stdout().print(found["toml"], markup=False, soft_wrap=True)
    units = ("updates",) if count.base == "updates" else (count.base, "updates")
    columns = ("half-life of", *units, "kept per update")
    rows = [
        (key.removesuffix("_half_life"), *(f"{readable(life[unit])}" for unit in units), f"{life['retention']:.8f}")
        for key, life in found["half_lives"].items()
    ]
    if rows:
        table("Time constants", columns, rows)
    if "to" in found:
        to = found["to"]
        say(f"At {to['per_update']:,} {count.base} per update", style="bold")
        for note in to["notes"]:
            say(note, indent=2, hanging=2)
        knobs = to["knobs"]
        if knobs is None:
            say(f"No raw knobs do this ({to['reason']}): train with the recipe.", indent=2, hanging=2)
        else:
            listed = [f"{key} = {value}" for key, value in knobs.items() if key not in ("library", "optimizer")]
            say(f"{knobs['library']} {knobs['optimizer']}: {listing(listed)}", indent=2, hanging=2)
