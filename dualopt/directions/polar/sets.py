"""Named coefficient sets of Newton–Schulz iterations, with their sources and their errors."""

from __future__ import annotations

from dataclasses import dataclass, replace

Quintic = tuple[float, float, float]

# How the input is brought into [0, 1], see `iterations`.
FROBENIUS, MOMENT, EIGHTH, AOL = "frobenius", "moment", "eighth_moment", "aol"
BOUNDS = (MOMENT, EIGHTH)  # found on the way
POLISH: Quintic = (1.875, -1.25, 0.375)  # x(15 − 10x² + 3x⁴)/8: cubic convergence to 1 from (0, 1.5)


def value(step: Quintic, x: float) -> float:
    """a x + b x³ + c x⁵."""
    a, b, c = step
    square = x * x
    return x * (a + square * (b + square * c))


@dataclass(frozen=True)
class Coefficients:
    """A named set: one (a, b, c) per step, the divisor of the normalised input, and its source.

    `least` is the smallest singular value, relative to the normalised input, that the set is designed for.
    """

    name: str
    steps: tuple[Quintic, ...]
    safety: float
    least: float
    source: str
    normalise: str = FROBENIUS

    def response(self, sigma: float) -> float:
        """What the iteration makes of one singular value of the normalised input."""
        x = sigma / self.safety
        for step in self.steps:
            x = value(step, x)
        return x

    def taking(self, steps: int) -> Coefficients:
        """The first `steps` steps, or all of them and then `POLISH`."""
        return replace(self, steps=(*self.steps, *(POLISH,) * (steps - len(self.steps)))[:steps])

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest σ of singular values from `least` to 1, on a grid of 2¹⁴ in log σ."""
        found = [self.response(self.least ** (i / 2**14)) for i in range(2**14 + 1)]
        return min(found), max(found)

    @property
    def error(self) -> float:
        """max |σ − 1| of the same."""
        low, high = self.range
        return max(1 - low, high - 1)


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
FIVE = Coefficients(
    name="five",
    steps=(
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    safety=1.0,
    least=1e-2,
    source="You, modded-nanogpt (2025); dion, Emerging-Optimizers `quintic`",
)
_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
POLAR_EXPRESS = Coefficients(
    name="polar_express",
    steps=_guarded(_EXPRESS, 1.01),
    safety=1.01,
    least=1e-2,
    source="Amsel et al., Polar Express (arXiv 2505.16932), ℓ = 1e-3",
)
WIDER = 1.05  # bfloat16 carries singular values near 1, of which Gram forms make most, past 1.01
EXPRESS_5 = Coefficients(
    name="express_5",
    steps=_guarded(_EXPRESS, WIDER),
    safety=WIDER,
    least=1e-2,
    source="as `polar_express`, guarded for bfloat16 (`polar.express`)",
)
EXPRESS_4 = Coefficients(
    name="express_4",
    steps=_guarded(
        (
            (8.212351845088554, -23.38273978840254, 17.144109183609565),
            (3.9950369493518174, -2.91996079009979, 0.5495724041270504),
            (3.4857055609734995, -2.6121085104247896, 0.5240678423488216),
            (2.467185767447531, -1.8147070290718434, 0.4346868263958391),
        ),
        WIDER,
    ),
    safety=WIDER,
    least=1e-2,
    source="the same in four steps, ℓ = 3.2e-3 (`polar.express`)",
)
CANS = Coefficients(
    name="cans",
    steps=(
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    safety=1.0,
    least=1e-2,
    source="Grishina et al., CANS (arXiv 2506.10935); numbers as in Emerging-Optimizers",
)
AOL_SET = Coefficients(
    name="aol",
    steps=FIVE.steps[1:],
    safety=1.0,
    least=3e-2,
    source="Boissin et al., Turbo-Muon (arXiv 2512.04632): the last four of `five` after AOL scaling",
    normalise=AOL,
)
SETS = {s.name: s for s in (QUINTIC, FIVE, POLAR_EXPRESS, EXPRESS_5, EXPRESS_4, CANS, AOL_SET)}
EXACT = "exact"  # a factorisation instead of a set
