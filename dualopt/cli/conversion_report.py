"""What `dualopt convert` tells: as plain data, and as tables of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ..convert import files
from ..convert.transfer import MEMORIES, RULES, Moved
from ..counts import Count, retention
from ..plaintext import listing, readable
from ..recipe import Group, Recipe
from .output import paths, say, stdout, table

OF = {"memory_half_life": "m", "second_memory_half_life": "v", "shrink_half_life": "θ"}  # what halves


def described(
    found: files.Read,
    recipe: Recipe,
    moved: tuple[Moved, ...],
    images: dict[str, dict[str, Any]],
    memories: str,
    rule: str,
) -> dict[str, Any]:
    """All that is told, as plain data."""
    told: dict[str, Any] = {
        "from": {name: {"source": k.source.name, **k.values} for name, k in found.knobs.items()},
        "recipe": recipe.to_dict(),
        "toml": recipe.to_toml(),
        "half_lives": {group.name: _lives(group, recipe.count) for group in recipe.groups},
        "exact": {name: not notes for name, notes in found.notes.items()},
        "notes": {name: list(notes) for name, notes in found.notes.items() if notes},
        "remarks": [*found.remarks, *_back(recipe, images)],
        "knobs": images,
    }
    if moved:
        told["batch"] = {
            "before": found.recipe.count.per_update,
            "after": recipe.count.per_update,
            "memories": memories,
            "rule": rule,
            "groups": {one.group.name: _change(one) for one in moved},
        }
    return told


def _back(recipe: Recipe, images: dict[str, dict[str, Any]]) -> list[str]:
    """What knobs do otherwise than the recipe."""
    moves = recipe.schedule.shape != "constant" or recipe.schedule.warmup > 0
    shrinks = any(files.shrink_half_life(g) < math.inf for g in recipe.groups)
    if not (images and moves and shrinks) or recipe.schedule.drives == "both":
        return []
    return ["knobs are those of the peak: there weights shrink in proportion to lr, in this recipe whatever the step"]


def _lives(group: Group, count: Count) -> dict[str, dict[str, float]]:
    """Every finite half-life of a group, in its unit and in updates, with the retention per update."""
    found = {}
    for key, life in group.options.items():
        if key.endswith("half_life") and isinstance(life, float) and life != math.inf:
            base = life * count.to_base(1.0)
            kept = retention(count.per_update, base)
            found[key] = {count.unit: life, "updates": base / count.per_update, "retention": kept}
    return found


def _change(one: Moved) -> dict[str, Any]:
    way = one.recommended
    return {
        "half_lives": {
            life.key: {
                "before": life.before,
                "after": life.after,
                "retention_before": life.kept,
                "retention_after": dict(life.keeps),
            }
            for life in one.lives
        },
        "steps": {
            name: None if factor is None or one.step is None else {"factor": factor, "step": factor * one.step}
            for name, factor in one.factors.items()
        },
        "no_radius": one.why or None,
        "notes": list(one.notes),
        "recommended": way and {"memories": way.memories, "rule": way.rule, "measured": way.measured},
    }


def show(told: dict[str, Any], recipe: Recipe, out: Path | None) -> None:
    """The recipe, unless it was written to a file, and tables of what it says."""
    if out is None:
        stdout().print(told["toml"], markup=False, soft_wrap=True)
    if "batch" in told:
        _print_batch(told["batch"], recipe.count)
    else:
        _print_lives(told["half_lives"], recipe.count)
    for name, image in told["knobs"].items():
        if image["knobs"] is None:
            say(f"{name}: no knobs do this ({image['reason']})", hanging=2)
        else:
            given = {key: value for key, value in image["knobs"].items() if key != "from"}
            say(f"{name}: {image['knobs']['from']} {listing(f'{k}={_value(v)}' for k, v in given.items())}", hanging=2)
    for name, notes in told["notes"].items():
        for note in notes:
            say(f"{name}, not exact: {note}", hanging=2)
    for remark in told["remarks"]:
        say(f"Note: {remark}", hanging=2)
    if out is not None:
        paths(recipe=out)


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(_value(one) for one in value) + ")"
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _print_lives(lives: dict[str, dict[str, dict[str, float]]], count: Count) -> None:
    units = ("updates",) if count.unit == "updates" else (count.unit, "updates")
    rows = [
        (name, key.removesuffix("_half_life"), *(readable(life[u]) for u in units), f"{life['retention']:.8f}")
        for name, found in lives.items()
        for key, life in found.items()
    ]
    if rows:
        table("Time constants", ("group", "half-life of", *units, "kept per update"), rows)


def _print_batch(told: dict[str, Any], count: Count) -> None:
    """Half-lives before and after, and what every rule would make of the steps."""
    r = told["after"] / told["before"]
    head = f"From {told['before']:,} to {told['after']:,} {count.base} per update (x{r:.6g})"
    head += f", memories = {told['memories']}; kept per update before, and after by every choice of memories"
    columns = ("group", "of", count.unit, "before", *MEMORIES)
    rows = [
        (
            name,
            OF.get(key, key),
            readable(life["after"]),
            f"{life['retention_before']:.7f}",
            *(f"{life['retention_after'][memories]:.7f}" for memories in MEMORIES),
        )
        for name, group in told["groups"].items()
        for key, life in group["half_lives"].items()
    ]
    table(head, columns, rows)
    steps = [
        (name, *("–" if group["steps"][rule] is None else f"{group['steps'][rule]['step']:.6g}" for rule in RULES))
        for name, group in told["groups"].items()
    ]
    table(f"The step by each rule; in the recipe: {told['rule']}", ("group", *RULES), steps)
    for name, group in told["groups"].items():
        if group["no_radius"]:
            say(f"{name}: no radius to keep: {group['no_radius']}", hanging=2)
        for note in group["notes"]:
            say(f"{name}: {note}", hanging=2)
        way = group["recommended"]
        if way:
            say(f"{name}: memories = {way['memories']}, step = {way['rule']} did best {way['measured']}", hanging=2)
    if not any(group["recommended"] for group in told["groups"].values()):
        say("None of the rules is recommended: none was measured for these rows, or none did best everywhere.")
