"""U: from what is remembered to a direction of descent. One file per geometry.

`Descent` reads the memories out (z) and hands z to a geometry, channel by channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..clock import Clock
from ..memory import NAMES, Reader
from ..part import Stage, in_channel
from ..recursion import Action, Array, Arrays, Namespace, Part, Scalars, Shape


class Geometry(Part, Protocol):
    """u from a readout z in one channel, and, if it is elementwise, from the memories s of that channel."""

    @property
    def unit(self) -> bool:
        """As that of a direction."""
        ...

    @property
    def degree(self) -> float | None: ...

    @property
    def linear(self) -> bool:
        """True if its cost grows as the number of entries: it multiplies no matrices."""
        ...

    def __call__(self, xp: Namespace, z: Array, s: Arrays, k: Scalars) -> Array: ...


@dataclass(frozen=True)
class Descent(Stage):
    """u = geometry(z), z = read(s+, g), in every channel."""

    read: Reader
    geometry: Geometry

    @property
    def local(self) -> bool:  # type: ignore[override]
        return self.geometry.local

    @property
    def unit(self) -> bool:  # type: ignore[override]
        return self.geometry.unit

    @property
    def degree(self) -> float | None:  # type: ignore[override]
        return self.geometry.degree

    @property
    def whole(self) -> bool:  # type: ignore[override]
        return self.geometry.whole

    @property
    def shaped(self) -> bool:  # type: ignore[override]
        return self.geometry.shaped

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return self.read.needs | self.geometry.needs

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        return self.read.scalars(action, clock, shape) | self.geometry.scalars(action, clock, shape)

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays:
        u = {}
        for channel, x in g.items():
            own = in_channel(s, NAMES, channel)
            u[channel] = self.geometry(xp, self.read(xp, own, x, k), own, k)
        return u
