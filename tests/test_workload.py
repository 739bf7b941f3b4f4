"""The workload: twins that agree, batches that can be entered anywhere, runs that can be interrupted."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dualopt.checkpoint import Snapshot, load
from dualopt.errors import CheckpointError, DataError, RecipeError
from dualopt.workload import gradients
from dualopt.workload.model import GPTConfig, initial, parameter_shapes, rotary
from dualopt.workload.run import Run, compare_text, manifest
from dualopt.workload.settings import Settings
from dualopt.workload.text import Text, batch, load_text, unigram_entropy, validation
from dualopt.workload.train import train

TINY = GPTConfig(layers=2, width=16, heads=2, context=12, hidden_multiple=2)
SETTINGS = Settings(updates=6, batch=3, evaluate_every=3, validation_batches=2, checkpoint_every=2, record_gradients=3)


@pytest.fixture(scope="module")
def text() -> Text:
    return load_text()


# ---- text


def test_the_default_text_is_large_and_plain(text: Text) -> None:
    assert len(text.tokens) > 300_000
    assert len(text.sha256) == 64
    assert len(text.validation) == len(text.tokens) // 10
    assert len(text.train) + len(text.validation) == len(text.tokens)
    assert 3 < unigram_entropy(text) < 3.6
    assert unigram_entropy(Text(np.arange(256, dtype=np.uint8), "", "")) == pytest.approx(np.log(256))


def test_batches_are_reproducible_and_can_be_entered_at_any_step(text: Text) -> None:
    one = [batch(text, 5, step, 4, 16) for step in range(6)]
    two = [batch(load_text(), 5, step, 4, 16) for step in reversed(range(6))][::-1]
    for (inputs, targets), again in zip(one, two, strict=True):
        assert inputs.shape == targets.shape == (4, 16)
        assert inputs.dtype == targets.dtype == np.int32
        assert inputs.tobytes() + targets.tobytes() == again[0].tobytes() + again[1].tobytes()
        assert np.array_equal(inputs[:, 1:], targets[:, :-1])
    # Two steps of 4 are one step of 8: the batch size does not change which sequences are seen.
    assert np.array_equal(np.concatenate([one[2][0], one[3][0]]), batch(text, 5, 1, 8, 16)[0])
    assert not np.array_equal(one[0][0], one[1][0])
    assert not np.array_equal(one[0][0], batch(text, 6, 0, 4, 16)[0])


def test_validation_is_fixed_and_apart_from_training(text: Text) -> None:
    tokens = np.zeros(1000, np.uint8)
    tokens[900:] = 1
    marked = Text(tokens, "", "marked")
    assert all((inputs == 1).all() and (targets == 1).all() for inputs, targets in validation(marked, 3, 4, 20))
    assert all((batch(marked, 0, step, 8, 20)[1] == 0).all() for step in range(20))
    one, two = validation(text, 2, 3, 16), validation(text, 2, 3, 16)
    assert len(one) == 2
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(one, two, strict=True))


def test_a_text_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match=str(path)):
            load_text(str(path))
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty"):
        load_text(str(tmp_path / "empty"))
    (tmp_path / "short").write_bytes(bytes(100))
    short = load_text(str(tmp_path / "short"))
    assert short.name == "short"
    with pytest.raises(DataError, match="90 bytes for training are too few for a context of 90"):
        batch(short, 0, 0, 1, 90)
    with pytest.raises(DataError, match="10 bytes for validation"):
        validation(short, 1, 1, 10)
    assert batch(short, 0, 0, 1, 89)[0].shape == (1, 89)


# ---- model


def test_initial_values_depend_on_seed_and_name_alone() -> None:
    one, two = initial(TINY, 3), initial(TINY, 3)
    assert {k: v.shape for k, v in one.items()} == parameter_shapes(TINY)
    assert all(v.dtype == np.float32 and v.tobytes() == two[k].tobytes() for k, v in one.items())
    assert all(np.any(v) for v in one.values())
    deeper = initial(GPTConfig(layers=3, width=16, heads=2, context=9, hidden_multiple=2), 3)
    assert all(deeper[k].tobytes() == v.tobytes() for k, v in one.items())
    assert one["head.weight"].tobytes() != initial(TINY, 4)["head.weight"].tobytes()
    assert abs(one["blocks.0.feed.down.weight"]).max() <= 1 / np.sqrt(32)
    assert (one["norm.weight"] == 1).all()


def test_a_size_that_makes_no_sense_is_refused() -> None:
    for bad, message in (
        ({"layers": 0}, "layers"),
        ({"width": 2.0}, "width"),
        ({"heads": True}, "heads"),
        ({"width": 12, "heads": 4}, "multiple of twice"),
        ({"qk_norm": 1}, "qk_norm"),
    ):
        with pytest.raises(RecipeError, match=message):
            GPTConfig(**bad)  # type: ignore[arg-type]
    for name, value in (("updates", 0), ("batch", 1.5), ("seed", -1), ("unit", "epochs")):
        with pytest.raises(RecipeError, match=name):
            Settings(**{name: value})  # type: ignore[arg-type]
    assert [Settings(unit=u).increment(64) for u in ("tokens", "samples", "updates")] == [1024, 16, 1]


def torch_pass(config: GPTConfig, inputs: Any, targets: Any) -> tuple[Any, float, dict[str, Any]]:
    torch = pytest.importorskip("torch")
    from dualopt_torch.gpt import GPT, loss

    model = GPT(config, initial(config, 0))
    value = loss(model, torch.from_numpy(inputs).long(), torch.from_numpy(targets).long())
    value.backward()
    found = {name: p.grad.numpy() for name, p in model.named_parameters()}
    return model(torch.from_numpy(inputs)).detach().numpy(), value.item(), found


def mlx_pass(config: GPTConfig, inputs: Any, targets: Any) -> tuple[Any, float, dict[str, Any]]:
    mx = pytest.importorskip("mlx.core")
    from mlx import nn
    from mlx.utils import tree_flatten

    from dualopt_mlx.gpt import GPT, loss

    model = GPT(config, initial(config, 0))
    value, grads = nn.value_and_grad(model, lambda x, y: loss(model, x, y))(mx.array(inputs), mx.array(targets))
    found = {name: np.array(array) for name, array in tree_flatten(grads)}
    return np.array(model(mx.array(inputs))), value.item(), found


def reference(config: GPTConfig, inputs: Any, targets: Any) -> tuple[Any, float]:
    """The formulas of `dualopt.workload.model` in float64."""
    w = {name: value.astype(np.float64) for name, value in initial(config, 0).items()}
    cos, sin = rotary(config)
    d, batch_size, length = config.head_width, *inputs.shape

    def norm(x: Any) -> Any:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5)

    def heads(x: Any) -> Any:
        return x.reshape(batch_size, length, config.heads, d).transpose(0, 2, 1, 3)

    def turned(x: Any) -> Any:
        y = (x[..., : d // 2] + 1j * x[..., d // 2 :]) * (cos[:length] + 1j * sin[:length])
        return np.concatenate([y.real, y.imag], -1)

    x = w["embedding.weight"][inputs]
    for layer in range(config.layers):
        block = f"blocks.{layer}"
        y = w[f"{block}.attention_norm.weight"] * norm(x)
        q, k, v = (heads(y @ w[f"{block}.attention.{part}.weight"].T) for part in "qkv")
        if config.qk_norm:
            q, k = norm(q), norm(k)
        scores = turned(q) @ turned(k).swapaxes(-1, -2) / np.sqrt(d)
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (weights / weights.sum(-1, keepdims=True)) @ v
        mixed = mixed.transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + mixed @ w[f"{block}.attention.o.weight"].T
        y = w[f"{block}.feed_norm.weight"] * norm(x)
        gate, up = y @ w[f"{block}.feed.gate.weight"].T, y @ w[f"{block}.feed.up.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{block}.feed.down.weight"].T
    logits = w["norm.weight"] * norm(x) @ w["head.weight"].T
    chosen = np.take_along_axis(logits, targets[..., None].astype(int), -1)[..., 0]
    return logits, float((np.log(np.exp(logits).sum(-1)) - chosen).mean())


@pytest.mark.parametrize("qk_norm", [True, False])
@pytest.mark.parametrize("run_pass", [torch_pass, mlx_pass])
def test_each_twin_computes_the_formulas(run_pass: Callable[..., Any], qk_norm: bool, text: Text) -> None:
    config = GPTConfig(layers=2, width=16, heads=2, context=12, hidden_multiple=2, qk_norm=qk_norm)
    inputs, targets = batch(text, 0, 0, 3, 12)
    for length in (12, 7):  # a sequence may be shorter than the context
        x, y = inputs[:, :length].copy(), targets[:, :length].copy()
        logits, loss = reference(config, x, y)
        found, value, _ = run_pass(config, x, y)
        np.testing.assert_allclose(found, logits, rtol=0, atol=1e-5 * abs(logits).max())
        assert value == pytest.approx(loss, rel=1e-6)


def test_the_twins_agree_on_names_and_gradients(text: Text) -> None:
    torch_logits, torch_loss, one = torch_pass(TINY, *batch(text, 0, 0, 3, 12))
    mlx_logits, mlx_loss, two = mlx_pass(TINY, *batch(text, 0, 0, 3, 12))
    assert list(one) == list(two) == list(parameter_shapes(TINY))
    assert torch_loss == pytest.approx(mlx_loss, rel=1e-6)
    np.testing.assert_allclose(torch_logits, mlx_logits, rtol=0, atol=1e-5 * abs(torch_logits).max())
    for name, gradient in one.items():
        assert gradient.shape == two[name].shape == parameter_shapes(TINY)[name]
        assert np.linalg.norm(gradient - two[name]) < 1e-5 * np.linalg.norm(gradient), name


# ---- trainers: a numpy one, and those of the backends with plain momentum


class Heavy:
    """Momentum on every parameter, in numpy, behind the interface of each framework's optimizer."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.m, self.count = names, dict[str, Any](), 0

    def evaluating(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def move(self, name: str, theta: Any, g: Any) -> Any:
        self.m[name] = np.float32(0.9) * self.m.get(name, np.zeros_like(g)) + g
        return theta - np.float32(0.1) * self.m[name]

    def saved(self, parameters: dict[str, Any]) -> Snapshot:
        state = {name: {"m": self.m[name]} for name in self.m}
        return Snapshot(parameters, state, dict.fromkeys(self.names, self.count), {})

    def load(self, snapshot: Snapshot) -> None:
        self.m = {name: state["m"] for name, state in snapshot.state.items() if state}
        self.count = snapshot.counts[self.names[0]]


class NumpyTrainer:
    """Gradients that are no gradients, but depend on the batch and the parameters as real ones do."""

    def __init__(self, config: GPTConfig) -> None:
        self.config = config
        self.theta: dict[str, Any] = dict(initial(config, 0))
        self.heavy = Heavy(list(self.theta))
        self.last: dict[str, Any] = {}
        self.before_update: Callable[[int], None] = lambda count: None

    def update(self, inputs: Any, targets: Any, count: int) -> float:
        self.before_update(self.heavy.count // count + 1)
        pull = np.float32(inputs.mean() / 256)
        self.last = {name: theta * pull for name, theta in self.theta.items()}
        loss = self.evaluate(inputs, targets)
        self.theta = {name: self.heavy.move(name, theta, self.last[name]) for name, theta in self.theta.items()}
        self.heavy.count += count
        return loss

    def gradients(self) -> dict[str, Any]:
        return dict(self.last)

    def evaluate(self, inputs: Any, targets: Any) -> float:
        return float(abs(self.theta["head.weight"]).mean() * targets.mean())

    def snapshot(self) -> Snapshot:
        return self.heavy.saved(dict(self.theta))

    def restore(self, snapshot: Snapshot) -> None:
        self.theta = dict(snapshot.parameters)
        self.heavy.load(snapshot)

    def describe(self) -> dict[str, Any]:
        return {"framework": "numpy", "version": "0", "device": "cpu", "threads": 1}


def torch_trainer(config: GPTConfig) -> Any:
    torch = pytest.importorskip("torch")
    from dualopt_torch.trainer import TorchTrainer

    class Optimizer(Heavy):
        def __init__(self, model: Any) -> None:
            self.model = model
            super().__init__([name for name, _ in model.named_parameters()])

        @torch.no_grad()
        def step(self, *, count: int) -> None:
            for name, p in self.model.named_parameters():
                p.copy_(torch.from_numpy(self.move(name, p.numpy(), p.grad.numpy())))
            self.count += count

        def snapshot(self) -> Snapshot:
            return self.saved({name: p.detach().numpy().copy() for name, p in self.model.named_parameters()})

        def restore(self, snapshot: Snapshot) -> None:
            self.load(snapshot)
            self.model.load_state_dict({k: torch.from_numpy(v) for k, v in snapshot.parameters.items()})

    return TorchTrainer(config, 0, Optimizer)


def mlx_trainer(config: GPTConfig) -> Any:
    mx = pytest.importorskip("mlx.core")
    from mlx.utils import tree_flatten

    from dualopt_mlx.trainer import MLXTrainer

    class Optimizer(Heavy):
        def __init__(self, model: Any) -> None:
            self.model, self.state = model, {}
            super().__init__([name for name, _ in tree_flatten(model.parameters())])

        def update(self, model: Any, gradients: Any, *, count: int) -> None:
            g = dict(tree_flatten(gradients))
            for name, p in tree_flatten(model.parameters()):
                moved = self.move(name, np.array(p), np.array(g[name]))
                model.load_weights([(name, mx.array(moved))], strict=False)
            self.count += count

        def snapshot(self) -> Snapshot:
            return self.saved({name: np.array(p) for name, p in tree_flatten(self.model.parameters())})

        def restore(self, snapshot: Snapshot) -> None:
            self.load(snapshot)
            self.model.load_weights([(k, mx.array(v)) for k, v in snapshot.parameters.items()])

    return MLXTrainer(config, 0, Optimizer)


def new_manifest(trainer: Any, text: Text, settings: Settings = SETTINGS, **changes: Any) -> dict[str, Any]:
    given = {"recipe": "# é\n", "digest": "abc", "tier": "fast", "config": trainer.config, **changes}
    return manifest(settings=settings, text=text, framework=trainer.describe(), **given)


def files(run: Run) -> tuple[Any, ...]:
    """What must not depend on interruptions."""
    rows = [{k: v for k, v in row.items() if k != "elapsed"} for row in run.rows()]
    return rows, run.checkpoint.read_bytes(), run.gradients.read_bytes()


@pytest.mark.parametrize("make", [NumpyTrainer, torch_trainer, mlx_trainer])
def test_a_resumed_run_has_the_bits_of_an_uninterrupted_one(
    make: Callable[[GPTConfig], Any], tmp_path: Path, text: Text
) -> None:
    whole = Run.create(tmp_path / "whole", new_manifest(make(TINY), text))
    outcome = train(make(TINY), text, SETTINGS, whole)
    assert (outcome.update, outcome.count, outcome.interrupted) == (6, 6 * 3 * 12, False)

    parts = Run.create(tmp_path / "parts", new_manifest(make(TINY), text))
    breaking = make(TINY)
    inner, done = breaking.update, iter(range(4))

    def update(*args: Any) -> float:
        if next(done) == 3:
            raise RuntimeError("power cut")
        return float(inner(*args))

    breaking.update = update
    with pytest.raises(RuntimeError, match="power cut"):
        train(breaking, text, SETTINGS, parts)
    assert parts.rows()[-1]["update"] == 3
    again = make(TINY)
    train(again, text, SETTINGS, Run.resume(tmp_path / "parts", new_manifest(again, text)))
    assert files(parts) == files(whole)

    snapshot, metadata = load(whole.checkpoint)
    assert metadata == {"update": "6", "recipe": "abc"}
    assert set(snapshot.counts.values()) == {216}
    recorded = gradients.read(whole.gradients)
    assert [list(update) for update in recorded] == [sorted(parameter_shapes(TINY))] * 3


@pytest.mark.parametrize("at", [1, 3, 6])
def test_ctrl_c_saves_and_stops(at: int, tmp_path: Path, text: Text) -> None:
    whole = Run.create(tmp_path / "whole", new_manifest(NumpyTrainer(TINY), text))
    train(NumpyTrainer(TINY), text, SETTINGS, whole)
    before, trainer = signal.getsignal(signal.SIGINT), NumpyTrainer(TINY)
    trainer.before_update = lambda update: signal.raise_signal(signal.SIGINT) if update == at else None
    run = Run.create(tmp_path / "run", new_manifest(trainer, text))
    outcome = train(trainer, text, SETTINGS, run)
    assert signal.getsignal(signal.SIGINT) is before
    assert (outcome.update, outcome.interrupted) == (at, at < 6)
    assert load(run.checkpoint)[1]["update"] == str(at)
    train(NumpyTrainer(TINY), text, SETTINGS, Run.open(tmp_path / "run"))
    assert files(run) == files(whole)


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path, text: Text) -> None:
    trainer = NumpyTrainer(TINY)

    def twice(update: int) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    trainer.before_update = twice
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(trainer, text, SETTINGS, Run.create(tmp_path / "run", new_manifest(trainer, text)))
    assert signal.getsignal(signal.SIGINT) is before


def test_progress_digest_and_more_updates(tmp_path: Path, text: Text) -> None:
    seen: list[tuple[Any, ...]] = []
    trainer = NumpyTrainer(TINY)
    run = Run.create(tmp_path / "run", new_manifest(trainer, text))
    train(trainer, text, SETTINGS, run, progress=lambda *a: seen.append(a), digest=lambda s: f"{len(s.state):x}")
    assert [(u, n, v is not None) for u, n, _, v in seen] == [(i, 6, i in (3, 6)) for i in range(1, 7)]
    assert {row["digest"] for row in run.rows() if "loss" in row} == {f"{len(parameter_shapes(TINY)):x}"}
    assert [row["update"] for row in run.rows() if "validation_loss" in row] == [0, 3, 6]
    longer = Settings(**{**run.manifest["settings"], "updates": 8})
    train(NumpyTrainer(TINY), text, longer, Run.resume(tmp_path / "run", new_manifest(trainer, text, longer)))
    assert [row["update"] for row in run.rows() if "loss" in row] == list(range(1, 9))
    elapsed = [row["elapsed"] for row in run.rows()]
    assert elapsed == sorted(elapsed)


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, text: Text) -> None:
    trainer = NumpyTrainer(TINY)
    run = Run.create(tmp_path / "run", new_manifest(trainer, text))
    train(trainer, text, SETTINGS, run)
    other = NumpyTrainer(GPTConfig(layers=1, width=16, heads=2, context=12))
    with pytest.raises(CheckpointError, match="another model"):
        train(other, text, SETTINGS, run)
    run.manifest["recipe"]["digest"] = "def"
    with pytest.raises(CheckpointError, match="the newest checkpoint is not one of this run"):
        train(trainer, text, SETTINGS, run)
    run.manifest["recipe"]["digest"] = "abc"
    with pytest.raises(CheckpointError, match="holds 3 of the first 4"):
        train(trainer, text, Settings(**{**run.manifest["settings"], "record_gradients": 4, "updates": 9}), run)
    with pytest.raises(DataError, match="too few"):
        train(trainer, Text(text.tokens[:50], "", "short"), SETTINGS, run)


