"""`dualopt replay`: recorded gradients through several backends, compared bit by bit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import tensors, toml
from ..counts import Count
from ..errors import RecipeError
from ..namespace import installed
from ..recipe import Group, Recipe
from ..workload.gradients import read
from .output import emit, say, table
from .proof import proof_table, prove
from .training import Json


def replay(
    recipe: Annotated[Path, typer.Argument(help="A recipe, or the keys of one group (TOML).")],
    gradients: Annotated[Path, typer.Argument(help="safetensors with keys UPDATE/NAME, as `train --record` writes.")],
    params: Annotated[Path, typer.Argument(help="safetensors with the parameters before the first update.")],
    backend: Annotated[
        list[str] | None, typer.Option(help="Repeat for several. Default: all installed.", show_default=False)
    ] = None,
    tier: Annotated[str, typer.Option(help="exact or fast.")] = "exact",
    count: Annotated[
        int | None, typer.Option(min=1, help="Count of one update. Default: the recipe's.", show_default=False)
    ] = None,
    as_json: Json = False,
) -> None:
    """Replay gradients through backends: digests of the result, and the elements whose bits differ.

    Exit status 1 if anything differs in the exact tier, or nothing was compared.
    """
    start = {name: x.astype("float32") for name, x in tensors.read(params).tensors.items()}
    backends = tuple(dict.fromkeys(backend or installed()))
    proof = prove(_recipe(recipe), start, read(gradients), backends, tier=tier, count=count)
    if as_json:
        emit(proof.to_dict())
    else:
        table("Parameters and state after the last update", ("backend", "digest"), list(proof.digests.items()))
        if proof.agreements:
            proof_table(proof, f"Compared after every update, {tier} tier")
        for agreement in proof.agreements:
            if agreement.first:
                say(f"first difference: {agreement.first}", hanging=2)
    if not proof.digests or (tier == "exact" and proof.agreements and not proof.holds):
        raise typer.Exit(1)


def _recipe(path: Path) -> Recipe:
    """A recipe; a file without [[group]] holds the keys of one group, counted in updates."""
    try:
        single = "group" not in toml.tables(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        single = False  # Recipe.load says what is wrong
    if not single:
        return Recipe.load(path)
    try:
        return Recipe((Group.from_dict(toml.tables(path.read_text(encoding="utf-8"))),), Count())
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
