"""A namespace of arrays with running error bounds: the core runs over it unchanged.

    xp = Bounds((PLAIN, NATIVE))
    theta, state = step(xp, row, xp.array(theta), {"m": xp.array(m)}, {"gradient": xp.array(g)}, k)

gives, beside the values in float64, what any evaluation of the row in either arithmetic may differ by (see
`bounded`, and `reductions` for sums and products). Scalars are rounded to float32 first, wherever they meet an array.

`max` gives a plain float32 array, which then counts as exact. The core uses it for one thing: to choose a power of
two that scales an array and cancels later, and neither rounds anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .arithmetic import NORMAL, Arithmetic, Array, U
from .bounded import Bounded, Truth, aligned, either
from .factorised import Factorisations, frobenius
from .metric import ulp
from .origins import Length, Transposed
from .reductions import Axis, largest, product, total


class Bounds:
    """The contract of `dualopt.namespace` for `Bounded` arrays, under one or more arithmetics.

    Arrays without a bound (numpy's) pass through the functions of the contract as they are.
    """

    def __init__(self, arithmetics: Sequence[Arithmetic]) -> None:
        self.arithmetics = tuple(arithmetics)
        self._columns: dict[tuple[str, int], Array] = {}
        self.linalg = Factorisations(self)
        self._contracts, self._flushes = any(a.fma for a in arithmetics), any(a.flush for a in arithmetics)

    # ---- arrays

    def array(self, x: Array) -> Bounded:
        """An array of float32 numbers: exact, but for subnormal ones where they may be taken for zero."""
        found = self.exact(np.asarray(x, dtype=np.float64))
        found.e = self.flushed(found.x, found.e)
        return found

    def exact(self, x: Array) -> Bounded:
        """An array without error, whatever numbers it holds."""
        return Bounded(self, x, np.abs(x), np.zeros((len(self.arithmetics), *x.shape)))

    def lift(self, other: Any) -> Bounded:
        """A Python number or a plain array, rounded to float32, as a `Bounded` array without error."""
        if isinstance(other, Bounded):
            return other
        x = np.asarray(self.number(other))
        dyadic = x.ndim > 0 and bool(np.isin(np.frexp(x)[0], (-0.5, 0.0, 0.5)).all())
        none = self.column("none", x.ndim, lambda a: 0.0)
        return Bounded(self, x, np.abs(x), none, dyadic=dyadic)

    @staticmethod
    def number(c: Any) -> Any:
        """A scalar, or one for each member of a stack, as float32 has it."""
        return c.astype(np.float32).astype(np.float64) if isinstance(c, np.ndarray) else float(np.float32(c))

    # ---- rounding

    def column(self, name: str, ndim: int, value: Callable[[Arithmetic], float] | None = None) -> Array:
        """One number per arithmetic, to broadcast against bounds of arrays with `ndim` dimensions.

        Without a `value`: the unit of the operation `name`, in u.
        """
        if value is None:
            return self.column(f"unit {name}", ndim, lambda a: a.unit(name))
        if (name, ndim) not in self._columns:
            found = np.array([value(a) for a in self.arithmetics])
            self._columns[name, ndim] = found.reshape((-1, *(1,) * ndim))
        return self._columns[name, ndim]

    def rounding(self, operation: str, largest: Array, most: Array | None = None) -> Array:
        """What the operation's rounding adds if its result is at most `largest`; `most` limits it further."""
        ndim = largest.ndim - 1
        unit = self.column(operation, ndim, lambda a: U * a.unit(operation))
        tiny = self.column(f"least {operation}", ndim, lambda a: a.tiny(operation))
        relative = unit * largest
        relative = relative if most is None else np.minimum(relative, most)
        return np.asarray(np.maximum(relative, np.minimum(largest, tiny)))

    def flushed(self, x: Array, e: Array) -> Array:
        """e of numbers x that may be taken for zero where they may be subnormal."""
        if not self._flushes:
            return e
        size = np.abs(x)
        flushes = self.column("flush", x.ndim, lambda a: NORMAL if a.flush else -math.inf)
        return np.asarray(np.where(size - e < flushes, np.maximum(e, size), e))

    def omitted(self, rounding: Array) -> Array | None:
        """The rounding of a product as far as an addition may omit it."""
        if not self._contracts:
            return None
        return self.column("fma", rounding.ndim - 1, lambda a: float(a.fma)) * rounding

    def contracted(self, ndim: int) -> Array:
        """∞ for arithmetics in which a product may go unrounded into a sum, else 0."""
        return self.column("contracted", ndim, lambda a: math.inf if a.fma else 0.0)

    def stored(self, a: Bounded, dtype: str = "float32") -> Bounded:
        """`a` as it leaves the update, rounded to its storage type."""
        e = a.e + self.rounding("store", np.abs(a.x) + a.e)
        if a.norm is not None:
            none = a.norm == 0  # the entries are measured together
            if a.unsure is not None:
                none = none & ~a.unsure.any(axis=(-2, -1), keepdims=True)
            a = Bounded(self, a.x, a.s, a.e, unsure=a.unsure, norm=np.where(none, frobenius(e), a.norm))
            e = np.where(none, 0.0, e)
        if dtype != "float32":
            largest = np.abs(a.x) + (e if a.norm is None else e + a.norm)
            e = e + ulp(largest, dtype) / 2
        return Bounded(self, a.x, a.s, e, unsure=a.unsure, norm=a.norm)

    def gamma(self, terms: int, ndim: int) -> Array:
        """γ of `terms` roundings."""
        return self.column("add", ndim, lambda a: U * a.unit("add")) * (terms / (1 - terms * U))

    def partial(self, ndim: int) -> Array:
        """What a partial sum may lose by being flushed."""
        return self.column("partial", ndim, lambda a: NORMAL if a.flush else 0.0)

    def at_most(self, a: Bounded, limit: float) -> Bounded:
        """`a`, of which it is known otherwise that no evaluation exceeds `limit` in magnitude."""
        loose = ~(a.e <= limit + np.abs(a.x))  # NaN, too
        if not loose.any():
            return a
        unsure = loose if a.unsure is None else loose | a.unsure
        return Bounded(self, a.x, a.s, np.where(loose, limit + np.abs(a.x), a.e), unsure=unsure)

    # ---- the contract: shapes and constants

    @staticmethod
    def finfo(dtype: Any) -> Any:
        return np.finfo(np.float32)

    def zeros(self, shape: tuple[int, ...], dtype: Any = None) -> Bounded:
        return self.exact(np.zeros(shape))

    def zeros_like(self, a: Any) -> Any:
        return self._constant(np.zeros(a.shape), a)

    def ones_like(self, a: Any) -> Any:
        return self._constant(np.ones(a.shape), a)

    def _constant(self, x: Array, like: Any) -> Any:
        if not isinstance(like, Bounded):
            return x
        found = self.exact(x)
        found.dyadic = True
        return found

    def reshape(self, a: Any, shape: tuple[int, ...]) -> Any:
        def each(x: Array, leading: tuple[int, ...]) -> Array:
            return np.reshape(x, leading + tuple(shape))

        def matrices(norm: Array, leading: tuple[int, ...]) -> Array:
            return np.reshape(norm, (*leading, *shape[:-2], 1, 1))

        keeps = tuple(a.shape[-2:]) == tuple(shape[-2:]) and a.ndim > 1
        return self._moved(a, each, matrices if keeps else None)

    def permute_dims(self, a: Any, axes: tuple[int, ...]) -> Any:
        def each(x: Array, leading: tuple[int, ...]) -> Array:
            first = len(leading)
            return np.transpose(x, (*range(first), *(i % a.ndim + first for i in axes)))

        return self._moved(a, each, each if {i % a.ndim for i in axes[-2:]} == {a.ndim - 2, a.ndim - 1} else None)

    def matrix_transpose(self, a: Any) -> Any:
        found = self._moved(a, lambda x, _: np.swapaxes(x, -1, -2), lambda x, _: x)
        if isinstance(a, Bounded):
            found.origin = Transposed(a)
        return found

    def _moved(self, a: Any, each: Any, norm: Any) -> Any:
        """`each` of x, s and e; `norm` of the deviation of the matrices, None if they do not stay together."""
        if not isinstance(a, Bounded):
            return each(a, ())
        a = a if norm is not None else a.elementwise()
        leading = (len(self.arithmetics),)
        unsure = None if a.unsure is None else each(a.unsure, leading)
        moved = None if a.norm is None else norm(a.norm, leading)
        e = each(a.e, leading)
        return Bounded(self, each(a.x, ()), each(a.s, ()), e, unsure=unsure, norm=moved, dyadic=a.dyadic)

    def concat(self, arrays: Sequence[Any], axis: int = 0) -> Any:
        if not any(isinstance(a, Bounded) for a in arrays):
            return np.concatenate(arrays, axis=axis)
        given = [self.lift(a).elementwise() for a in arrays]
        x, s = (np.concatenate([getattr(a, name) for a in given], axis=axis) for name in ("x", "s"))
        inner = axis if axis < 0 else axis + 1
        unsure = None
        if any(a.unsure is not None for a in given):
            flags = [np.zeros(a.e.shape, bool) if a.unsure is None else a.unsure for a in given]
            unsure = np.concatenate(flags, axis=inner)
        return Bounded(self, x, s, np.concatenate([self._full(a) for a in given], axis=inner), unsure=unsure)

    @staticmethod
    def _full(a: Bounded) -> Array:
        return np.broadcast_to(a.e, (a.e.shape[0], *a.shape))

    # ---- the contract: elements

    def abs(self, a: Any) -> Any:
        if not isinstance(a, Bounded):
            return np.abs(a)
        return Bounded(self, np.abs(a.x), a.s, a.e, unsure=a.unsure, norm=a.norm, dyadic=a.dyadic)

    def sqrt(self, a: Bounded) -> Bounded:
        a = a.elementwise()
        x = np.sqrt(a.x)
        with np.errstate(invalid="ignore"):  # 0/0: √e, which is 0, is the smaller
            e = np.fmin(np.sqrt(a.e), a.e / (x + np.sqrt(np.maximum(a.x - a.e, 0))))
        known = isinstance(a.origin, Length) and a.origin.power == 2
        origin = Length(a.origin.of, a.origin.axes, 1) if known else None  # type: ignore[union-attr]
        return Bounded(self, x, np.sqrt(a.s), e + self.rounding("sqrt", x + e), unsure=a.unsure, origin=origin)

    def sign(self, a: Bounded) -> Bounded:
        a = a.elementwise()
        x = np.sign(a.x)
        unsure = (np.abs(a.x) <= a.e) & (a.e > 0)
        e = unsure * (1 + np.abs(x))
        s = np.maximum(np.abs(x), unsure.any(axis=0))
        return Bounded(self, x, s, e, unsure=unsure if a.unsure is None else unsure | a.unsure, dyadic=True)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        if not isinstance(condition, Truth):
            if not isinstance(a, Bounded) and not isinstance(b, Bounded):
                return np.where(condition, a, b)
            condition = Truth(np.asarray(condition), np.zeros((1, *np.shape(condition)), bool))
        a, b = self.lift(a), self.lift(b)
        value, sure = condition.value, not condition.unsure.any()
        for one, chosen in ((a, value.all()), (b, not value.any())):
            if (
                sure
                and chosen
                and one.product is None
                and one.shape == np.broadcast_shapes(a.shape, b.shape, value.shape)
            ):
                return one
        norm = None
        if a.ndim == b.ndim and a.ndim > 1 and (a.norm is not None or b.norm is not None):
            unsure = np.broadcast_to(condition.unsure, (condition.unsure.shape[0], *a.shape))
            loose = unsure.any(axis=(-2, -1), keepdims=True)
            a, b = a.elementwise(loose), b.elementwise(loose)
            of_a = np.broadcast_to(value, a.shape)
            taken = of_a.any(axis=(-2, -1), keepdims=True), ~of_a.all(axis=(-2, -1), keepdims=True)
            parts = [np.where(t, y.norm, 0.0) for y, t in zip((a, b), taken, strict=True) if y.norm is not None]
            norm = None if loose.all() else np.sum(np.broadcast_arrays(*parts), axis=0)
        else:
            a, b = a.elementwise(), b.elementwise()
        dyadic, origin = a.dyadic and b.dyadic, None
        if isinstance(b.origin, Length) and bool((a.x == 1).all()) and not a.e.any():
            origin = b.origin  # 1 in the place of a length that is 0
        x, s, gap = np.where(value, a.x, b.x), np.where(value, a.s, b.s), np.abs(a.x - b.x)
        ea, eb = aligned(a.e, x.ndim), aligned(b.e, x.ndim)
        e, chosen = np.where(value, ea, eb), either(a, b, x.ndim)
        if condition.unsure.any():
            e = np.where(condition.unsure, np.maximum(e, gap + np.where(value, eb, ea)), e)
            s = np.where(condition.unsure.any(axis=0), np.maximum(a.s, b.s), s)
            parted = condition.unsure & (gap > ea + eb)
            chosen = parted if chosen is None else parted | chosen
        return Bounded(self, x, s, e, unsure=chosen, dyadic=dyadic, norm=norm, origin=origin)

    # ---- the contract: reductions

    @staticmethod
    def max(a: Any, axis: Axis = None, keepdims: bool = False) -> Array:
        return largest(a, axis, keepdims)

    def sum(self, a: Bounded, axis: Axis = None, keepdims: bool = False) -> Bounded:
        return total(self, a, axis, keepdims)

    def matmul(self, a: Bounded, b: Bounded) -> Bounded:
        return product(self, a, b)
