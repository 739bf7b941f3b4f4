"""`dualopt explain`: what a recipe does with a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from ..errors import RecipeError
from ..explain import explain as explanation
from ..recursion import Shape
from ..workload.model import GPTConfig, parameter_shapes
from .output import emit, stdout
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
    shapes = parameter_shapes(GPTConfig()) if model is None else model_shapes(model)
    found = explanation(shapes, recipe, scalars=scalars, dry=dry, count=count)
    if as_json:
        emit(found.to_dict())
    else:
        stdout().print(found.table(), markup=False, soft_wrap=True)


def model_shapes(path: Path) -> dict[str, Shape]:
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
