"""The update of an elementwise row as a list of instructions: what kernels in other languages are generated from.

`traced` carries out `recursion.step` on symbols instead of arrays, in a namespace that writes down what is asked of
it. A program has no shapes, no branches and no loops: it is what happens to one element. Its instructions are

    add subtract multiply divide negative abs sign sqrt          of numbers
    less less_equal greater greater_equal equal                  number, number -> truth
    logical_and logical_or                                       of truths
    where                                                        truth, number, number -> number

in the meaning of IEEE-754 and of the array API standard. Arguments are names, or Python floats.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .recursion import Row, step

Argument = str | float

ARITHMETIC = {"add": 2, "subtract": 2, "multiply": 2, "divide": 2, "negative": 1, "abs": 1, "sign": 1, "sqrt": 1}
COMPARISONS = ("less", "less_equal", "greater", "greater_equal", "equal")
LOGIC = ("logical_and", "logical_or")


@dataclass(frozen=True)
class Instruction:
    """name = operation(*arguments)."""

    name: str
    operation: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Program:
    """One element's update.

    Attributes:
        arrays: the names of what is read, in the order θ, evidence, state: ``theta``, ``g_NAME``, ``s_KEY``.
        scalars: those of the scalars, ``k_NAME``, in the order of `Row.needs`.
        instructions: in the order of the core; every name is written once.
        outputs: (array that is written, name of its new value): θ and all of the state.
    """

    arrays: tuple[str, ...]
    scalars: tuple[str, ...]
    instructions: tuple[Instruction, ...]
    outputs: tuple[tuple[str, Argument], ...]


def traced(row: Row, state: Sequence[str], evidence: Sequence[str] = ("gradient",)) -> Program:
    """The program of a row.

    Args:
        row: elementwise (`Row.local`).
        state: the keys of its state.
        evidence: the names of what was measured.

    Raises:
        TypeError: the row asks for what is not elementwise.
    """
    lines: list[Instruction] = []
    k = {name: Symbol(lines, f"k_{name}") for name in row.needs}
    measured = {name: Symbol(lines, f"g_{name}") for name in evidence}
    kept = {key: Symbol(lines, f"s_{key}") for key in state}
    moved, s = step(Tracing(), row, Symbol(lines, "theta"), kept, measured, k)
    outputs = ("theta", moved.name), *((f"s_{key}", s[key].name) for key in state)
    arrays = ("theta", *(f"g_{name}" for name in evidence), *(f"s_{key}" for key in state))
    return Program(arrays, tuple(f"k_{name}" for name in row.needs), tuple(lines), tuple(outputs))


class Symbol:
    """An element that is not known yet, or a number that is."""

    __hash__ = None  # type: ignore[assignment]
    dtype = np.dtype(np.float32)

    def __init__(self, lines: list[Instruction], name: Argument) -> None:
        self.lines, self.name = lines, name

    def then(self, operation: str, *others: Any) -> Symbol:
        """The symbol of operation(self, *others), written down."""
        named = tuple(x.name if isinstance(x, Symbol) else _number(x) for x in (self, *others))
        self.lines.append(Instruction(f"x{len(self.lines)}", operation, named))
        return Symbol(self.lines, self.lines[-1].name)

    def __neg__(self) -> Symbol:
        return self.then("negative")

    def __add__(self, other: Any) -> Symbol:
        return self.then("add", other)

    def __sub__(self, other: Any) -> Symbol:
        return self.then("subtract", other)

    def __mul__(self, other: Any) -> Symbol:
        return self.then("multiply", other)

    __radd__, __rmul__ = __add__, __mul__

    def __truediv__(self, other: Symbol) -> Symbol:
        return self.then("divide", other)

    def __lt__(self, other: Any) -> Symbol:
        return self.then("less", other)

    def __le__(self, other: Any) -> Symbol:
        return self.then("less_equal", other)

    def __gt__(self, other: Any) -> Symbol:
        return self.then("greater", other)

    def __ge__(self, other: Any) -> Symbol:
        return self.then("greater_equal", other)

    def __eq__(self, other: object) -> Symbol:  # type: ignore[override]
        return self.then("equal", other)

    def __and__(self, other: Symbol) -> Symbol:
        return self.then("logical_and", other)

    def __or__(self, other: Symbol) -> Symbol:
        return self.then("logical_or", other)

    def __bool__(self) -> bool:
        raise TypeError("the value of an element is not known while it is traced")


def _number(x: Any) -> float:
    if isinstance(x, bool) or not isinstance(x, int | float):
        raise TypeError(f"{type(x).__name__} in an elementwise update: symbols and numbers only")
    return float(x)


class Tracing:
    """The namespace of symbols: the elementwise names of the contract."""

    def abs(self, x: Symbol) -> Symbol:
        return x.then("abs")

    def sign(self, x: Symbol) -> Symbol:
        return x.then("sign")

    def sqrt(self, x: Symbol) -> Symbol:
        return x.then("sqrt")

    def where(self, condition: Symbol, x: Symbol, y: Symbol) -> Symbol:
        return condition.then("where", x, y)

    def zeros_like(self, x: Symbol) -> Symbol:
        return Symbol(x.lines, 0.0)

    def ones_like(self, x: Symbol) -> Symbol:
        return Symbol(x.lines, 1.0)

    def finfo(self, dtype: Any) -> Any:
        return np.finfo(dtype)

    def __getattr__(self, name: str) -> Any:
        raise TypeError(f"xp.{name} is not elementwise")
