"""Mutants of time (counts, clock, schedule), of shrink and motion, and of what surrounds the recursion."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from dualopt.counts import LN2, complement
from dualopt.shrink import Cautious, Corrected, Direct
from dualopt.storage import rounded

from . import wrong
from .alterations import Entry, altered, arithmetic, bfloat16, exchanged, marked, rewired

WARMUP = 10  # updates, of the usual schedule

COUNTS: tuple[Entry, ...] = (
    (
        "half-life of batch 511",
        "converted with 511 samples per update instead of 512",
        altered(action=lambda a: {"memory_half_life": a["memory_half_life"] * 511 / 512}),
        "scion.sign/usual",
    ),
    (
        "second half-life of batch 511",
        "the same for v",
        altered(action=lambda a: {"second_memory_half_life": a["second_memory_half_life"] * 511 / 512}),
        "adamw/usual",
    ),
    (
        "time constant for half-life",
        "2^(−Δτ/(h ln 2))",
        altered(action=lambda a: {"memory_half_life": LN2 * a["memory_half_life"]}),
        "sign_sgdm/usual",
    ),
    ("linear complement", "c = ln2 Δτ/h", altered(scalars=lambda k, a: {"c_m": -math.log1p(-k["c_m"])}), "lion/usual"),
)

CLOCK: tuple[Entry, ...] = (
    ("previous increment", "Δτ of the update before", wrong.previous_increment, "adamw/usual"),
    (
        "usual increment",
        "Δτ = 512 whatever the update counts",
        altered(clock=lambda own, run: replace(own, dtau=512)),
        "scionc/usual",
    ),
)

SCHEDULE: tuple[Entry, ...] = (
    (
        "schedule before the update",
        "q at the count that the update starts from",
        altered(clock=lambda own, run: replace(own, q=own.q * (1 - run.dtau / run.tau)) if own.q < 1 else own),
        "adamw/usual",
    ),
    (
        "warm-up off by one",
        "longer by an update",
        altered(clock=lambda own, run: replace(own, q=own.q * WARMUP / (WARMUP + 1)) if own.q < 1 else own),
        "sgdm/usual",
    ),
    ("no schedule", "q = 1", altered(clock=lambda own, run: replace(own, q=1.0)), "lion/usual"),
    (
        "schedule by the parameter's count",
        "instead of the run's",
        altered(clock=lambda own, run: replace(own, q=own.q * own.tau / run.tau) if own.q < 1 else own),
        "adamw/usual",
    ),
    (
        "shrink in proportion to the step",
        "c_a ∝ η where the schedule moves the step alone",
        altered(clock=lambda own, run: replace(own, q_shrink=own.q)),
        "adamw/usual",
    ),
    (
        "shrink not scheduled",
        "h_a stays where the schedule moves both",
        altered(clock=lambda own, run: replace(own, q_shrink=1.0)),
        "adamw/bfloat16",
    ),
)

SHRINK: tuple[Entry, ...] = (
    ("no shrink", "a = 1", altered(scalars=lambda k, a: {"c_a": 0.0}), "sgdm/usual"),
    (
        "shrink after the update",
        "a (θ + η u)",
        wrong.motion(lambda theta, u, lost, k: (theta + k["eta"] * u) * (1 - k["c_a"])),
        "rmsprop/usual",
    ),
    (
        "shrink off by 1 %",
        "1.01 h_a",
        altered(action=lambda a: {"shrink_half_life": 1.01 * a["shrink_half_life"]}),
        "adamw/usual",
    ),
    ("shrink twice", "a²", altered(clock=lambda own, run: replace(own, q_shrink=2.0)), "scion/usual"),
    (
        "mask of the opposite sign",
        "shrinks where the update shrinks already",
        wrong.mask(lambda u, theta: u * theta >= 0),
        "adamw.cautious/usual",
    ),
    (
        "mask by the product",
        "u θ ≤ 0, to which products underflow",
        wrong.mask(lambda u, theta: u * theta <= 0),
        "*.cautious/*",
    ),
    (
        "strict though not asked",
        "a zero of u or θ does not shrink",
        altered(exchanged(Cautious, Cautious(strict=True))),
        "rmsprop.corrected/usual",
    ),
    ("strict ignored", "a zero of u or θ shrinks", altered(exchanged(Cautious, Cautious())), "adamw.strict/*"),
    ("cautious ignored", "no mask", altered(exchanged(Cautious, Direct())), "scionc.cautious/usual"),
    ("corrected ignored", "a of the peak step", altered(exchanged(Corrected, Direct())), "adamw.corrected/usual"),
    (
        "corrected to first order",
        "1 − a ∝ η² instead of 1 − a²",
        altered(
            rewired(
                Corrected,
                scalars=lambda self, action, clock, shape: {
                    "c_a": clock.q**2 * complement(clock.dtau, action["shrink_half_life"])
                },
            )
        ),
        "adamw.corrected/usual",
    ),
)

MOTION: tuple[Entry, ...] = (
    ("uphill", "θ − η u", altered(scalars=lambda k, a: {"eta": -k["eta"]}), "sgdm.unbounded/usual"),
    (
        "step off by 1e-6",
        "relative",
        altered(scalars=lambda k, a: {"eta": k["eta"] * (1 + 1e-6)}),
        "sign_sgdm/underflow",
    ),
    ("step in bfloat16", "η rounded", altered(scalars=lambda k, a: {"eta": float(bfloat16(k["eta"]))}), "lion/usual"),
    (
        "direction of RMS 1",
        "u over its own RMS",
        wrong.motion(lambda theta, u, lost, k: theta + (k["eta"] * u / (np.sqrt(np.mean(u * u)) + 1e-30) - lost)),
        "rmsprop/usual",
    ),
    ("step times 1 − β", "damped twice", altered(scalars=lambda k, a: {"eta": k["eta"] * k["c_m"]}), "sgdm/usual"),
)

POOLING: tuple[Entry, ...] = (
    ("target of each parameter", "its own η for each", altered(apart=True), "adamw.target/usual"),
    ("no largest step", "η beyond the step", wrong.unclamped(), "adamw.target/usual"),
    (
        "clamp without schedule",
        "η up to the peak step instead of q · step",
        altered(scalars=lambda k, a: {"eta": a["step"]}),
        "adamw.target/usual",
    ),
    ("always the larger root", "also when u shrinks weights that are too large", wrong.root(1), "*.target/usual"),
    ("always the smaller root", "also when the weights are too small", wrong.root(-1), "*.target/usual"),
    ("target before the shrink", "sums of θ instead of a θ", wrong.pool_of_unshrunk(), "*.target/usual"),
    (
        "target norm",
        "of the group instead of its RMS",
        altered(scalars=lambda k, a: {"entries_r2": a["target_rms"] ** 2}),
        "scionc.target/usual",
    ),
)

VIEWS: tuple[Entry, ...] = (
    ("orientation ignored", "in × out seen as out × in", altered(view=wrong.as_stored), "muon.in_out/usual"),
    ("stack as one matrix", "(k, m, n) seen as km × n", altered(view=wrong.one_matrix), "scionc.column/usual"),
    (
        "kernel by positions",
        "out·in × k instead of out × in·k",
        altered(view=wrong.kernel_positions),
        "scionc.spectral_conv/usual",
    ),
    (
        "kernel unfolded otherwise",
        "flattened as (out, *k, in), unfolded as (out, in, *k)",
        altered(view=wrong.reordered),
        "scionc.spectral_conv/usual",
    ),
    (
        "scale of the flat kernel",
        "from out × in·k instead of out, in and k",
        altered(view=lambda v: replace(v, logical=(*v.seen, 1))),
        "scionc.spectral_conv/usual",
    ),
)

STATE: tuple[Entry, ...] = (
    (
        "state not kept",
        "memories start at 0 in every update",
        altered(before=lambda theta, s, g: (theta, {key: np.zeros_like(x) for key, x in s.items()}, g)),
        "sign_sgdm/usual",
    ),
    ("state not written", "memories stay as they were", altered(after=lambda s, theta, new: (theta, s)), "muon/usual"),
    (
        "state in bfloat16",
        "memories are stored in the parameter's type",
        altered(after=lambda s, theta, new: (theta, {key: bfloat16(x) for key, x in new.items()})),
        "lion/bfloat16",
    ),
    (
        "state in float16",
        "memories are stored in half precision",
        altered(after=lambda s, theta, new: (theta, {key: rounded(x, "float16") for key, x in new.items()})),
        "sgdm/float16",
    ),
)

STORAGE: tuple[Entry, ...] = (
    (
        "truncated parameters",
        "bfloat16 towards zero",
        altered(after=lambda s, theta, new: (wrong.truncated(theta), new)),
        "sgdm/bfloat16",
    ),
    (
        "parameters rounded twice",
        "the change of θ is rounded to bfloat16, and the sum again",
        wrong.motion(lambda theta, u, lost, k: bfloat16(theta + bfloat16(k["eta"] * u - lost))),
        "adamw/bfloat16",
    ),
    (
        "arithmetic in bfloat16",
        "every operation is rounded to the parameter's type",
        altered(before=lambda theta, s, g: marked(arithmetic(bfloat16), theta, s, g)),
        "scionc/bfloat16",
    ),
    (
        "bfloat16 for float16",
        "the wrong half precision",
        altered(after=lambda s, theta, new: (bfloat16(theta), new)),
        "scion/float16",
    ),
)
