"""Updates in three stages: bit for bit `step`, and in torch the recursion whatever the stacks and strides are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dualopt import ENTRIES, Recipe, replay
from dualopt.catalog import complete
from dualopt.catalog import row as row_of
from dualopt.directions.polar import PRESETS
from dualopt.exact import exact
from dualopt.generator import Stream
from dualopt.plan import Plan
from dualopt.recipe import Group
from dualopt.recursion import step
from dualopt.staged import staged

torch = pytest.importorskip("torch")

from dualopt.executor import executor  # noqa: E402
from dualopt_torch import products, spectral  # noqa: E402
from dualopt_torch.execute import Executor  # noqa: E402
from dualopt_torch.namespace import FAST  # noqa: E402
from dualopt_torch.optimizer import Optimizer  # noqa: E402

Array = np.ndarray[Any, Any]
EXACT = exact(np)
GROUPS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon", "shrink_half_life": 100.0},
    "muon, penalty": {"optimizer": "muon", "l2": 0.1},
    "scionc, cautious": {"optimizer": "scionc", "shrink": "cautious", "shrink_half_life": 100.0},
    "scionc, hyperball": {"optimizer": "scionc", "motion": "hyperball"},
    "normuon": {"optimizer": "normuon", "shrink_half_life": 100.0},
    "sf_normuon": {"optimizer": "sf_normuon"},
}
WAYS: dict[str, dict[str, Any]] = {
    "published": {},
    "accurate": {"polar": "accurate"},
    "fast": {"polar": "fast"},
    "aol": {"polar": "aol", "polar_work": "bfloat16"},
    "eighth": {"polar": "five", "polar_scaling": "eighth_moment"},
}
SHAPES = {
    "wide": (5, 12), "wide too": (5, 12), "tall": (12, 5), "square": (6, 6), "row": (1, 7), "column": (7, 1),
    "one": (1, 1), "stack": (4, 5, 12), "deep": (2, 3, 12, 5), "kernel": (5, 3, 2, 2), "empty": (0, 5),
    "zero": (5, 12), "late": (5, 12),
}  # fmt: skip


def drawn(name: str, shape: tuple[int, ...], update: int) -> Any:
    if name == "zero":
        return torch.zeros(shape)
    return torch.from_numpy(Stream(update, name).bell(shape))


@pytest.mark.parametrize("name", GROUPS)
def test_stages_are_the_step(name: str) -> None:
    group = Group.from_dict(GROUPS[name])
    plan = Plan(Recipe((group,)), {"w": (2, 3, 5)})
    (planned,) = plan.groups
    theta, g = Stream(0, "w").bell((2, 3, 5)), Stream(0, "g").bell((2, 3, 5))
    state = planned.start(EXACT, "w", theta)
    k = plan.propose(None, ["w"]).scalars["w"]
    stages = staged(planned.row)
    assert stages is not None
    s, z = stages.before(EXACT, theta, state, {"gradient": g}, k)
    moved, s = stages.after(EXACT, theta, s, stages.factor(EXACT, z), k)
    expected, kept = step(EXACT, planned.row, theta, state, {"gradient": g}, k)
    assert moved.tobytes() == expected.tobytes()
    assert {key: s[key].tobytes() for key in kept} == {key: x.tobytes() for key, x in kept.items()}


def test_rows_without_stages() -> None:
    """What is elementwise, joins matrices, multiplies them elsewhere, or pools."""
    for table in (
        {"optimizer": "adamw"},
        {"optimizer": "polargrad"},
        {"optimizer": "shampoo"},
        {"optimizer": "regularized_muon"},
        {"optimizer": "scionc", "norm": "column"},
        {"optimizer": "muon", "target_rms": 1.0},
    ):
        group = Group.from_dict(table)
        assert staged(row_of(group.optimizer, complete(group.optimizer, group.options))) is None


def moved(group: dict[str, Any], updates: int, dtype: Any = None, *, plain: bool = False) -> Any:
    """The optimizer after some updates of all shapes; "late" joins in the second."""
    parameters = {
        n: torch.nn.Parameter(drawn(n, s, 0).to(dtype or torch.float32), requires_grad=True) for n, s in SHAPES.items()
    }
    recipe = Recipe((Group.from_dict({"match": ["*"], "step": 0.1, "memory_half_life": 3.0, **group}),))
    optimizer = Optimizer(parameters, recipe)
    if plain:
        optimizer._execute._routes = optimizer._execute._routes[-1:]
    for t in range(1, updates + 1):
        for n, p in parameters.items():
            p.grad = None if n == "late" and t < 2 else drawn(n, SHAPES[n], t).to(p.dtype)
        optimizer.step()
    return optimizer


def apart(one: Any, other: Any) -> dict[str, float]:
    """The distance of every parameter of two optimizers."""
    return {n: (p.double() - other._named[n].double()).norm().item() for n, p in one._named.items()}


def compared(one: Any, other: Any, within: float) -> None:
    for n, p in one._named.items():
        q = other._named[n]
        scale = 1e-6 + (q.double() - drawn(n, SHAPES[n], 0).double()).abs().max() if p.numel() else 1.0
        assert ((p.double() - q.double()).abs() <= within * scale).all(), n
        for key, x in one.state[p].items():
            if torch.is_tensor(x) and x.numel():
                y = other.state[q][key]
                assert ((x - y).abs() <= within * (1e-6 + y.abs().max())).all(), (n, key)


@pytest.mark.parametrize("chunk", [4, 240, 244, 476, 480, 484, 2**24])
@pytest.mark.parametrize("name", GROUPS)
def test_stacks_do_not_matter(name: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, to the rounding of products, which five steps amplify by up to 10³ in all: 10³ n 2⁻²⁴ < 2e-3."""
    monkeypatch.setattr(spectral, "CHUNK", chunk)
    compared(moved(GROUPS[name], 3), moved(GROUPS[name], 3, plain=True), 2e-3)


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["muon", "normuon"])
def test_ways(name: str, way: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The route and the recursion of the same tier. In bfloat16 they are no further from one another than twice what
    its rounding makes of the recursion."""
    unit = [native]
    for module in (products, spectral):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: unit[0])
    group = {**GROUPS[name], **WAYS[way]}
    one, other = moved(group, 3), moved(group, 3, plain=True)
    if not (native and way in ("accurate", "fast", "aol")):
        compared(one, other, 2e-3)
        return
    unit[0] = False
    rounding = apart(moved(group, 3, plain=True), other)
    assert max(rounding.values()) > 0
    assert all(x <= 2 * rounding[n] for n, x in apart(one, other).items())


ROUNDED = 2 * 5 * 2.0**-24  # of five steps whose slopes are about 1, for every term of a sum; twice


def updated(group: dict[str, Any], w: Array, g: Array, work: str | None = None) -> list[Array]:
    """One update in torch's fast tier, and in numpy's exact one, there with another `polar_work` if one is given."""
    other = group if work is None else {**group, "polar_work": work}
    tiers = ("torch", "fast", group), ("numpy", "exact", other)
    return [replay(made, {"w": w}, [{"w": g}], 1, backend=b, tier=t).params[0]["w"] for b, t, made in tiers]


@pytest.mark.parametrize("way", ["published", "accurate", "fast"])
def test_against_the_exact_tier(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a matrix without tiny singular values; where there are no units for bfloat16 its sets work in float32."""
    for module in (products, spectral):
        monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: False)
    group = {"optimizer": "muon", "step": 1.0, "memory_half_life": 1.0, **PRESETS.get(way, {})}
    w, g = (Stream(0, name).bell((4, 16)) for name in "wg")
    one, other = updated(group, w, g, "float32" if way in PRESETS else None)
    assert np.linalg.norm(one - other) < 16 * ROUNDED * np.linalg.norm(other - w)


