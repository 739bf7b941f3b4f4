"""Runs of the small GPTs that are kept in a file of JSON lines, so that a killed experiment goes on where it was."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dualopt import Recipe
from dualopt.workload.model import GPTConfig
from dualopt.workload.text import Text

from . import gpt
from .gpt import Array


@dataclass(frozen=True)
class Setting:
    """What all runs of an experiment have in common; `at`: the tokens after which losses are also wanted."""

    text: Text
    tokens: int
    seeds: tuple[int, ...] = (0, 1, 2)
    config: GPTConfig = gpt.CONFIG
    at: tuple[int, ...] = ()

    def key(self, recipe: Recipe) -> str:
        """A digest of everything that a run depends on; numbers to nine digits."""
        told = {
            "recipe": recipe.to_dict(),
            "tokens": self.tokens,
            "seeds": self.seeds,
            "model": dataclasses.asdict(self.config),
            "text": self.text.sha256,
        }
        told |= {"at": self.at} if self.at else {}
        return sha256(json.dumps(_rounded(told), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def told(self) -> str:
        """In words, for a page."""
        return (
            f"The GPT has {gpt.size(self.config):,} parameters in matrices, a run {self.tokens:,} tokens of "
            f"{self.text.name}. Losses are of held-out text, in nats per byte, of {len(self.seeds)} seeds."
        )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(x) for x in value]
    return f"{value:.9g}" if isinstance(value, float) else value


class Store:
    """{key: what a run has shown} in a file, one line each; a line that was cut off is carried out again."""

    def __init__(self, path: Path, what: str = "losses") -> None:
        self.path, self.what = path, what
        self.known: dict[str, Any] = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue
            self.known[found["key"]] = found[what]

    def add(self, key: str, shown: Any) -> None:
        self.known[key] = shown
        self.path.parent.mkdir(parents=True, exist_ok=True)
        whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"\n", b"")
        with self.path.open("a", encoding="utf-8") as file:
            file.write(("" if whole else "\n") + json.dumps({"key": key, self.what: shown}) + "\n")
            file.flush()
            os.fsync(file.fileno())


def measured(recipes: Sequence[Recipe], setting: Setting, store: Store) -> Array:
    """Validation losses (recipes, seeds), from the store or by training; ∞ where a run diverged.

    With `setting.at` they are (recipes, seeds, at and the end).
    """
    missing = {setting.key(recipe): recipe for recipe in recipes if setting.key(recipe) not in store.known}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        every = progress.add_task("recipes", total=len(missing), visible=bool(missing))
        for part in _together(missing, max(1, gpt.MEMBERS // len(setting.seeds))):
            here = progress.add_task("updates")
            tick = lambda done, of: progress.update(here, completed=done, total=of)  # noqa: E731, B023
            given, more = (list(part.values()), setting.seeds), {"config": setting.config, "tick": tick}
            if setting.at:
                found = gpt.courses(*given, (*setting.at, setting.tokens), setting.text, **more)
            else:
                found = gpt.losses(*given, setting.tokens, setting.text, **more)
            for key, losses in zip(part, found, strict=True):
                store.add(key, losses.tolist())
            progress.remove_task(here)
            progress.advance(every, len(part))
    return np.array([store.known[setting.key(recipe)] for recipe in recipes])


def _together(recipes: dict[str, Recipe], most: int) -> list[dict[str, Recipe]]:
    """Recipes that can train together, `most` at once: of one count, and of the same rows."""

    def kind(item: tuple[str, Recipe]) -> str:
        recipe = item[1]
        rows = [[v for v in group.to_dict().items() if not isinstance(v[1], float)] for group in recipe.groups]
        return repr((recipe.count, rows))

    parts = []
    for _, same in groupby(sorted(recipes.items(), key=kind), kind):
        members = list(same)
        parts += [dict(members[i : i + most]) for i in range(0, len(members), most)]
    return parts
