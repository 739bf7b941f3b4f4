"""How a parameter of half precision is kept between updates, of which many are shorter than its spacing.

An update is computed in float32, as x+ from x, and θ is what the model holds: x rounded to the parameter's type.

    nearest      x = θ                      θ+ = x+ to nearest: what is shorter than half a spacing is lost
    master       x = the master             θ+ = x+ to nearest, and x+ is the master: float32, 4 bytes
    kahan        x = θ + 2^−11 c            θ+ = x+ to nearest, c+ = 2^11 (x+ − θ+): in the parameter's type, 2 bytes
    stochastic   x = θ                      θ+ = x+ up or down at random, in the mean x+: no memory

Kahan's c is kept in units of 2^−11, the finest spacing of a float16 relative to its numbers: one of the size of
θ+ itself would be subnormal. It holds the bits that follow those of θ, as many again; smaller updates are lost.

Stochastic rounding adds 16 random bits to those that bfloat16 drops (13 for float16), and drops them. They are
counter-based: a function of the name of the parameter, its count τ after the update, and the place i of the element in
C order, (out, in, *k) of convolution kernels. So they are the same in every framework, whichever parameters, or pieces
of them, are updated together, and wherever a run goes on. A word of Philox for τ comes from the host, uniform and of
its own for every update; a bijection of 32-bit integers (`draws`) spreads it over the elements, each of which gets a
uniform number therefore.

Sources: Micikevicius et al., arXiv 1710.03740 (masters); Zamirai et al., arXiv 2010.06192 (Kahan and stochastic
rounding of bfloat16 weights); the mixer is lowbias32 of C. Wellons' "hash prospector".
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Protocol

from .clock import Clock
from .generator import LOW, Key, key_of, mixed
from .part import Stage
from .recursion import Action, Array, Arrays, Namespace, Part, Scalars, Shape

ROUNDINGS = NEAREST, MASTER, KAHAN, STOCHASTIC = "nearest", "master", "kahan", "stochastic"

UNIT_OF_C = 2.0**-11
WORD = ("word_high", "word_low")  # of a signed word of 32 bits, 65536 high + low: each is exact in float32
LEAST_NORMAL = 2.0**-14  # of float16
_KEY = key_of("rounding")


def _signed(word: int) -> int:
    """A word of 32 bits as the int32 of the same bits."""
    return word - 2**32 if word >= 2**31 else word


@dataclass(frozen=True)
class Casts:
    """What an array library does with stored arrays. Working ones are float32.

    Attributes:
        xp: the namespace of working arrays.
        widen: a stored array → working, exactly; one that is working already is returned as it is.
        narrow: (working, stored) → the first in the type of the second, rounded to nearest even.
        dropped: stored → how many bits of a float32 its type lacks: 16 of bfloat16, 13 of float16, 0 of others.
        bits, floats: working → int32 of the same bits, and back.
        index: (start, n) → the n places from `start`, int32, one axis; `start` is an int32 too.
        word: the two scalars `WORD`, as k has them → the word, an int or a 0-d int32.
    """

    xp: Namespace
    widen: Callable[[Array], Array]
    narrow: Callable[[Array, Array], Array]
    dropped: Callable[[Array], int]
    bits: Callable[[Array], Array]
    floats: Callable[[Array], Array]
    index: Callable[[int, int], Array]
    word: Callable[[Any, Any], Any]


class Storage(Part, Hashable, Protocol):
    """What is kept beside a parameter, and how it is rounded. All of it is elementwise."""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of its state."""
        ...

    @property
    def narrow(self) -> tuple[str, ...]:
        """Those whose arrays have the type of the parameter."""
        ...

    @property
    def anchored(self) -> bool:
        """True if its state begins with what θ is."""
        ...

    @property
    def random(self) -> bool:
        """True if `closed` needs draws."""
        ...

    def init(self, xp: Namespace, theta: Array) -> Arrays: ...
    def opened(self, widen: Callable[[Array], Array], theta: Array, kept: Mapping[str, Array]) -> Array:
        """x of a stored parameter and its state."""
        ...

    def closed(self, casts: Casts, x: Array, like: Array, draws: Array | None) -> tuple[Array, Arrays]:
        """(θ+, its state) of x+; `like` is stored, `draws` has the shape of x."""
        ...


def opened(
    storage: Storage | None, widen: Callable[[Array], Array], theta: Array, state: Arrays
) -> tuple[Array, Arrays]:
    """(x, the state of the recursion) of a stored parameter and all of its state."""
    if storage is None:
        return widen(theta), state
    return storage.opened(widen, theta, state), {key: x for key, x in state.items() if key not in storage.keys}


@dataclass(frozen=True)
class Plain(Stage):
    """Nothing beside θ, unless a subclass says otherwise."""

    keys: ClassVar[tuple[str, ...]] = ()
    narrow: ClassVar[tuple[str, ...]] = ()
    anchored: ClassVar[bool] = False
    random: ClassVar[bool] = False

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {}

    def opened(self, widen: Callable[[Array], Array], theta: Array, kept: Mapping[str, Array]) -> Array:
        return widen(theta)


