"""A namespace that carries out what the exact tier may use, counts it, and refuses everything else.

    xp = exact(Whitelist(numpy))

The bits of these operations are fixed by IEEE-754, so a row that runs over `xp` has the same bits in every library:

    array ± array, array · array           of one type, float32 or float64
    array ± number, array · number         a Python float; number + array and number · array likewise
    array / array                          of one shape: compilers multiply by the reciprocal of anything else
    comparisons                            of arrays of one type, or with a Python number
    & |                                    of booleans
    the functions of `dualopt.namespace.CONTRACT`, except `sum`, and `matmul` where its result depends on the order

A product of matrices does not if all its terms are multiples of one power of two, and sums of their magnitudes fit
the significand: that is checked number by number. Refused among others: `**`, `//`, `%`, `@`, in-place operations,
`x.T` and all other methods, numbers or truth values of arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from dualopt.recursion import Array, Namespace

_DIGITS = {"float32": 24, "float64": 53}
_SHOWN = {"shape", "dtype", "ndim", "size"}


class RefusedError(AssertionError, AttributeError):
    """Something outside the whitelist was asked for."""


class Watched:
    """An array of a `Whitelist`."""

    __array_ufunc__ = None
    __hash__ = None  # type: ignore[assignment]
    __slots__ = ("array", "xp")

    def __init__(self, xp: Whitelist, array: Array) -> None:
        self.xp, self.array = xp, array

    def __getattr__(self, name: str) -> Any:
        if name not in _SHOWN:
            raise RefusedError(f"x.{name}")
        return getattr(self.array, name)

    def __getitem__(self, at: Any) -> Watched:
        indices = at if isinstance(at, tuple) else (at,)
        if not all(i is None or i is ... or type(i) in (int, slice) for i in indices):
            raise RefusedError(f"x[{at!r}]: indices are whole numbers, slices, None and ...")
        return self.xp.made("index", self.array[at])

    def __neg__(self) -> Watched:
        self.xp.floating("negative", self.array)
        return self.xp.made("negative", -self.array)

    def __add__(self, other: Any) -> Watched:
        return self.xp.combined("add", self, other)

    def __sub__(self, other: Any) -> Watched:
        return self.xp.combined("subtract", self, other)

    def __mul__(self, other: Any) -> Watched:
        return self.xp.combined("multiply", self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Any) -> Watched:
        if not isinstance(other, Watched):
            raise RefusedError(f"array / {type(other).__name__}: only arrays of one shape are divided")
        if other.array.shape != self.array.shape:
            raise RefusedError(f"division of shapes {self.array.shape} and {other.array.shape}")
        return self.xp.combined("divide", self, other)

    def __lt__(self, other: Any) -> Watched:
        return self.xp.compared("less", self, other)

    def __le__(self, other: Any) -> Watched:
        return self.xp.compared("less_equal", self, other)

    def __gt__(self, other: Any) -> Watched:
        return self.xp.compared("greater", self, other)

    def __ge__(self, other: Any) -> Watched:
        return self.xp.compared("greater_equal", self, other)

    def __eq__(self, other: object) -> Watched:  # type: ignore[override]
        return self.xp.compared("equal", self, other)

    def __and__(self, other: Any) -> Watched:
        return self.xp.joined("logical_and", self, other)

    def __or__(self, other: Any) -> Watched:
        return self.xp.joined("logical_or", self, other)


def _refusing(name: str) -> Callable[..., Any]:
    def refuse(self: Watched, *others: Any) -> Any:
        raise RefusedError(f"x.{name}: not among the operations of the exact tier")

    return refuse


_REFUSED = (
    "ne invert xor rxor rsub rtruediv pow rpow floordiv rfloordiv mod rmod divmod matmul rmatmul lshift rshift pos abs "
    "iadd isub imul itruediv ifloordiv imod ipow imatmul iand ior ixor setitem bool int float complex index len iter"
)
for _name in _REFUSED.split():
    setattr(Watched, f"__{_name}__", _refusing(f"__{_name}__"))


class Whitelist:
    """The namespace. `used` counts operations by name.

    Args:
        base: the namespace that carries them out, on numpy arrays or on others that numpy can read.
    """

    def __init__(self, base: Namespace) -> None:
        self.base = base
        self.used: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        raise RefusedError(f"xp.{name}: not a name of the contract")

    def array(self, x: Array) -> Watched:
        """An array to be watched."""
        return Watched(self, x)

    # ---- what arrays do

    def made(self, name: str, array: Array) -> Watched:
        """A result, counted."""
        self.used[name] += 1
        return Watched(self, array)

    def floating(self, name: str, x: Array) -> None:
        if str(x.dtype) not in _DIGITS:
            raise RefusedError(f"{name} of {x.dtype}: only float32 and float64 arrays are computed with")

    def combined(self, name: str, x: Watched, other: Any) -> Watched:
        """An arithmetic operation."""
        self.floating(name, x.array)
        if isinstance(other, Watched):
            if other.array.dtype != x.array.dtype:
                raise RefusedError(f"{name} of {x.array.dtype} and {other.array.dtype}")
            y = other.array
        elif type(other) is float:
            y = other
        else:
            raise RefusedError(f"{name} of an array and {type(other).__name__}: numbers are Python floats")
        operation: dict[str, Callable[[Any, Any], Any]] = {
            "add": lambda a, b: a + b,
            "subtract": lambda a, b: a - b,
            "multiply": lambda a, b: a * b,
            "divide": lambda a, b: a / b,
        }
        return self.made(name, operation[name](x.array, y))

    def compared(self, name: str, x: Watched, other: Any) -> Watched:
        """A comparison."""
        self.floating(name, x.array)
        if isinstance(other, Watched):
            if other.array.dtype != x.array.dtype:
                raise RefusedError(f"{name} of {x.array.dtype} and {other.array.dtype}")
            y = other.array
        elif type(other) in (int, float):
            y = other
        else:
            raise RefusedError(f"{name} of an array and {type(other).__name__}")
        operation: dict[str, Callable[[Any, Any], Any]] = {
            "less": lambda a, b: a < b,
            "less_equal": lambda a, b: a <= b,
            "greater": lambda a, b: a > b,
            "greater_equal": lambda a, b: a >= b,
            "equal": lambda a, b: a == b,
        }
        return self.made(name, operation[name](x.array, y))

    def joined(self, name: str, x: Watched, other: Any) -> Watched:
        """& or | of booleans."""
        if not isinstance(other, Watched) or "bool" not in f"{x.array.dtype}" or "bool" not in f"{other.array.dtype}":
            raise RefusedError(f"{name}: & and | join arrays of booleans")
        return self.made(name, x.array & other.array if name == "logical_and" else x.array | other.array)

    # ---- the contract

    def _of(self, name: str, x: Any) -> Array:
        if not isinstance(x, Watched):
            raise RefusedError(f"xp.{name} of {type(x).__name__}: arrays only")
        return x.array

    def _called(self, name: str, x: Any, *arguments: Any, **options: Any) -> Watched:
        return self.made(name, getattr(self.base, name)(self._of(name, x), *arguments, **options))

    def finfo(self, dtype: Any) -> Any:
        self.used["finfo"] += 1
        return self.base.finfo(dtype)

    def zeros(self, shape: tuple[int, ...], *, dtype: Any) -> Watched:
        return self.made("zeros", self.base.zeros(shape, dtype=dtype))

    def zeros_like(self, x: Any) -> Watched:
        return self._called("zeros_like", x)

    def ones_like(self, x: Any) -> Watched:
        return self._called("ones_like", x)

    def abs(self, x: Any) -> Watched:
        return self._called("abs", x)

    def sign(self, x: Any) -> Watched:
        return self._called("sign", x)

    def sqrt(self, x: Any) -> Watched:
        return self._called("sqrt", x)

    def max(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Watched:
        return self._called("max", x, axis=axis, keepdims=keepdims)

    def reshape(self, x: Any, shape: tuple[int, ...]) -> Watched:
        return self._called("reshape", x, shape)

    def permute_dims(self, x: Any, axes: tuple[int, ...]) -> Watched:
        return self._called("permute_dims", x, axes)

    def matrix_transpose(self, x: Any) -> Watched:
        return self._called("matrix_transpose", x)

    def concat(self, arrays: Sequence[Any], *, axis: int = 0) -> Watched:
        given = [self._of("concat", x) for x in arrays]
        if len({str(x.dtype) for x in given}) > 1:
            raise RefusedError("xp.concat of arrays of several types")
        return self.made("concat", self.base.concat(given, axis=axis))

    def where(self, condition: Any, x: Any, y: Any) -> Watched:
        chosen, a, b = (self._of("where", z) for z in (condition, x, y))
        if "bool" not in str(chosen.dtype) or a.dtype != b.dtype:
            raise RefusedError(f"xp.where of {chosen.dtype}, {a.dtype} and {b.dtype}")
        return self.made("where", self.base.where(chosen, a, b))

    def sum(self, x: Any, *, axis: Any = None, keepdims: bool = False) -> Watched:
        raise RefusedError("xp.sum: its order is the library's; the exact tier has a sum of its own")

    def matmul(self, x: Any, y: Any) -> Watched:
        a, b = self._of("matmul", x), self._of("matmul", y)
        self.floating("matmul", a)
        if a.dtype != b.dtype or not exact_in_any_order(np.asarray(a), np.asarray(b), _DIGITS[str(a.dtype)]):
            raise RefusedError("xp.matmul: terms that do not fit the significand, so that their order matters")
        return self.made("matmul", self.base.matmul(a, b))


def exact_in_any_order(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any], digits: int) -> bool:
    """True if a @ b and all partial sums are exact: Σ max|a_·k| max|b_k·| is at most 2^digits of their common unit."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return True  # NaN or infinity whatever the order
    largest = np.abs(a).max(axis=-2, initial=0.0) * np.abs(b).max(axis=-1, initial=0.0)  # (..., k)
    unit = _unit(a, -2) * _unit(b, -1)
    least = unit.min(axis=-1, initial=np.inf)
    return bool(np.all(largest.sum(axis=-1) <= 2.0**digits * np.where(np.isfinite(least), least, 1.0)))


def _unit(x: np.ndarray[Any, Any], axis: int) -> np.ndarray[Any, Any]:
    """The largest power of two of which all numbers along the axis are multiples; ∞ for zeros."""
    mantissa, exponent = np.frexp(x)
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    lowest = (whole & -whole).astype(np.float64)
    each = np.where(x == 0, np.inf, np.ldexp(lowest, exponent - 53))
    return np.asarray(each.min(axis=axis, initial=np.inf))