@pytest.mark.parametrize("dtype", ["bfloat16", "float64"])
def test_types(dtype: str) -> None:
    """Half-precision parameters are rounded once; float64 has the exact factor, or the set that is stated."""
    kind = getattr(torch, dtype)
    for group in (GROUPS["muon"], {**GROUPS["muon"], "polar": "quintic"}):
        one, other = moved(group, 3, kind), moved(group, 3, kind, plain=True)
        for n, p in one._named.items():
            assert p.dtype == kind
            if dtype == "float64":
                assert torch.equal(p, other._named[n])
            else:  # three updates, of 0.1 at most, that are within 2e-3 of one another before they are rounded
                torch.testing.assert_close(p, other._named[n], atol=3 * 0.1 * 2e-3, rtol=3 * 2.0**-8)


def test_in_place_and_without_copies() -> None:
    """Kernels, stacks and blocks are updated where they lie; what strides do not allow is copied back."""
    lying = {
        "kernel": torch.nn.Parameter(drawn("kernel", (5, 3, 2, 2), 0)),
        "blocks": torch.nn.Parameter(drawn("blocks", (12, 8), 0)),
        "transposed": torch.nn.Parameter(drawn("transposed", (8, 12), 0).mT),
        "last": torch.nn.Parameter(drawn("last", (6, 4, 3, 3), 0).contiguous(memory_format=torch.channels_last)),
    }
    tables = [{"name": n, "match": [n], "optimizer": "muon", "memory_half_life": 3.0} for n in lying]
    tables[1]["blocks"] = {"axis": 0, "parts": 3}
    optimizer = Optimizer(lying, Recipe(tuple(Group.from_dict(t) for t in tables)))
    before = {n: (p.data_ptr(), p.stride(), p.detach().clone()) for n, p in lying.items()}
    for n, p in lying.items():
        p.grad = drawn(n, tuple(p.shape), 1)
    optimizer.step()
    plain = executor(FAST)
    for group in optimizer.plan.groups:
        (n,) = group.names
        p, (at, stride, w) = lying[n], before[n]
        assert (p.data_ptr(), p.stride()) == (at, stride)
        k = Plan(Recipe((group.group,)), {n: tuple(p.shape)}).propose(None, [n]).scalars
        w = w.contiguous()
        expected, s = plain(group, {n: w}, {n: {"m": torch.zeros_like(w)}}, {n: {"gradient": p.grad}}, k)[n]
        torch.testing.assert_close(p.detach(), expected, atol=2e-3 * group.step, rtol=2.0**-23)
        assert torch.equal(optimizer.state[p]["m"], s["m"])
    stored: list[spectral.Copied] = []
    kept = optimizer.plan.groups[1], "blocks", lying["blocks"].detach()
    assert spectral._seen(*kept, stored).untyped_storage().data_ptr() == lying["blocks"].untyped_storage().data_ptr()
    assert not stored