@dataclass(frozen=True)
class Master(Plain):
    """A float32 master, of which θ is a copy: what is written into θ from outside is overwritten."""

    keys: ClassVar[tuple[str, ...]] = ("master",)
    anchored: ClassVar[bool] = True

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {"master": 1.0 * theta}  # an array of its own

    def opened(self, widen: Callable[[Array], Array], theta: Array, kept: Mapping[str, Array]) -> Array:
        return kept["master"]

    def closed(self, casts: Casts, x: Array, like: Array, draws: Array | None) -> tuple[Array, Arrays]:
        return casts.narrow(x, like), {"master": x}


@dataclass(frozen=True)
class Kahan(Plain):
    """What rounding has dropped, in the type of θ."""

    keys: ClassVar[tuple[str, ...]] = ("compensation",)
    narrow: ClassVar[tuple[str, ...]] = keys

    def init(self, xp: Namespace, theta: Array) -> Arrays:
        return {"compensation": xp.zeros_like(theta)}

    def opened(self, widen: Callable[[Array], Array], theta: Array, kept: Mapping[str, Array]) -> Array:
        return widen(theta) + UNIT_OF_C * widen(kept["compensation"])

    def closed(self, casts: Casts, x: Array, like: Array, draws: Array | None) -> tuple[Array, Arrays]:
        theta = casts.narrow(x, like)
        return theta, {"compensation": casts.narrow((1 / UNIT_OF_C) * (x - casts.widen(theta)), like)}


@dataclass(frozen=True)
class Stochastic(Plain):
    """Up or down at random: up with a probability in proportion to the distance from below."""

    random: ClassVar[bool] = True

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        return dict.fromkeys(WORD, ())

    def scalars(self, action: Action, clock: Clock, shape: Shape) -> dict[str, float]:
        word = _signed(mixed(clock.tau & LOW, clock.tau >> 32, 0, 0, _KEY)[0])
        return dict(zip(WORD, map(float, divmod(word, 2**16)), strict=True))

    def closed(self, casts: Casts, x: Array, like: Array, draws: Array | None) -> tuple[Array, Arrays]:
        dropped = casts.dropped(like)
        if not dropped:
            return casts.narrow(x, like), {}
        xp, shifted = casts.xp, x
        if dropped < 16:  # subnormal float16 numbers lie as far apart as those of the first binade above them
            small = xp.abs(x) < LEAST_NORMAL
            lifted = xp.where(x < 0, x - LEAST_NORMAL, x + LEAST_NORMAL)
            shifted = xp.where(small, lifted, x)
        found = casts.floats(spread(casts.bits(shifted), draws, dropped))
        if dropped < 16:
            lowered = xp.where(x < 0, found + LEAST_NORMAL, found - LEAST_NORMAL)
            found = xp.where(small, lowered, found)
        return casts.narrow(xp.where(x == x, found, x), like), {}  # noqa: PLR0124  (a NaN equals nothing)


def spread(bits: Array, draws: Array, dropped: int) -> Array:
    """Bits of float32 numbers, the lowest `dropped` of them rounded away: up where they and a draw overflow.

    `bits` and `draws` are int32; the draws have 16 bits. An infinity stays one, and the largest may become one.
    """
    return (bits + (draws >> (16 - dropped))) & -(1 << dropped)


def placed(index: Array, key: Sequence[Any]) -> Array:
    """(i + k_0) k_1 of the places i, int32, whose products wrap around; k_1 is odd, so that no two are the same."""
    return (index + key[0]) * key[1]


def draws(places: Array, word: Any) -> Array:
    """16-bit integers, int32: mix(p ⊕ word) mod 2^16 of what `placed` gives.

    mix is a bijection, so all of it is one of the place as well as of the word, an int32.
    """
    x = places ^ word
    x = (x ^ ((x >> 16) & 0xFFFF)) * 0x7FEB352D
    x = (x ^ ((x >> 15) & 0x1FFFF)) * _signed(0x846CA68B)
    return (x ^ (x >> 16)) & 0xFFFF


def drawn(casts: Casts, name: str, k: Scalars, n: int) -> Array:
    """The draws of a parameter of n elements for the update with the scalars k."""
    return draws(placed(casts.index(0, n), key_of_parameter(name)), casts.word(*(k[x] for x in WORD)))


def first(start: int) -> int:
    """The place of an element as an int32: places count modulo 2^32."""
    return _signed(start & LOW)


@lru_cache(maxsize=2**16)
def key_of_parameter(name: str) -> Key:
    """The key of a parameter's draws: two int32, the second odd."""
    first, second = key_of(f"rounding/{name}")
    return _signed(first), _signed(second | 1)


STORAGES: Mapping[str, Storage | None] = {
    NEAREST: None,
    MASTER: Master(),
    KAHAN: Kahan(),
    STOCHASTIC: Stochastic(),
}
