"""The directory that a training run leaves behind.

    manifest.json            what was run: recipe, model, settings, text, framework, versions, machine
    metrics.jsonl            one object per update: update, count, loss, elapsed (seconds) and, unless it is declined,
                             digest: of all bits, so that two logs tell where they parted (`first_parting`);
                             and per evaluation: update, count, validation_loss, elapsed
    checkpoint.safetensors   the last snapshot (`dualopt.checkpoint`); checkpoint.1.safetensors the one before
    gradients.safetensors    the first gradients, if they were asked for
    loss.png                 the picture, if it was asked for

Two directories can be compared without the machines that made them. One may be copied and go on elsewhere, on
another framework too: the manifest notes under ``resumed`` what went on where.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dualopt import __version__, durable
from dualopt.errors import CheckpointError, DataError
from dualopt.workload.model import GPTConfig
from dualopt.workload.rows import Row, encoded, parsed
from dualopt.workload.settings import Settings
from dualopt.workload.text import Text, unigram_entropy

FORMAT = 1
_KEYS = {
    "format": int,
    "started": str,
    "recipe": dict,
    "tier": str,
    "model": dict,
    "settings": dict,
    "text": dict,
    "framework": dict,
    "versions": dict,
    "platform": str,
}

Manifest = dict[str, Any]


def manifest(
    *,
    recipe: str,
    digest: str,
    tier: str,
    config: GPTConfig,
    settings: Settings,
    text: Text,
    framework: Mapping[str, Any],
) -> Manifest:
    """The manifest of a run that starts now.

    ``recipe`` and ``digest``: the text of the recipe and the digest of its meaning. ``framework``: what
    the trainer's ``describe()`` says (framework, version, device, threads).
    """
    return {
        "format": FORMAT,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "recipe": {"digest": digest, "text": recipe},
        "tier": tier,
        "model": asdict(config),
        "settings": asdict(settings),
        "text": {
            "name": text.name,
            "sha256": text.sha256,
            "bytes": len(text.tokens),
            "unigram_entropy": unigram_entropy(text),
        },
        "framework": dict(framework),
        "versions": {
            "dualopt": __version__,
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "platform": platform.platform(),
    }


class Run:
    """An open run directory. Make one with `create`, `resume` or `open`."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = dict(manifest)
        self.checkpoint = path / "checkpoint.safetensors"
        self.gradients = path / "gradients.safetensors"
        self.plot = path / "loss.png"
        self._metrics = path / "metrics.jsonl"

    @classmethod
    def create(cls, path: str | Path, manifest: Manifest) -> Run:
        """A new directory. Raises: CheckpointError if it already holds a run."""
        run = cls(Path(path), manifest)
        try:
            made = [p for p in (run.path, *run.path.parents) if not p.exists()]
            run.path.mkdir(parents=True, exist_ok=True)
            for directory in made:
                durable.synchronise(directory.parent)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot hold a run: {error.strerror or error}") from error
        with run.alone():
            for there in (run.path / "manifest.json", run.checkpoint):
                if there.exists():
                    raise CheckpointError(
                        f"{path}: already holds a run ({there.name}); resume it or choose another directory"
                    )
            run.truncate(-1)
            run._write_manifest()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """An existing run. Raises: CheckpointError if there is none or its manifest is damaged."""
        file = Path(path) / "manifest.json"
        try:
            found = json.loads(file.read_bytes())
            json.dumps(found, ensure_ascii=False).encode()  # it can be written again: no lone surrogates
        except OSError as error:
            raise CheckpointError(f"{file}: no run is here: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{file}: damaged, no valid JSON ({error})") from error
        if not isinstance(found, dict) or found.get("format") != FORMAT:
            raise CheckpointError(f"{file}: not a manifest of format {FORMAT}, which this version reads")
        for key, kind in _KEYS.items():
            if not isinstance(found.get(key), kind):
                raise CheckpointError(f"{file}: damaged, {key!r} is missing or no {kind.__name__}")
        for key, inner in (("text", "sha256"), ("recipe", "digest")):
            if not isinstance(found[key].get(inner), str):
                raise CheckpointError(f"{file}: damaged, {key!r} has no {inner!r}")
        again = found.get("resumed", [])
        if not isinstance(again, list) or not all(isinstance(_host(part), str) for part in (found, *again)):
            raise CheckpointError(f"{file}: damaged, it does not say which frameworks trained the run")
        return cls(Path(path), found)

    @classmethod
    def resume(cls, path: str | Path, manifest: Manifest) -> Run:
        """The run in ``path``, or a new one if there is none yet.

        ``manifest``: what would be run now. Only the number of updates, the intervals of evaluation and
        checkpoints, and the framework and machine may differ; the manifest notes under ``resumed`` what went on
        where. Raises: DataError for another text, CheckpointError for anything else that would not continue the
        same training.
        """
        if not os.path.exists(Path(path) / "manifest.json"):
            return cls.create(path, manifest)
        with cls(Path(path), manifest).alone():
            run = cls.open(path)
            run._require_same(manifest)
            now = {key: manifest[key] for key in ("started", "settings", "framework", "versions", "platform")}
            run.manifest.setdefault("resumed", []).append(now)
            run._write_manifest()
        return run

    def _require_same(self, manifest: Manifest) -> None:
        """DataError or CheckpointError unless this manifest means the same training."""
        compare_text({"the run": self.manifest, "now": manifest})
        for name, before, now in (
            ("recipe", self.manifest["recipe"]["digest"], manifest["recipe"]["digest"]),
            ("tier", self.manifest["tier"], manifest["tier"]),
            ("model", self.manifest["model"], manifest["model"]),
            *(
                (name, self.manifest["settings"].get(name), manifest["settings"][name])
                for name in ("batch", "seed", "unit")
            ),
        ):
            if before != now:
                raise CheckpointError(
                    f"{self.path}: cannot be resumed with another {name}: it has {before!r}, asked for is {now!r}"
                )

    @property
    def label(self) -> str:
        """A short name for plots and tables: framework and device, and those that went on with the run."""
        names = [f"{f['framework']} ({f.get('device', 'unknown device')})" for f in self.frameworks]
        return ", then ".join(name for name, before in zip(names, [None, *names], strict=False) if name != before)

    @property
    def frameworks(self) -> list[dict[str, Any]]:
        """What trained the run, in order: the `describe()` of each trainer."""
        return [part["framework"] for part in (self.manifest, *self.manifest.get("resumed", []))]

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to the metrics. A loss that is not finite is written as null."""
        with _writing(self._metrics), self._metrics.open("ab") as file:
            file.write(encoded(row))

    def sync(self) -> None:
        """Make the metrics durable; called before a checkpoint, so that it is never ahead of them."""
        with _writing(self._metrics), self._metrics.open("rb") as file:
            durable.flush(file.fileno())

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from training in this directory. The lock goes with the process, however it ends.

        Raises: CheckpointError if another one does.
        """
        with contextlib.ExitStack() as stack:
            with _writing(self.path):
                try:
                    stack.enter_context(durable.alone(self.path))
                except BlockingIOError as error:
                    raise CheckpointError(
                        f"{self.path}: another process is training here; wait for it, or choose another directory"
                    ) from error
            yield

    def sweep(self) -> None:
        """Remove the half-written files that a process left when it was killed."""
        with _writing(self.path):
            for path in self.path.glob(".*.tmp"):
                path.unlink()

    def rows(self) -> list[Row]:
        """All metrics in order, null losses as NaN. A last line that was cut off is left out.

        Raises: CheckpointError for any other line that is not an object with an integer ``update``.
        """
        return [self._row(number, line) for number, line in enumerate(self._lines(), 1)]

    def _lines(self) -> list[bytes]:
        try:
            return self._metrics.read_bytes().split(b"\n")[:-1]
        except OSError as error:
            raise CheckpointError(f"{self._metrics}: cannot be read: {error.strerror or error}") from error

    def _row(self, number: int, line: bytes) -> Row:
        try:
            return parsed(line)
        except ValueError as error:
            raise CheckpointError(f"{self._metrics}: line {number} is damaged ({error})") from error

    def truncate(self, update: int) -> None:
        """Forget the metrics after ``update``; -1 forgets all of them. What is forgotten may be damaged."""
        kept: list[Row] = []
        for number, line in enumerate(self._lines() if update >= 0 else (), 1):
            try:
                row = self._row(number, line)
            except CheckpointError:
                if kept and kept[-1]["update"] >= update:
                    break
                raise
            if row["update"] > update:
                break
            kept.append(row)
        with _writing(self._metrics), durable.atomic(self._metrics) as file:
            file.writelines(map(encoded, kept))

    def _write_manifest(self) -> None:
        with _writing(self.path), durable.atomic(self.path / "manifest.json") as file:
            file.write(json.dumps(self.manifest, indent=2, ensure_ascii=False).encode() + b"\n")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """OSError as CheckpointError."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error


def compare_text(manifests: Mapping[str, Manifest]) -> None:
    """Check that runs were trained on the same bytes. ``manifests``: a name for messages -> manifest.

    Raises: DataError naming the first two that differ.
    """
    (first, one), *others = manifests.items()
    for name, other in others:
        if one["text"]["sha256"] != other["text"]["sha256"]:
            raise DataError(
                f"the runs saw different texts and cannot be compared: "
                f"{first}: {_text(one)}, {name}: {_text(other)}; name the same text file for both"
            )


def first_parting(one: Run, other: Run) -> int | None:
    """The first update after which two runs differ in a bit of θ or state; None if none of those in both logs does.

    Raises: CheckpointError if no update has a digest in both.
    """
    left, right = ({row["update"]: row["digest"] for row in run.rows() if "digest" in row} for run in (one, other))
    common = sorted(left.keys() & right.keys())
    if not common:
        raise CheckpointError(f"{one.path} and {other.path} log no digest of the same update; train with --digests")
    return next((update for update in common if left[update] != right[update]), None)


def _host(part: object) -> object:
    """The name of the framework in a part of a manifest."""
    framework = part.get("framework") if isinstance(part, dict) else None
    return framework.get("framework") if isinstance(framework, dict) else None


def _text(manifest: Manifest) -> str:
    return f"{manifest['text'].get('name')!r} (SHA-256 {manifest['text']['sha256'][:12]})"
