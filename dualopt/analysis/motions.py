"""What the motion of a row makes of its scalars: how much of the past every update loses, and how far weights turn.

    motion           1 − a                                    angle per update
    additive         c_a, and ηλ of SGDM's penalty;           of the triangle a RMS(θ), η RMS(u), RMS(θ+)
                     what the mask leaves of it if cautious
    target_rms       as additive                              of the steady state; of the walk where η is too short
      by shrink      that with which the walk stays at R      η RMS(u)/R
    averaged         of the fast point z                      of z
    rotational       of its shrink half-life                  η̂_r
    on a sphere      that of the walk with this angle         φ; hyperball arctan η
    rotations        the same                                 0.2 η/RMS(θ)

Signs and polar factors walk like a linear direction whose steady state is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import steady
from ..clock import Clock
from ..directions.elementwise import Identity, Rms
from ..motion.additive import Additive
from ..motion.averaged import Averaged
from ..motion.held import Held
from ..motion.multiplicative import Multiplicative
from ..motion.rotational import Rotational
from ..motion.sphere import Hyperball, Sphere
from ..motion.targeted import Targeted
from ..noise import Noise, noise_of
from ..planned import PlannedGroup
from ..recursion import Shape
from ..shrink import Cautious
from . import equilibria, walks, weights
from .course import Course
from .recurrence import Floats, complements, forward
from .sizes import Size, size_of
from .spectra import Response, response_of

NODES = 33


@dataclass(frozen=True)
class Life:
    """A group over its run, for parameters of one shape.

    Attributes:
        noise, mu, c: how it responds to noise, μ, and 1 − β of an update.
        response: of polar factors, what their singular values do.
        eta: η, (t,); ones where the motion has no step.
        aged: the same times the correction of the readout for its age, over that of the root that it lacks.
        lost: 1 − a on the mean over entries; None: it depends on the radius.
        angle: where the motion fixes it.
        shares: of each z in the mean of the fast point, c_x, where the motion averages.
        pulled: β of the point between z and x that z shrinks in proportion to; 0: z itself.
    """

    noise: Noise
    mu: float
    c: float
    response: Response | None
    eta: Floats
    aged: Floats
    lost: Floats | None
    angle: Floats | None
    shares: Floats | None
    pulled: float

    def total(self, lost: float) -> float:
        """A at this 1 − a."""
        responding = self.response or self.noise
        return 1.0 if lost >= 1 else responding.amplification(lost, self.mu, self.c)

    def totals(self, lost: Floats) -> Floats:
        """A at every 1 − a."""
        return _sampled(self.total, lost)

    def like_angle(self, angle: Floats) -> Floats:
        """1 − a of the walk that turns by these angles."""
        return _sampled(lambda x: equilibria.shrink_for(math.sqrt(x), self.total), angle**2)

    def masked(self, lost: Floats) -> Floats:
        """What a cautious mask leaves of 1 − a."""
        return _sampled(lambda x: equilibria.masked(x, self.total, signs=self.noise.signs), lost)


def _sampled(f: Callable[[float], float], x: Floats) -> Floats:
    """f at every x >= 0, from some of them and straight lines in √x, where f is smooth at 0."""
    low, high = float(x.min()), float(x.max())
    if low == high:
        return np.full(x.shape, f(high))
    at = np.linspace(math.sqrt(low), math.sqrt(high), NODES)
    return np.interp(np.sqrt(x), at, [f(float(y) ** 2) for y in at])


def life_of(planned: PlannedGroup, course: Course, shape: Shape) -> Life:
    """The life of parameters of this logical shape on the course of their group."""
    motion, action, k = planned.row.motion, planned.action, course.k
    noise = noise_of(planned.row.direction, action)
    mu, c = noise.memory(action, Clock(course.dtau, course.dtau))
    eta = k.get("eta", np.ones(course.tau.shape))
    aged = eta * k["r_m"] if "r_m" in k else eta
    if isinstance(noise.geometry, Rms) and not noise.geometry.corrected:
        aged = aged / np.sqrt(complements(course.tau, action["second_memory_half_life"]))
    life = Life(noise, mu, c, response_of(planned.row, shape), eta, aged, None, None, None, 0.0)
    if isinstance(motion, Held | Multiplicative):
        return life
    if isinstance(motion, Additive):
        lost = life.masked(k["c_a"]) if isinstance(motion.shrink, Cautious) else k["c_a"]
        if isinstance(noise.geometry, Identity):
            lost = np.minimum(lost + eta * action.get("l2", 0.0), 1.0)
        shares = None
        if course.weights is not None:
            total = np.cumsum(course.weights)
            shares = np.divide(course.weights, total, out=np.zeros(total.shape), where=total > 0)
        at_y = isinstance(motion, Averaged) and motion.shrink_at == "y"
        return _with(life, lost=lost, shares=shares, pulled=action["interpolation"] if at_y else 0.0)
    if isinstance(motion, Rotational):
        lost = complements(course.q_shrink * course.dtau, action["shrink_half_life"])
        return _with(life, lost=lost, angle=k["eta_r"])
    angle = _sphere_angle(motion, k)
    return _with(life, lost=life.like_angle(angle), angle=angle)


def _with(life: Life, **changed: Any) -> Life:
    return Life(**{**vars(life), **changed})


def _sphere_angle(motion: Any, k: Any) -> Floats:
    found = np.arctan(k["eta"]) if isinstance(motion, Hyperball) else np.arctan2(k["s_turn"], 1 - k["c_turn"])
    return np.asarray(found, np.float64)


@dataclass(frozen=True)
class Path:
    """The parameters of one shape over the run; None: not known.

    Attributes:
        rms: of θ after every update, (t,).
        update: RMS of η u in every update.
        angle: by which each turns them.
        moved: η of every update, as far as its gradients moved anything, in a unit of its own.
        lost: 1 − a.
        settles: the RMS of the steady state at the peak of the step; None: there is none, or it is not known.
        turns: the angle per update there.
        most: the RMS that weights cannot pass at the end, if the size of u has a bound.
        spread: mean square of what one gradient adds per unit of `moved` before the memory; None: not known, or turned.
    """

    rms: Floats | None
    update: Floats | None
    angle: Floats | None
    moved: Floats
    lost: Floats
    settles: float | None
    turns: float | None
    most: float | None
    spread: float | None = None


def sized(planned: PlannedGroup, life: Life, shape: Shape) -> Size:
    """How large the updates of parameters of this logical shape are, iterated polar factors as they come out."""
    size, response = size_of(planned.row.direction, life.noise, shape, life.mu, life.c), life.response
    if response is None or size.noise is None or size.most is None:
        return size
    return Size(size.noise * response.square, size.most * response.largest**2)


def path_of(
    planned: PlannedGroup, life: Life, course: Course, shape: Shape, start: float, slope: float | None = None
) -> Path:
    """What happens to parameters of this logical shape and RMS `start` at the beginning.

    `slope` is E(g‖ω‖)² per entry of a scale-invariant row ω, where it is known: it sizes the steady states of SGDM and
    of Adam with a penalty.
    """
    motion, action = planned.row.motion, planned.action
    size = sized(planned, life, shape)
    peak = int(np.argmax(life.eta))
    if isinstance(motion, Sphere | Rotational) and life.lost is not None and life.angle is not None:
        rms = np.full(course.tau.shape, start)
        return Path(rms, rms * life.angle, life.angle, life.angle, life.lost, start, float(life.angle.max()), start)
    if isinstance(motion, Multiplicative):
        entries = math.sqrt(max(1, math.prod(shape[-2:])))
        update = course.k["length"] / entries
        if start == 0:
            return Path(update * 0, update, None, update, update * 0, 0.0, None, 0.0)
        angle = update / start
        most = float(angle.max())
        return Path(update * 0 + start, update, angle, update, life.like_angle(angle), start, most, start)
    if isinstance(motion, Held | Targeted):
        return _targeted(isinstance(motion, Held), life, size, float(action["target_rms"]), start, peak)
    assert life.lost is not None
    if life.pulled and life.lost.max() > 0:  # z and x pull each other: only what is remembered has been worked out
        return Path(None, None, None, life.aged, life.lost, None, None, None)
    penalty = float(action.get("l2", 0.0))
    if isinstance(life.noise.geometry, Identity) or penalty:
        settles, turns = _sloped(life, penalty, peak, slope, shape)
        return Path(None, None, None, life.aged, life.lost, settles, turns, None)
    return _additive(life, size, start, peak)


def _sloped(
    life: Life, penalty: float, peak: int, slope: float | None, shape: Shape
) -> tuple[float | None, float | None]:
    """(RMS, angle) in the steady state of rows whose gradients have this slope; SGDM's angle needs none."""
    assert life.lost is not None
    eta, lost, entries = float(life.eta[peak]), float(life.lost[peak]), shape[-1] if shape else 1
    if not isinstance(life.noise.geometry, Identity):
        known = isinstance(life.noise.geometry, Rms) and life.mu == 1
        if slope is None or lost or not (known and eta and entries):
            return None, None
        found = equilibria.adam_l2(eta, penalty, 1 - life.c, entries, entries * slope)
        return found.norm / math.sqrt(entries), found.angle
    if not lost:
        return None, None
    total = life.total(lost)
    angle = equilibria.turned(steady.angle(equilibria.lost_square(lost), total), lost)
    if slope is None or not entries:
        return None, angle
    of_one = total / steady.readout(life.mu, life.c)  # E‖u_tot‖² is that of a gradient for a → 1
    square = eta * math.sqrt(of_one * entries * slope / equilibria.lost_square(lost))  # ‖ω‖², as E‖g‖² ~ 1/‖ω‖²
    return math.sqrt(square / entries), angle


