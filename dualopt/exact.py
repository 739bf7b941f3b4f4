"""The exact tier: `exact(base)` is `base` with sums, products and roots that have one right answer.

IEEE-754 fixes + − × ÷ and comparisons to the bit; a sum, a product of matrices or (on some builds) a
square root is only as reproducible as the order and instructions behind it. Here

    sum      a fixed tree of elementwise additions: halves are added until one element is left
    matmul   error-free slices, whose products are sums of integers that fit the significand, so that
             any order, thread count, FMA or matrix unit (TF32 and bf16 included) gives the same bits
    sqrt     correctly rounded: through float64 where the base's own float32 root is not
    linalg   the factorisations of `factorise`, made of the above in a fixed number of steps

Everything else is the base's. Run eagerly: a compiler may contract a·b + c.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from .factorise import elimination, jacobi
from .recursion import Array, Namespace
from .scaling import power_of_two

SLICES = 4
SLICE_BITS = 7  # of a float32: exact in bfloat16, whose significand has 8
CHUNK = 256  # 4 slices side by side · 256 terms · 2^(2·7) = 2^24, the float32 significand


def tree_sum(xp: Namespace, x: Array) -> Array:
    """Sum over the last axis by adding halves: n → ⌈n/2⌉ with the middle of an odd row left alone."""
    n = x.shape[-1]
    if n == 0:
        return xp.zeros(tuple(x.shape[:-1]), dtype=x.dtype)
    while n > 1:
        half = n // 2
        added = x[..., :half] + x[..., n - half :]
        x = added if n % 2 == 0 else xp.concat([added, x[..., half : half + 1]], axis=-1)
        n -= half
    return x[..., 0]


def fixed_sum(xp: Namespace, x: Array, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> Array:
    """`sum` of the array API by `tree_sum`; several axes are summed as one, in C order."""
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    gone = sorted(i % x.ndim for i in axes)
    kept = [i for i in range(x.ndim) if i not in gone]
    last = xp.permute_dims(x, (*kept, *gone)) if kept + gone != list(range(x.ndim)) else x
    out = tree_sum(xp, xp.reshape(last, (*(x.shape[i] for i in kept), math.prod(x.shape[i] for i in gone))))
    return xp.reshape(out, tuple(1 if i in gone else x.shape[i] for i in range(x.ndim))) if keepdims else out


def _slices(x: Array, digits: int, bits: int) -> list[Array]:
    """x, |x| <= 4, as SLICES terms on grids: term i is an integer of `bits` bits times 2^(2 − bits − i(bits+1))."""
    grid, out = 2.0 ** (2 - bits), []
    for i in range(SLICES):
        sigma = 1.5 * 2.0 ** (digits - 1) * grid  # adding it rounds to the grid
        out.append((x + sigma) - sigma)
        if i < SLICES - 1:
            x = x - out[-1]
        grid *= 2.0 ** -(bits + 1)
    return out


def sliced_matmul(xp: Namespace, a: Array, b: Array) -> Array:
    """a @ b for (..., m, k) and (..., k, n), the same bits on every machine.

    The error is below (2 + chunks) u |a||b| + 5k 2^-30 max|row of a| max|column of b| in float32, u = 2^-24:
    the second term is what the slices leave out, and counts where k is small and magnitudes vary along it.

    Rows of a and columns of b are scaled by powers of two and cut into SLICES pieces a_i, b_j. All
    products with i + j = s share one grid, so Σ_{i+j=s} a_i b_j is one exact product of pieces laid side
    by side; the four of them are added smallest first, chunk after chunk of k.
    """
    digits = 2 - math.frexp(float(xp.finfo(a.dtype).eps))[1]  # of the significand: 24 or 53
    bits = SLICE_BITS if digits == 24 else (digits - 10) // 2
    total = None
    k = a.shape[-1]
    for start in range(0, k, CHUNK):
        end = min(start + CHUNK, k)
        part_a, part_b = a[..., start:end], b[..., start:end, :]
        scale_a = power_of_two(xp, xp.max(xp.abs(part_a), axis=-1, keepdims=True))
        scale_b = power_of_two(xp, xp.max(xp.abs(part_b), axis=-2, keepdims=True))
        a_side = xp.concat(_slices(part_a * (xp.ones_like(scale_a) / scale_a), digits, bits), axis=-1)
        b_side = xp.concat(_slices(part_b * (xp.ones_like(scale_b) / scale_b), digits, bits)[::-1], axis=-2)
        product, terms = None, end - start
        for s in reversed(range(SLICES)):
            wide = (s + 1) * terms  # a_0 … a_s beside b_s … b_0
            term = xp.matmul(a_side[..., :wide], b_side[..., SLICES * terms - wide :, :])
            product = term if product is None else product + term
        less = scale_a < scale_b  # the smaller first: the larger may be 2^126, and the product is up to 16k
        scaled = product * xp.where(less, scale_a, scale_b) * xp.where(less, scale_b, scale_a)
        total = scaled if total is None else total + scaled
    return xp.matmul(a, b) if total is None else total  # k = 0: zeros of the right shape


class Overlay:
    """A namespace in which some names are replaced; every other name is the base's."""

    def __init__(self, base: Namespace, label: str, **replaced: Any) -> None:
        self._base, self._label = base, label
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "_base":  # asked for by copy and pickle before there is a base
            raise AttributeError(name)
        found = getattr(self._base, name)
        self.__dict__[name] = found  # the next time without this detour
        return found

    def __repr__(self) -> str:
        return f"{self._label}({getattr(self._base, '__name__', self._base)})"


class Linalg:
    """`linalg` of the exact tier: the names that `factorise` calls."""

    def __init__(self, xp: Namespace) -> None:
        self.eigh = partial(jacobi.eigh, xp)
        self.inv = partial(elimination.inverse, xp)
        self._xp = xp

    def svd(self, a: Array, full_matrices: bool = False) -> tuple[Array, Array, Array]:
        if full_matrices:
            raise ValueError("the singular vectors of the exact tier are thin: full_matrices=False")
        return jacobi.svd(self._xp, a)

    def svdvals(self, a: Array) -> Array:
        return jacobi.svd(self._xp, a)[1]


def exact(base: Namespace, sqrt: Callable[[Array], Array] | None = None) -> Overlay:
    """The exact tier over `base`; `sqrt` replaces a base's root that is not correctly rounded."""
    tier = Overlay(
        base,
        "arithmetic",
        sum=partial(fixed_sum, base),
        matmul=partial(sliced_matmul, base),
        sqrt=sqrt or base.sqrt,
    )
    return Overlay(tier, "exact", linalg=Linalg(tier))
