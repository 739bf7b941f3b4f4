"""`dualopt convert`: knobs of other libraries, recipes at another batch size, and states of other optimizers."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import checkpoint
from ..convert import files, taking
from ..convert.knobs import Knobs
from ..convert.maps import to_knobs
from ..convert.sources import LIBRARIES, REFUSED, SOURCES, source
from ..convert.transfer import ALL, MEMORIES, NONE, RULES, Moved, transfer
from ..counts import Count, increment
from ..errors import RecipeError
from ..plaintext import listing
from ..recipe import Group, Recipe
from .conversion_report import described, show
from .output import emit, lines, paths, say
from .training import Json

CHECKPOINTS = "Optimizer states to continue from (.pt, .safetensors); repeatable."
FILES = (".toml", ".json")


def convert(
    origin: Annotated[
        str,
        typer.Argument(metavar="FROM", help="torch-adamw, mlx-muon, ... (--list), or a file: a recipe, or knobs."),
    ] = "",
    knobs: Annotated[
        list[str] | None, typer.Argument(metavar="KNOB=VALUE", help="As in that library: lr=3e-4 betas=0.9,0.95")
    ] = None,
    per_update: Annotated[
        int | None, typer.Option(help="What one update counts with these knobs.", show_default=False)
    ] = None,
    unit: Annotated[str, typer.Option(help="Of --per-update: tokens or samples.")] = "tokens",
    batch: Annotated[
        str | None, typer.Option(help="Another batch size: counts per update, or a factor: x4.", show_default=False)
    ] = None,
    memories: Annotated[
        str, typer.Option(help=f"What keeps its half-life at --batch: {', '.join(MEMORIES)} (nothing).")
    ] = ALL,
    step: Annotated[str, typer.Option(help=f"How the step follows --batch: {', '.join(RULES)}.")] = NONE,
    to: Annotated[
        str | None,
        typer.Option(help=f"Also as knobs: {', '.join(LIBRARIES[:3])} or one of --list.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the recipe here (TOML).", show_default=False)] = None,
    states: Annotated[list[Path] | None, typer.Option("--checkpoint", help=CHECKPOINTS)] = None,
    model: Annotated[
        Path | None, typer.Option(help="With --checkpoint: the weights (.pt, .safetensors).", show_default=False)
    ] = None,
    updates: Annotated[
        int | None, typer.Option(help="With --checkpoint: how many there were, if it does not say.", show_default=False)
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="With --checkpoint: write a checkpoint of dualopt here.", show_default=False)
    ] = None,
    as_list: Annotated[bool, typer.Option("--list", help="List the optimizers and their knobs.")] = False,
    as_json: Json = False,
) -> None:
    """Turn the knobs of other libraries into a recipe in half-lives, and back; move a recipe to another batch size."""
    if as_list:
        _list(as_json)
        return
    if states:
        _take(origin, knobs or [], _count(per_update, unit), states, model, updates, out, save, as_json)
        return
    for option, value in (("--model", model), ("--updates", updates), ("--save", save)):
        if value is not None:
            raise RecipeError(f"{option} goes with --checkpoint")
    found = _read(origin, knobs or [], per_update, unit)
    recipe = found.recipe
    moved: tuple[Moved, ...] = ()
    if batch is not None:
        recipe, moved = transfer(recipe, _target(batch, recipe.count), memories=memories, rule=step)
    elif memories != ALL or step != NONE:
        raise RecipeError("--memories and --step go with --batch")
    images = _images(recipe, found, to, after=batch is not None)
    told = described(found, recipe, moved, images, memories, step)
    if out is not None:
        _write(out, recipe)
    if as_json:
        emit(told)
    else:
        show(told, recipe, out)


def _read(origin: str, knobs: list[str], per_update: int | None, unit: str) -> files.Read:
    """What the command line names: a file, or one optimizer with its knobs."""
    if not origin:
        raise RecipeError("name an optimizer (--list shows them), or a file")
    if not origin.endswith(FILES):
        return files.of_knobs(_stated(origin, knobs), _count(per_update, unit))
    if knobs or per_update is not None:
        raise RecipeError(f"{origin} states its own knobs and count; for another batch size use --batch")
    return files.read(origin)


def _stated(origin: str, knobs: list[str]) -> Knobs:
    return Knobs(source(origin), **dict(_knob(text) for text in knobs))


def _knob(text: str) -> tuple[str, Any]:
    """A knob and its value, as in TOML or Python; numbers apart by commas are a list."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not name.isidentifier():
        raise RecipeError(f"knobs are written NAME=VALUE, such as lr=3e-4, got {text!r}")
    words = {"True": True, "False": False, "None": None}
    if value in words:
        return name, words[value]
    listed = f"[{value.strip('()[]')}]" if "," in value and not value.startswith(("{", '"', "'")) else value
    try:
        return name, tomllib.loads(f"x = {listed}")["x"]
    except tomllib.TOMLDecodeError:
        return name, value


