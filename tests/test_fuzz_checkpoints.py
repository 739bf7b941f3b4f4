"""Checkpoints by somebody who means harm: a clean error or a valid object, in little time and memory.

What is mutated is sealed again with a checksum that fits, so that it is read to the end. Every test counts how far its
examples got. An optimizer that refuses a checkpoint has not changed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import Counter as Tally
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualopt import Count, Group, Recipe, checkpoint, optimizer, tensors, transplant
from dualopt.checkpoint import Origin, Snapshot
from dualopt.digest import snapshot_digest
from dualopt.errors import DualoptError

from .fuzz import EXAMPLES, FUZZ, NUMBERS, VALUES, WORDS, cheap, mutated

RECIPE = Recipe(
    (
        Group("sf_adamw", {"step": 0.01}, name="vectors", ndim=1),
        Group("scionc", {"step": 0.01, "norm": "spectral"}, name="kernels", ndim=4),
        Group("adamw", {"step": 0.01}, name="rest"),
    ),
    Count("tokens", per_update=64),
)
MODEL = {"w": (3, 4), "b": (4,), "k": (2, 3, 2, 2)}


class Side:
    """An optimizer after two updates, which a refused checkpoint must leave as it is."""

    def __init__(self, framework: str) -> None:
        self.framework = framework
        rng = np.random.default_rng(0)
        start = {n: rng.standard_normal(s).astype(np.float32) for n, s in MODEL.items()}
        if framework == "torch":
            torch = pytest.importorskip("torch")
            self.model: Any = {n: torch.nn.Parameter(torch.from_numpy(x)) for n, x in start.items()}
        else:
            mx = pytest.importorskip("mlx.core")
            self.model = {n: mx.array(np.moveaxis(x, 1, -1) if n == "k" else x) for n, x in start.items()}
        self.opt: Any = optimizer(self.model, RECIPE, tier="exact")
        for _ in range(2):
            self.step()
        self.good: Snapshot = self.opt.snapshot()

    def step(self) -> None:
        if self.framework == "torch":
            for p in self.model.values():
                p.grad = p.detach() * 0 + 1
            self.opt.step(count=64)
        else:
            self.opt.update(self.model, {n: x * 0 + 1 for n, x in self.model.items()}, count=64)

    def bits(self) -> tuple[Any, ...]:
        found = self.opt.snapshot()
        steps = [g["lr"] for g in self.opt.param_groups] if self.framework == "torch" else self.opt.steps
        return snapshot_digest(found), found.counts, found.sums, steps, found.dtypes

    def takes(self, snapshot: Snapshot) -> bool:
        """Does it take the snapshot over? It has all of it then, or has not changed."""
        before = self.bits()
        try:
            self.opt.restore(snapshot)
        except DualoptError:
            assert self.bits() == before
            return False
        now = self.opt.snapshot()
        assert now.counts == snapshot.counts
        for name, x in snapshot.parameters.items():
            assert now.parameters[name].tobytes() == x.tobytes()
            for key, s in snapshot.state[name].items() if snapshot.counts[name] else ():  # at 0 memories begin anew
                assert now.state[name][key].tobytes() == s.tobytes()
        with contextlib.suppress(DualoptError), np.errstate(all="ignore"):
            self.step()
        self.opt.restore(self.good)
        assert self.bits() == before
        return True


@pytest.fixture(scope="module", params=["torch", "mlx"])
def side(request: pytest.FixtureRequest) -> Side:
    return Side(request.param)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, side: Side) -> bytes:
    path = tmp_path_factory.mktemp("good") / "c"
    checkpoint.save(path, side.good, metadata={"update": "2"})
    assert side.takes(checkpoint.load(path)[0])
    return path.read_bytes()


def sealed(data: bytes) -> bytes:
    """With a checksum that fits, where there is a place for one."""
    mark = b'"dualopt.sha256":"'
    at = data.find(mark) + len(mark)
    if at < len(mark) or len(data) < at + 64:
        return data
    empty = data[:at] + b"0" * 64 + data[at + 64 :]
    return data[:at] + hashlib.sha256(empty).hexdigest().encode() + data[at + 64 :]


def lengthened(data: bytes) -> bytes:
    """With a header as long as it says, if what was changed made it longer or shorter."""
    end = data.find(b"}}", 8) + 2
    return (end - 8).to_bytes(8, "little") + data[8:end] + data[end:] if end > 9 else data


def read(path: Path, content: bytes, side: Side, reached: Tally[str]) -> None:
    path.write_bytes(content)
    with cheap():
        try:
            found, metadata = checkpoint.load(path)
        except DualoptError as error:
            reached["named"] += str(path) in str(error)
            reached["refused"] += 1
            return
        assert isinstance(found, Snapshot)
        assert all(isinstance(x, str) for x in metadata.values())
        reached["loaded"] += 1
        reached["taken"] += side.takes(found)


def test_checkpoint_files(tmp_path: Path, side: Side, saved: bytes) -> None:
    reached = Tally[str]()

    @FUZZ
    @given(content=mutated(st.sampled_from([saved, saved[: len(saved) // 2], b""])), fits=st.booleans())
    def run(content: bytes, fits: bool) -> None:
        read(tmp_path / "c", sealed(lengthened(content) if fits else content), side, reached)

    run()
    assert reached["taken"] > EXAMPLES // 60
    assert reached["named"] == reached["refused"]


ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.one_of(st.sampled_from(["F32", "F64", "BF16", "U8", "BOOL", "F8"]), VALUES),
        "shape": st.one_of(st.lists(st.one_of(st.integers(0, 4), NUMBERS), max_size=70), VALUES),
        "data_offsets": st.one_of(st.lists(st.one_of(st.integers(0, 64), NUMBERS), max_size=3), VALUES),
    }
)
NAMES = st.one_of(st.sampled_from(["parameter/w", "state/w/m", "parameter/", "state/w/", "parameter/b", "x"]), WORDS)
METADATA = st.dictionaries(
    st.one_of(st.sampled_from([f"dualopt.{k}" for k in ("counts", "sums", "recipe", "tier", "format")]), WORDS),
    st.one_of(st.sampled_from(['{"w": 3}', '{"w": {"s": "0x1p3"}}', "[" * 3000, "2", '{"w": 1e999}']), VALUES),
    max_size=4,
)


@pytest.mark.long
def test_headers(tmp_path: Path, side: Side) -> None:
    reached = Tally[str]()

    @FUZZ
    @given(
        entries=st.dictionaries(NAMES, st.one_of(ENTRY, VALUES), max_size=3),
        metadata=st.one_of(METADATA, METADATA, VALUES),
        data=st.binary(max_size=64),
    )
    def run(entries: dict[str, Any], metadata: Any, data: bytes) -> None:
        if isinstance(metadata, dict):
            known = {tensors.CHECKSUM: "0" * 64, "dualopt.format": checkpoint.FORMAT, "dualopt.counts": "{}"}
            metadata = known | metadata
        text = json.dumps({"__metadata__": metadata, **entries}, separators=(",", ":")).encode()
        read(tmp_path / "c", sealed(len(text).to_bytes(8, "little") + text + data), side, reached)

    run()
    assert reached["loaded"] > 0
    assert reached["named"] == reached["refused"]


ARRAYS = st.builds(
    lambda dtype, shape, value: np.full(shape, value).astype(dtype),
    st.sampled_from(["f4", "f4", "f4", "f8", "f2", "i8", "u1", "?"]),
    st.one_of(st.sampled_from(list(MODEL.values())), st.lists(st.integers(0, 3), max_size=5).map(tuple)),
    st.sampled_from([0.0, 1.0]),
)
CHANGES = st.one_of(
    st.tuples(st.just("parameters"), st.sampled_from([*MODEL, "x"]), ARRAYS),
    st.tuples(st.just("state"), st.sampled_from([*MODEL, "x"]), st.dictionaries(st.sampled_from("mvxz"), ARRAYS)),
    st.tuples(st.just("counts"), st.sampled_from([*MODEL, "x", ""]), st.one_of(st.integers(0, 300), NUMBERS)),
    st.tuples(
        st.just("sums"),
        st.sampled_from([*MODEL, "x"]),
        st.dictionaries(st.sampled_from(["s", "c"]), st.floats(allow_nan=True)),
    ),
    st.tuples(st.just("dtypes"), st.sampled_from(list(MODEL)), st.sampled_from(["BF16", "F16", "F64"])),
    st.tuples(
        st.just("gone"), st.sampled_from(["parameters", "state", "counts", "sums"]), st.sampled_from(list(MODEL))
    ),
    st.tuples(st.just("values"), st.sampled_from(list(MODEL)), st.floats(width=32)),
)


@pytest.mark.long
def test_snapshots(tmp_path: Path, side: Side) -> None:
    """Layouts that are right, of contents that are not."""
    reached, path, keys = Tally[str](), tmp_path / "c", ("parameters", "state", "counts", "dtypes", "sums")
    own, odd = RECIPE.to_toml(), ['group = [{name = "a"}, 1]', "group = [{name = [1]}]", "a = " + "[" * 3000]
    changed = mutated(st.just(own.encode())).map(lambda x: x.decode(errors="replace"))
    texts = st.one_of(st.just(own), st.sampled_from(["", *odd]), st.text(max_size=20), changed)

    @FUZZ
    @given(changes=st.lists(CHANGES, max_size=3), recipe=texts)
    def run(changes: list[tuple[Any, ...]], recipe: str) -> None:
        fields: dict[str, Any] = {key: dict(getattr(side.good, key)) for key in keys}
        for what, name, value in changes:
            if what == "gone":
                fields[name].pop(value, None)
            elif what == "values":
                fields["state"][name] = {k: np.full_like(x, value) for k, x in side.good.state[name].items()}
            else:
                fields[what][name] = value
        with cheap(), contextlib.suppress(DualoptError):
            checkpoint.save(path, Snapshot(**fields, origin=Origin(recipe)), metadata={})
            found = checkpoint.load(path)[0]
            for snapshot in (found, transplant.under(found, RECIPE)):
                reached["taken" if side.takes(snapshot) else "refused"] += 1

    run()
    assert reached["taken"] > EXAMPLES // 10
    assert reached["refused"] > EXAMPLES // 10


@pytest.mark.parametrize("claim", [2**40, 2**62, 2**64])
def test_a_header_or_a_hole_of_any_size_allocates_nothing(tmp_path: Path, claim: int) -> None:
    path = tmp_path / "c"
    entry = {"dtype": "U8", "shape": [claim], "data_offsets": [0, claim]}
    text = json.dumps({"parameter/w": entry}).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    with cheap(), pytest.raises(DualoptError, match=r"cover|impossible"):
        checkpoint.load(path)
    path.write_bytes((claim - 1).to_bytes(8, "little") + b"{}")
    with cheap(), pytest.raises(DualoptError, match="header claims"):
        checkpoint.load(path)


def test_the_count_of_a_checkpoint_costs_no_time() -> None:
    """Schedules that sum over updates do not sum over more than there can have been."""
    torch = pytest.importorskip("torch")
    from dualopt import Schedule

    group = Group("adamw", {"step": 0.01, "shrink_half_life": 1e4})
    recipe = Recipe((group,), Count("updates"), Schedule("equal-weight-14"))
    model = {"w": torch.nn.Parameter(torch.ones(3))}
    opt: Any = optimizer(model, recipe)
    model["w"].grad = torch.ones(3)
    opt.step()
    before = opt.snapshot()
    far = Snapshot(**{**vars(before), "counts": {"": 2**62, "w": 2**62}})
    with cheap(), pytest.raises(DualoptError, match="updates"):
        opt.restore(far)
    assert snapshot_digest(opt.snapshot()) == snapshot_digest(before)
    assert opt.snapshot().counts == before.counts
