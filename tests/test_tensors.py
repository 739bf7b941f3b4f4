"""The file format: round trips, agreement with another reader, and every kind of damage."""

from __future__ import annotations

import fcntl
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dualopt import checkpoint, durable, tensors
from dualopt.checkpoint import Snapshot
from dualopt.errors import CheckpointError

DTYPES = ["f8", "f4", "f2", "i8", "i4", "u8", "u4", "u2", "u1", "i1", "?"]


def bits(array: np.ndarray[Any, Any]) -> tuple[Any, ...]:
    return array.dtype, array.shape, array.tobytes()


def raw(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


# ---- round trips


def test_every_dtype_and_shape_comes_back_with_the_same_bits(tmp_path: Path) -> None:
    source = {
        f"{dtype} {shape}": np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
        for dtype in DTYPES
        for shape in [(), (0,), (3, 0, 2), (5,), (2, 3), (1, 2, 1, 3)]
    }
    source["special"] = np.array([np.nan, -0.0, np.inf, 1e-45], np.float32)
    source["transposed"] = np.arange(6.0).reshape(2, 3).T
    source["big-endian"] = np.arange(4, dtype=">i4")
    source['odd "name"\n\\ é 𝜃'] = np.ones(2, np.float32)
    tensors.write(tmp_path / "a", source, {"key": "välue", "": ""})
    found = tensors.read(tmp_path / "a")
    assert found.metadata == {"key": "välue", "": ""}
    assert found.tensors.keys() == source.keys()
    for name, array in source.items():
        assert bits(found.tensors[name]) == bits(array.astype(array.dtype.newbyteorder("=")))
        found.tensors[name][...] = 0  # an array of its own, writable
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_the_bytes_do_not_depend_on_the_order_and_are_aligned(tmp_path: Path) -> None:
    source = {
        "b": np.ones(3, np.uint8),
        "a": np.ones(1, np.float32),
        "c": np.ones(1),
        "é": np.ones(1, np.uint16),
    }
    tensors.write(tmp_path / "1", source, {"x": "1", "y": "2"})
    tensors.write(tmp_path / "2", dict(reversed(source.items())), {"y": "2", "x": "1"})
    content = (tmp_path / "1").read_bytes()
    assert content == (tmp_path / "2").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert length % 8 == 0
    header = json.loads(content[8 : 8 + length])
    assert all(header[name]["data_offsets"][0] % source[name].itemsize == 0 for name in source)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_is_exact_or_refused(tmp_path: Path, dtype: str) -> None:
    exact = np.array([1.0, -0.0, 0.5, np.inf, np.nan, 2.0**-14, 240.0], np.float32)
    tensors.write(tmp_path / "a", {"w": exact}, {}, {"w": dtype})
    found = tensors.read(tmp_path / "a")
    assert found.dtypes == {"w": dtype}
    assert bits(found.tensors["w"].astype(np.float32)) == bits(exact)
    tensors.write(tmp_path / "b", found.tensors, found.metadata, found.dtypes)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    inexact = [np.float32(1 + 2.0**-12)] + ([np.float32(1e6), np.float32(1e-12)] if dtype == "F16" else [])
    for value in inexact:
        with pytest.raises(CheckpointError, match=f"'w' holds values that {dtype} cannot represent"):
            tensors.write(tmp_path / "c", {"w": np.array([1, value], np.float32)}, {}, {"w": dtype})
    assert not (tmp_path / "c").exists()


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    for arguments, message in (
        (({"w": np.ones(1, np.complex64)}, {}), "complex64"),
        (({"w": one}, {}, {"v": "BF16"}), "'v', which is not among"),
        (({"w": one}, {}, {"w": "F8"}), "as F8"),
        (({"w": np.ones(1)}, {}, {"w": "BF16"}), "only a float32"),
        (({"__metadata__": one}, {}), "cannot be the name"),
        (({"w": one}, {"count": 3}), "must map a string to a string"),
        (({"\ud800": one}, {}), "Unicode"),
    ):
        with pytest.raises(CheckpointError, match=message):
            tensors.write(tmp_path / "a", *arguments)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="No such file"):
        tensors.write(tmp_path / "missing" / "a", {}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors.write(tmp_path / "a", {"w": np.ones(1)}, {})
    before = (tmp_path / "a").read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        tensors.write(tmp_path / "a", {"w": np.zeros(9)}, {})
    assert (tmp_path / "a").read_bytes() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors have no names here")
def test_the_bytes_are_on_the_disk_before_the_name_is_and_the_name_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, fsync, rename = [], os.fsync, Path.replace

    def flushed(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        done.append(target)
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", replaced)
    tensors.write(tmp_path / "a", {"w": np.ones(1)}, {})
    assert [path.name for path in done] == [f".a.{os.getpid()}.tmp", "a", tmp_path.name]


@pytest.mark.parametrize("taken", [True, False])
def test_where_fsync_ends_in_the_cache_of_the_drive_more_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """As on macOS, on file systems that take its command and on others."""
    done = list[str]()

    def asked(descriptor: int, command: int) -> int:
        done.append(f"command {command}")
        if not taken:
            raise OSError("not here")
        return 0

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", asked)
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append("fsync"))
    with durable.atomic(tmp_path / "a") as file:
        file.write(b"1")
    assert done == (["command 51"] if taken else ["command 51", "fsync"]) * 2


# ---- another reader and writer


def test_mlx_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    mx = pytest.importorskip("mlx.core")
    source = {f"{d}-{s}": np.ones(s, d) for d in DTYPES if d != "f8" for s in [(3,), (2, 3), (1,)]}
    source["half"] = np.array([1.5, -2.0, 0.0078125], np.float32)
    tensors.write(tmp_path / "ours.safetensors", source, {"key": "value"}, {"half": "BF16"})
    theirs, metadata = mx.load(str(tmp_path / "ours.safetensors"), return_metadata=True)
    assert metadata["key"] == "value"
    assert theirs.keys() == source.keys()
    assert theirs["half"].dtype == mx.bfloat16
    for name, array in source.items():
        assert bits(np.array(theirs[name].astype(mx.float32) if name == "half" else theirs[name])) == bits(array)
    mx.save_safetensors(str(tmp_path / "theirs.safetensors"), theirs, {"key": "value"})
    again = tensors.read(tmp_path / "theirs.safetensors")
    assert again.dtypes["half"] == "BF16"
    assert again.metadata["key"] == "value"
    assert {name: bits(array) for name, array in again.tensors.items()} == {k: bits(v) for k, v in source.items()}


def test_torch_agrees_on_bfloat16_bits(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    every = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    widened = every.float().numpy()
    tensors.write(tmp_path / "a", {"w": widened}, {}, {"w": "BF16"})
    assert (tmp_path / "a").read_bytes()[-(2**17) :] == every.view(torch.int16).numpy().tobytes()
    assert bits(tensors.read(tmp_path / "a").tensors["w"]) == bits(widened)


# ---- damage


def entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


GOOD = raw({"w": entry()}, bytes(8))
DAMAGE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "short prefix": (b"\1\2\3", "too few"),
    "header beyond the file": (GOOD[:20], "claims"),
    "huge header": ((2**63).to_bytes(8, "little") + b"{}", "claims"),
    "empty header": (raw(b""), "no JSON object"),
    "list": (raw([1]), "no JSON object"),
    "leading space": (raw(b" {}"), "no JSON object"),
    "broken JSON": (raw(b'{"w":'), "no valid JSON"),
    "not UTF-8": (raw(b'{"\xff":1}'), "no valid JSON"),
    "too deep": (raw(b'{"w":' * 100_000), "no valid JSON"),
    "lone surrogate": (raw(b'{"\\ud800":' + json.dumps(entry()).encode() + b"}", bytes(8)), "no valid JSON"),
    "duplicate name": (
        raw(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
        "'w' stands twice",
    ),
    "duplicate field": (raw(b'{"w":{"dtype":"F32","dtype":"F32"}}'), "'dtype' stands twice"),
    "NaN": (raw(b'{"w":NaN}'), "NaN"),
    "metadata no object": (raw({"__metadata__": "x"}), "object of strings"),
    "metadata no string": (raw({"__metadata__": {"x": 1}}), "object of strings"),
    "entry no object": (raw({"w": 3}), "not described"),
    "field missing": (raw({"w": {"dtype": "F32", "shape": [2]}}, bytes(8)), "not described"),
    "field unknown": (raw({"w": entry(extra=1)}, bytes(8)), "not described"),
    "dtype unknown": (raw({"w": entry("F12")}, bytes(8)), "unknown dtype 'F12'"),
    "dtype no string": (raw({"w": entry([])}, bytes(8)), "unknown dtype"),
    "shape no list": (raw({"w": entry(shape="2")}, bytes(8)), "shape"),
    "shape negative": (raw({"w": entry(shape=[-2])}, bytes(8)), "shape"),
    "shape fraction": (raw({"w": entry(shape=[2.0])}, bytes(8)), "shape"),
    "shape boolean": (raw({"w": entry(shape=[2, True])}, bytes(8)), "shape"),
    "shape too long": (raw({"w": entry(shape=[1] * 65, offsets=[0, 4])}, bytes(4)), "shape"),
    "shape gigantic": (raw({"w": entry(shape=[2**62, 4])}, bytes(8)), "impossible shape"),
    "shape gigantic and empty": (raw({"w": entry(shape=[0, 2**70], offsets=[0, 0])}), "impossible shape"),
    "shape of another size": (raw({"w": entry(shape=[3])}, bytes(8)), "8 bytes instead of 12"),
    "offsets reversed": (raw({"w": entry(offsets=[8, 0])}, bytes(8)), "-8 bytes"),
    "offsets of one": (raw({"w": entry(offsets=[8])}, bytes(8)), "data_offsets"),
    "offsets negative": (raw({"w": entry(offsets=[-8, 0])}, bytes(8)), "data_offsets"),
    "truncated data": (GOOD[:-1], "cover 8 bytes"),
    "extra data": (GOOD + b"\0", "cover 8 bytes"),
    "gap at the start": (raw({"w": entry(offsets=[4, 12])}, bytes(12)), "begins at byte 4"),
    "overlap": (raw({"v": entry(offsets=[4, 12]), "w": entry()}, bytes(12)), "begins at byte 4"),
    "gap": (raw({"v": entry(offsets=[12, 20]), "w": entry()}, bytes(20)), "begins at byte 12"),
    "boolean byte 2": (raw({"w": entry("BOOL", [1], [0, 1])}, b"\2"), "other than 0 and 1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    content, message = DAMAGE[kind]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        tensors.read(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_what_is_not_a_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(CheckpointError, match=str(path)):
            tensors.read(path)


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    """A small checkpoint, every byte of which is about to suffer."""
    arrays = {"parameter/w": np.ones((2, 3), np.float32), "state/w/m": np.ones(2), "parameter/b": np.ones(1, bool)}
    tensors.write(tmp_path / "whole", arrays, {"dualopt.format": "2", "dualopt.counts": '{"w": 3}'})
    return (tmp_path / "whole").read_bytes()


def test_every_flipped_bit_is_found(tmp_path: Path, content: bytes) -> None:
    path, torn = tmp_path / "a", bytearray(content)
    for position in range(len(content)):
        for bit in range(8):
            torn[position] ^= 1 << bit
            path.write_bytes(torn)
            with pytest.raises(CheckpointError, match=re.escape(str(path))):
                checkpoint.load(path)
            torn[position] ^= 1 << bit
    path.write_bytes(torn)
    assert checkpoint.load(path)[0].counts == {"w": 3}


def test_every_torn_file_is_found(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    for length in range(len(content)):
        for torn in (content[:length], content[:length] + bytes(len(content) - length)):
            path.write_bytes(torn)
            if torn != content:
                with pytest.raises(CheckpointError, match=re.escape(str(path))):
                    checkpoint.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(CheckpointError, match="cover"):
        checkpoint.load(path)


def test_a_file_without_checksum_is_no_checkpoint_and_no_one_else_may_write_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a"
    path.write_bytes(content.replace(b"dualopt.sha256", b"dualopt.sha265"))
    assert tensors.read(path).sha256 is None
    with pytest.raises(CheckpointError, match="no checksum"):
        checkpoint.load(path)
    with pytest.raises(CheckpointError, match="that of the checksum"):
        tensors.write(path, {}, {tensors.CHECKSUM: "0" * 64})
    quoted = {'"dualopt.sha256":"' + "0" * 64 + '"': "", "a": '"dualopt.sha256":"' + "0" * 64 + '"'}
    tensors.write(path, {'"dualopt.sha256":"' + "0" * 64 + '"': np.ones(1)}, quoted)
    assert tensors.read(path).metadata == quoted


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_are_found(tmp_path: Path, content: bytes, flips: list[tuple[int, int]]) -> None:
    torn, path = bytearray(content), tmp_path / "a"
    for position, change in flips:
        torn[position % len(content)] ^= change
    assume(torn != content)
    path.write_bytes(torn)
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        checkpoint.load(path)


# ---- the checkpoint layout


def snapshot() -> Snapshot:
    return Snapshot(
        parameters={
            "a.weight": np.eye(2, dtype=np.float32),
            "b é": np.float32([0.5, 1.5]),
            "c": np.float32(2),
        },
        state={
            "a.weight": {"m": np.full((2, 2), 3.0, np.float32)},
            "b é": {"m": np.zeros(2), "n": np.ones(2, int)},
        },
        counts={"a.weight": 10**15, "b é": 0},
        dtypes={"b é": "BF16", "c": "F16"},
        origin=checkpoint.Origin('[[group]]\noptimizer = "lion"\n', "exact", "dualopt 0"),
    )


def test_a_snapshot_comes_back(tmp_path: Path) -> None:
    source = snapshot()
    checkpoint.save(tmp_path / "a", source, metadata={"update": "7"})
    found, metadata = checkpoint.load(tmp_path / "a")
    assert metadata == {"update": "7"}
    assert found.counts == source.counts
    assert found.dtypes == source.dtypes
    assert found.origin == source.origin
    assert {n: bits(a) for n, a in found.parameters.items()} == {n: bits(a) for n, a in source.parameters.items()}
    assert found.state.keys() == source.parameters.keys()
    assert found.state["c"] == {}
    for name, state in source.state.items():
        assert {k: bits(a) for k, a in found.state[name].items()} == {k: bits(a) for k, a in state.items()}
    checkpoint.save(tmp_path / "b", found, metadata=metadata)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_snapshot_that_makes_no_sense_is_not_saved(tmp_path: Path) -> None:
    one = np.ones(1, np.float32)
    for bad, message in (
        (Snapshot({"a/b": one}, {}, {}, {}), "'a/b' cannot name"),
        (Snapshot({"": one}, {}, {}, {}), "must not be empty"),
        (Snapshot({"a": one}, {"a": {"m/v": one}}, {}, {}), "'m/v' cannot name"),
        (Snapshot({"a": one}, {"b": {}}, {}, {}), "state of 'b'"),
        (Snapshot({"a": one}, {}, {}, {"b": "BF16"}), "dtypes of 'b'"),
        (Snapshot({"a": one}, {}, {"a": -1}, {}), "count of 'a'"),
        (Snapshot({"a": one}, {}, {"a": True}, {}), "count of 'a'"),
        (Snapshot({"a": one}, {}, {"a": 2**63}, {}), "2\\^63 - 1, not 9223372036854775808"),
        (Snapshot({"a": one}, {}, {"a": 10**5000}, {}), "a number of many digits"),
        (Snapshot({"a": one + 2.0**-20}, {}, {}, {"a": "BF16"}), "cannot represent"),
    ):
        with pytest.raises(CheckpointError, match=message):
            checkpoint.save(tmp_path / "a", bad, metadata={})
    with pytest.raises(CheckpointError, match="reserved"):
        checkpoint.save(tmp_path / "a", snapshot(), metadata={"dualopt.format": "1"})
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    one, path = np.ones(1, np.float32), tmp_path / "a"
    version = {"dualopt.format": "2", "dualopt.counts": "{}"}
    for arrays, metadata, message in (
        ({"w": one}, {}, "not a dualopt checkpoint"),
        ({"parameter/w": one}, {**version, "dualopt.format": "1"}, "format '1'"),
        ({"parameter/w": one}, {"dualopt.format": "2"}, "counts"),
        ({"parameter/w": one}, {**version, "dualopt.counts": "[1]"}, "counts"),
        ({"parameter/w": one}, {**version, "dualopt.counts": '{"w": 1.5}'}, "count of 'w'"),
        ({"parameter/w": one}, {**version, "dualopt.counts": '{"w": -1}'}, "count of 'w'"),
        ({"w": one}, version, "neither"),
        ({"parameter/": one}, version, "neither"),
        ({"parameter/w/m": one}, version, "neither"),
        ({"parameter/w": one, "state/v/m": one}, version, "state of 'v'"),
    ):
        tensors.write(path, arrays, metadata)
        with pytest.raises(CheckpointError, match=message):
            checkpoint.load(path)


def test_a_snapshot_of_another_model_is_refused() -> None:
    shapes: dict[str, tuple[int, ...]] = {"a.weight": (2, 2), "b é": (2,), "c": ()}
    checkpoint.require(snapshot(), shapes, where="file")
    with pytest.raises(CheckpointError, match=r"file: .*lacks 'd' and has nothing"):
        checkpoint.require(snapshot(), {**shapes, "d": (1,)}, where="file")
    with pytest.raises(CheckpointError, match=r"has 'a.weight', 'b é', 'c', which"):
        checkpoint.require(snapshot(), {}, where="file")
    with pytest.raises(CheckpointError, match=r"'c' has shape \(\), in the model \(1,\)"):
        checkpoint.require(snapshot(), {**shapes, "c": (1,)}, where="file")
