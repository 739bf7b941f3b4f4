"""The recursion: one update of one parameter. Everything else in dualopt serves these lines.

    s+ = F(s, g)        u = U(s+, g)        θ+ = a θ + η u

g is what the gradient becomes in the coordinates of the motion, F remembers, U turns memory into a
direction of descent (u is *added*), and a = 2^(−Δτ/h_a) shrinks. A row of the catalogue chooses the
four parts; each is a pure function of arrays, written against the Python array API and batch-first:

    θ            (..., m, n), or any shape for elementwise rows
    s            {key: array}, e.g. {"m": ..., "v": ...}; flat. F, U and the motion read and write one s; what
                 F adds to the keys of the state is for this update only, and is not kept
    g, u         {channel: array}; rows that act on θ itself have the one channel ""
    evidence     {name: array}: what was measured for this update; {"gradient": array}
    k            {name: scalar}: a float or a 0-d array, opaque here; scalar·array and scalar+array only

Half of the mathematics is in the scalars, and lives on the host in float64: `Row.scalars` turns
coordinates (half-lives, step, readout) and the parameter's clock into k. Nothing here knows about
frameworks, devices or schedules. The order of operations is part of the definition: the same bits come
out of every IEEE-754 implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from .clock import Clock

if TYPE_CHECKING:
    from .fold import Fold
    from .rounding import Storage

Array = Any
Namespace = Any
Arrays = dict[str, Array]
Scalars = Mapping[str, Any]  # float or 0-d array
Action = Mapping[str, Any]  # coordinate -> value: what a recipe states
Shape = tuple[int, ...]


class Part(Protocol):
    """A stage of the recursion: what it needs from the host, and whether it is elementwise."""

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """{scalar: the coordinates that it is made from}, in the order of the scalar tensor."""
        ...

    @property
    def local(self) -> bool:
        """True if every output element depends on the same element of the inputs only."""
        ...

    @property
    def whole(self) -> bool:
        """True if it joins the matrices of a parameter: it gets (..., k, m, n), k of them to one number."""
        ...

    @property
    def shaped(self) -> bool:
        """True if its scalars depend on the shape of the parameter."""
        ...

    @property
    def apart(self) -> tuple[str, ...]:
        """The keys of its state whose arrays have a shape of their own, and not that of θ."""
        ...

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        """The running sums of the host after this update, from `clock.sums` before it."""
        ...

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        """The scalars of one update, in float64, for a parameter viewed in `shape`."""
        ...


class Signal(Part, Protocol):
    @property
    def largest(self) -> float:
        """The largest entry of a gradient that it can work with; inf: any finite one."""
        ...

    def zeros(self, xp: Namespace, theta: Array) -> Arrays:
        """The channels of g, all 0: what the memory of them starts from."""
        ...

    def __call__(self, xp: Namespace, theta: Array, evidence: Arrays, k: Scalars) -> Arrays: ...


class Memory(Part, Protocol):
    def init(self, xp: Namespace, g: Arrays) -> Arrays: ...
    def __call__(self, xp: Namespace, state: Arrays, g: Arrays, k: Scalars) -> Arrays: ...


class Direction(Part, Protocol):
    @property
    def unit(self) -> bool:
        """True if u has the declared length 1, however long the gradients are."""
        ...

    @property
    def degree(self) -> float | None:
        """d where all gradients times c > 0 give u times c^d, but for an ε; None: they give something else."""
        ...

    def __call__(self, xp: Namespace, s: Arrays, g: Arrays, k: Scalars) -> Arrays: ...


class Motion(Part, Protocol):
    @property
    def pools(self) -> bool:
        """True if the motion needs numbers summed over all parameters of the group (`pool`)."""
        ...

    @property
    def averages(self) -> bool:
        """True if `evaluate` gives another point than θ."""
        ...

    def init(self, xp: Namespace, theta: Array) -> Arrays: ...
    def pool(self, xp: Namespace, theta: Array, u: Arrays, k: Scalars) -> Arrays: ...
    def __call__(self, xp: Namespace, theta: Array, u: Arrays, s: Arrays, k: Scalars) -> tuple[Array, Arrays]: ...
    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array: ...


@dataclass(frozen=True)
class Row:
    """A named optimizer: four parts, and where it comes from.

    ``storage``: how half-precision parameters are kept between updates, around the recursion (`executor.stored`);
    None: rounded to nearest.
    """

    name: str
    signal: Signal
    memory: Memory
    direction: Direction
    motion: Motion
    storage: Storage | None = None
    source: str = ""
    resolved: Mapping[str, str] = field(default_factory=dict)  # structural choices, for reports
    folds: Mapping[str, Fold] = field(default_factory=dict)  # stream -> what is made of its microbatches

    @property
    def parts(self) -> tuple[Part, ...]:
        four = self.signal, self.memory, self.direction, self.motion
        return four if self.storage is None else (*four, self.storage)

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """All scalars of this row, in order, and the coordinates behind each."""
        return {name: used for part in self.parts for name, used in part.needs.items()}

    @property
    def local(self) -> bool:
        """True if the whole update is elementwise, so that parameters may be flattened and joined."""
        return all(part.local for part in self.parts)

    @property
    def whole(self) -> bool:
        """True if matrices of one parameter, or of one block of it, are not independent: see `Part.whole`."""
        return any(part.whole for part in self.parts)

    @property
    def unit(self) -> bool:
        """True if the direction has length 1 however long the gradients are: an update is as long as η."""
        return self.direction.unit

    @property
    def degree(self) -> float | None:
        """How updates follow the scale of the loss: 0 not at all, 1 in proportion, None: otherwise. An ε is left out.

        Gradients that are all multiplied by c > 0 multiply u by c^degree.
        """
        return None if "l2" in self.signal.needs else self.direction.degree

    @property
    def shaped(self) -> bool:
        """True if scalars depend on the shape of the parameter: see `Part.shaped`."""
        return any(part.shaped for part in self.parts)

    @property
    def apart(self) -> frozenset[str]:
        """The keys of the state whose arrays have a shape of their own; all others have that of θ."""
        return frozenset(key for part in self.parts for key in part.apart)

    def tally(self, action: Action, clock: Clock) -> dict[str, float]:
        """The running sums of the host after this update: {name: float64}, most rows have none."""
        return {name: total for part in self.parts for name, total in part.tally(action, clock).items()}

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        """k for one update: {name: float64}, exactly the names of `needs`, in order."""
        found: dict[str, float] = {}
        for part in self.parts:
            found.update(part.scalars(action, clock, shape))
        return {name: found[name] for name in self.needs}

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        """The state before the first update, for a parameter as the row sees it."""
        begun = self.memory.init(xp, self.signal.zeros(xp, theta)) | self.motion.init(xp, theta)
        return begun if self.storage is None else begun | self.storage.init(xp, theta)

    def evaluate(self, xp: Namespace, theta: Array, state: Arrays, k: Scalars) -> Array:
        """The parameters to evaluate at; θ itself unless the motion averages."""
        return self.motion.evaluate(xp, theta, state, k)


def propose(
    xp: Namespace, row: Row, theta: Array, state: Arrays, evidence: Arrays, k: Scalars
) -> tuple[Arrays, Arrays, Arrays]:
    """(g, s+, u): the update up to its motion."""
    g = row.signal(xp, theta, evidence, k)
    s = {**state, **row.memory(xp, state, g, k)}  # s+ = F(s, g)
    u = row.direction(xp, s, g, k)  # u  = U(s+, g)
    return g, s, u


def step(xp: Namespace, row: Row, theta: Array, state: Arrays, evidence: Arrays, k: Scalars) -> tuple[Array, Arrays]:
    """One update: (θ+, s+). Pure; nothing is modified.

    Args:
        xp: the namespace of the arrays, and with it the tier (see `namespace`).
        row: the parts.
        theta: the parameter, (..., m, n) or any shape for elementwise rows.
        state: {key: array} as from `row.init`.
        evidence: {"gradient": array of the shape of theta}, and what else the signal of this row reads.
        k: the scalars of `row.scalars`, as floats or as 0-d arrays: the same bits either way.
    """
    _, s, u = propose(xp, row, theta, state, evidence, k)
    moved, s = row.motion(xp, theta, u, s, k)  # θ+ = a θ + η u
    return moved, {key: s[key] for key in state}


def step_group(
    xp: Namespace,
    row: Row,
    theta: Arrays,
    state: Mapping[str, Arrays],
    evidence: Mapping[str, Arrays],
    k: Mapping[str, Scalars],
) -> dict[str, tuple[Array, Arrays]]:
    """One update of a whole group whose motion pools: numbers summed over its parameters, by name.

    All arguments are keyed by parameter name. The pooled sums join k as 0-d arrays.
    """
    proposed = {name: propose(xp, row, theta[name], state[name], evidence[name], k[name]) for name in theta}
    pooled: Arrays = {}
    for name in sorted(proposed):  # models list their parameters in different orders
        u = proposed[name][2]
        for key, value in row.motion.pool(xp, theta[name], u, k[name]).items():
            pooled[key] = pooled[key] + value if key in pooled else value
    out: dict[str, tuple[Array, Arrays]] = {}
    for name, (_, s, u) in proposed.items():
        moved, s_next = row.motion(xp, theta[name], u, s, {**k[name], **pooled})
        out[name] = moved, {key: s_next[key] for key in state[name]}
    return out
