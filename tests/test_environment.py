"""`Backend.prepare`: what a library is told before a recorded run, and what it says of itself."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from dualopt import namespace
from dualopt.environment import settings
from dualopt.errors import MissingFrameworkError, RecipeError
from dualopt.namespace import Backend
from dualopt_conformance.probe import flushes


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Devices, threads and precision of the installed libraries are restored afterwards."""
    undo: list[Callable[[], object]] = []
    if "torch" in namespace.installed():
        import torch

        from dualopt_torch.arrays import CURRENT

        undo += [
            partial(setattr, CURRENT, "device", CURRENT.device),
            partial(torch.set_num_threads, torch.get_num_threads()),
            partial(setattr, torch.backends.cudnn, "allow_tf32", torch.backends.cudnn.allow_tf32),
            partial(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision()),
        ]
    if "mlx" in namespace.installed():
        import mlx.core as mx

        undo.append(partial(mx.set_default_device, mx.default_device()))
    yield
    for call in undo:
        call()


@pytest.fixture
def torch_backend() -> Backend:
    pytest.importorskip("torch")
    return namespace.load("torch")


@pytest.fixture
def mlx_backend() -> Backend:
    pytest.importorskip("mlx.core")
    return namespace.load("mlx")


def test_facts_are_strings_and_begin_with_the_framework(backend: Backend) -> None:
    facts = backend.prepare("cpu", 1)
    assert next(iter(facts)) == "framework"
    assert facts["framework"] == f"{backend.name} {backend.version}"
    assert facts["device"] == "cpu"
    assert all(isinstance(key, str) and isinstance(value, str) and value for key, value in facts.items())
    assert backend.prepare().keys() == facts.keys()


def test_a_prepared_library_computes_as_before(backend: Backend) -> None:
    x = np.array([1.5, -2.0], np.float32)
    before = backend.to_numpy(backend.from_numpy(x, "float32") * 3.0)
    backend.prepare("cpu", 1)
    assert np.array_equal(backend.to_numpy(backend.from_numpy(x, "float32") * 3.0), before)


@pytest.mark.parametrize("name", ["numpy", "strict", "jax"])
def test_other_devices_are_refused(name: str) -> None:
    if name not in namespace.installed():
        pytest.skip(f"{name} is not installed")
    with pytest.raises(RecipeError, match=f"^device 'cuda': {name} runs on cpu$"):
        namespace.load(name).prepare("cuda")


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_threads_are_positive_whole_numbers(backend: Backend, threads: int) -> None:
    with pytest.raises(RecipeError, match=f"threads: a positive whole number, got {threads!r}"):
        backend.prepare("cpu", threads)


def test_a_backend_without_environment() -> None:
    numpy = namespace.load("numpy")
    third = Backend("third", numpy.namespaces, numpy.from_numpy, numpy.to_numpy, numpy.execute, version="0.1")
    assert third.prepare("cpu", 1) == {"framework": "third 0.1", "device": "cpu"}
    with pytest.raises(RecipeError, match="device 'gpu': third runs on cpu"):
        third.prepare("gpu")
    x = np.ones(3, np.float32)
    assert third.working(x) is x


def test_numpy_names_its_blas_and_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    facts = namespace.load("numpy").prepare("cpu", 2)
    assert facts["threads"] == "unset"
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    again = namespace.load("numpy").prepare("cpu", 2)
    assert again["threads"] == "OPENBLAS_NUM_THREADS=2 OMP_NUM_THREADS=1"
    built = np.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index,typeddict-item]
    assert again["blas"] == f"{built['name']} {built['version']}"
    assert set(facts) == {"framework", "device", "threads", "blas", "simd"}


def test_settings_shows_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DUALOPT_A", raising=False)
    monkeypatch.setenv("DUALOPT_B", "")
    assert settings("DUALOPT_A", "DUALOPT_B") == "unset"
    monkeypatch.setenv("DUALOPT_B", "3")
    assert settings("DUALOPT_A", "DUALOPT_B") == "DUALOPT_B=3"


def test_flushing_is_what_the_backend_does(backend: Backend) -> None:
    assert isinstance(flushes(backend), bool)
    if backend.name in ("numpy", "strict", "torch"):
        assert not flushes(backend)


# ---- torch


def test_torch_sets_threads_and_switches_tf32_off(torch_backend: Backend) -> None:
    import torch

    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.allow_tf32 = True
    facts = torch_backend.prepare("cpu", 2)
    assert torch.get_num_threads() == 2
    assert (facts["threads"], facts["tf32"]) == ("2", "off")
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32
    assert torch_backend.prepare("cpu")["threads"] == "2"  # None leaves them
    assert facts.keys() >= {"compiler", "blas", "simd", "deterministic"}