# ---- the directory


@pytest.fixture
def run(tmp_path: Path, text: Text) -> Run:
    return Run.create(tmp_path / "deep" / "run", new_manifest(NumpyTrainer(TINY), text))


def test_an_existing_run_is_refused_and_can_be_opened(run: Run, text: Text) -> None:
    with pytest.raises(CheckpointError, match="already holds a run"):
        Run.create(run.path, run.manifest)
    assert Run.open(run.path).manifest == run.manifest
    assert run.label == "numpy (cpu)"
    with pytest.raises(CheckpointError, match="no run is here"):
        Run.open(run.path.parent)
    (run.path / "file").touch()
    with pytest.raises(CheckpointError, match="cannot hold a run"):
        Run.create(run.path / "file", run.manifest)
    assert Run.resume(run.path / "new", run.manifest).rows() == []
    (run.path / "orphan").mkdir()
    (run.path / "orphan" / "checkpoint.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"already holds a run \(checkpoint.safetensors\)"):
        Run.resume(run.path / "orphan", run.manifest)


def test_only_the_same_training_is_resumed(run: Run, text: Text) -> None:
    trainer = NumpyTrainer(TINY)
    settings = Settings(**{**run.manifest["settings"], "updates": 99, "checkpoint_every": 7})
    Run.resume(run.path, new_manifest(trainer, text, settings))
    noted = Run.open(run.path).manifest
    assert noted.items() >= run.manifest.items()
    assert [again["settings"]["updates"] for again in noted["resumed"]] == [99]
    Run.resume(run.path, {**run.manifest, "framework": {"framework": "mlx"}})
    assert [again["framework"]["framework"] for again in Run.open(run.path).manifest["resumed"]] == ["numpy", "mlx"]
    other = Settings(**{**run.manifest["settings"], "batch": 4})
    for changed, name in (
        (new_manifest(trainer, text, digest="def"), "recipe"),
        (new_manifest(trainer, text, tier="exact"), "tier"),
        (new_manifest(trainer, text, config=GPTConfig()), "model"),
        (new_manifest(trainer, text, other), "batch"),
    ):
        with pytest.raises(CheckpointError, match=f"cannot be resumed with another {name}"):
            Run.resume(run.path, changed)
    with pytest.raises(DataError, match="different texts"):
        Run.resume(run.path, new_manifest(trainer, Text(text.tokens[:999], "0" * 64, "other")))


def test_runs_on_different_texts_are_not_compared(run: Run) -> None:
    other = {**run.manifest, "text": {"name": "other.txt", "sha256": "f" * 64}}
    compare_text({"a": run.manifest})
    compare_text({"a": run.manifest, "b": dict(run.manifest)})
    with pytest.raises(DataError, match=r"a: 'pydoc.*c: 'other.txt' \(SHA-256 ffffffffffff\)"):
        compare_text({"a": run.manifest, "b": run.manifest, "c": other})


def test_a_damaged_manifest_is_named(run: Run) -> None:
    file = run.path / "manifest.json"
    good = run.manifest
    for damaged in (
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        *(json.dumps({k: v for k, v in good.items() if k != key}).encode() for key in good),
        *(json.dumps({**good, key: None}).encode() for key in good),
        json.dumps({**good, "format": 2}).encode(),
        json.dumps({**good, "text": {"name": "x"}}).encode(),
        json.dumps({**good, "recipe": {}}).encode(),
    ):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(file)):
            Run.open(run.path)