def _additive(life: Life, size: Size, start: float, peak: int) -> Path:
    assert life.lost is not None
    lost, at = life.lost, float(life.lost[peak])
    amplification = life.total(at)
    double = equilibria.lost_square(at)
    steady_angle = equilibria.turned(steady.angle(double, amplification), at) if at > 0 else None
    most = None if size.most is None else float(forward(1 - lost, life.eta * math.sqrt(size.most), start)[-1])
    if size.noise is None:
        return Path(None, None, None, life.aged, lost, None, steady_angle, most)
    walk = _walk(life, lost, size, start)
    settles = steady.radius(float(life.eta[peak]), size.noise, amplification, double) if at > 0 else None
    spread = 1.0 if isinstance(life.noise.geometry, Rms) else size.noise * steady.readout(life.mu, life.c)
    rms, update = np.sqrt(walk.square), life.eta * np.sqrt(walk.update)
    return Path(rms, update, _turned(update, rms, start, lost), life.aged, lost, settles, steady_angle, most, spread)


def _walk(life: Life, lost: Floats, size: Size, start: float) -> walks.Walk:
    assert size.noise is not None
    if isinstance(life.noise.geometry, Rms):  # E g² = 1 after division by the root
        found = walks.walk(life.aged, lost, life.mu, life.c, start=start**2)
        aging = np.divide(life.aged, life.eta, out=np.ones(life.eta.shape), where=life.eta > 0)
        return walks.Walk(found.square, found.update * aging**2)
    ratio = 1.0
    if life.noise.signs or life.response:
        at = float(lost[int(np.argmax(life.eta))])
        ratio = life.total(at) / steady.linear(at, life.mu, life.c)
    found = walks.walk(life.eta, lost, life.mu, life.c, start=start**2, square=size.noise * ratio, sized=walks.FIXED)
    return walks.Walk(found.square, found.update / ratio)


