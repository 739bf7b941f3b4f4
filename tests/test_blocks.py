"""Blocks: the update of one stored array that holds several matrices is that of its pieces, to the bit."""

from __future__ import annotations

import copy
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dualopt
from dualopt import Group, Recipe, replay
from dualopt.blocks import Blocks
from dualopt.directions.symmetry import AFTER
from dualopt.errors import RecipeError
from dualopt.namespace import Backend, installed
from dualopt.replay import drive
from dualopt.views import view
from dualopt_conformance import inputs

ROOT = Path(__file__).parents[1]
Numpy = np.ndarray[Any, Any]
Shape = tuple[int, ...]

QKV, HEADS = {"axis": 0, "parts": 3}, {"axis": 1, "size": 4}
MIXED = {"axis": 1, "parts": 2, "interleaved": True}
JOINED = {"axis": 0, "parts": 2, "joined": True}


def pieces(x: Numpy, blocks: dict[str, Any]) -> list[Numpy]:
    """The blocks of an array by slicing."""
    axis, n = blocks["axis"], x.shape[blocks["axis"]]
    count = blocks.get("parts") or n // blocks["size"]
    if blocks.get("interleaved"):
        index = [slice(i, None, count) for i in range(count)]
    else:
        index = [slice(i * n // count, (i + 1) * n // count) for i in range(count)]
    return [np.ascontiguousarray(x[(slice(None),) * axis + (i,)]) for i in index]


def together(parts: list[Numpy], blocks: dict[str, Any]) -> Numpy:
    """The inverse of `pieces`."""
    axis = blocks["axis"]
    if not blocks.get("interleaved"):
        return np.concatenate(parts, axis)
    shape = list(parts[0].shape)
    shape[axis] *= len(parts)
    return np.stack(parts, axis + 1).reshape(shape)


# ---- views


CUTS: dict[str, tuple[Shape, dict[str, Any], dict[str, Any], Shape]] = {
    "qkv": ((6, 5), QKV, {}, (3, 2, 5)),
    "heads of an output projection": ((5, 8), HEADS, {}, (2, 5, 4)),
    "interleaved": ((5, 8), MIXED, {}, (2, 5, 4)),
    "in_out": ((5, 8), HEADS, {"orientation": "in_out"}, (2, 4, 5)),
    "experts": ((4, 6, 5), {"axis": 1, "parts": 2}, {}, (2, 4, 3, 5)),
    "experts as one": ((4, 6, 5), {"axis": 1, "parts": 2}, {"whole": True}, (2, 4, 3, 5)),
    "experts, deep": ((2, 2, 6, 5), {"axis": 2, "parts": 2}, {"whole": True, "kind": "stack"}, (2, 4, 3, 5)),
    "one matrix as one": ((6, 5), QKV, {"whole": True}, (3, 1, 2, 5)),
    "vector": ((6,), QKV, {"least_ndim": 1}, (3, 2)),
    "elements": ((6,), QKV, {"least_ndim": 0}, (3, 2)),
    "joined rows": ((4, 3), JOINED, {}, (2, 6)),
    "joined columns": ((3, 4), {**JOINED, "axis": 1}, {}, (6, 2)),
    "kernel, out": ((6, 2, 3, 3), QKV, {}, (3, 2, 18)),
    "kernel, in": ((6, 4, 3, 3), {"axis": 1, "parts": 2}, {}, (2, 6, 18)),
    "kernel, out, last": ((6, 3, 3, 2), QKV, {"layout": "channels_last"}, (3, 2, 18)),
    "kernel, in, last": ((6, 3, 3, 4), {"axis": 1, "parts": 2}, {"layout": "channels_last"}, (2, 6, 18)),
    "empty": ((0, 5), QKV, {}, (3, 0, 5)),
}


@pytest.mark.parametrize("case", CUTS)
def test_views(case: str) -> None:
    shape, blocks, options, seen = CUTS[case]
    found = view(shape, blocks=Blocks.of(blocks, ""), **{"least_ndim": 2, **options})
    x = np.arange(math.prod(shape)).reshape(shape)
    applied = found.apply(np, x)
    assert (found.seen, applied.shape) == (seen, seen)
    assert math.prod(found.logical) == x.size
    np.testing.assert_array_equal(found.undo(np, applied), x)
    if x.size and "kernel" not in case and not blocks.get("joined"):
        flipped = options.get("orientation") == "in_out"
        expected = [p.T if flipped else p for p in pieces(x, blocks)]
        np.testing.assert_array_equal(applied.reshape(len(expected), *expected[0].shape), np.stack(expected))


def test_layouts_of_kernels_give_the_same_matrices() -> None:
    x = np.arange(6 * 4 * 9).reshape(6, 4, 3, 3)
    last = np.moveaxis(x, 1, -1)
    for axis in (0, 1):
        for joined in (False, True):
            blocks = Blocks(axis, parts=2, joined=joined)
            first = view(x.shape, least_ndim=2, blocks=blocks)
            other = view(last.shape, least_ndim=2, blocks=blocks, layout="channels_last")
            np.testing.assert_array_equal(first.apply(np, x), other.apply(np, last))
            if not joined:
                expected = [p.reshape(p.shape[0], -1) for p in pieces(x, {"axis": axis, "parts": 2})]
                np.testing.assert_array_equal(first.apply(np, x), np.stack(expected))


def test_joined_rows_are_pairs() -> None:
    """(experts, 2r, d) with gate above up, and (experts, d, 2r) with both interleaved: row j is (gate_j, up_j)."""
    gate, up = np.arange(24).reshape(2, 3, 4), 100 + np.arange(24).reshape(2, 3, 4)
    pairs = np.concatenate([gate, up], -1)
    stacked = view((2, 6, 4), least_ndim=2, blocks=Blocks(1, parts=2, joined=True))
    np.testing.assert_array_equal(stacked.apply(np, np.concatenate([gate, up], 1)), pairs)
    mixed = Blocks(2, parts=2, interleaved=True, joined=True)
    turned = view((2, 4, 6), least_ndim=2, orientation="in_out", blocks=mixed)
    stored = np.swapaxes(np.stack([gate, up], 2).reshape(2, 6, 4), 1, 2)
    np.testing.assert_array_equal(turned.apply(np, stored), pairs)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_any_view_is_undone(lengths: list[int], data: Any) -> None:
    ndim = len(lengths)
    kind = data.draw(st.sampled_from([None, "stack"] if ndim < 3 else [None, "stack", "conv"]))
    kernel = kind == "conv" or (kind is None and ndim >= 4)
    axis = data.draw(st.integers(0, min(1, ndim - 1)) if kernel else st.integers(max(ndim - 2, 0), ndim - 1))
    layout = data.draw(st.sampled_from(["channels_first", "channels_last"]))
    shape = list(lengths)
    stored_axis = ([0, ndim - 1, *range(1, ndim - 1)] if kernel and layout == "channels_last" else list(range(ndim)))[
        axis
    ]
    parts = data.draw(st.integers(1, 3))
    shape[stored_axis] *= parts
    by = {"parts": parts} if data.draw(st.booleans()) else {"size": lengths[stored_axis]}
    blocks = Blocks(axis, **by, interleaved=data.draw(st.booleans()), joined=ndim > 1 and data.draw(st.booleans()))
    found = view(
        tuple(shape),
        least_ndim=data.draw(st.integers(0, min(ndim, 2))),
        orientation=data.draw(st.sampled_from(["out_in", "in_out"])) if ndim > 1 else "out_in",
        kind=kind,
        layout=layout,
        blocks=blocks,
        whole=data.draw(st.booleans()),
    )
    x = np.arange(math.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(found.undo(np, found.apply(np, x)), x)


# ---- the update of the whole is the updates of the parts


GROUPS: dict[str, dict[str, Any]] = {
    "muon": {"optimizer": "muon"},
    "spectral, cautious": {"optimizer": "scionc", "norm": "spectral", "shrink": "cautious"},
    "column, corrected": {"optimizer": "scionc", "norm": "column", "shrink": "corrected"},
    "frobenius": {"optimizer": "scion", "norm": "frobenius"},
    "sign": {"optimizer": "scion", "norm": "sign", "shrink": "cautious", "strict_mask": True},
    "adamw": {"optimizer": "adamw"},
    "row_norm, centred": {"optimizer": "row_norm", "centred": True},
    "polargrad": {"optimizer": "polargrad"},
    "hybrid": {"optimizer": "hybrid_polargrad", "centred": True, "order": AFTER},
    "in_out": {"optimizer": "scionc", "norm": "row", "orientation": "in_out"},
}
STORED: dict[str, tuple[Shape, dict[str, Any]]] = {
    "qkv": ((6, 5), QKV),
    "heads": ((5, 8), HEADS),
    "interleaved": ((5, 8), MIXED),
    "experts": ((2, 3, 8), {"axis": 2, "parts": 2, "interleaved": True}),
}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("name", GROUPS)
def test_the_whole_moves_as_its_pieces(backend: Backend, name: str, stored: str) -> None:
    shape, blocks = STORED[stored]
    group = {"step": 0.05, "shrink_half_life": 1e3, **GROUPS[name]}
    params, grads = inputs.parameters({"w": shape}), list(inputs.gradients({"w": shape}, 3, kinds=("bell", "zeros")))

    def cut(x: Numpy) -> dict[str, Numpy]:
        return {f"w{i}": piece for i, piece in enumerate(pieces(x, blocks))}

    whole = replay({**group, "blocks": blocks}, params, grads, [7, 9, 11], backend=backend.name)
    apart = replay(group, cut(params["w"]), [cut(g["w"]) for g in grads], [7, 9, 11], backend=backend.name)
    for t in range(3):
        assert whole.params[t]["w"].tobytes() == together(list(apart.params[t].values()), blocks).tobytes()
        for key, x in whole.state[t]["w"].items():
            parts = [apart.state[t][f"w{i}"][key] for i in range(len(apart.state[t]))]
            assert x.tobytes() == together(parts, blocks).tobytes()


@pytest.mark.parametrize("tier", ["exact", "fast"])
def test_elementwise_rows_do_not_notice(backend: Backend, tier: str) -> None:
    """Also where an array library compiles its own kernel for them, over flattened parameters."""
    params, grads = inputs.parameters({"w": (6, 64)}), list(inputs.gradients({"w": (6, 64)}, 2))
    group = {"optimizer": "adamw", "shrink": "cautious", "shrink_half_life": 1e3}
    cut, uncut = (
        replay({**group, **b}, params, grads, 7, backend=backend.name, tier=tier)
        for b in ({"blocks": {"axis": 1, "parts": 2, "interleaved": True}}, {})
    )
    assert cut.params[-1]["w"].tobytes() == uncut.params[-1]["w"].tobytes()
    assert cut.state[-1]["w"]["v"].tobytes() == uncut.state[-1]["w"]["v"].tobytes()


def test_blocks_matter() -> None:
    """The comparison above is of something: uncut, the same rows move otherwise."""
    params, grads = inputs.parameters({"w": (6, 5)}), list(inputs.gradients({"w": (6, 5)}, 1))
    for name in ("muon", "frobenius", "column, corrected", "row_norm, centred", "polargrad", "hybrid"):
        group = {"step": 0.05, **GROUPS[name]}
        cut, uncut = (replay({**group, **b}, params, grads, 7).params[0]["w"] for b in ({"blocks": QKV}, {}))
        assert not np.array_equal(cut, uncut), name


@pytest.mark.parametrize("optimizer", ["muon", "row_norm", "polargrad"])
def test_the_target_of_a_group_counts_all_entries(optimizer: str) -> None:
    """One η for the group, from sums over all of its blocks: RMS(θ) = R after the update."""
    group = {"optimizer": optimizer, "target_rms": 1.3, "step": 500.0, "blocks": QKV}
    w, g = (np.asarray(inputs.array("bell", (6, 5), 0, n), np.float64) for n in "wg")
    moved = replay(group, {"w": w}, [{"w": g}], 1, dtype="float64").params[0]["w"]
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(1.3, rel=1e-12)


def test_scales_are_those_of_a_block() -> None:
    group = {"optimizer": "scion", "norm": "spectral", "blocks": HEADS}
    (k,) = (m["w"] for m in replay(group, {"w": np.ones((5, 8))}, [{"w": np.ones((5, 8))}], 1).scalars)
    assert k["scale"] == math.sqrt(5 / 4)


# ---- both frameworks, natively


TABLE: dict[str, Any] = {
    "count": {"unit": "updates"},
    "group": [
        {"name": "qkv", "match": ["qkv"], "optimizer": "muon", "blocks": QKV, "step": 0.1, "shrink": "cautious"},
        {"name": "experts", "match": ["up"], "optimizer": "polargrad", "centred": True, "step": 0.1, "blocks": MIXED},
        {"name": "kernel", "match": ["k"], "optimizer": "row_norm", "blocks": {"axis": 1, "parts": 2}, "step": 0.1},
        {"name": "rest", "optimizer": "lion", "blocks": {"axis": 0, "size": 2}, "shrink_half_life": 90.0},
    ],
}
NATIVE = {"qkv": (6, 5), "up": (3, 8), "k": (3, 4, 2, 2), "b": (6,)}


def test_native_optimizers_have_the_bits_of_replay_and_exchange_snapshots() -> None:
    torch = pytest.importorskip("torch")
    mx = pytest.importorskip("mlx.core")
    start, grads = inputs.parameters(NATIVE), list(inputs.gradients(NATIVE, 6))

    def last(x: Numpy) -> Numpy:  # MLX keeps kernels channels last
        return np.moveaxis(x, 1, -1) if x.ndim == 4 else x

    def first(x: Any) -> Numpy:
        return np.moveaxis(np.array(x), -1, 1) if x.ndim == 4 else np.array(x)

    expected = list(drive(Recipe.from_dict(TABLE), start, grads))

    def there() -> tuple[dict[str, Any], Any]:
        named = {n: torch.nn.Parameter(torch.from_numpy(x.copy())) for n, x in start.items()}
        return named, dualopt.optimizer(named, TABLE, tier="exact")

    def here() -> tuple[dict[str, Any], Any]:
        named = {n: mx.array(last(x)) for n, x in start.items()}
        return named, dualopt.optimizer(named, TABLE, tier="exact")

    (theirs, torch_opt), (mine, mlx_opt) = there(), here()

    def both(t: int, torch_opt: Any, mlx_opt: Any) -> None:
        for n, p in theirs.items():
            p.grad = torch.from_numpy(grads[t][n].copy())
        torch_opt.step()
        mlx_opt.update(mine, {n: mx.array(last(g)) for n, g in grads[t].items()})
        for n, x in expected[t].params.items():
            assert theirs[n].detach().numpy().tobytes() == x.tobytes(), (t, n)
            assert np.ascontiguousarray(first(mine[n])).tobytes() == x.tobytes(), (t, n)

    for t in range(3):
        both(t, torch_opt, mlx_opt)
    saved, other = torch_opt.snapshot(), mlx_opt.snapshot()
    again, resumed = dualopt.optimizer(theirs, TABLE, tier="exact"), dualopt.optimizer(mine, TABLE, tier="exact")
    again.restore(other)
    resumed.restore(saved)
    for t in range(3, 6):
        both(t, again, resumed)


# ---- recipes


BAD: tuple[tuple[object, str], ...] = (
    (3, r"group 'g': blocks is a table such as \{ axis = 0, parts = 3 \}, got 3"),
    ({"axis": 0, "part": 3}, r"blocks has no key 'part'.*parts"),
    ({"parts": 3}, r"blocks names no axis"),
    ({"axis": 0}, r"either parts, their number, or size"),
    ({"axis": 0, "parts": 3, "size": 2}, r"either parts, their number, or size"),
    ({"axis": -1, "parts": 3}, r"blocks.axis is a whole number >= 0, got -1"),
    ({"axis": 0, "parts": 0}, r"blocks.parts is a whole number >= 1, got 0"),
    ({"axis": 0, "size": 2.0}, r"blocks.size is a whole number >= 1, got 2.0"),
    ({"axis": 0, "parts": True}, r"blocks.parts is a whole number >= 1, got True"),
    ({"axis": 0, "parts": 2, "interleaved": 1}, r"blocks.interleaved is true or false, got 1"),
)


@pytest.mark.parametrize(("blocks", "message"), BAD, ids=[str(i) for i in range(len(BAD))])
def test_bad_blocks(blocks: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Recipe.from_dict({"group": [{"name": "g", "optimizer": "muon", "blocks": blocks}]})


UNFIT: tuple[tuple[dict[str, Any], dict[str, Any], Shape, str], ...] = (
    ({"axis": 2, "parts": 2}, {}, (6, 4), r"'w' \(6, 4\): blocks.axis = 2 is out of range"),
    ({"axis": 0, "parts": 4}, {}, (6, 4), r"blocks.parts = 4 does not divide the 6 entries of axis 0"),
    ({"axis": 1, "size": 3}, {}, (6, 4), r"blocks.size = 3 does not divide the 4 entries of axis 1"),
    ({"axis": 0, "parts": 2}, {}, (4, 3, 2), r"blocks.axis = 0 counts matrices of a stack"),
    ({"axis": 2, "parts": 2}, {}, (4, 4, 2, 2), r"blocks.axis = 2 are kernel positions"),
    ({"axis": 0, "parts": 2, "joined": True}, {"optimizer": "adamw"}, (4,), r"blocks.joined needs a matrix"),
    ({"axis": 0, "parts": 2}, {"optimizer": "adamw"}, (), r"blocks.axis = 0 is out of range"),
)


@pytest.mark.parametrize(("blocks", "options", "shape", "message"), UNFIT, ids=[str(i) for i in range(len(UNFIT))])
def test_blocks_that_do_not_fit(blocks: dict[str, Any], options: dict[str, Any], shape: Shape, message: str) -> None:
    recipe = Recipe.from_dict({"group": [{"name": "g", "optimizer": "muon", "blocks": blocks, **options}]})
    with pytest.raises(RecipeError, match=f"group 'g': .*{message}"):
        dualopt.explain({"w": shape}, recipe)


def test_spectral_conv_has_no_blocks() -> None:
    with pytest.raises(RecipeError, match="'spectral_conv' scales whole kernels; drop blocks"):
        Group("scion", {"norm": "spectral_conv"}, blocks=Blocks(0, parts=2))


def test_round_trips(tmp_path: Path) -> None:
    full = {"axis": 2, "parts": 2, "interleaved": True, "joined": True}
    for blocks in (QKV, HEADS, full):
        recipe = Recipe.from_dict({"group": [{"name": "g", "optimizer": "muon", "blocks": blocks, "optional": True}]})
        path = tmp_path / "r.toml"
        path.write_text(recipe.to_toml())
        assert Recipe.load(path) == recipe == Recipe.from_dict(recipe.to_dict())
        assert recipe.groups[0].to_dict()["blocks"] == blocks
        assert Recipe.load(path).digest() == recipe.digest()
        assert pickle.loads(pickle.dumps(recipe)) == copy.deepcopy(recipe) == recipe
    assert "blocks = { axis = 2, parts = 2, interleaved = true, joined = true }" in recipe.to_toml()
    plain = Recipe.from_dict({"group": [{"name": "g", "optimizer": "muon"}]})
    stated = Recipe.from_dict({"group": [{"name": "g", "optimizer": "muon", "optional": False}]})
    assert plain.digest() == stated.digest() != recipe.digest()
    reordered = Group("muon", name="g", blocks={"parts": 3, "axis": 0, "joined": False})  # type: ignore[arg-type]
    assert reordered == Group("muon", name="g", blocks=Blocks(0, parts=3))


def test_optional_groups() -> None:
    table = {
        "group": [{"name": "head", "match": ["head"], "optimizer": "lion", "optional": True}, {"optimizer": "sgdm"}]
    }
    found = dualopt.explain({"w": (3,)}, table)
    assert [g.name for g in found.groups] == ["group 2"]
    assert [g.name for g in dualopt.explain({"w": (3,), "head": (2,)}, table).groups] == ["head", "group 2"]
    with pytest.raises(RecipeError, match="optional is true or false"):
        Group("lion", optional=1)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="nothing would be trained"):
        dualopt.explain({"w": (3,)}, {"group": table["group"][:1]})


def test_explain_says_how_blocks_are_seen() -> None:
    table = {"group": [{"optimizer": "muon", "blocks": QKV, "orientation": "in_out"}]}
    assert dualopt.explain({"w": (6, 5)}, table, dry=True, scalars=True).rows[0].view == "3 of 5 × 2 (T)"
    polar = {"group": [{"optimizer": "polargrad"}]}
    views = {row.names[0]: row.view for row in dualopt.explain({"a": (6, 5), "b": (2, 6, 5)}, polar).rows}
    assert views == {"a": "6 × 5", "b": "2 of 6 × 5"}


# ---- the routing preset


HEAD = 128
LAYER = {
    "self_attn.q_proj.weight": ((2 * HEAD, 6), "attention, in", "muon", "2 of 128 × 6"),
    "self_attn.k_proj.weight": ((HEAD, 6), "attention, in", "muon", "128 × 6"),
    "self_attn.v_proj.weight": ((HEAD, 6), "attention, in", "muon", "128 × 6"),
    "self_attn.o_proj.weight": ((6, 2 * HEAD), "attention, out", "muon", "2 of 6 × 128"),
    "self_attn.q_norm.weight": ((HEAD,), "vectors", "adamw", "elements"),
    "input_layernorm.weight": ((6,), "vectors", "adamw", "elements"),
    "mlp.gate_proj.weight": ((10, 6), "gate and up", "row_norm", "10 × 6"),
    "mlp.up_proj.weight": ((10, 6), "gate and up", "row_norm", "10 × 6"),
    "mlp.down_proj.weight": ((6, 10), "down", "column_norm", "6 × 10"),
}
FUSED = {
    "self_attn.qkv_proj.weight": ((4 * HEAD, 6), "attention, in", "muon", "4 of 128 × 6"),
    "mlp.gate_up_proj.weight": ((20, 6), "gate and up fused", "row_norm", "10 × 12"),
}
SPARSE = {
    "mlp.gate.weight": ((4, 6), "router", "polargrad", "4 × 6"),
    "mlp.experts.gate_up_proj": ((4, 20, 6), "experts, gate and up fused", "row_norm", "4 of 10 × 12"),
    "mlp.experts.down_proj": ((4, 6, 10), "experts, down", "column_norm", "4 of 6 × 10"),
    "mlp.experts.gate_up_proj_bias": ((4, 20), "stacked biases", "adamw", "elements"),
    "mlp.experts.3.gate_proj.weight": ((10, 6), "experts, gate and up", "row_norm", "10 × 6"),
    "mlp.experts.3.down_proj.weight": ((6, 10), "experts, down", "column_norm", "6 × 10"),
    "mlp.switch_mlp.up_proj.weight": ((4, 10, 6), "experts, gate and up", "row_norm", "4 of 10 × 6"),
    "mlp.shared_expert.up_proj.weight": ((10, 6), "gate and up", "row_norm", "10 × 6"),
    "odd.weight": ((5, 6), "other matrices", "muon", "5 × 6"),
}
TOP = {
    "model.embed_tokens.weight": ((17, 6), "embedding", "hybrid_polargrad", "17 × 6"),
    "lm_head.weight": ((17, 6), "head", "hybrid_polargrad", "17 × 6"),
    "model.norm.weight": ((6,), "vectors", "adamw", "elements"),
}
PRESET = ROOT / "recipes/symmetry-compatible.toml"


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    """{name: (shape, group, optimizer, view)}."""
    return TOP | {f"model.layers.{i}.{n}": what for i, layer in enumerate(layers) for n, what in layer.items()}


MODELS = {"dense": model(LAYER, LAYER), "fused": model(FUSED), "sparse": model({**LAYER, **SPARSE}, FUSED)}


@pytest.mark.parametrize("name", MODELS)
def test_the_preset_gives_every_class_its_update(name: str) -> None:
    what = MODELS[name]
    found = dualopt.explain({n: shape for n, (shape, *_) in what.items()}, PRESET, dry=True)
    routed = {n: (line.shape, line.group, line.optimizer, line.view) for line in found.rows for n in line.names}
    assert routed == what
    uses = {g.name: {key: use.value for key, use in g.coordinates.items()} for g in found.groups}
    assert uses["head"]["centred"]
    assert not uses["embedding"]["centred"]
    assert (uses["embedding"]["step"], uses["head"]["step"], uses["attention, in"]["step"]) == (1.0, 0.01, 0.02)
    beta = [2 ** (-229_376 / float(uses["vectors"][key])) for key in ("memory_half_life", "second_memory_half_life")]
    assert beta == pytest.approx([0.9, 0.95], rel=1e-6)
    assert 2 ** (-229_376 / float(uses["head"]["memory_half_life"])) == pytest.approx(0.95, rel=1e-12)


@pytest.mark.parametrize("name", [n for n in ("torch", "mlx") if n in installed()])
def test_the_preset_trains(name: str) -> None:
    """Two updates: the bits of numpy, everything moves, and logits do not shift."""
    shapes = {n: shape for n, (shape, *_) in MODELS["sparse"].items()}
    start, grads = inputs.parameters(shapes), list(inputs.gradients(shapes, 2))
    recipe = Recipe.load(PRESET)
    for here, there in zip(drive(recipe, start, grads), drive(recipe, start, grads, backend=name), strict=True):
        for n, x in here.params.items():
            assert np.isfinite(x).all()
            assert x.tobytes() == there.params[n].tobytes(), n
    for n, x in here.params.items():
        assert not np.array_equal(x, start[n]), n
    shift = (here.params["lm_head.weight"] - start["lm_head.weight"]).sum(0)
    assert np.abs(shift).max() < 17 * 2**-22  # 17 roundings of weights of size 2 to 4
