"""What the examples train, at toy size: a made-up language, and its batches. Put your own in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

VOCABULARY = 64
CONTEXT = 16  # tokens of a row that are predicted


def documents(number: int, seed: int) -> list[list[int]]:
    """Sentences of 9 to 33 tokens; 0 begins one, and most tokens follow from the one before."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(number):
        tokens = [0]
        for _ in range(random.integers(8, 33)):
            tokens.append(int(random.integers(1, VOCABULARY)) if random.random() < 0.2 else (5 * tokens[-1] + 3) % 64)
        made.append(tokens)
    return made


def rows(number: int, seed: int) -> np.ndarray[Any, Any]:
    """The same end to end, cut into (number, CONTEXT + 1)."""
    length = CONTEXT + 1
    text = [token for tokens in documents(number * length // 8, seed) for token in tokens]
    return np.array(text[: number * length], np.int64).reshape(number, length)


class Batches:
    """Batches of `rows` in an order of every epoch's own. The last one of an epoch is smaller.

    Iterating goes on where the last iteration ended, up to the end of its epoch: what `state_dict` has when a batch is
    there is where a resumed run goes on after it. Of several processes each gets every ``world``-th row of a batch.
    """

    def __init__(self, rows: np.ndarray[Any, Any], size: int, *, rank: int = 0, world: int = 1) -> None:
        self.rows, self.size, self.rank, self.world = rows, size, rank, world
        self.epoch = self.position = 0

    def __len__(self) -> int:
        return (len(self.rows) + self.size - 1) // self.size

    def __iter__(self) -> Iterator[np.ndarray[Any, Any]]:
        order = np.random.default_rng(self.epoch).permutation(len(self.rows))
        while True:
            start = self.position * self.size
            last = self.position == len(self) - 1
            self.epoch, self.position = (self.epoch + 1, 0) if last else (self.epoch, self.position + 1)
            yield self.rows[order[start : start + self.size][self.rank :: self.world]]
            if last:
                return

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