def _turned(update: Floats, rms: Floats, start: float, lost: Floats) -> Floats:
    """The angle between weights before and after every update, from the triangle a RMS, η RMS(u), RMS+."""
    before = (1 - lost) * np.append(start, rms[:-1])
    product = before * rms
    excess = update**2 - (rms - before) ** 2
    half = np.divide(excess, 4 * product, out=np.full(rms.shape, 0.5), where=product > 0)  # from 0: a right angle
    found: Floats = 2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))
    return np.where(update > 0, found, 0.0)


def _targeted(by_shrink: bool, life: Life, size: Size, target: float, start: float, peak: int) -> Path:
    rms = np.full(life.eta.shape, target)
    if by_shrink:
        if size.noise is None:
            return Path(rms, None, None, life.eta, np.zeros(rms.shape), target, None, target)
        update = life.eta * math.sqrt(size.noise)
        lost = life.like_angle(update / target)
        return Path(rms, update, np.arctan2(update, rms), update, lost, target, float(update[peak] / target), target)
    assert life.lost is not None
    total = life.totals(life.lost)
    angle = np.sqrt(equilibria.lost_square(life.lost) / total)
    if size.noise is None:
        return Path(rms, angle * target, angle, angle, life.lost, target, float(angle[peak]), target)
    free = _additive(life, size, start, peak)
    assert free.rms is not None
    assert free.update is not None
    reached = np.minimum(free.rms, target)
    update = np.where(free.rms >= target, np.minimum(angle * target, free.update), free.update)
    settles = target if free.settles is None else min(target, free.settles)
    return Path(reached, update, np.arctan2(update, reached), update, life.lost, settles, float(angle[peak]), target)


def remembered(life: Life, path: Path) -> tuple[Floats, float]:
    """(the weights of all gradients, that of the initial weights) in what a run ends with, if it averages the mean."""
    if life.shares is None:
        moved, left = weights.of_updates(path.moved, path.lost), float(weights.initial_left(path.lost)[-1])
    else:
        moved, left = weights.of_mean(path.moved, path.lost, life.shares, life.pulled)
    return weights.read_back(moved, life.mu, life.c), left


def evaluated(life: Life, path: Path, start: float) -> tuple[float | None, float | None]:
    """(RMS, cosine with the initial weights) of what a run ends with, if it averages the mean."""
    if life.shares is None:
        end = None if path.rms is None else float(path.rms[-1])
        left = float(weights.initial_left(path.lost)[-1])
    else:
        added, left = remembered(life, path)
        square = None if path.spread is None else path.spread * float(np.sum(added**2))
        end = None if square is None else math.sqrt(square + (left * start) ** 2)
    return end, (min(1.0, left * start / end) if end else None)
