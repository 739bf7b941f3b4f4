"""The same optimizer written differently, as a table: other orders of operations, instructions and precisions.

A fast tier may be any of these, so a gate that rejects one of them is too tight. They are functions of real numbers
that equal the core's; only their roundings differ.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dualopt.directions.elementwise import Rms
from dualopt.directions.norm_balls import EuclideanBall, LineBall
from dualopt.exact import Overlay
from dualopt.memory import Memories, Readout
from dualopt.motion import Targeted
from dualopt.shrink import Cautious

from . import rearranged
from .alterations import EXACT, Entry, altered, arithmetic, marked, rewired, single
from .rearranged import folding, fused, iterated, multiplied, summed
from .wrong import motion, rms

_FIRST = "sgdm/* sgdm.nesterov/usual lion/* sign_sgdm/usual"
_SECOND = "adamw/* adamw.long/usual adamw.cautious/usual adam_l2/usual rmsprop/* rmsprop.corrected/usual"
_POLAR = "muon/usual muon/underflow scionc/usual scionc.spectral_conv/usual"
_LINES = "scionc.column/usual scionc.row/usual scionc.frobenius/usual scionc.bias_rms/usual"
_POOLED = "*.target/usual *.held/usual"
_ITERATED = "normuon/usual sf_normuon/usual polargrad/usual hybrid_polargrad/usual regularized_muon/usual kaon/usual"
_FACTORISED = "mimuon/usual freon/usual shampoo/usual pion.cayley/usual"
_TURNED = "pion/usual pion.transported/usual rotational_*/usual single_half_life/usual hyperball/usual"
_NEWER = f"{_ITERATED} {_FACTORISED} {_TURNED} row_norm/usual column_norm/usual sophia/usual sf_adamw/usual"
_SUMS = f"{_POLAR} {_LINES} {_POOLED} {_ITERATED} {_FACTORISED} {_TURNED}"
_ALL = f"{_FIRST} {_SECOND} {_POLAR} {_LINES} {_POOLED} {_NEWER} scion/usual scionc/bfloat16"
_ADDITIVE = (
    f"{_FIRST} {_SECOND} {_POLAR} {_LINES} *.target/usual {_ITERATED} mimuon/usual freon/usual shampoo/usual "
    "row_norm/usual column_norm/usual sophia/usual scionc/bfloat16"
).replace("sf_normuon/usual ", "")

PARTS: Mapping[str, tuple[Entry, ...]] = {
    "nothing": (("nothing", "the reference itself", altered(), _ALL),),
    "memory": (
        (
            "textbook memories",
            "β m + (1 − β) g, β = 1 − c in float32",
            folding(lambda x, y, c: single(1 - c) * x + c * y),
            f"{_FIRST} {_SECOND}",
        ),
        (
            "fused memories",
            "m + c (g − m) in one instruction",
            folding(lambda x, y, c: fused(c, y - x, x)),
            f"{_FIRST} {_SECOND}",
        ),
        (
            "fused squares",
            "g² − v in one instruction",
            altered(rewired(Memories, __call__=rearranged.fused_squares)),
            _SECOND,
        ),
        (
            "textbook readout",
            "μ m + (1 − μ) g",
            altered(rewired(Readout, __call__=rearranged.textbook_readout)),
            "sgdm.nesterov/usual adamw.cautious/usual adamw.uncorrected/usual lion/* muon.mup/usual",
        ),
    ),
    "direction": (
        (
            "times a reciprocal",
            "z · (1/d) instead of z / d",
            rms(lambda xp, z, v, k: -z * (xp.ones_like(v) / (xp.sqrt(v) + k["eps"]))),
            _SECOND,
        ),
        ("split root", "√v √r_v instead of √(r_v v)", altered(rewired(Rms, __call__=rearranged.split_root)), _SECOND),
        (
            "rough roots",
            "half of all roots are an ulp off",
            altered(xp=Overlay(EXACT, "rough", sqrt=rearranged.rough_root)),
            _ALL,
        ),
        (
            "step times correction",
            "η r_m as one scalar",
            altered(scalars=lambda k, action: {"eta": k["eta"] * k["r_m"], "r_m": 1.0}),
            "sgdm.nesterov/usual adamw/* adamw.long/usual adamw.cautious/usual",
        ),
        (
            "divided by the length",
            "z / ‖z‖ of z over its largest entry",
            altered(
                rewired(LineBall, atom=lambda self, xp, z: rearranged.divided(z, self.axis)),
                rewired(EuclideanBall, atom=lambda self, xp, z: rearranged.divided(z, self.axes)),
            ),
            _LINES,
        ),
        ("Gram on the other side", "x p(xᵀx) for p(x xᵀ) x", iterated(rearranged.other_side), _POLAR),
        ("polynomial first", "(a I + A (b I + c A)) x", iterated(rearranged.polynomial_first), _POLAR),
    ),
    "motion": (
        (
            "shrunk weights first",
            "(θ − c_a θ) + η u",
            motion(lambda theta, u, lost, k: (theta - lost) + k["eta"] * u),
            _ADDITIVE,
        ),
        (
            "textbook motion",
            "a θ + η u, a = 1 − c_a in float32",
            motion(lambda theta, u, lost, k: single(1 - k["c_a"]) * theta + k["eta"] * u),
            "sgdm/* adamw/* adamw.long/usual lion/* muon/usual scionc.row/usual",
        ),
        (
            "fused motion",
            "θ + fma(η, u, −c_a θ)",
            motion(lambda theta, u, lost, k: theta + fused(k["eta"], u, -lost)),
            _ADDITIVE,
        ),
        (
            "mask by the product of signs",
            "sign(u) sign(θ) ≤ 0",
            altered(rewired(Cautious, __call__=rearranged.masked_by_signs)),
            "adamw.cautious/usual lion.cautious/usual rmsprop.corrected/usual scionc.cautious/usual",
        ),
        (
            "other form of the root",
            "−excess/(σ + √D)",
            altered(rewired(Targeted, solve=rearranged.other_root)),
            _POOLED,
        ),
    ),
    "sums": (
        ("one after the other", "sums from left to right", summed(lambda x: np.cumsum(x, axis=-1)[..., -1]), _SUMS),
        ("in blocks", "eight partial sums", summed(rearranged.blocks), _SUMS),
        ("sums in float64", "rounded once", summed(lambda x: np.sum(x, axis=-1, dtype=np.float64)), _SUMS),
    ),
    "products": (
        (
            "native products",
            "the library's",
            multiplied(np.matmul),
            f"{_POLAR} {_ITERATED} {_FACTORISED} pion/usual scionc/bfloat16",
        ),
        (
            "products in float64",
            "rounded once",
            multiplied(rearranged.wide_product),
            f"{_POLAR} {_ITERATED} pion/usual scionc/bfloat16",
        ),
    ),
    "views": (
        ("parameters apart", "nothing is stacked", altered(apart=True), f"{_FIRST} {_SECOND} {_POLAR} {_LINES}"),
        (
            "kernel in another order",
            "flattened as (out, *k, in), there and back",
            altered(view=rearranged.reordered),
            "muon/usual scionc.row/usual scionc.column/usual scionc.frobenius/usual",
        ),
    ),
    "precision": (
        ("native", "numpy's own sums, products and roots", altered(xp=np), _ALL),
        (
            "update in float64",
            "rounded where it is stored",
            altered(
                scalars=lambda k, action: {name: single(x) for name, x in k.items()},
                before=lambda theta, s, g: marked(lambda x: x.astype(np.float64), theta, s, g),
                after=lambda s, theta, new: rearranged.narrowed(theta, new),
                xp=np,
            ),
            _ALL,
        ),
        (
            "subnormals flushed",
            "to zero, as they come in and in every result",
            altered(before=lambda theta, s, g: marked(arithmetic(rearranged.flushed), theta, s, g)),
            "sgdm/underflow sign_sgdm/underflow adamw/underflow rmsprop/extremes muon/underflow scionc/usual",
        ),
    ),
}
