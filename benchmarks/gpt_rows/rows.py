"""What is trained: for every row the group that it gets, beside AdamW for everything else.

The small GPT has matrices in its blocks, an embedding, a head and gains. A row takes the matrices of the blocks; the
rest is AdamW's, at the step that AdamW itself came out with. Presets say what every parameter gets, and all of their
steps are scaled together. Half-lives are in tokens: 7 168 and 28 672 are 7 and 28 updates (β = 0.906 and 0.976).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

PER_UPDATE = 1024
COUNT = {"unit": "tokens", "per_update": PER_UPDATE}
SCHEDULE = {
    "shape": "warmup-stable-decay",
    "warmup": 20 * PER_UPDATE,
    "total": 300 * PER_UPDATE,
    "decay": 100 * PER_UPDATE,
}
CONSTANT = {"warmup": 20 * PER_UPDATE}  # for rows that average
MEMORY: dict[str, Any] = {"memory_half_life": 7_168}
SQUARES: dict[str, Any] = {"second_memory_half_life": 28_672}
SHRINK: dict[str, Any] = {"shrink_half_life": 204_800}


@dataclass(frozen=True)
class Row:
    """A row of the comparison.

    Attributes:
        trains: which parameters, in words.
        step: the middle of the first grid.
        group: what the matrices of the blocks get; None: a preset.
        schedule: of the whole recipe.
    """

    trains: str
    step: float
    group: Mapping[str, Any] | None = None
    schedule: Mapping[str, Any] = field(default_factory=lambda: SCHEDULE)


def _matrices(optimizer: str, step: float, **options: Any) -> Row:
    return Row("matrices of the blocks", step, {"optimizer": optimizer, **options})


ROWS: dict[str, Row] = {
    "adamw": Row("everything", 0.004, {"optimizer": "adamw", **MEMORY, **SQUARES, **SHRINK}),
    "adamw, cautious": _matrices("adamw", 0.004, **MEMORY, **SQUARES, **SHRINK, shrink="cautious"),
    "lion": _matrices("lion", 0.001, **MEMORY, **SHRINK),
    "muon": _matrices("muon", 0.02, **MEMORY, **SHRINK),
    "scionc preset": Row("everything, by role", 1.0),
    "normuon": _matrices("normuon", 0.02, **MEMORY, **SQUARES, **SHRINK),
    "sf_adamw": Row("everything", 0.008, {"optimizer": "sf_adamw", **SQUARES, **SHRINK}, CONSTANT),
    "sf_normuon": _matrices("sf_normuon", 0.02, **MEMORY, **SQUARES, **SHRINK),
    "rotational_adamw": Row("matrices of the blocks", 51_200, {"optimizer": "rotational_adamw", **MEMORY, **SQUARES}),
    "hyperball": _matrices("hyperball", 0.03, **MEMORY),
    "symmetry-compatible preset": Row("everything, by symmetry", 1.0),
    "regularized_muon": _matrices("regularized_muon", 0.02, **MEMORY, **SHRINK),
    "freon": _matrices("freon", 0.02, **MEMORY, **SHRINK),
    "pion": _matrices("pion", 0.1, **MEMORY),
    "shampoo": _matrices("shampoo", 0.02, **MEMORY, **SHRINK),
    "sophia": _matrices("sophia", 0.004, **MEMORY, **SHRINK),
}
MLX = ("adamw", "lion", "scionc preset", "sf_adamw", "rotational_adamw")


def recipe(name: str, step: float, rest: float) -> dict[str, Any]:
    """The tables of a recipe: `step` for the row, `rest` for AdamW's part."""
    row = ROWS[name]
    if row.group is None:
        return _preset(name, step)
    swept = {"shrink_half_life": step} if row.group["optimizer"] == "rotational_adamw" else {"step": step}
    group = {"name": "hidden", "match": ["blocks.*.weight"], "ndim": 2, **row.group, **swept}
    others = {**ROWS["adamw"].group, "name": "rest", "step": rest}  # type: ignore[dict-item]
    if row.trains == "everything":
        return _recipe(row, [{**row.group, "name": "all", "step": step}])
    return _recipe(row, [group, others])


def _recipe(row: Row, groups: list[dict[str, Any]]) -> dict[str, Any]:
    return {"count": dict(COUNT), "schedule": dict(row.schedule), "group": groups}


def _preset(name: str, scale: float) -> dict[str, Any]:
    """A preset on the schedule of the others, all of its steps times `scale`."""
    files = {"scionc preset": "gpt.toml"}
    tables = (
        tomllib.loads(resources.files("dualopt.workload").joinpath(files[name]).read_text(encoding="utf-8"))
        if name in files
        else {"group": _symmetric()}
    )
    groups = [{**group, "step": group["step"] * scale} for group in tables["group"]]
    return _recipe(ROWS[name], groups)


def _symmetric() -> list[dict[str, Any]]:
    """The routing of `recipes/symmetry-compatible.toml`, for the names of the small GPT (4 heads of 16)."""
    common = {**MEMORY, **SHRINK}
    return [
        {"name": "vectors", "ndim": 1, "optimizer": "adamw", "step": 0.004, **MEMORY, **SQUARES},
        {"name": "embedding", "match": ["embedding.weight"], "optimizer": "row_norm", "step": 0.1, **common},
        {"name": "head", "match": ["head.weight"], "optimizer": "row_norm", "centred": True, "step": 0.02, **common},
        {
            "name": "gate and up",
            "match": ["*.gate.weight", "*.up.weight"],
            "optimizer": "row_norm",
            "step": 0.02,
            **common,
        },
        {"name": "down", "match": ["*.down.weight"], "optimizer": "column_norm", "step": 0.02, **common},
        {
            "name": "heads",
            "match": ["*.attention.*.weight"],
            "optimizer": "muon",
            "blocks": {"axis": 0, "size": 16},
            "step": 0.02,
            **common,
        },
    ]
