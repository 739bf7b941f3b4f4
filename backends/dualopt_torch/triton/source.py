"""The text of a Triton kernel that carries out a program (`dualopt.trace`) on many tensors in one launch.

Every instruction becomes the operation of IEEE-754 that it stands for: roots and quotients are the rounded ones, and
products are not contracted with sums (`OPTIONS`), so the bits are those of the exact tier.

A program instance works on one chunk of one tensor. It reads where that is from tables on the device:

    chunks       (chunks, 3)           tensor, block of BLOCK elements in it, elements in the chunk
    pointers     (tensors, arrays)     addresses of the first elements, as integers
    which        (tensors,)            the row of `scalars`
    scalars      (rows, scalars)       float32

A whole block is read and written without masks, 128 bits at a time; it needs addresses that are multiples of 16. The
host calls a chunk that is not so partial, by an element count with the sign turned.
"""

from __future__ import annotations

import linecache
from functools import lru_cache
from itertools import count
from typing import Any

from dualopt.trace import Argument, Instruction, Program

BLOCK = 1024  # elements of a program instance
OPTIONS = {"enable_fp_fusion": False, "num_warps": 4}

_FORMS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "tl.div_rn({0}, {1})",
    "negative": "{0} * -1.0",  # Triton's own is 0 - x, which has no -0
    "abs": "tl.abs({0})",
    "sign": "tl.where({0} > 0, 1.0, tl.where({0} < 0, -1.0, tl.where({0} == 0, 0.0, {0})))",
    "sqrt": "tl.sqrt_rn({0})",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "logical_and": "{0} & {1}",
    "logical_or": "{0} | {1}",
    "where": "tl.where({0}, {1}, {2})",
}
_numbers = count()


def _written(argument: Argument) -> str:
    return argument if isinstance(argument, str) else repr(argument)


def _line(instruction: Instruction) -> str:
    arguments = map(_written, instruction.arguments)
    return f"{instruction.name} = {_FORMS[instruction.operation].format(*arguments)}"


def text(program: Program) -> str:
    """The module: a function of one element, `formula`, and the kernel around it, `update`."""
    arrays, scalars, outputs = program.arrays, program.scalars, program.outputs
    given = ", ".join((*arrays, *scalars))
    lines = ["@triton.jit", f"def formula({given}):"]
    lines += [f"    {_line(instruction)}" for instruction in program.instructions]
    lines += [f"    return {', '.join(_written(x) for _, x in outputs)}", "", ""]
    types = "".join(f", T_{name}: tl.constexpr" for name in arrays)
    lines += ["@triton.jit", f"def update(chunks, pointers, which, scalars, BLOCK: tl.constexpr{types}):"]
    body = [
        "chunk = chunks + 3 * tl.program_id(0)",
        "tensor, elements = tl.load(chunk), tl.load(chunk + 2)",
        "at = tl.load(chunk + 1) * BLOCK + tl.arange(0, BLOCK)",
        f"k = scalars + {len(scalars)} * tl.load(which + tensor)",
        *(f"{name} = tl.load(k + {i})" for i, name in enumerate(scalars)),
        f"table = pointers + {len(arrays)} * tensor",
        *(f"p_{name} = tl.load(table + {i}).to(tl.pointer_type(T_{name}))" for i, name in enumerate(arrays)),
        "if elements == BLOCK:",
        *(f"    p_{name} = tl.multiple_of(p_{name}, 16)" for name in arrays),
        *(f"    {line}" for line in _moved(program, "")),
        "else:",
        "    here = tl.arange(0, BLOCK) < tl.abs(elements)",
        *(f"    {line}" for line in _moved(program, ", mask=here")),
    ]
    return "\n".join([*lines, *(f"    {line}" for line in body), ""])


def _moved(program: Program, mask: str) -> list[str]:
    """Reading, the formula and writing."""
    loads = [f"{name} = tl.load(p_{name} + at{mask}).to(tl.float32)" for name in program.arrays]
    new = ", ".join(f"new_{name}" for name, _ in program.outputs)
    called = f"{new} = formula({', '.join((*program.arrays, *program.scalars))})"
    stores = [f"tl.store(p_{name} + at, new_{name}.to(T_{name}){mask})" for name, _ in program.outputs]
    return [*loads, called, *stores]


@lru_cache(maxsize=256)
def kernel(program: Program, interpreted: bool = False) -> Any:
    """`update` of a program, to be launched or compiled; `interpreted`: on the CPU, by Triton's interpreter."""
    return module_of(text(program), interpreted)["update"]


def module_of(source: str, interpreted: bool = False) -> dict[str, Any]:
    """The names that a text of kernels defines."""
    import triton
    import triton.language as tl

    file = f"<dualopt {next(_numbers)}>"
    linecache.cache[file] = len(source), None, source.splitlines(keepends=True), file  # Triton reads the source
    module: dict[str, Any] = {"triton": triton, "tl": tl, "__name__": __name__}
    with triton.knobs.runtime.scope():
        triton.knobs.runtime.interpret = interpreted
        exec(compile(source, file, "exec"), module)
    return module
