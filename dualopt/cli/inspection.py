"""`dualopt explain` and `dualopt list`: what a recipe does, and what there is to put into one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from ..catalog import ENTRIES
from ..coordinates import COORDINATES
from ..errors import RecipeError
from ..explain import explain as explanation
from ..plaintext import listing
from ..recursion import Shape
from ..workload.model import GPTConfig, parameter_shapes
from .output import emit, say, stdout
from .training import Json


def explain(
    recipe: Annotated[Path, typer.Argument(help="A recipe (TOML).")],
    model: Annotated[
        Path | None, typer.Option(help="JSON: an object of parameter names and shapes.", show_default=False)
    ] = None,
    gpt: Annotated[bool, typer.Option("--gpt", help="The small GPT of the demo (the default model).")] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Carry out one update on zeros.")] = False,
    scalars: Annotated[bool, typer.Option("--scalars", help="Show the derived scalars, to the bit.")] = False,
    count: Annotated[
        int | None, typer.Option(help="With --scalars: also of the update that ends here.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Show which parameter gets which optimizer with which coordinates, and find errors before training."""
    if model is not None and gpt:
        raise RecipeError("--model and --gpt both name a model; give one of them")
    shapes = parameter_shapes(GPTConfig()) if model is None else _shapes(model)
    found = explanation(shapes, recipe, scalars=scalars, dry=dry, count=count)
    if as_json:
        emit(found.to_dict())
    else:
        stdout().print(found.table(), markup=False, soft_wrap=True)


def _shapes(path: Path) -> dict[str, Shape]:
    """Parameter shapes from a JSON file. RecipeError if it does not hold any."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise RecipeError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(table, dict) or not table:
        raise RecipeError(f'{path}: an object of parameter names and shapes, such as {{"head.weight": [256, 64]}}')
    for name, shape in table.items():
        if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
            raise RecipeError(f"{path}: the shape of {name!r} is a list of whole numbers, got {shape!r}")
    return {name: tuple(shape) for name, shape in table.items()}


def catalogue(as_json: Json = False) -> None:
    """List the optimizers with their coordinates and defaults."""
    if as_json:
        emit(
            [
                {"name": e.name, "summary": e.summary, "source": e.source, "defaults": dict(e.defaults)}
                for e in ENTRIES.values()
            ]
        )
        return
    for entry in ENTRIES.values():
        say(f"{entry.name}: {entry.summary} ({entry.source})", style="bold", hanging=4)
        stated = [f"{key} = {_default(key, value)}" for key, value in entry.defaults.items() if value is not None]
        optional = [f"{key} (optional)" for key, value in entry.defaults.items() if value is None]
        say(listing([*stated, *optional]), indent=4)
    say("Default half-lives are in updates; a recipe multiplies them by its per_update.")


def _default(key: str, value: Any) -> str:
    if COORDINATES[key].kind == "half-life":
        return "never" if value == math.inf else f"{value:.4g} updates"
    return f"{value:.4g}" if isinstance(value, float) else str(value).lower()
