"""What a recorded run tells MLX, and the facts that it keeps about it."""

from __future__ import annotations

import os

import mlx.core as mx

from dualopt.environment import Facts, settings
from dualopt.errors import MissingFrameworkError, RecipeError, nearest

from .execute import can_compile

_DEVICES = {"cpu": mx.cpu, "gpu": mx.gpu}
_TF32 = "MLX_ENABLE_TF32"  # on unless it is "0"; read once, by the first product that could use TF32
_THREADS = ("VECLIB_MAXIMUM_THREADS", "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")  # of the BLAS: Apple's, others


def environment(device: str | None, threads: int | None) -> Facts:
    """Choose the device ("cpu", "gpu"; None: MLX's default). Threads are the BLAS's, from the environment.

    Raises:
        RecipeError: no device of this name, or a GPU that may use TF32.
        MissingFrameworkError: a device that this build of MLX, or this machine, does not have.
    """
    chosen = _device(device)
    mx.set_default_device(chosen)
    here = _name(chosen)
    return {
        "device": f"{here}: {mx.device_info(chosen).get('device_name', 'unknown')}" if here == "gpu" else here,
        "threads": settings(*_THREADS),
        "tf32": "off" if here == "cpu" or os.environ.get(_TF32) == "0" else "on",
        "compiler": "mx.compile" if can_compile() else "none",
        "MLX_DISABLE_COMPILE": os.environ.get("MLX_DISABLE_COMPILE", "unset"),
        "metal": "yes" if mx.metal.is_available() else "no",
    }


def _name(device: mx.Device) -> str:
    return next(name for name, kind in _DEVICES.items() if device.type == kind)


def _device(name: str | None) -> mx.Device:
    chosen = mx.default_device() if name is None else mx.Device(_DEVICES[name], 0) if name in _DEVICES else None
    if chosen is None:
        raise RecipeError(f"device {name!r}: MLX runs on {', '.join(_DEVICES)}{nearest(str(name), _DEVICES)}")
    if not mx.is_available(chosen):
        there = ", ".join(n for n, kind in _DEVICES.items() if mx.is_available(mx.Device(kind, 0)))
        raise MissingFrameworkError(f"device {name!r} is not there: this build of MLX finds {there} here")
    if chosen.type == mx.gpu and os.environ.get(_TF32) != "0":
        # Too late to set it: whether it has been read already cannot be asked.
        raise RecipeError(
            f"MLX may compute products on the GPU in TF32: start Python with {_TF32}=0 in the environment"
        )
    return chosen
