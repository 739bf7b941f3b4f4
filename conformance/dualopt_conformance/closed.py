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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import ENTRIES
from dualopt.catalog import complete, entry
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
STEPS = {"sgdm": 0.3, "rmsprop": 0.02, "adamw": 0.02, "adam_l2": 0.02, "sign_sgdm": 0.01, "lion": 0.01}
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
    stated: dict[str, Any] = {"optimizer": row, "step": STEPS.get(row, 0.1)}
    least = entry(row).least_ndim(complete(row, {}))
    groups = [Group.from_dict({**stated, "name": "row", "match": ["*"] if least < 2 else ["embedding", "weight"]})]
    if least >= 2:
        groups.append(Group.from_dict({"optimizer": "adamw", "name": "rest", "step": STEPS["adamw"]}))
    schedule = Schedule("linear", warmup=5 * BATCH, total=2 * UPDATES * BATCH)
    return Recipe(tuple(groups), Count("samples", per_update=BATCH), schedule)


def loss_and_gradients(xp: Any, theta: Mapping[str, Any], x: Any, y: Any) -> tuple[Any, dict[str, Any]]:
    """(loss, {name: gradient}) for one-hot x and y (batch, CLASSES)."""
    e, w, b = theta["embedding"], theta["weight"], theta["bias"]
    h = xp.matmul(x, e)
    z = xp.matmul(h, xp.matrix_transpose(w)) + b[None, ...]
    on = xp.where(z > 0, xp.ones_like(z), xp.zeros_like(z))
    a = z * on
    logits = xp.matmul(a, xp.matrix_transpose(e))
    shifted = logits - xp.max(logits, axis=-1, keepdims=True)
    powers = xp.exp(shifted)
    total = xp.sum(powers, axis=-1, keepdims=True)
    mean = 1 / x.shape[0]
    loss = xp.sum(xp.log(total)) * mean - xp.sum(y * shifted) * mean
    d_logits = (powers * (xp.ones_like(total) / total) - y) * mean
    d_z = xp.matmul(d_logits, e) * on
    read = xp.matmul(xp.matrix_transpose(x), xp.matmul(d_z, w))
    write = xp.matmul(xp.matrix_transpose(d_logits), a)
    return loss, {
        "embedding": read + write,
        "weight": xp.matmul(xp.matrix_transpose(d_z), h),
        "bias": xp.sum(d_z, axis=0),
    }


def run(row: str, seed: int, text: Text, backend: Backend, tier: str) -> tuple[Array, Array]:
    """(losses float64, digests uint64) of every update."""
    xp = backend.namespace(tier)
    theta = {n: Stream(seed, n).bell(s) * np.float32(0.25) for n, s in SHAPES.items()}
    losses: list[float] = []
    picked = Stream(seed, "batch").below(len(text.classes) - 1, UPDATES * BATCH).reshape(UPDATES, BATCH)
    latest = dict(theta)

    def gradients() -> Iterator[dict[str, Array]]:
        one = np.eye(CLASSES, dtype=np.float32)
        for at in picked.astype(np.int64):
            x, y = (backend.from_numpy(one[text.classes[i]], "float32") for i in (at, at + 1))
            here = {n: backend.from_numpy(v, "float32") for n, v in latest.items()}
            loss, found = loss_and_gradients(xp, here, x, y)
            losses.append(float(backend.to_numpy(loss)))
            yield {n: backend.to_numpy(g) for n, g in found.items()}

    seen = []
    for moment in drive(recipe(row), theta, gradients(), backend=backend.name, tier=tier):
        latest.update(moment.params)
        seen.append(digest_of(moment.params, moment.state))
    return np.array(losses), np.array(seen, np.uint64)


def final(losses: Array) -> float:
    """The mean of the last losses."""
    return float(np.mean(losses[-LAST:]))


ROWS = tuple(ENTRIES)
