"""How long and on what schedule a run trains; a run directory keeps these beside the recipe."""

from __future__ import annotations

from dataclasses import dataclass

from dualopt.errors import RecipeError

_POSITIVE = ("updates", "batch", "evaluate_every", "validation_batches", "checkpoint_every", "keep_checkpoints")


@dataclass(frozen=True)
class Settings:
    """The defaults fit the default model on two CPU cores: about a minute in MLX, seconds in torch.

    ``unit`` is the recipe's ``count.base``: "tokens", "samples" or "updates".
    ``*_every`` and ``record_gradients`` are numbers of updates; the gradients of the first
    ``record_gradients`` updates are kept in a file for a later replay. ``keep_checkpoints``: how many of the
    last checkpoints there are, so that an earlier one is left if the newest is damaged.
    """

    updates: int = 240
    batch: int = 16
    seed: int = 0
    unit: str = "tokens"
    evaluate_every: int = 20
    validation_batches: int = 2
    checkpoint_every: int = 80
    keep_checkpoints: int = 2
    record_gradients: int = 0

    def __post_init__(self) -> None:
        for name in (*_POSITIVE, "seed", "record_gradients"):
            value, least = getattr(self, name), int(name in _POSITIVE)
            if type(value) is not int or value < least:
                raise RecipeError(f"settings: {name} must be an integer of at least {least}, not {value!r}")
        if self.unit not in ("tokens", "samples", "updates"):
            raise RecipeError(f"settings: unit must be tokens, samples or updates, not {self.unit!r}")

    def increment(self, context: int) -> int:
        """Δτ: the training count of one update of ``batch`` sequences of ``context`` tokens."""
        return {"tokens": self.batch * context, "samples": self.batch, "updates": 1}[self.unit]
