"""Arrays that carry a running error bound through + − × / √ and comparisons.

A `Bounded` array is a value x in float64 and, for every arithmetic of its namespace (`bounds.Bounds`), a bound e:
each evaluation y in that arithmetic has |y − x| <= e, where e is propagated to all orders:

    a ± b    e_a + e_b
    a b      |a| e_b + |b| e_a + e_a e_b
    a / b    (e_a + |a/b| e_b) / (|b| − e_b),  ∞ where b may be 0
    √a       e_a / (√a + √(a − e_a)),  at most √e_a,  for evaluations of a that are not negative
    |a|      e_a

and the rounding of the operation is added (see `arithmetic`), for the largest result that is possible. The
rounding of a sum is at most each of its terms, which are numbers themselves: adding 0 rounds nothing. Where a
result may be flushed to zero, e is at least |x|.

A decision (sign, comparison, choice) that lies within the bound is *unsure*: e then covers both outcomes, and
`unsure` marks the elements whose outcomes are farther apart than their errors.

s is the magnitude that x was computed from: the same operations on absolute values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .arithmetic import Array
from .origins import Length, Origin, Product, Transposed, skew, within_ball

if TYPE_CHECKING:
    from .bounds import Bounds


def aligned(e: Array, ndim: int) -> Array:
    """(arithmetics, *shape) with leading dimensions of 1 so that `shape` broadcasts to `ndim` dimensions."""
    return e if e.ndim == ndim + 1 else e.reshape(e.shape[0], *(1,) * (ndim + 1 - e.ndim), *e.shape[1:])


def either(a: Bounded, b: Bounded, ndim: int) -> Array | None:
    """What is unsure of a result of a and b."""
    if a.unsure is None or b.unsure is None:
        found = a.unsure if b.unsure is None else b.unsure
        return None if found is None else aligned(found, ndim)
    return aligned(a.unsure, ndim) | aligned(b.unsure, ndim)


class Truth:
    """Booleans: the value, and for every arithmetic whether it could be the other one."""

    __array_ufunc__ = None
    __slots__ = ("unsure", "value")

    def __init__(self, value: Array, unsure: Array) -> None:
        self.value, self.unsure = value, unsure

    def __and__(self, other: Truth) -> Truth:
        return self._joined(other, np.logical_and)

    def __or__(self, other: Truth) -> Truth:
        return self._joined(other, np.logical_or)

    def _joined(self, other: Truth, operation: Any) -> Truth:
        """`operation` is monotone, so its extremes are taken at the extremes of the operands."""
        may = operation(self.value | self.unsure, other.value | other.unsure)
        must = operation(self.value & ~self.unsure, other.value & ~other.unsure)
        return Truth(operation(self.value, other.value), may & ~must)


class Bounded:
    """See the module. All arrays are float64 or bool.

    Attributes:
        xp: the namespace, which knows the arithmetics.
        x, s: value and magnitude, of the shape of the array.
        e: (arithmetics, *shape).
        product: the part of e that is the rounding of a product just made, in arithmetics that may omit it.
        unsure: (arithmetics, *shape), or None where every decision was sure.
        norm: (arithmetics, ..., 1, 1), a further deviation of each matrix, bounded in the Frobenius norm; or None.
            It is 0 in entries with s = 0.
        dyadic: in every evaluation all elements are 0 or ± powers of two, so that products with them are exact.
        origin: what it was made from, see `origins`; or None.
    """

    __array_ufunc__ = None  # numpy leaves mixed operations to this class
    __hash__ = None  # type: ignore[assignment]  # == is elementwise
    __slots__ = ("dyadic", "e", "norm", "origin", "product", "s", "unsure", "x", "xp")

    def __init__(
        self,
        xp: Bounds,
        x: Array,
        s: Array,
        e: Array,
        *,
        product: Array | None = None,
        unsure: Array | None = None,
        norm: Array | None = None,
        dyadic: bool = False,
        origin: Origin | None = None,
    ) -> None:
        self.xp, self.x, self.s, self.e = xp, x, s, e
        self.product, self.unsure, self.norm, self.dyadic, self.origin = product, unsure, norm, dyadic, origin

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.x.shape)

    @property
    def ndim(self) -> int:
        return self.x.ndim

    @property
    def size(self) -> int:
        return self.x.size

    @property
    def dtype(self) -> Any:
        return self.x.dtype

    def elementwise(self, at: Array | None = None) -> Bounded:
        """The same with `norm`, that of the matrices `at` if stated, moved into e: no element deviates by more."""
        if self.norm is None:
            return self
        moved = self.s > 0 if at is None else at & (self.s > 0)
        e = self.e + np.where(moved, self.norm, 0.0)
        norm = None if at is None else np.where(at, 0.0, self.norm)
        return Bounded(self.xp, self.x, self.s, e, unsure=self.unsure, norm=norm, origin=self.origin)

    def __getitem__(self, at: Any) -> Bounded:
        at = at if isinstance(at, tuple) else (at,)
        inner, lead = (slice(None), *at), self._lead(at)
        a = self if lead is not None else self.elementwise()
        unsure = None if a.unsure is None else a.unsure[inner]
        norm = None if a.norm is None or lead is None else np.broadcast_to(a.norm, (*a.e.shape[:-2], 1, 1))[lead]
        return Bounded(a.xp, a.x[at], a.s[at], a.e[inner], unsure=unsure, norm=norm, dyadic=a.dyadic)

    def _lead(self, at: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """The index of the `norm` of what `at` takes, if that is blocks of matrices, or whole ones."""
        if self.norm is None or None in at:
            return None
        gap = at.index(...) if any(i is ... for i in at) else len(at)
        given = at[:gap], at[gap + 1 :]
        full = (*given[0], *(slice(None),) * (self.ndim - len(given[0]) - len(given[1])), *given[1])
        if not all(isinstance(i, slice) for i in full[-2:]):
            return None
        return (slice(None), *full[:-2], slice(None), slice(None))

    def __neg__(self) -> Bounded:
        negated = Bounded(self.xp, -self.x, self.s, self.e, unsure=self.unsure, norm=self.norm, dyadic=self.dyadic)
        negated.product = self.product
        return negated

    # ---- sums

    def _plus(self, other: Any, operation: Any) -> Bounded:
        xp, a, b = self.xp, self, self.xp.lift(other)
        x = operation(a.x, b.x)
        ea, eb = aligned(a.e, x.ndim), aligned(b.e, x.ndim)
        e = ea + eb
        most = np.minimum(np.abs(a.x) + ea, np.abs(b.x) + eb)
        if a.product is not None and b.product is not None:
            e = e - np.minimum(aligned(a.product, x.ndim), aligned(b.product, x.ndim))
            most = most + xp.contracted(x.ndim)
        elif a.product is not None or b.product is not None:
            found = a.product if a.product is not None else b.product
            e = e - aligned(found, x.ndim)  # type: ignore[arg-type]
            most = most + xp.contracted(x.ndim)  # the product is no number of the type: adding 0 rounds it
        e = xp.flushed(x, e + xp.rounding("add", np.abs(x) + e, most))
        norm = a.norm if b.norm is None else b.norm if a.norm is None else a.norm + b.norm
        longer = isinstance(a.origin, Length) and a.origin.power == 1 and operation is np.add and bool((b.x >= 0).all())
        origin, s = a.origin if longer else None, a.s + b.s
        if isinstance(b.origin, Transposed) and b.origin.of is a and operation is np.subtract:
            s, e = skew(x, s, e)
        return Bounded(xp, x, s, e, unsure=either(a, b, x.ndim), norm=norm, origin=origin)

    def __add__(self, other: Any) -> Bounded:
        return self._plus(other, np.add)

    def __sub__(self, other: Any) -> Bounded:
        return self._plus(other, np.subtract)

    __radd__ = __add__

    def __rsub__(self, other: Any) -> Bounded:
        return self.xp.lift(other)._plus(self, np.subtract)

    # ---- products and quotients

    def __mul__(self, other: Any) -> Bounded:
        xp, a = self.xp, self
        if not isinstance(other, Bounded):
            return self._scaled(xp.number(other))
        b = other
        x = a.x * b.x
        ea, eb = aligned(a.e, x.ndim), aligned(b.e, x.ndim)
        left, right = np.abs(a.x), np.abs(b.x) + eb
        e = left * eb + right * ea
        norm = None
        if a.norm is not None or b.norm is not None:
            norm = _norm_of_product(a, b, x.ndim)
        rounding = xp.rounding("shift" if a.dyadic or b.dyadic else "mul", np.abs(x) + e)
        product, alone = xp.omitted(rounding), e
        e, unsure = xp.flushed(x, e + rounding), either(a, b, x.ndim)
        if isinstance(b.origin, Length) and b.origin.power == -1 and b.origin.of is a:
            e, within, loose = within_ball(a, b.origin.axes, x, e, norm)
            norm = None if norm is None else within
            if loose.any():
                unsure = loose if unsure is None else loose | unsure
        origin = Product(a, b, e - alone) if a.shape == b.shape else None
        return Bounded(xp, x, a.s * b.s, e, product=product, unsure=unsure, norm=norm, origin=origin)

    __rmul__ = __mul__

    def _scaled(self, c: Any) -> Bounded:
        """c times this array, c a number of the type or an array of such."""
        xp, x, size = self.xp, c * self.x, np.abs(c)
        e, norm = size * aligned(self.e, x.ndim), None
        if self.norm is not None:
            norm = times(_largest(size, self.s), aligned(self.norm, x.ndim))
        power, plain = np.frexp(size)[0] == 0.5, (size == 0) | (size == 1)
        largest = np.abs(x) + e
        rounding = np.zeros_like(e)
        if not np.all(plain):
            kind = "shift" if self.dyadic or np.all(power | plain) else "mul"
            rounding = xp.rounding(kind, largest)
            if kind == "mul" and np.any(power):
                rounding = np.where(power, xp.rounding("shift", largest), rounding)
            if np.any(plain):
                rounding = np.where(plain, 0.0, rounding)
        e, product = xp.flushed(x, e + rounding), xp.omitted(rounding)
        unsure = None if self.unsure is None else aligned(self.unsure, x.ndim)
        dyadic = self.dyadic and bool(np.all(power | (size == 0)))
        return Bounded(xp, x, size * self.s, e, product=product, unsure=unsure, norm=norm, dyadic=dyadic)

    def __truediv__(self, other: Any) -> Bounded:
        xp = self.xp
        a, b = self.elementwise(), xp.lift(other).elementwise()
        size = np.abs(b.x)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = a.x / b.x
            ea, eb = aligned(a.e, x.ndim), aligned(b.e, x.ndim)
            room = size - eb
            e = np.where(room > 0, (ea + np.abs(x) * eb) / room, np.inf)
            s = a.s / size
        e = xp.flushed(x, e + xp.rounding("div", np.abs(x) + e))
        origin = None
        if isinstance(b.origin, Length) and b.origin.power == 1 and bool((a.x == 1).all()) and not a.e.any():
            origin = Length(b.origin.of, b.origin.axes, -1)
        return Bounded(xp, x, s, e, unsure=either(a, b, x.ndim), origin=origin)

    def __rtruediv__(self, other: Any) -> Bounded:
        return self.xp.lift(other) / self

    # ---- comparisons

    def _compared(self, other: Any, operation: Any) -> Truth:
        a, b = self.elementwise(), self.xp.lift(other).elementwise()
        apart = np.abs(a.x - b.x)
        e = aligned(a.e, apart.ndim) + aligned(b.e, apart.ndim)
        return Truth(operation(a.x, b.x), (apart <= e) & (e > 0))

    def __lt__(self, other: Any) -> Truth:
        return self._compared(other, np.less)

    def __le__(self, other: Any) -> Truth:
        return self._compared(other, np.less_equal)

    def __gt__(self, other: Any) -> Truth:
        return self._compared(other, np.greater)

    def __ge__(self, other: Any) -> Truth:
        return self._compared(other, np.greater_equal)

    def __eq__(self, other: object) -> Truth:  # type: ignore[override]
        return self._compared(other, np.equal)


def _largest(size: Any, s: Array) -> Any:
    """The largest factor that meets a matrix; where s is 0 nothing deviates."""
    if np.ndim(size) == 0 or np.shape(size)[-2:] == (1, 1):
        return size
    return np.max(np.where(s > 0, size, 0.0), axis=(-2, -1), keepdims=True)


def _norm_of_product(a: Bounded, b: Bounded, ndim: int) -> Array:
    """‖(a + e_a + δ_a)(b + e_b + δ_b) − (a + e_a)(b + e_b)‖ <= max|a| ‖δ_b‖ + max|b| ‖δ_a‖ + ‖δ_a‖ ‖δ_b‖."""
    total: Any = 0.0
    for one, other in ((a, b), (b, a)):
        if other.norm is not None:
            size = np.where(other.s > 0, aligned(np.abs(one.x) + one.e, ndim), 0.0)
            largest = size.max(axis=(-2, -1), keepdims=True)
            total = total + times(largest, aligned(other.norm, ndim))
    if a.norm is not None and b.norm is not None:
        total = total + times(aligned(a.norm, ndim), aligned(b.norm, ndim))
    return np.asarray(total)


def times(x: Array, norm: Array) -> Array:
    """x · norm; where there is no deviation, none, however large x may be."""
    return np.where(norm == 0, 0.0, x * norm)