@pytest.mark.parametrize("switch", ["old", "new"])
def test_true_float32(switch: str) -> None:
    """Whichever switch asks for less, updates multiply in float32, and leave it as it was; also after errors."""
    libraries = torch.backends.cuda.matmul, torch.backends.mkldnn.matmul
    seen = []

    def route(update: Any) -> Any:
        seen.append([x.fp32_precision for x in libraries])
        if not update.k:
            raise KeyError
        return update.theta

    run = Executor("fast")
    run._routes = (route,)
    before = [x.fp32_precision for x in libraries]
    try:
        if switch == "old":
            torch.set_float32_matmul_precision("medium")
        else:
            libraries[0].fp32_precision, libraries[1].fp32_precision = "tf32", "bf16"
        asked = [x.fp32_precision for x in libraries]
        assert asked == ["tf32", "bf16"]
        given: Any = {"w": {}}
        (planned,) = Plan(Recipe((Group("lion"),)), {"w": (2,)}).groups
        run(planned, given, given, given, given)
        with pytest.raises(KeyError):
            run(planned, given, given, given, {})
        assert [x.fp32_precision for x in libraries] == asked
    finally:
        torch.set_float32_matmul_precision("highest")
        for x, precision in zip(libraries, before, strict=True):
            x.fp32_precision = precision
    assert seen == [["ieee", "ieee"]] * 2


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (3,), (2, 2)])
def test_products_in_float32(there: bool, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also through oneDNN, which this processor may be slower with: k 2⁻²⁴ |u||v|."""
    monkeypatch.setattr(products, "by_linear", lambda: there)
    u, v = drawn("u", (*shape, 65, 80), 0), drawn("v", (*shape, 70, 80), 0).mT
    error = (products.matmul(u, v).double() - u.double() @ v.double()).abs()
    assert (error <= 80 * products.U * (u.abs() @ v.abs())).all()


def test_rows_with_polar_factors_in_torch() -> None:
    """Each of them, through whatever route, moves as in the exact tier with the same set in float32."""
    w, g = (Stream(0, name).bell((4, 6)) for name in "wg")
    for name, entry in ENTRIES.items():
        if "polar" in entry.defaults:
            one, other = updated({"optimizer": name, "memory_half_life": 3.0}, w, g)
            rounded = 6 * ROUNDED * np.linalg.norm(other - w) + 2.0**-23 * np.linalg.norm(other)
            assert np.linalg.norm(one - other) < rounded, name
