"""The Triton kernels as far as a CPU can tell: the interpreter's bits, and what the compiler makes of them for GPUs."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")

from dualopt.executor import executor  # noqa: E402
from dualopt.plan import Plan  # noqa: E402
from dualopt.planned import PlannedGroup  # noqa: E402
from dualopt.recipe import Count, Group, Recipe  # noqa: E402
from dualopt_conformance import inputs  # noqa: E402
from dualopt_conformance.cases import EVERY  # noqa: E402
from dualopt_torch.namespace import EXACT  # noqa: E402
from dualopt_torch.route import Update  # noqa: E402
from dualopt_torch.triton import symmetric  # noqa: E402
from dualopt_torch.triton.multi_tensor import TYPES, MultiTensor, chunks, fits, program_of  # noqa: E402
from dualopt_torch.triton.source import BLOCK, OPTIONS, kernel  # noqa: E402

LOCAL = {c.variant: dict(c.table) for c in EVERY.values() if c.row.local and not c.streams and not c.samples}
SHAPES = {"big": (3, BLOCK), "odd": (37, 29), "one": (1,), "row": (1, 300), "block": (BLOCK,), "more": (2 * BLOCK + 1,)}
TARGETS = (80, 90, 100)  # A100, H100, B200


def working(x: Any) -> Any:
    return x.to(torch.float32)


class Run:
    """A group with its tensors, updated by the core and by the kernel."""

    def __init__(self, table: dict[str, Any], dtype: Any, kind: str = "six_decades") -> None:
        recipe = Recipe((Group.from_dict(table),), Count("samples", per_update=512))
        matrices = "norm" in table  # a row that also has norms of matrices takes nothing else
        self.shapes = {n: s for n, s in SHAPES.items() if len(s) > 1 or not matrices}
        self.plan = Plan(recipe, self.shapes)
        self.group: PlannedGroup = self.plan.groups[0]
        given = inputs.parameters(self.shapes, kind="ties")
        self.theta = {n: torch.from_numpy(x.copy()).to(dtype) for n, x in given.items()}
        self.state = {n: self.group.start(EXACT, n, working(x)) for n, x in self.theta.items()}
        self.kind, self.dtype, self.updates = kind, dtype, 0
        self.exact: dict[str, Any] = {}
        self.moved = {n: x.clone() for n, x in self.theta.items()}
        self.kept = {n: {key: x.clone() for key, x in s.items()} for n, s in self.state.items()}

    def update(self, launch: MultiTensor) -> None:
        """One update of both; "odd" has no gradient in the first."""
        self.updates += 1
        names = [n for n in self.shapes if n != "odd" or self.updates > 1]
        drawn = {n: inputs.array(self.kind, self.shapes[n], self.updates, n) for n in names}
        g = {n: {"gradient": torch.from_numpy(x.copy()).to(self.dtype)} for n, x in drawn.items()}
        proposal = self.plan.propose(100 * self.updates, names)
        k = proposal.scalars
        launch(Update(self.group, {n: self.moved[n] for n in names}, self.kept, g, k))
        rounded = {n: {key: float(np.float32(x)) for key, x in k[n].items()} for n in names}
        wide = {n: {"gradient": working(x["gradient"])} for n, x in g.items()}
        here = {n: working(self.theta[n]) for n in names}
        for n, (x, s) in executor(EXACT)(self.group, here, {n: self.state[n] for n in names}, wide, rounded).items():
            self.theta[n], self.state[n], self.exact[n] = x.to(self.dtype), s, x
        self.plan.commit(proposal)

    def check(self) -> None:
        """Bits of parameters and state."""
        for n, x in self.theta.items():
            word = torch.int32 if self.dtype == torch.float32 else torch.int16
            assert torch.equal(x.view(word), self.moved[n].view(word)), n
            for key, y in self.state[n].items():
                assert torch.equal(y.view(torch.int32), self.kept[n][key].view(torch.int32)), (n, key)


@pytest.mark.parametrize("variant", LOCAL)
def test_interpreted_kernels_have_the_bits_of_the_exact_tier(variant: str) -> None:
    run, launch = Run(LOCAL[variant], torch.float32), MultiTensor(interpreted=True)
    for _ in range(3):
        run.update(launch)
    run.check()
    assert launch.launches == 3  # one for all tensors of an update, whose counts differ


@pytest.mark.parametrize("variant", ["adamw", "lion.cautious"])
def test_half_precision_is_rounded_once(variant: str) -> None:
    run, launch = Run(LOCAL[variant], torch.float16, "bell"), MultiTensor(interpreted=True)
    run.update(launch)
    run.update(launch)
    run.check()


@pytest.mark.parametrize("variant", ["adamw", "lion.cautious"])
def test_bfloat16(variant: str) -> None:
    """The interpreter drops the lower half of a float32, where GPUs round: see the instruction in what is compiled."""
    run, launch = Run(LOCAL[variant], torch.bfloat16, "bell"), MultiTensor(interpreted=True)
    run.update(launch)
    for n, x in run.exact.items():
        assert torch.equal(x.view(torch.int32) >> 16, run.moved[n].view(torch.int16).to(torch.int32)), n
        assert all(torch.equal(y, run.kept[n][key]) for key, y in run.state[n].items())
    assert "cvt.rn.bf16" in compiled(LOCAL[variant], torch.bfloat16, 90).asm["ptx"]


def test_unaligned_tensors_and_views() -> None:
    """Parameters that lie side by side in one buffer, at any address."""
    run, launch = Run(LOCAL["lion"], torch.float32), MultiTensor(interpreted=True)
    buffer, start = torch.zeros(sum(x.numel() for x in run.moved.values()) + 1), 1
    for n, x in run.moved.items():
        part = buffer[start : start + x.numel()].view(x.shape)
        part.copy_(x)
        run.moved[n], start = part, start + x.numel()
    run.update(launch)
    run.update(launch)
    run.check()
    assert buffer[0] == 0


def test_chunks_cover_every_element_once() -> None:
    sizes = 1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK
    cut = chunks(sizes, (True, True, True, True, False))
    seen = [np.zeros(n, int) for n in sizes]
    for tensor, block, elements in cut.tolist():
        at = block * BLOCK
        seen[tensor][at : at + abs(elements)] += 1
        assert (elements == BLOCK) == (tensor not in (0, 1, 4) and at + BLOCK <= sizes[tensor])
    assert all((x == 1).all() for x in seen)
    with pytest.raises(ValueError, match="empty"):
        chunks((3, 0), (True, True))


def test_what_fits() -> None:
    x, g = torch.zeros(4, 6), {"gradient": torch.zeros(6, 4).T}
    assert fits(x, {"m": x}, g)
    assert not fits(x, {"m": x.T}, g)
    assert not fits(x.T, {}, g)
    assert not fits(x.double(), {}, g)
    assert not fits(x, {}, {"gradient": x.double()})
    assert not fits(torch.zeros(0), {}, {})


def test_the_route_of_the_executor() -> None:
    """It updates what is for it, in place, and leaves the rest; gradients may have any strides."""
    group = Plan(Recipe((Group("lion"),)), {"w": (4, 6), "double": (3,)}).groups[0]
    theta = {"w": torch.ones(4, 6), "double": torch.ones(3, dtype=torch.float64)}
    state = {n: group.start(EXACT, n, x) for n, x in theta.items()}
    g = {"w": {"gradient": torch.randn(6, 4).T}, "double": {"gradient": torch.ones(3, dtype=torch.float64)}}
    k = {n: dict.fromkeys(group.row.needs, 0.5) for n in theta}
    before = theta["w"]._version
    assert not MultiTensor()(Update(group, theta, state, g, k))  # no tensor is on a CUDA device
    assert set(MultiTensor(interpreted=True)(Update(group, theta, state, g, k))) == {"w"}
    assert theta["w"]._version > before
    assert torch.equal(theta["w"], 1 - (0.5 * g["w"]["gradient"].sign() + 0.5))
    assert torch.equal(theta["double"], torch.ones(3, dtype=torch.float64))


def test_tables_keep_their_addresses() -> None:
    """New scalars go to the old place, what is the same stays."""
    run, launch = Run(LOCAL["lion"], torch.float32), MultiTensor(interpreted=True)
    run.update(launch)
    run.update(launch)
    before = {slot: table.data_ptr() for slot, (_, table) in launch._tables.items()}
    run.update(launch)
    assert {slot: table.data_ptr() for slot, (_, table) in launch._tables.items()} == before


def compiled(table: dict[str, Any], dtype: Any, capability: int) -> Any:
    """A row's kernel, compiled ahead of time."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    plan = Plan(Recipe((Group.from_dict(table),)), {"w": (8, 8)})
    keys = tuple(plan.groups[0].start(np, "w", np.zeros((8, 8), np.float32)))
    program = program_of(plan.groups[0].row.parts, keys)
    types = {name: dtype if name in ("theta", "g_gradient") else torch.float32 for name in program.arrays}
    fixed = {"BLOCK": BLOCK} | {f"T_{n}": getattr(triton.language, TYPES[t]) for n, t in types.items()}
    signature = {"chunks": "*i64", "pointers": "*i64", "which": "*i64", "scalars": "*fp32"}
    source = ASTSource(kernel(program), signature | dict.fromkeys(fixed, "constexpr"), fixed)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=OPTIONS)


