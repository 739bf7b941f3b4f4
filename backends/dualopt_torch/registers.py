"""An elementwise update without a compiler: its program (`dualopt.trace`) by torch's own operations, piece by piece.

Every result goes where it is needed, or into one of a few registers: arrays as long as a piece, which stay in the
cache from operation to operation and from piece to piece. Memory is passed over once, and nothing is allocated. Each
instruction is the operation of torch with the same rounding, so on the CPU the bits are those of the exact tier.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch

from dualopt.buckets import JOINED, pieces
from dualopt.recursion import Part, Row
from dualopt.trace import COMPARISONS, LOGIC, Argument, Instruction, Program, traced

Kernel = Callable[..., None]

NUMBER, TRUTH, WIDE = "number", "truth", "wide"  # registers in the working type, of booleans, of float64


def eager(row: Row, keys: tuple[str, ...], measured: tuple[str, ...], like: tuple[torch.Tensor, ...]) -> Kernel:
    """The update (θ, k, *evidence, *state) of arrays of one dimension, of types as `like`; its k is {name: float}."""
    types = [x.dtype for x in like]
    working = torch.float64 if types[0] == torch.float64 else torch.float32
    piece, kinds = _carried_out(row.parts, keys, measured, tuple(dtype != working for dtype in types))
    wide = working if like[0].device.type == "mps" else torch.float64
    stored = {NUMBER: working, TRUTH: torch.bool, WIDE: wide}
    kept: dict[int, list[torch.Tensor]] = {}

    def registers(size: int, theta: torch.Tensor) -> list[torch.Tensor]:
        if size in kept and kept[size][0].device == theta.device:
            return kept[size]
        made = [torch.empty(size, dtype=stored[kind], device=theta.device) for kind in kinds]
        if type(theta) is torch.Tensor and made:  # and no stand-in of one that is being traced
            kept.clear()
            kept[size] = made
        return made

    def run(theta: torch.Tensor, k: Mapping[str, float], *others: torch.Tensor) -> None:
        arrays, numbers, size = (theta, *others), tuple(k.values()), min(JOINED, theta.numel())
        whole = registers(size, theta)
        for start, end in pieces(theta.numel()):
            here = whole if end - start == size else [x[: end - start] for x in whole]
            piece(*[x[start:end] for x in arrays], *numbers, *here)

    return run


@lru_cache(maxsize=256)
def _carried_out(
    parts: tuple[Part, ...], keys: tuple[str, ...], measured: tuple[str, ...], narrow: tuple[bool, ...]
) -> tuple[Kernel, tuple[str, ...]]:
    """A function of arrays, scalars and registers, and the kinds of these registers."""
    program = traced(Row("", *parts), keys, measured)  # type: ignore[arg-type]
    text, kinds = written(program, {name for name, other in zip(program.arrays, narrow, strict=True) if other})
    names: dict[str, Any] = dict(_NAMES)
    exec(compile(text, "<dualopt registers>", "exec"), names)
    return names["piece"], kinds


def _root(x: torch.Tensor, wide: torch.Tensor, out: torch.Tensor) -> None:
    """`namespace.correct_sqrt`, in place."""
    if out.dtype == torch.float64 or out.device.type == "mps":
        torch.sqrt(x, out=out)
    else:
        out.copy_(torch.sqrt(wide.copy_(x), out=wide))


def _sign(x: torch.Tensor, zero: torch.Tensor, out: torch.Tensor) -> None:
    """`namespace.sign`, in place: torch's own plus 0, NaN for NaN. Comparing and choosing take four times as long."""
    torch.clamp(x, -1.0, 1.0, out=zero).mul_(0.0)
    torch.sign(x, out=out).add_(zero)


def _filled(x: float, out: torch.Tensor) -> torch.Tensor:
    return torch.tensor(x, dtype=out.dtype, device=out.device)


_DIRECT = {
    "add": "add", "subtract": "sub", "multiply": "mul", "divide": "div", "negative": "neg", "abs": "abs",
    "less": "lt", "less_equal": "le", "greater": "gt", "greater_equal": "ge", "equal": "eq",
    "logical_and": "logical_and", "logical_or": "logical_or", "where": "where",
}  # fmt: skip
_NAMES = {
    **{name: getattr(torch, name) for name in _DIRECT.values()},
    "sqrt": _root, "sign": _sign, "filled": _filled, "inf": math.inf, "nan": math.nan,
}  # fmt: skip


