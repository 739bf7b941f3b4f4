"""The polar factor U Vᵀ of a matrix Z = U Σ Vᵀ, exactly or by an odd polynomial iteration.

    X ← a X + (b A + c A²) X,   A = X Xᵀ          (wide; a tall X uses A = Xᵀ X on the right)

acts on every singular value as x ← a x + b x³ + c x⁵ and leaves the singular vectors alone. Singular
values that are exactly 0 stay 0: null directions are dropped. The input is scaled to Frobenius norm 1
(over the set's safety), so that all singular values start in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

from ..factorise import svd
from ..recursion import Array, Namespace
from ..scaling import unit

Quintic = tuple[float, float, float]


@dataclass(frozen=True)
class Coefficients:
    """A named set: one (a, b, c) per step, the divisor of the normalised input, and its source.

    `least` is the smallest singular value, relative to the Frobenius norm, that the set is designed for.
    """

    name: str
    steps: tuple[Quintic, ...]
    safety: float
    least: float
    source: str

    def response(self, sigma: float) -> float:
        """What the iteration makes of one singular value of the normalised input."""
        x = sigma / self.safety
        for a, b, c in self.steps:
            x = x * (a + x * x * (b + x * x * c))
        return x


def _guarded(steps: tuple[Quintic, ...], safety: float) -> tuple[Quintic, ...]:
    """The polynomials of x/safety, except the last: rounding may not push a singular value above 1."""
    return (*((a / safety, b / safety**3, c / safety**5) for a, b, c in steps[:-1]), steps[-1])


QUINTIC = Coefficients(
    name="quintic",
    steps=((3.4445, -4.7750, 2.0315),) * 5,
    safety=1.0,
    least=1e-2,
    source="Jordan et al., Muon (2024); torch.optim.Muon, mlx.optimizers.Muon, Scion",
)
POLAR_EXPRESS = Coefficients(
    name="polar_express",
    steps=_guarded(
        (
            (8.28721201814563, -23.595886519098837, 17.300387312530933),
            (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
            (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
            (3.3184196573706015, -2.488488024314874, 0.51004894012372),
            (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
        ),
        1.01,
    ),
    safety=1.01,
    least=1e-2,
    source="Amsel et al., Polar Express (arXiv 2505.16932), ℓ = 1e-3",
)
SETS = {s.name: s for s in (QUINTIC, POLAR_EXPRESS)}
EXACT = "exact"  # a factorisation instead of a set


def newton_schulz(xp: Namespace, x: Array, steps: tuple[Quintic, ...]) -> Array:
    """The iteration above on x (..., m, n) with ‖x‖_op <= 1."""
    tall = x.shape[-2] > x.shape[-1]
    for a, b, c in steps:
        xt = xp.matrix_transpose(x)
        gram = xp.matmul(xt, x) if tall else xp.matmul(x, xt)
        p = b * gram + c * xp.matmul(gram, gram)
        x = a * x + (xp.matmul(x, p) if tall else xp.matmul(p, x))
    return x


def factorised(xp: Namespace, z: Array) -> Array:
    """U Vᵀ of z (..., m, n) by an SVD, null directions (σ <= max(m, n) ε σ_max) dropped."""
    u, sigma, vh = svd(xp, unit(xp, z, (-2, -1)))
    floor = max(z.shape[-2:]) * float(xp.finfo(z.dtype).eps) * xp.max(sigma, axis=-1, keepdims=True)
    keep = xp.where(sigma > floor, xp.ones_like(sigma), xp.zeros_like(sigma))
    return xp.matmul(u * keep[..., None, :], vh)


def polar(xp: Namespace, z: Array, method: str) -> Array:
    """The polar factor of z (..., m, n) by a named set or by `EXACT`; does not depend on the scale of z."""
    if method == EXACT:
        return factorised(xp, z)
    chosen = SETS[method]
    return newton_schulz(xp, unit(xp, z, (-2, -1)) * (1 / chosen.safety), chosen.steps)
