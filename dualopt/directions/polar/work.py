"""The type that an iteration works in: where its products and sums are rounded.

    float32      nowhere but in the operations themselves
    bfloat16     to 8 significant bits, to nearest, ties to even: the input, every product, and every sum that is kept

Products of bfloat16 numbers are exact in float32, and are added up there: it is what matrix units do. Coefficients are
float32 numbers. The definition is made of float32 arithmetic, in arrays of float32 (`eight_bits`), so that it has one
right answer on every backend. A namespace whose library has the type brings its own `Work` as `bfloat16_work`, which
may round less often: products that go into a sum unrounded lie within the same bound.
"""

from __future__ import annotations

from ...factorise.jacobi import identity
from ...recursion import Array, Namespace
from ...scaling import levelled, power_of_two

FLOAT32, BFLOAT16 = "float32", "bfloat16"
BITS = 8  # of the significand of a bfloat16
LEAST = 2.0**-98  # smaller numbers are rounded to its grid, which keeps all results normal numbers, or 0


def eight_bits(xp: Namespace, x: Array) -> Array:
    """x, |x| < 2^100, rounded to bfloat16; to a multiple of 2^-106 below `LEAST`.

    Adding 1.5 times a power of two rounds to the grid of its last bit. Nothing here changes under contraction: the
    products are exact.
    """
    digits = 1.5 / float(xp.finfo(x.dtype).eps) * 2.0 ** (2 - BITS)  # of a float32: 2^23 units of the grid
    size, least = xp.abs(x), xp.ones_like(x) * LEAST
    grid = digits * power_of_two(xp, xp.where(size < least, least, size))
    return (x + grid) - grid


class Work:
    """The operations of an iteration in the types of its arrays: float32, or float64."""

    def __init__(self, xp: Namespace) -> None:
        self.xp = xp

    def narrow(self, x: Array) -> Array:
        """x as it is kept."""
        return x

    def widen(self, x: Array) -> Array:
        """What is kept, in the type that sums are made in."""
        return x

    def level(self, z: Array) -> Array:
        """z (..., m, n), of any size, over a power of two: as it is kept."""
        return self.narrow(levelled(self.xp, z))

    def product(self, u: Array, v: Array) -> Array:
        """u v."""
        return self.narrow(self.xp.matmul(u, v))

    def sum(self, a: float, x: Array, u: Array, v: Array, c: float = 1.0) -> Array:
        """a x + c u v."""
        uv = self.widen(self.product(u, v))
        return self.narrow(a * self.widen(x) + (uv if c == 1 else c * uv))

    def mixed(self, b: float, r: Array, c: float, s: Array) -> Array:
        """b r + c s."""
        return self.narrow(b * self.widen(r) + c * self.widen(s))

    def times(self, d: Array, r: Array) -> Array:
        """d r for r (..., n, n) and d (..., 1, 1), which is not kept."""
        return self.narrow(d * self.widen(r))

    def shifted(self, a: float, z: Array, d: Array | None = None) -> Array:
        """a I + z, or d times that."""
        found = a * identity(self.xp, self.widen(z)) + self.widen(z)
        return self.narrow(found if d is None else d * found)

    def leave(self, x: Array) -> Array:
        """What is kept, as the iteration hands it on: in the type that sums are made in."""
        return self.widen(x)


class Rounded(Work):
    """The same in bfloat16, by definition."""

    def narrow(self, x: Array) -> Array:
        return eight_bits(self.xp, x)


WORKS: dict[str, type[Work]] = {FLOAT32: Work, BFLOAT16: Rounded}


def working(xp: Namespace, name: str) -> Work:
    """How `xp` works in the type called `name`."""
    own: type[Work] = getattr(xp, f"{name}_work", WORKS[name])
    return own(xp)