_OWN = {"sqrt": WIDE, "sign": NUMBER}  # instructions that need a register of their own, and its kind


def written(program: Program, narrow: set[str]) -> tuple[str, tuple[str, ...]]:
    """The text of ``piece(*arrays, *scalars, *registers)``, and the kinds of the registers.

    Args:
        program: the update.
        narrow: the arrays in another type than is computed in: read into a register first, and rounded when written.
    """
    lines = Lines(program, narrow)
    given = ", ".join((*program.arrays, *program.scalars, *lines.kinds))
    return f"def piece({given}):\n" + "".join(f"    {line}\n" for line in lines.text), tuple(lines.kinds.values())


class Lines:
    """The lines of a program: `text`, and the kind of every register by name, `kinds`."""

    def __init__(self, program: Program, narrow: set[str]) -> None:
        self.text: list[str] = []
        self.kinds: dict[str, str] = {}
        self._free: list[str] = []
        steps, same = _once(program.instructions)
        outputs = [(array, same.get(x, x)) for array, x in program.outputs]
        self._last = {x: i for i, step in enumerate(steps) for x in step.arguments}
        self._last |= {x: len(steps) for _, x in outputs}
        self._home: dict[Argument, str] = {x: x for x in (*program.arrays, *program.scalars)}
        self._scalars = program.scalars
        for array in (x for x in program.arrays if x in narrow and x in self._last):
            self._home[array] = self._register(NUMBER)
            self.text.append(f"{self._home[array]}.copy_({array})")
        ends = {x: array for array, x in outputs if array not in narrow}
        for i, step in enumerate(steps):
            self._do(i, step, ends.get(step.name))
        homes = [(array, self._home.get(x, repr(x))) for array, x in outputs]
        moved = [(array, home) for array, home in homes if home != array]
        for array, home in sorted(moved, key=lambda one: one[1] not in program.arrays):  # before these are written
            self.text.append(f"{array}.{'copy_' if home in self._home.values() else 'fill_'}({home})")

    def _register(self, kind: str) -> str:
        found = next((x for x in reversed(self._free) if self.kinds[x] == kind), None)
        if found is None:
            found = f"r{len(self.kinds)}"
            self.kinds[found] = kind
        else:
            self._free.remove(found)
        return found

    def _do(self, i: int, step: Instruction, end: str | None) -> None:
        """One instruction, whose value `end` waits for if no one reads what is there any more."""
        operation, own = step.operation, _OWN.get(step.operation)
        over = [self._home[x] for x in dict.fromkeys(step.arguments) if self._last[x] == i and x in self._home]
        over = [home for home in over if home in self.kinds]
        other = None if own is None else self._register(own)  # beside the argument: it is read again
        self._free += over
        if end is not None and self._last.get(end, -1) <= i:
            out = end
        else:
            out = self._register(TRUTH if operation in (*COMPARISONS, *LOGIC) else NUMBER)
        arguments = [self._home.get(x, repr(x)) for x in step.arguments]
        if other is not None:
            self.text.append(f"{operation}({arguments[0]}, {other}, {out})")
            self._free.append(other)
        else:
            single = [not isinstance(x, str) or x in self._scalars for x in step.arguments]
            if all(single):
                arguments[0] = f"{out}.fill_({arguments[0]})"
            elif single[0] and operation in ("add", "multiply"):
                arguments = arguments[::-1]
            elif operation == "where" or single[0]:
                arguments = [f"filled({x}, {out})" if one else x for x, one in zip(arguments, single, strict=True)]
            self.text.append(f"{_DIRECT[operation]}({', '.join(arguments)}, out={out})")
        self._home[step.name] = out


def _once(instructions: tuple[Instruction, ...]) -> tuple[list[Instruction], dict[Argument, Argument]]:
    """Every different instruction once, and {name: the first of the same value}."""
    same: dict[Argument, Argument] = {}
    first: dict[tuple[Any, ...], str] = {}
    kept = []
    for step in instructions:
        arguments = tuple(same.get(x, x) for x in step.arguments)
        what = step.operation, tuple((type(x), repr(x)) for x in arguments)
        if what in first:
            same[step.name] = first[what]
        else:
            first[what] = step.name
            kept.append(Instruction(step.name, step.operation, arguments))
    return kept, same
