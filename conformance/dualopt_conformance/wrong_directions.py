"""Mutants of what enters, what is remembered, how it is read, and of the directions made from it."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dualopt.counts import complement
from dualopt.directions.elementwise import Sign
from dualopt.directions.norm_balls import EuclideanBall, LineBall, SignBall
from dualopt.directions.polar import POLAR_EXPRESS, QUINTIC
from dualopt.memory import Current, Memories, Readout, blend
from dualopt.scaling import unit
from dualopt.shrink import Direct
from dualopt.signal import Gradient, GradientPlusL2

from . import wrong
from .alterations import Entry, altered, bfloat16, exchanged, rewired

SIGNAL: tuple[Entry, ...] = (
    (
        "decay into the gradient",
        "λθ joins the gradient and its memories (L2) instead of shrinking θ",
        altered(
            rewired(Gradient, __call__=wrong.coupled),
            rewired(Direct, __call__=lambda self, xp, theta, u, k: xp.zeros_like(theta)),
        ),
        "adamw/usual",
    ),
    (
        "decay beside the gradient",
        "θ shrinks by ηλθ (decoupled) where the recipe asks for L2",
        altered(exchanged(GradientPlusL2, Gradient()), scalars=lambda k, a: {"c_a": k["c_a"] + k["eta"] * a["l2"]}),
        "adam_l2/usual",
    ),
    ("L2 with the wrong sign", "g − λθ", altered(scalars=lambda k, a: {"l2": -k["l2"]}), "adam_l2/usual"),
    ("L2 twice as large", "of λθ², not ½λθ²", altered(scalars=lambda k, a: {"l2": 2 * k["l2"]}), "sgdm.nesterov/usual"),
    ("gradient in bfloat16", "rounded before it enters", wrong.signal(bfloat16), "sgdm/usual"),
    (
        "gradient clipped",
        "to length 1, though nobody asked",
        wrong.signal(lambda g: g / np.float32(max(1.0, float(np.linalg.norm(g))))),
        "scionc.row/usual",
    ),
    (
        "small gradients dropped",
        "below 1e-12 they count as 0",
        wrong.signal(lambda g: np.where(np.abs(g) < 1e-12, 0 * g, g)),
        "lion/underflow",
    ),
)

MEMORY: tuple[Entry, ...] = (
    ("c_m from a float32 β", "1 − β of a rounded β", wrong.from_retention("c_m"), "sgdm/usual"),
    ("c_v from a float32 β", "1 − β of a rounded β", wrong.from_retention("c_v"), "adamw.long/usual"),
    (
        "v of |g|",
        "the gradient is not squared",
        wrong.memory(v=lambda v, g, m, was, k: blend(v, np.abs(g), k["c_v"])),
        "rmsprop/usual",
    ),
    (
        "v of m",
        "the square of the updated memory instead of the gradient's",
        wrong.memory(v=lambda v, g, m, was, k: blend(v, m * m, k["c_v"])),
        "adamw/usual",
    ),
    (
        "v of the surprise",
        "(g − m)² instead of g²",
        wrong.memory(v=lambda v, g, m, was, k: blend(v, (g - was) * (g - was), k["c_v"])),
        "adamw/usual",
    ),
    (
        "v never falls",
        "the largest v so far",
        wrong.memory(v=lambda v, g, m, was, k: np.maximum(v, blend(v, g * g, k["c_v"]))),
        "adamw/usual",
    ),
    ("v with c_m", "one half-life for both", altered(scalars=lambda k, a: {"c_v": k["c_m"]}), "adamw/usual"),
    ("m with c_v", "one half-life for both", altered(scalars=lambda k, a: {"c_m": k["c_v"]}), "adamw/usual"),
    ("m without damping", "β m + g", wrong.memory(m=lambda m, g, k: m - k["c_m"] * m + g), "sgdm/usual"),
    (
        "lazy memories",
        "left alone where the gradient is 0",
        altered(rewired(Memories, __call__=wrong.lazy)),
        "adamw/usual",
    ),
)

READOUT: tuple[Entry, ...] = (
    ("old memory read", "z of the memory before this update", wrong.old_memory_read(), "adamw/usual"),
    (
        "μ and 1 − μ exchanged",
        "z = (1 − μ) m + μ g",
        altered(scalars=lambda k, a: {"c_mu": 1 - k["c_mu"]}),
        "adamw.cautious/usual",
    ),
    (
        "Nesterov twice",
        "the readout is blended with the gradient again",
        altered(
            rewired(
                Readout,
                __call__=lambda self, xp, s, g, k: Readout.__call__(self, xp, {"m": blend(s["m"], g, k["c_mu"])}, g, k),
            )
        ),
        "sgdm.nesterov/usual",
    ),
    ("no readout", "z = m", altered(scalars=lambda k, a: {"c_mu": 0.0}), "adamw.uncorrected/usual"),
    (
        "β₁ as readout",
        "μ = β₁ instead of β₁/β₂",
        altered(action=lambda a: {"readout": 0.99 * a["readout"]}),
        "lion/usual",
    ),
    ("sign of the gradient", "sign(g) instead of sign(z)", altered(exchanged(Readout, Current())), "lion/usual"),
    ("polar factor of the gradient", "no memory is read", altered(exchanged(Readout, Current())), "muon/usual"),
)

CORRECTION: tuple[Entry, ...] = (
    (
        "correction one update late",
        "with the count before the update",
        altered(clock=lambda own, run: replace(own, tau=own.tau - own.dtau or own.tau)),
        "adamw/usual",
    ),
    ("no correction", "r_m = r_v = 1", altered(scalars=lambda k, a: {"r_m": 1.0, "r_v": 1.0}), "adamw/usual"),
    ("v not corrected", "r_v = 1", altered(scalars=lambda k, a: {"r_v": 1.0}), "rmsprop.corrected/usual"),
    (
        "correction by the run's count",
        "instead of the parameter's own",
        altered(clock=lambda own, run: replace(own, tau=run.tau)),
        "adamw/usual",
    ),
    (
        "correction by the increment",
        "1 − 2^(−Δτ/h) instead of 1 − 2^(−τ/h)",
        altered(clock=lambda own, run: replace(own, tau=own.dtau)),
        "adamw/usual",
    ),
    (
        "correction without μ",
        "a readout is divided by the weight of its memory alone",
        altered(
            rewired(
                Readout,
                scalars=lambda self, action, clock, shape: (
                    Readout.scalars(self, action, clock, shape)
                    | {"r_m": 1 / complement(clock.tau, action["memory_half_life"])}
                ),
            )
        ),
        "adamw.cautious/usual",
    ),
)

ELEMENTWISE: tuple[Entry, ...] = (
    (
        "ε inside the root",
        "z / √(v̂ + ε)",
        wrong.rms(lambda xp, z, v, k: -z / xp.sqrt(v + k["eps"])),
        "adamw.uncorrected/usual",
    ),
    (
        "ε before the correction",
        "√v + ε is corrected instead of √v",
        wrong.rms(lambda xp, z, v, k: -z / (xp.sqrt(v) + math.sqrt(k["r_v"]) * k["eps"])),
        "adamw/underflow",
    ),
    (
        "ε of 1e-7",
        "another default",
        altered(action=lambda a: {"eps": 10 * a["eps"]}),
        "rmsprop/usual rmsprop/underflow",
    ),
    ("no root", "z / (v̂ + ε)", wrong.rms(lambda xp, z, v, k: -z / (v + k["eps"])), "adamw/usual"),
    (
        "rough root",
        "of 18 correct bits",
        wrong.rms(lambda xp, z, v, k: -z / (xp.sqrt(v) * (1 + 2.0**-18) + k["eps"])),
        "adamw/usual",
    ),
    (
        "sign(0) = 1",
        "an exact zero moves",
        altered(rewired(Sign, __call__=lambda self, xp, z, s, k: xp.where(z >= 0, -xp.ones_like(z), xp.ones_like(z)))),
        "sign_sgdm/*",
    ),
)

BALLS: tuple[Entry, ...] = (
    ("scale transposed", "√(n/m)", altered(view=wrong.transposed_scale), "muon.mup/usual"),
    ("scale of another norm", "0.2 √max(m, n)", wrong.scaling("0.2 √max(m, n)"), "muon.keller_jordan/usual"),
    ("length 1 for RMS 1", "a bias without √n", wrong.scaling("1"), "scionc.bias_rms/usual"),
    (
        "positions not counted",
        "√(out/in) instead of √(out/in)/k",
        wrong.scaling(wrong.OUT_IN),
        "scionc.spectral_conv/usual",
    ),
    (
        "coefficient mistyped",
        "2.0135 for 2.0315",
        wrong.polynomials(lambda steps: tuple((a, b, 2.0135) for a, b, _ in steps)),
        "muon/usual",
    ),
    (
        "other coefficients",
        "the quintic set for Polar Express",
        wrong.polynomials(lambda steps: QUINTIC.steps),
        "scionc.spectral_in/usual",
    ),
    (
        "coefficients out of order",
        "the last step before the last but one",
        wrong.polynomials(lambda steps: (*steps[:-2], steps[-1], steps[-2])),
        "scionc.spectral/usual",
    ),
    ("four steps", "of five", wrong.polynomials(lambda steps: steps[:-1]), "scion/usual"),
    (
        "rows normalised",
        "each row before the iteration, instead of the matrix",
        wrong.polynomials(by=lambda xp, z, axes: unit(xp, z, -1) * z.shape[-2] ** -0.5),
        "muon.naive/usual",
    ),
    ("no safety", "the input is not divided by 1.01", wrong.polynomials(safety=1), "scionc.spectral_max/usual"),
    (
        "safety not undone",
        "guarded input, unguarded polynomials",
        wrong.polynomials(lambda steps: wrong.unguarded(steps, POLAR_EXPRESS.safety)),
        "scionc/usual",
    ),
    ("ε in the norm", "Z / (‖Z‖ + 1e-7)", wrong.polynomials(by=wrong.unscaled_unit(1e-7)), "muon/underflow"),
    ("squares that underflow", "Z / √ΣZ² of tiny Z", wrong.polynomials(by=wrong.unscaled_unit(0)), "scion/underflow"),
    ("products in bfloat16", "of rounded factors", wrong.products(bfloat16), "muon.moonlight/usual"),
    ("products in TF32", "of factors with 11 digits", wrong.products(wrong.tensor_float), "muon/usual scionc/usual"),
    (
        "rows for columns",
        "rows of length 1",
        wrong.atom(LineBall, lambda xp, z: unit(xp, z, -1)),
        "scionc.column/usual",
    ),
    (
        "columns for rows",
        "columns of length 1",
        wrong.atom(LineBall, lambda xp, z: unit(xp, z, -2)),
        "scionc.row_in/usual",
    ),
    (
        "largest entry 1",
        "columns over their largest entry",
        wrong.atom(LineBall, wrong.over_largest),
        "scionc.column_in/usual",
    ),
    (
        "length of the rows",
        "the Euclidean ball over the last axis alone",
        wrong.atom(EuclideanBall, lambda xp, z: unit(xp, z, -1)),
        "scionc.frobenius/usual",
    ),
    (
        "signs softened",
        "z / (|z| + 1e-8)",
        wrong.atom(SignBall, lambda xp, z: z / (xp.abs(z) + 1e-8)),
        "scionc.sign/usual scionc.sign_in/usual",
    ),
)