def test_torch_arrays_go_to_the_chosen_device(torch_backend: Backend) -> None:
    import torch

    from dualopt_torch.arrays import CURRENT

    for dtype in torch_backend.dtypes:
        CURRENT.device = torch.device("meta")
        assert torch_backend.from_numpy(np.ones(2), dtype).device.type == "meta"
        torch_backend.prepare("cpu")
        made = torch_backend.from_numpy(np.ones(2), dtype)
        assert (made.device.type, made.dtype) == ("cpu", getattr(torch, dtype))


def test_torch_refuses_devices(torch_backend: Backend) -> None:
    import torch

    from dualopt_torch.arrays import CURRENT

    for name, hint in (("cudda", "; did you mean 'cuda'"), ("gpu", ""), ("cuda:x", ""), ("cpu:1", "")):
        with pytest.raises(RecipeError, match=rf"^device '{name}': torch runs on cpu, cuda, cuda:N or mps{hint}"):
            torch_backend.prepare(name)
    with pytest.raises(MissingFrameworkError, match=r"device 'cuda:99' is not there: torch .* finds cpu.* here"):
        torch_backend.prepare("cuda:99")
    assert CURRENT.device == torch.device("cpu")


def test_torch_on_mps_has_no_float64(torch_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from dualopt_torch.arrays import CURRENT

    monkeypatch.setattr(CURRENT, "device", torch.device("mps"))
    with pytest.raises(RecipeError, match="dtype 'float64': torch on mps has float32, bfloat16, float16"):
        torch_backend.from_numpy(np.ones(2), "float64")


def test_torch_on_cuda(torch_backend: Backend) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    facts = torch_backend.prepare("cuda")
    assert facts["device"] == f"cuda:0: {torch.cuda.get_device_name(0)}"
    made = torch_backend.from_numpy(np.ones(2), "bfloat16")
    assert (made.device.type, made.dtype) == ("cuda", torch.bfloat16)
    assert torch_backend.to_numpy(made).tolist() == [1.0, 1.0]


# ---- MLX


def test_mlx_facts(mlx_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLX_DISABLE_COMPILE", raising=False)
    facts = mlx_backend.prepare("cpu")
    assert (facts["device"], facts["tf32"], facts["MLX_DISABLE_COMPILE"]) == ("cpu", "off", "unset")
    assert facts.keys() == {"framework", "device", "threads", "tf32", "compiler", "MLX_DISABLE_COMPILE", "metal"}
    assert mlx_backend.prepare(None)["device"] == "cpu"  # what has been chosen stays


def test_mlx_refuses_devices(mlx_backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlx.core as mx

    with pytest.raises(RecipeError, match="device 'gpus': MLX runs on cpu, gpu; did you mean 'gpu'"):
        mlx_backend.prepare("gpus")
    if not mx.is_available(mx.Device(mx.gpu, 0)):
        with pytest.raises(MissingFrameworkError, match="device 'gpu' is not there: this build of MLX finds cpu here"):
            mlx_backend.prepare("gpu")
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    for value in (None, "1"):
        monkeypatch.delenv("MLX_ENABLE_TF32", raising=False)
        if value is not None:
            monkeypatch.setenv("MLX_ENABLE_TF32", value)
        with pytest.raises(RecipeError, match="start Python with MLX_ENABLE_TF32=0 in the environment"):
            mlx_backend.prepare("gpu")


# ---- the table


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations are undone after the test."""
    for name in ("_LOADERS", "_loaded", "_packages"):
        monkeypatch.setattr(namespace, name, dict(getattr(namespace, name)))


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize(
    ("install", "told"), [("array-api-strict", "array-api-strict"), (None, r"'dualopt-optim\[x\]'")]
)
def test_what_to_install_is_said(install: str | None, told: str) -> None:
    namespace.register("x", namespace.imported("no_such_module"), install=install)
    with pytest.raises(MissingFrameworkError, match=rf"backend 'x' needs .*no_such_module.*run: pip install {told}$"):
        namespace.load("x")


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import dualopt_conformance, dualopt_conformance.backends", "array_api_strict"),
        ("import dualopt.namespace as n; n.load('numpy')", "torch"),
    ],
)
def test_importing_loads_no_backend(code: str, absent: str) -> None:
    check = f"import sys; sys.path[:0] = {[p for p in sys.path if p]!r}; {code}; sys.exit({absent!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_strict_is_not_there_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("array_api_strict", "dualopt_conformance.strict"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "array_api_strict", None)
    monkeypatch.setattr(namespace, "_loaded", {})
    with pytest.raises(MissingFrameworkError, match=r"backend 'strict' needs .*run: pip install array-api-strict$"):
        namespace.load("strict")