def spilled(ptx: str, capability: int) -> int:
    """The bytes that the assembler spills from registers to memory."""
    from triton.backends.nvidia.compiler import get_ptxas

    tool = get_ptxas(capability).path
    arch = re.search(r"^\.target (\w+)", ptx, re.MULTILINE)[1]
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "kernel.ptx")
        file.write_text(ptx, encoding="utf-8")
        command = [tool, "-v", f"--gpu-name={arch}", file, "-o", Path(place, "kernel.cubin")]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    stores, loads = re.findall(r"(\d+) bytes spill (?:stores|loads)", said)
    return int(stores) + int(loads)


@pytest.mark.parametrize("capability", TARGETS)
@pytest.mark.parametrize("variant", ["adamw", "lion", "sgdm.cautious", "sf_adamw"])
def test_compiled_kernels_move_128_bits_at_a_time(variant: str, capability: int) -> None:
    """Whole blocks: each of 128 threads has 8 elements, two accesses of 128 bits per float32 array."""
    ptx = compiled(LOCAL[variant], torch.float32, capability).asm["ptx"]
    assert spilled(ptx, capability) == 0
    arrays = {"adamw": (4, 3), "lion": (3, 2), "sgdm.cautious": (3, 2), "sf_adamw": (5, 4)}[variant]
    each = BLOCK // (32 * OPTIONS["num_warps"]) // 4
    found = tuple(len(re.findall(rf"\b{what}\.global(?:\.\w+)*\.v4\.", ptx)) for what in ("ld", "st"))
    assert found == (each * arrays[0], each * arrays[1])
    assert "fma.rn" not in ptx  # products are not contracted with sums
    assert not re.search(r"(sqrt|div)\.(approx|full)", ptx)


