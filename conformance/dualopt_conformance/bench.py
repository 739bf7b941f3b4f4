"""What all checks of one case share: places, tallies, the reference, and what each update may give."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from dualopt.executor import executor
from dualopt.plan import Plan
from dualopt.planned import PlannedGroup

from .arithmetic import NATIVE
from .bounds import Bounds
from .budgets import Allowed, allowed
from .cases import Case
from .digests import spoken, tensors_of
from .experiments import restarted
from .judgement import most
from .manifest import NotComparableError, Record
from .metric import scaled_ulp, ulp
from .verdict import FAIL, FLUSHED, PASS, Check, Finding
from .walk import Arrays, Moment, States, by_scalars, checkpoints, start

Array = np.ndarray[Any, Any]
_BEGIN = Bounds((NATIVE,))


@dataclass(frozen=True)
class Place:
    """One tensor after one update."""

    update: int
    tensor: str

    def of(self, case: Case, experiment: str) -> str:
        return f"{case.id}/{experiment}/{self.update}/{self.tensor}"


@dataclass
class Bench:
    """What all checks of one case share: the reference, and what each update may give, derived once."""

    case: Case
    known: Mapping[str, Array]

    @cached_property
    def moments(self) -> list[Moment]:
        if self.case.streams:
            return []
        return list(restarted(self.case, self.known, self.case.updates))

    @cached_property
    def planned(self) -> PlannedGroup:
        return Plan(self.case.recipe, dict(self.case.shapes)).groups[0]

    @cached_property
    def allowed(self) -> dict[Place, Allowed]:
        """What lockstep may give, for the parameters that move."""
        found: dict[Place, Allowed] = {}
        for m, made in zip(self.moments, allowed(self.moments, self.case.dtype), strict=True):
            for name, keys in made.items():
                found |= {Place(m.update, f"{name}/{key}" if key else name): one for key, one in keys.items()}
        return found

    @cached_property
    def tensors(self) -> list[str]:
        """All tensors, state before θ, parameter by parameter."""
        theta, state = start(self.case)
        return [tensor for tensor, _ in tensors_of(theta, state)]

    def expected(self, key: str, like: Array) -> Array:
        """A tensor of the reference, of the shape of `like`. NotComparableError if it lacks it."""
        x = self.known.get(key)
        if x is None or x.shape != like.shape:
            raise NotComparableError(f"the reference lacks {key!r}; record again")
        return x

    def places(self, updates: list[int]) -> Iterator[Place]:
        return (Place(t, tensor) for t in updates for tensor in self.tensors)

    def lockstep_places(self) -> Iterator[Place]:
        return self.places([m.update for m in self.moments])

    def free_places(self) -> Iterator[Place]:
        return self.places(checkpoints(self.case.updates))

    def seen(self, place: Place, x: Array) -> Array:
        """The array as the row sees it."""
        name, _, key = place.tensor.partition("/")
        return np.asarray(self.planned.seen(np, name, {key: x})[key])

    @cached_property
    def circulates(self) -> bool:
        """True if a state array is made from θ or from another one (found out by trying), so that errors pass on."""
        if not self.moments:
            return False
        m = self.moments[0]
        step = by_scalars(executor(np))

        def state_of(theta: Arrays, state: States) -> dict[tuple[str, str], bytes]:
            with np.errstate(all="ignore"):
                moved = step(m.planned, theta, state, m.gradient, m.proposal)
            return {(n, key): x.tobytes() for n, (_, s) in moved.items() for key, x in s.items()}

        plain = state_of(m.theta, m.state)
        keys = {key for s in m.state.values() for key in s}
        for changed in ("", *sorted(keys)):
            theta = m.theta if changed else {n: x + np.float32(1) for n, x in m.theta.items()}
            state = {n: {k: x + np.float32(k == changed) for k, x in s.items()} for n, s in m.state.items()}
            if any(x != plain[at] for at, x in state_of(theta, state).items() if at[1] != changed):
                return True
        return False

    @cached_property
    def _limits(self) -> dict[str, tuple[float, bool, bool]]:
        """Of every tensor in lockstep: the largest derived bound, is it normwise, is it vacuous somewhere."""
        found: dict[str, tuple[float, bool, bool]] = {}
        for place, one in self.allowed.items():
            bound, normwise, idle = found.get(place.tensor, (0.0, False, False))
            found[place.tensor] = max(bound, most(one)), normwise or one.by_matrix, idle or bool(one.vacuous.any())
        return found

    def budget(self, tensor: str) -> float:
        """B: the largest derived bound of a tensor in lockstep, in the unit of `judge`.

        Where errors circulate B is the largest of the parameter's tensors. What the state begins with counts, too.
        """
        if not self.allowed:
            return 0.0
        name = tensor.partition("/")[0]
        near = [bound for other, (bound, _, _) in self._limits.items() if other.partition("/")[0] == name]
        own = self._limits[tensor][0] if tensor in self._limits else 0.0
        return max(max(near, default=0.0) if self.circulates else own, self._begun(tensor))

    def by_norm(self, tensor: str) -> bool:
        """True if it is measured as a matrix: θ of rows with products, and what has a bound in the Frobenius norm."""
        if self.case.spectral and "/" not in tensor:
            return True
        return tensor in self._limits and self._limits[tensor][1]

    def unjudged(self, tensor: str) -> bool:
        """True if its bound was vacuous in lockstep, or that of a state array from which it is made."""
        made_from = tensor + "/" if "/" not in tensor and self.circulates else tensor
        return any(idle and (x == tensor or x.startswith(made_from)) for x, (_, _, idle) in self._limits.items())

    def _begun(self, tensor: str) -> float:
        """The bound of a tensor of the state before the first update."""
        name, _, key = tensor.partition("/")
        view, theta = self.planned.views[name], self.case.parameters()[name]
        if not key or not theta.size:
            return 0.0
        with np.errstate(all="ignore"):
            begun = self.planned.row.init(_BEGIN, _BEGIN.array(view.apply(np, theta)))[key]
            return float(np.max(begun.e[0] / ulp(begun.s, "float32"), initial=0.0))

    def undecided(self, tensor: str, update: int) -> Array | None:
        """Elements of θ, and of what the motion keeps of it, whose sign or mask rounding may have turned by then."""
        name, _, key = tensor.partition("/")
        first = self.known.get(f"{self.case.id}/undecided/{name}")
        if first is None or (key and key not in self._moving):
            return None
        turned = np.asarray((first > 0) & (first <= update))
        if key not in self.planned.row.apart:
            return turned
        seen, shape = self.planned.views[name].apply(np, turned), self.moments[0].state_after[name][key].shape
        lines = tuple(i for i, n in enumerate(shape) if n != seen.shape[i])
        return np.asarray(seen.any(axis=lines, keepdims=True))

    @cached_property
    def _moving(self) -> frozenset[str]:
        """The state keys of the motion."""
        return frozenset(self.planned.row.motion.init(np, np.zeros((0, 0), np.float32)))


@dataclass
class Tally:
    """Running totals of one check."""

    compared: int = 0
    differing: int = 0
    failed: int = 0
    flushed: int = 0
    ties: int = 0
    unjudged: int = 0
    worst: float = 0.0
    budget: float = 0.0
    derived: float = 0.0
    first: Finding | None = None
    curve: list[tuple[int, float]] = field(default_factory=list)
    envelope: list[tuple[int, float]] = field(default_factory=list)

    def check(self, case: Case, tier: str, experiment: str, sides: tuple[str, str], note: str = "") -> Check:
        """The verdict on what was counted; comparing nothing fails."""
        if self.unjudged:
            told = f"{self.unjudged:,} elements not judged: their bound is as large as the update"
            note = f"{note}; {told}" if note else told
        status = FAIL if self.failed or not self.compared else FLUSHED if self.flushed else PASS
        return Check(
            case.id, tier, experiment, sides, status, self.compared, self.differing, self.worst, self.budget,
            self.derived, self.flushed, self.ties, self.first if self.failed else None, tuple(self.curve),
            tuple(self.envelope), note,
        )  # fmt: skip


def tensor_of(record: Record, stem: str, key: str) -> Array:
    """A tensor that a record must have. NotComparableError if it lacks it."""
    try:
        return record.arrays[stem][key]
    except KeyError:
        raise NotComparableError(f"{record.label}: {stem}.safetensors lacks {key!r}; record again") from None


def pair_of(record: Record, tier: str, key: str, other: Array) -> Array:
    """The same tensor of a record, of the shape and type of `other`. NotComparableError otherwise."""
    x = tensor_of(record, tier, key)
    if x.shape != other.shape or x.dtype != other.dtype:
        raise NotComparableError(
            f"{record.label}: {key!r} is {x.dtype}{x.shape}, and should be {other.dtype}{other.shape}"
        )
    return x


def finding(place: Place, x: Array, y: Array, where: Array, right: Array | None) -> Finding:
    index = tuple(int(i) for i in np.argwhere(where)[0])
    error = float(scaled_ulp(x[index], y[index]))
    oracle = "" if right is None else float(right[index]).hex()
    return Finding(
        place.update, spoken(place.tensor), index, hexadecimal(x[index]), hexadecimal(y[index]), oracle, error, 0.0
    )


def hexadecimal(x: Any) -> str:
    return float(x).hex()
