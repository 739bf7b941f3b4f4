"""The closed loop: a small model learns the next byte of a text, and the backend computes the gradients.

    h = onehot(x) E        a = relu(h Wᵀ + b)        logits = a Eᵀ        loss = mean cross-entropy of y

The embedding E (CLASSES, WIDTH) is tied: it reads the input and writes the output, so its gradient has two
parts. The gradients are written out, in the namespace of the tier. exp and log differ between libraries in
the last bits, and a loop amplifies that: two runs part at some update, which is reported. What is judged
is the loss.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dualopt import ENTRIES
from dualopt.catalog import complete, entry, least_ndim
from dualopt.counts import Count
from dualopt.errors import DataError
from dualopt.generator import Stream
from dualopt.namespace import Backend
from dualopt.recipe import Group, Recipe
from dualopt.replay import drive
from dualopt.schedules import Schedule

from .digests import digest_of

Array = np.ndarray[Any, Any]

CLASSES, WIDTH, BATCH = 32, 16, 64
UPDATES, SEEDS = 100, (0, 1, 2)
LAST = 10  # losses that the final one is the mean of
STEP = 0.1  # of rows that are not named here
STATED: Mapping[str, Mapping[str, float]] = {
    "sgdm": {"step": 0.3},
    "hybrid_polargrad": {"step": 0.02},
    **dict.fromkeys(("rmsprop", "adamw", "adam_l2"), {"step": 0.02}),
    **dict.fromkeys(("sign_sgdm", "lion", "sophia"), {"step": 0.01}),
    **dict.fromkeys(("rotational_adamw", "rotational_lion", "rotational_sgdm"), {"shrink_half_life": 6400.0}),
}
SHAPES = {"embedding": (CLASSES, WIDTH), "weight": (WIDTH, WIDTH), "bias": (WIDTH,)}


@dataclass(frozen=True)
class Text:
    """`classes` (n,): bytes modulo CLASSES."""

    classes: Array
    name: str
    sha256: str


def load_text() -> Text:
    """The file that $DUALOPT_TEXT names, or the text of the suite. DataError if it cannot be read."""
    path = os.environ.get("DUALOPT_TEXT")
    try:
        data = Path(path).read_bytes() if path else files(__package__).joinpath("text.txt").read_bytes()
    except OSError as error:
        raise DataError(f"$DUALOPT_TEXT: {path} cannot be read ({error.strerror or error})") from error
    if len(data) < 1000:
        raise DataError(f"$DUALOPT_TEXT: {path} has {len(data)} bytes; the closed loop needs 1000")
    name = Path(path).name if path else "the suite's own"
    return Text(np.frombuffer(data, np.uint8) % CLASSES, name, hashlib.sha256(data).hexdigest())


def recipe(row: str) -> Recipe:
    """The row on all parameters that it can take; adamw on the others. In samples."""
    stated: dict[str, Any] = {"optimizer": row}
    if "step" in entry(row).uses:
        stated["step"] = STEP
    stated |= STATED.get(row, {})
    least = least_ndim(row, complete(row, {}))
    groups = [Group.from_dict({**stated, "name": "row", "match": ["*"] if least < 2 else ["*/embedding", "*/weight"]})]
    if least >= 2:
        groups.append(Group.from_dict({"optimizer": "adamw", "name": "rest", **STATED["adamw"]}))
    schedule = Schedule("linear", warmup=5 * BATCH, total=2 * UPDATES * BATCH)
    return Recipe(tuple(groups), Count("samples", per_update=BATCH), schedule)


def loss_and_gradients(xp: Any, theta: Mapping[str, Any], x: Any, y: Any) -> tuple[Any, dict[str, Any]]:
    """(loss, {name: gradient}) for one-hot x and y (..., batch, CLASSES)."""
    e, w, b = theta["embedding"], theta["weight"], theta["bias"]
    h = xp.matmul(x, e)
    z = xp.matmul(h, xp.matrix_transpose(w)) + b[..., None, :]
    on = xp.where(z > 0, xp.ones_like(z), xp.zeros_like(z))
    a = z * on
    logits = xp.matmul(a, xp.matrix_transpose(e))
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    powers = xp.exp(shifted)
    total = xp.sum(powers, axis=-1, keepdims=True)
    mean = 1 / x.shape[-2]
    loss = xp.sum(xp.log(total), axis=(-2, -1)) * mean - xp.sum(y * shifted, axis=(-2, -1)) * mean
    d_logits = (powers * (xp.ones_like(total) / total) - y) * mean
    d_z = xp.matmul(d_logits, e) * on
    read = xp.matmul(xp.matrix_transpose(x), xp.matmul(d_z, w))
    write = xp.matmul(xp.matrix_transpose(d_logits), a)
    return loss, {
        "embedding": read + write,
        "weight": xp.matmul(xp.matrix_transpose(d_z), h),
        "bias": xp.sum(d_z, axis=-2),
    }


class Course(NamedTuple):
    """What happened with one seed: losses (float64) and digests (uint64) of every update."""

    loss: Array
    digests: Array


def run(row: str, seeds: Sequence[int], text: Text, backend: Backend, tier: str) -> dict[int, Course]:
    """The loop from several seeds, side by side: their parameters are updated as one stack, with the same bits."""
    xp = backend.namespace(tier)
    begun = {s: {n: Stream(s, n).bell(shape) * np.float32(0.25) for n, shape in SHAPES.items()} for s in seeds}
    theta = {f"{s}/{n}": x for s, named in begun.items() for n, x in named.items()}
    picked = [Stream(s, "batch").below(len(text.classes) - 1, UPDATES * BATCH).astype(np.int64) for s in seeds]
    losses: list[Array] = []
    latest = dict(theta)

    def gradients() -> Iterator[dict[str, Array]]:
        one = np.eye(CLASSES, dtype=np.float32)
        for at in np.stack(picked).reshape(len(seeds), UPDATES, BATCH).swapaxes(0, 1):
            x, y = (backend.from_numpy(one[text.classes[i]], "float32") for i in (at, at + 1))
            here = {n: backend.from_numpy(np.stack([latest[f"{s}/{n}"] for s in seeds]), "float32") for n in SHAPES}
            loss, found = loss_and_gradients(xp, here, x, y)
            losses.append(backend.to_numpy(loss).astype(np.float64))
            each = {n: backend.to_numpy(g) for n, g in found.items()}
            yield {f"{s}/{n}": g[i] for i, s in enumerate(seeds) for n, g in each.items()}

    seen: dict[int, list[int]] = {s: [] for s in seeds}
    for moment in drive(recipe(row), theta, gradients(), backend=backend.name, tier=tier):
        latest.update(moment.params)
        for s, digests in seen.items():
            params, state = ({n: every[f"{s}/{n}"] for n in SHAPES} for every in (moment.params, moment.state))
            digests.append(digest_of(params, state))
    return {s: Course(np.array(losses)[:, i], np.array(seen[s], np.uint64)) for i, s in enumerate(seeds)}


def final(losses: Array) -> float:
    """The mean of the last losses."""
    return float(np.mean(losses[-LAST:]))


ROWS = tuple(ENTRIES)