def test_half_precision_is_moved_128_bits_at_a_time() -> None:
    ptx = compiled(LOCAL["adamw"], torch.bfloat16, 90).asm["ptx"]
    each = BLOCK // (32 * OPTIONS["num_warps"]) // 4
    assert len(re.findall(r"\bld\.global(?:\.\w+)*\.v4\.", ptx)) == each * 2 + each // 2 * 2


# (n, k): tiles that are whole, not whole, a single number, more tiles than one row of them
SIZES = [(symmetric.TILE, symmetric.DEPTH), (2 * symmetric.TILE, 130), (300, 70), (1, 1), (5, 300), (400, 3)]


def drawn(*shape: int) -> Any:
    return torch.from_numpy(inputs.array("bell", shape, 0, "x").copy())


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_symmetric_products(n: int, k: int) -> None:
    """Against float64, within k roundings of sums of magnitudes; transposed and strided input; exactly symmetric."""
    x = drawn(2, n, k)
    for given in (x, x.mT.contiguous().mT, torch.stack([x, x], dim=-1)[..., 0]):
        y = symmetric.gram(given, interpreted=True)
        wide = x.double()
        bound = (k + 2) * 2.0**-24 * (wide.abs() @ wide.abs().mT)
        assert ((y.double() - wide @ wide.mT).abs() <= bound).all()
        assert torch.equal(y, y.mT)


def test_empty_symmetric_products() -> None:
    assert symmetric.gram(torch.zeros(3, 0, 4), interpreted=True).shape == (3, 0, 0)
    assert not symmetric.gram(torch.zeros(3, 5, 0), interpreted=True).any()


def test_what_is_a_gram_matrix() -> None:
    x = drawn(2, 6, 4)
    assert symmetric.is_gram(x, x.mT)
    assert symmetric.is_gram(x.mT, x)
    assert not symmetric.is_gram(x, x.mT.clone())
    square = drawn(4, 4)
    assert not symmetric.is_gram(square, square)
    assert torch.equal(symmetric.product(x, x.mT), x @ x.mT)  # on the CPU


@pytest.mark.parametrize("capability", TARGETS)
def test_symmetric_products_use_the_matrix_units(capability: int) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = symmetric.kernel().arg_names
    signature: dict[str, str] = dict.fromkeys(names, "i32") | dict.fromkeys(("x", "y"), "*bf16")
    fixed = {"TILE": symmetric.TILE, "DEPTH": symmetric.DEPTH, "x_term": 1}
    even = [name for name in names if signature[name].startswith("*") or name.endswith(("_row", "_batch"))]
    source = ASTSource(
        symmetric.kernel(),
        signature | dict.fromkeys(fixed, "constexpr"),
        fixed,
        {(names.index(name),): [["tt.divisibility", 16]] for name in even},
    )
    ptx = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=symmetric.OPTIONS).asm["ptx"]
    assert {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}[capability] in ptx
    assert spilled(ptx, capability) == 0


def test_the_faster_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symmetric, "_measured", {})
    x, calls = torch.zeros(1), []

    def time(run: Any) -> float:
        calls.append(run)
        return 1.0 if run is ours else 2.0

    ours, theirs = (lambda: x), (lambda: x)
    assert symmetric.faster(("a",), ours, theirs, time)
    assert symmetric.faster(("a",), ours, theirs, time)
    assert calls == [ours, theirs]  # measured once
    assert not symmetric.faster(("b",), theirs, ours, time)
