"""Parameters to update, as data: names and shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .subject import Shape


@dataclass(frozen=True)
class Workload:
    """Named shapes. `about` is for readers."""

    name: str
    shapes: Mapping[str, Shape]
    about: str

    @property
    def tensors(self) -> int:
        return len(self.shapes)

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes.values()))


def gpt(width: int, vocabulary: int, context: int, layers: int = 12) -> dict[str, Shape]:
    """A GPT with biases, gains, joint QKV and tied head: 12 tensors a layer, and 4."""
    d, found = width, {"embedding.weight": (vocabulary, width), "position.weight": (context, width)}
    for i in range(layers):
        block = {
            "norm1.weight": (d,), "norm1.bias": (d,), "qkv.weight": (3 * d, d), "qkv.bias": (3 * d,),
            "out.weight": (d, d), "out.bias": (d,), "norm2.weight": (d,), "norm2.bias": (d,),
            "up.weight": (4 * d, d), "up.bias": (4 * d,), "down.weight": (d, 4 * d), "down.bias": (d,),
        }  # fmt: skip
        found |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return found | {"norm.weight": (d,), "norm.bias": (d,)}


def gated(width: int, vocabulary: int, layers: int) -> dict[str, Shape]:
    """A GPT as in `dualopt.workload`: 9 tensors a layer without biases, and 3."""
    d, found = width, {"embedding.weight": (vocabulary, width)}
    for i in range(layers):
        square = dict.fromkeys(("q.weight", "k.weight", "v.weight", "o.weight"), (d, d))
        wide = {"gate.weight": (3 * d, d), "up.weight": (3 * d, d), "down.weight": (d, 3 * d)}
        block = {"norm1.weight": (d,), **square, "norm2.weight": (d,), **wide}
        found |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return found | {"norm.weight": (d,), "head.weight": (vocabulary, d)}


def matrices(width: int) -> dict[str, Shape]:
    """The 48 matrices of the blocks of a GPT."""
    shapes = gpt(width, 1, 1)
    return {name: shape for name, shape in shapes.items() if name.startswith("blocks") and len(shape) == 2}


def alike(number: int, *shape: int) -> dict[str, Shape]:
    return {f"w{i}": shape for i in range(number)}


_GPT30 = gpt(384, 22_016, 1024)
_ALL = (
    Workload("gpt30", _GPT30, "a GPT of width 384 and 12 layers"),
    Workload("flat16", alike(1, 2**24), "one vector"),
    Workload("tiny300", alike(300, 384), "gains"),
    Workload("mats30", matrices(384), "the matrices of gpt30"),
    Workload("mats768", matrices(768), "the matrices of a GPT of width 768"),
    Workload("mats128", matrices(128), "the matrices of a GPT of width 128"),
    Workload("gpt10", gated(320, 3008, 6), "a GPT of width 320 and 6 layers, gated"),
    Workload("python10", alike(10, 384), "gains"),
    Workload("python300", alike(300, 384), "gains"),
    Workload("python3000", alike(3000, 384), "gains"),
    Workload("scale1", gpt(64, 6_144, 256), "a GPT of width 64 and 12 layers"),
    Workload("scale3", gpt(128, 4_608, 512), "a GPT of width 128 and 12 layers"),
    Workload("scale10", gpt(224, 11_264, 1024), "a GPT of width 224 and 12 layers"),
    Workload("scale30", _GPT30, "a GPT of width 384 and 12 layers"),
    Workload("scale100", gpt(768, 18_432, 1024), "a GPT of width 768 and 12 layers"),
    Workload("scale300", gpt(1344, 28_672, 1024), "a GPT of width 1344 and 12 layers"),
    Workload("wide", alike(2, 256, 1024), "matrices of four times as many columns as rows"),
    Workload("square", alike(4, 256, 256), "square matrices"),
)
WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in _ALL}