def test_metrics_survive_a_cut_and_name_damage(run: Run) -> None:
    for update in range(1, 4):
        run.log({"update": update, "count": 10 * update, "loss": float("nan") if update == 2 else 0.1 * update})
    metrics = run.path / "metrics.jsonl"
    assert '"loss": null' in metrics.read_text()
    with metrics.open("a") as file:
        file.write('{"update": 4, "lo')
    rows = run.rows()
    assert [row["update"] for row in rows] == [1, 2, 3]
    assert np.isnan(rows[1]["loss"])
    assert rows[2]["loss"] == 0.1 * 3
    run.truncate(2)
    run.log({"update": 3, "loss": 1.0})
    assert [row["update"] for row in run.rows()] == [1, 2, 3]
    for damaged in ("\n", "{}\n", '{"update": "1"}\n', "[1]\n", '{"update": 1\n'):
        metrics.write_text('{"update": 1}\n' + damaged)
        with pytest.raises(CheckpointError, match="line 2 is damaged"):
            run.rows()
    for tail in ("\0\0\n", '{"update": 4, \n{"update": 5}\n'):  # what a power cut leaves after the checkpoint
        metrics.write_text('{"update": 1}\n{"update": 2}\n' + tail)
        with pytest.raises(CheckpointError, match="line 3 is damaged"):
            run.truncate(3)
        run.truncate(2)
        assert [row["update"] for row in run.rows()] == [1, 2]
    metrics.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        run.rows()


def test_the_plot_is_written(run: Run, text: Text, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from dualopt.workload.plot import loss_plot

    train(NumpyTrainer(TINY), text, SETTINGS, run)
    other = Run.create(tmp_path / "other", run.manifest)
    for row in run.rows():
        other.log({k: float("nan") if k == "loss" and row["update"] == 2 else v for k, v in row.items()})
    for runs in ([run], [run, other], [run, run], [run, other, run]):
        run.plot.unlink(missing_ok=True)
        loss_plot(run.plot, runs)
        assert run.plot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    with pytest.raises(DataError, match="no run"):
        loss_plot(run.plot, [])
    other.manifest["settings"] = {"unit": "samples"}
    with pytest.raises(DataError, match=r"different units \(samples, tokens\)"):
        loss_plot(run.plot, [run, other])
