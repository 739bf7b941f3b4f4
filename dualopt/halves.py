"""One update cut where matrices must be whole: before the direction, the direction, and after it.

    before       s+ = F(s, g),  z = read(s+, g)        elementwise
    direction    u = U(z)                              of whole matrices
    after        θ+ = a θ + η u                        elementwise

For rows of which only the direction is not elementwise: they can be updated in pieces of any kind, here and elsewhere,
if z is put together and u is cut up in between. The three after one another are `recursion.step`, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from .assignment import flops
from .buckets import stacks
from .directions import Descent
from .executor import kind, stacked
from .memory import NAMES
from .part import in_channel
from .planned import PlannedGroup
from .recursion import Array, Arrays, Namespace, Row, Scalars
from .signal import AMBIENT


def obstacle(row: Row) -> str | None:
    """Why a row cannot be cut; None if it can. Elementwise rows need not be."""
    if row.motion.pools:
        return "its motion needs sums over all parameters of the group"
    if not isinstance(row.direction, Descent):
        return "its direction reads more than one array"
    for part, what in ((row.signal, "signal"), (row.memory, "memory"), (row.motion, "motion")):
        if not part.local:
            return f"its {what} needs whole matrices, and not its direction alone"
    return None


def divisible(planned: PlannedGroup) -> bool:
    """True if the directions of a group can be shared out, and are worth it."""
    return not planned.row.local and obstacle(planned.row) is None


def costs(planned: PlannedGroup, names: Iterable[str]) -> dict[str, int]:
    """{name: cost of its direction} of a divisible group, for those of `names` that are not empty."""
    descent, views = planned.row.direction, planned.views
    assert isinstance(descent, Descent)
    linear = descent.geometry.linear
    return {name: flops(views[name].seen, linear=linear) for name in names if views[name].size}


def before(xp: Namespace, row: Row, theta: Array, state: Arrays, evidence: Arrays, k: Scalars) -> tuple[Arrays, Array]:
    """(s+, z) of a parameter or of any piece of it, all arrays in one shape; what is only for this update is in s+."""
    descent = row.direction
    assert isinstance(descent, Descent)
    g = row.signal(xp, theta, evidence, k)
    s = {**state, **row.memory(xp, state, g, k)}
    return s, descent.read(xp, in_channel(s, NAMES, AMBIENT), g[AMBIENT], k)


def directions(xp: Namespace, planned: PlannedGroup, z: Arrays, k: Mapping[str, Scalars]) -> Arrays:
    """{name: u} of whole parameters, in the shapes in which they are stored; none of them empty."""
    descent, views = planned.row.direction, planned.views
    assert isinstance(descent, Descent)
    seen = {name: views[name].apply(xp, x) for name, x in z.items()}
    out: Arrays = {}
    for names in stacks({name: views[name].seen for name in z}, {name: kind(x, k[name]) for name, x in z.items()}):
        joined = stacked(xp, [{"z": seen[name]} for name in names])["z"]
        u = descent.geometry(xp, joined, {}, k[names[0]])
        out |= {name: views[name].undo(xp, u[i, ...]) for i, name in enumerate(names)}
    return out


def after(xp: Namespace, row: Row, theta: Array, u: Array, s: Arrays, k: Scalars, keys: Arrays) -> tuple[Array, Arrays]:
    """(θ+, s+) of a piece, with the keys of the state `keys`."""
    moved, s = row.motion(xp, theta, {AMBIENT: u}, s, k)
    return moved, {key: s[key] for key in keys}
