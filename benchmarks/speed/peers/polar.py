"""Ways to the polar factor: their time, and their error over four spectra.

Matrices are U Σ Vᵀ with orthogonal factors drawn in float64 and singular values of which the largest is 1:

    gaussian    those of a matrix of normal numbers
    inverse     1/i
    low rank    1 for the first sixteenth, 0.02 for the rest
    log         evenly spaced in log σ down to 1e-3

so that U Vᵀ is what is to come out. Facts: {spectrum: [max |σ − 1|, ‖X − U Vᵀ‖_F / ‖U Vᵀ‖_F]}, the worst of the stack.
Timed are Gaussian ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from array_api_compat import torch as plain

from dualopt.directions.polar import Way, polar
from dualopt_torch.namespace import FAST

from ..subject import Subject, Task

Numpy = np.ndarray[Any, Any]
Polar = Callable[[torch.Tensor], torch.Tensor]


def spectra(short: int, long: int, draw: np.random.Generator) -> dict[str, Numpy]:
    """{spectrum: singular values, largest first}."""
    i = np.arange(1, short + 1)
    gaussian = np.linalg.svd(draw.standard_normal((short, long)), compute_uv=False)
    return {
        "gaussian": gaussian / gaussian[0],
        "inverse": 1.0 / i,
        "low rank": np.where(i <= math.ceil(short / 16), 1.0, 0.02),
        "log": np.logspace(0, -3, short),
    }


@cache
def inputs(shape: tuple[int, ...], number: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """{spectrum: (matrices (number, m, n) in float32, their polar factors in float64)}, m <= n."""
    draw = np.random.default_rng(0)
    m, n = shape
    left = np.stack([np.linalg.qr(draw.standard_normal((m, m)))[0] for _ in range(number)])
    right = np.stack([np.linalg.qr(draw.standard_normal((n, m)))[0].T for _ in range(number)])
    exact = torch.from_numpy(left @ right)
    drawn = {name: (left * sigma) @ right for name, sigma in spectra(m, n, draw).items()}
    return {name: (torch.from_numpy(x).to(torch.float32), exact) for name, x in drawn.items()}


def errors(found: torch.Tensor, exact: torch.Tensor) -> list[float]:
    """[max |σ − 1|, relative Frobenius error], the worst of the stack."""
    wide = found.to(torch.float64)
    sigma = torch.linalg.svdvals(wide)
    apart = torch.linalg.matrix_norm(wide - exact) / torch.linalg.matrix_norm(exact)
    return [float((sigma - 1).abs().max()), float(apart.max())]


def _subject(task: Task, method: Polar) -> Subject:
    shape = next(iter(task.shapes.values()))
    given = inputs(shape, len(task.shapes))
    x = given["gaussian"][0]
    found = [torch.zeros_like(x)]

    def step() -> None:
        found[0] = method(x)

    def values() -> list[Numpy]:
        return [found[0].reshape(-1)[: task.sampled].to(torch.float32).numpy().copy()]

    def facts() -> dict[str, Any]:
        return {name: errors(method(z), exact) for name, (z, exact) in given.items()}

    return Subject(lambda: step, values, facts=facts)


def ours(task: Task) -> Subject:
    """dualopt's, in the fast tier. Options: `set`, and the attributes of `Way`."""
    way = Way(**{key: value for key, value in task.options.items() if key != "set"})
    return _subject(task, lambda z: polar(FAST, z, task.options["set"], way))


def ours_by_mm(task: Task) -> Subject:
    """The same formula over torch's own functions, whatever the fast tier puts in their place."""
    way = Way(**{key: value for key, value in task.options.items() if key != "set"})
    return _subject(task, lambda z: polar(plain, z, task.options["set"], way))


def torch_muon(task: Task) -> Subject:
    """What torch.optim.Muon calls, matrix by matrix, as it does."""
    from torch.optim._muon import _zeropower_via_newtonschulz

    coefficients, steps, eps = (3.4445, -4.7750, 2.0315), 5, 1e-7
    return _subject(task, lambda z: torch.stack([_zeropower_via_newtonschulz(x, coefficients, steps, eps) for x in z]))


def svd(task: Task) -> Subject:
    """torch.linalg.svd in float32."""

    def factor(z: torch.Tensor) -> torch.Tensor:
        u, _, vh = torch.linalg.svd(z, full_matrices=False)
        return u @ vh

    return _subject(task, factor)


def gram_eigh(task: Task) -> Subject:
    """By the eigenvalues of X Xᵀ in float64."""

    def factor(z: torch.Tensor) -> torch.Tensor:
        wide = z.to(torch.float64)
        values, q = torch.linalg.eigh(wide @ wide.mT)
        return ((q * values.clamp_min(0).rsqrt().unsqueeze(-2)) @ q.mT @ wide).to(torch.float32)

    return _subject(task, factor)


def emerging(task: Task) -> Subject:
    """emerging-optimizers' Newton-Schulz at its defaults."""
    from emerging_optimizers.orthogonalized_optimizers.muon_utils import newton_schulz

    return _subject(task, lambda z: torch.stack([newton_schulz(x, steps=5) for x in z]))


def gram_newton_schulz(task: Task) -> Subject:
    """gram-newton-schulz at its defaults, but for the kernels, which are CUDA's."""
    from gram_newton_schulz import GramNewtonSchulz

    run = GramNewtonSchulz(ns_use_kernels=False)
    return _subject(task, run)


def pytorch_optimizer(task: Task) -> Subject:
    """pytorch-optimizer's Newton-Schulz at its defaults."""
    from pytorch_optimizer.optimizer.utils import zero_power_via_newton_schulz_5

    return _subject(task, lambda z: torch.stack([zero_power_via_newton_schulz_5(x) for x in z]))
