"""What is to be reached, as data. A report says what was; nothing fails on time."""

from __future__ import annotations

from dataclasses import dataclass

from .cases import CASES

TIME, SECONDS, FACT = "time", "seconds", "fact"
BEST = "the best peer"
EVERY, MEAN = "on every spectrum", "in geometric mean"


@dataclass(frozen=True)
class Goal:
    """`ours` over `peer` in `case`: at most `goal`, and at best `stretch`.

    Attributes:
        peer: a name, or `BEST`: of all that are neither ours nor a floor.
        of: TIME, a ratio; SECONDS of the phase `key`, which belong to a machine; FACT, the value of `key`.
        accurate: how the error of the way to the polar factor of the same name must not exceed that of `peer`.
    """

    case: str
    peer: str
    goal: float
    stretch: float
    ours: str = "dualopt"
    of: str = TIME
    key: str = ""
    accurate: str = ""


_ROWS = tuple(
    Goal(name, "stream", 1.10, 1.00, ours=f"dualopt {shrink}")
    for name in CASES
    if name.startswith("row ")
    for shrink in ("direct", "cautious", "corrected")
)
GOALS = (
    Goal("adamw gpt30", "torch fused", 1.00, 0.95),
    *_ROWS,
    Goal("adamw tiny300", "torch fused", 0.45, 0.05),
    Goal("adamw tiny300", "torch fused", 0.45, 0.05, ours="dualopt, flat storage"),
    Goal("adamw gpt30 bfloat16", "torch fused", 0.80, 0.65),
    Goal("lion gpt30", BEST, 0.40, 0.28),
    Goal("lion gpt30", BEST, 0.70, 0.55, ours="dualopt, no compiler"),
    Goal("sgdm gpt30", "torch fused", 1.00, 0.93),
    Goal("adamw gpt30", "heavyball", 0.40, 0.33),
    Goal("adamw gpt30", "torch-optimi", 0.40, 0.33),
    Goal("adamw gpt30", "optax", 0.70, 0.62),
    Goal("muon mats30", "torch Muon", 0.68, 0.55, ours="dualopt accurate", accurate=EVERY),
    Goal("muon mats768", "torch Muon", 0.68, 0.55, ours="dualopt accurate", accurate=EVERY),
    Goal("muon mats30", "torch Muon", 0.58, 0.48, ours="dualopt fast", accurate=MEAN),
    Goal("muon mats768", "torch Muon", 0.58, 0.48, ours="dualopt fast", accurate=MEAN),
    Goal("muon mats128", "torch Muon", 0.50, 0.40, ours="dualopt accurate"),
    Goal("newton-schulz float32", "the same by torch.mm", 0.45, 0.36),
    Goal("mlx adamw gpt10", "mlx compiled", 0.80, 0.50, ours="dualopt (MLX) compiled"),
    Goal("mlx lion gpt10", "mlx compiled", 0.80, 0.50, ours="dualopt (MLX) compiled"),
    Goal("start", "", 10.0, 4.0, of=SECONDS, key="first"),
    Goal("recompiles", "", 0, 0, ours="dualopt, schedule and changing count", of=FACT, key="recompiles"),
    Goal("recompiles", "", 0, 0, ours="dualopt (MLX), schedule and changing count", of=FACT, key="recompiles"),
    Goal("overhead 3000", "torch fused", 0.50, 0.10),
    Goal("overhead 3000", "torch fused", 0.50, 0.10, ours="dualopt, flat storage"),
)
