"""What a recorded run tells torch, and the facts that it keeps about it.

float32 means float32: TF32 and bfloat16 passes of matrix units are switched off.
"""

from __future__ import annotations

import re
import subprocess

import torch

from dualopt.environment import Facts
from dualopt.errors import MissingFrameworkError, RecipeError, nearest

from .arrays import CURRENT
from .execute import compiler

_KINDS = ("cpu", "cuda", "mps")


def environment(device: str | None, threads: int | None) -> Facts:
    """Choose the device ("cpu", "cuda", "cuda:1", "mps"; None: the CPU) and the threads of the CPU.

    Raises:
        RecipeError: no device of this name.
        MissingFrameworkError: a device that this build of torch, or this machine, does not have.
    """
    CURRENT.device = _device(device or "cpu")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    facts = {
        "device": str(CURRENT.device),
        "threads": str(torch.get_num_threads()),
        "tf32": "off",
        "compiler": _compiler(),
        "blas": _blas(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "deterministic": "yes" if torch.are_deterministic_algorithms_enabled() else "no",
    }
    if CURRENT.device.type == "cuda":
        facts["device"] += f": {torch.cuda.get_device_name(CURRENT.device)}"
        facts["cuda"] = f"{torch.version.hip or torch.version.cuda}"
    return facts


def available() -> tuple[str, ...]:
    """The devices that are here, as `environment` takes them."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ("cpu", *cuda, *(["mps"] if torch.backends.mps.is_available() else []))


def _device(name: str) -> torch.device:
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", name):
        raise RecipeError(f"device {name!r}: torch runs on cpu, cuda, cuda:N or mps{nearest(name, _KINDS)}")
    wanted = "cuda:0" if name == "cuda" else name
    if wanted not in available():
        raise MissingFrameworkError(
            f"device {name!r} is not there: torch {torch.__version__} finds {', '.join(available())} here"
        )
    return torch.device(wanted)


def _compiler() -> str:
    """What compiles the kernels of the fast tier on the CPU."""
    found = compiler()
    if found is None:
        return "none"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return f"inductor, {said.partition(chr(10))[0] or found}"


def _blas() -> str:
    """As the build names it, e.g. "mkl"."""
    found = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    return found.group(1) if found else "unknown"
