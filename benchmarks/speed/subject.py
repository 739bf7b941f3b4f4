"""What a peer is to its worker: a step, and a look at the parameters to see that it was one."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Shape = tuple[int, ...]
SAMPLED = 4096  # elements of all parameters that are looked at, and
LEAST = 4  # of each


class UnavailableError(Exception):
    """A peer that cannot do this task here; the message says why."""


@dataclass(frozen=True)
class Task:
    """What a worker is to do.

    Attributes:
        make: ``module:function`` in `benchmarks.speed.peers`.
        rule: a name of `rules.RULES`, or what else the peer reads as the kind of work.
        shapes: of the parameters, by name.
        dtype: of parameters and gradients, ``float32`` or ``bfloat16``.
        options: the peer's.
    """

    make: str
    rule: str
    shapes: Mapping[str, Shape]
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Task:
        """From the JSON of `vars`."""
        return cls(**{**data, "shapes": {name: tuple(shape) for name, shape in data["shapes"].items()}})

    @property
    def sampled(self) -> int:
        """How many elements of a parameter are looked at, at most."""
        return max(LEAST, SAMPLED // (len(self.shapes) or 64))

    def parameters(self) -> Iterator[tuple[str, Array]]:
        """Initial values, normal of RMS 0.02, float32; the same for every peer."""
        return _normal(self.shapes, "parameter", 0.02)

    def gradients(self) -> Iterator[tuple[str, Array]]:
        """Gradients, normal of RMS 0.01, float32; the same for every peer, and for every step."""
        return _normal(self.shapes, "gradient", 0.01)


def _normal(shapes: Mapping[str, Shape], what: str, size: float) -> Iterator[tuple[str, Array]]:
    import numpy as np

    for name, shape in shapes.items():
        drawn = np.random.Generator(np.random.SFC64(zlib.crc32(f"{what} {name}".encode())))
        x = drawn.standard_normal(shape, dtype=np.float32)
        x *= np.float32(size)
        yield name, x


def nothing() -> None:
    """No preparation."""


def no_facts() -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Subject:
    """A peer that is ready to begin.

    Attributes:
        start: makes the optimizer and returns its step, which returns when the step has been carried out.
        values: some elements of every parameter as they are now, float32, in one order.
        prepare: what comes before every step and is not timed, e.g. gradients in their places.
        facts: what else was found out, as JSON; asked for after the last step.
        moves: every parameter must move in a step.
    """

    start: Callable[[], Callable[[], object]]
    values: Callable[[], list[Array]]
    prepare: Callable[[], None] = nothing
    facts: Callable[[], dict[str, Any]] = no_facts
    moves: bool = True