def _count(per_update: int | None, unit: str) -> Count:
    """Updates, if nothing is known of their size."""
    if unit not in ("tokens", "samples"):
        raise RecipeError(f"--unit is tokens or samples, got {unit!r}")
    return Count() if per_update is None else Count(unit, increment(per_update, "--per-update"))  # type: ignore[arg-type]


def _target(batch: str, count: Count) -> int:
    """The counts per update that --batch names."""
    factor = batch.startswith("x")
    try:
        number = float(batch[1:] if factor else batch.replace("_", "").replace(",", ""))
    except ValueError as error:
        raise RecipeError(
            f"--batch is a number of {count.base} per update, or a factor such as x4, got {batch!r}"
        ) from error
    new = number * count.per_update if factor else number
    if not (new == round(new) and new >= 1):
        raise RecipeError(f"--batch {batch}: {new:g} {count.base} per update, and an update counts a whole number >= 1")
    return int(new)


def _images(recipe: Recipe, found: files.Read, to: str | None, *, after: bool) -> dict[str, dict[str, Any]]:
    """{group: its knobs in `to`, or where these have changed in the library that it was written in}."""
    images = {}
    for group in recipe.groups:
        stated = found.knobs.get(group.name)
        target = to or (stated.source.name if stated is not None and after else None)
        if target is not None:
            images[group.name] = _image(group, recipe.count, target)
    return images


def _image(group: Group, count: Count, target: str) -> dict[str, Any]:
    """Knobs, or null and the reason."""
    try:
        return {"knobs": to_knobs(group, count, target).to_dict()}
    except RecipeError as error:
        return {"knobs": None, "reason": str(error)}


def _write(path: Path, recipe: Recipe) -> None:
    try:
        path.write_text(recipe.to_toml(), encoding="utf-8")
    except OSError as error:
        raise RecipeError(f"{path}: cannot be written ({error.strerror or error})") from error


def _take(
    origin: str,
    knobs: list[str],
    count: Count,
    states: list[Path],
    model: Path | None,
    updates: int | None,
    out: Path | None,
    save: Path | None,
    as_json: bool,
) -> None:
    """Continue from states of other optimizers: a recipe and a checkpoint of dualopt."""
    if model is None or save is None:
        raise RecipeError("--checkpoint needs --model, the weights, and --save, where to write the checkpoint")
    if origin.endswith(FILES):
        if knobs:
            raise RecipeError(f"{origin} states its own knobs")
        taken = taking.by_file(files.read(origin), states, model, updates)
    else:
        given = dict(_knob(text) for text in knobs)
        taken = taking.by_source(source(origin), given, count, states, model, updates)
    checkpoint.save(save, taken.snapshot, metadata={})
    told = described(taken.read, taken.read.recipe, (), {}, ALL, NONE)
    told["taken"] = {"updates": taken.updates, "left_out": list(taken.left_out)}
    if out is not None:
        _write(out, taken.read.recipe)
    if as_json:
        emit(told)
        return
    show(told, taken.read.recipe, out)
    numbers = sorted(set(taken.updates.values()))
    say(f"{len(taken.updates)} parameters continue after {listing(map(str, numbers))} updates.")
    if taken.left_out:
        say(f"Not of this optimizer, and left out: {listing(taken.left_out)}.", hanging=2)
    paths(checkpoint=save)


def _list(as_json: bool) -> None:
    """The optimizers that have an image, and those that have none."""
    if as_json:
        emit(
            {"sources": {s.name: {"path": s.path, "knobs": s.signature} for s in SOURCES.values()}, "refused": REFUSED}
        )
        return
    lines(("from", "is", "knobs"), [(s.name, s.path, s.signature) for s in SOURCES.values()])
    say("Without an image:", style="bold")
    for name, why in REFUSED.items():
        say(f"{name}: {why}", indent=2, hanging=4)
