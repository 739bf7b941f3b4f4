"""What the optimizers of a family have in common: fields that their knobs state, and the maps to rows and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..counts import complement, half_life, life_of_loss, retention
from ..errors import RecipeError
from ..recursion import Action

Fields = dict[str, Any]  # field -> value; None: free
Options = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """What an optimizer is in a recipe: a row, stated coordinates, and other keys of a group."""

    row: str
    options: Options
    own: Options = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """Optimizers with one mathematics.

    Attributes:
        rows: of the catalogue.
        neutral: field -> the value where a library has no knob for it.
        forward: fields -> image.
        back: (row, its coordinates, other keys of the group) -> fields.
        states: coordinate -> the fields that it comes from, in words, for tables.
        shrinks: the kinds of shrink that it has.
    """

    rows: tuple[str, ...]
    neutral: Mapping[str, Any]
    forward: Callable[[Fields, At], Image]
    back: Callable[[str, Action, Action, At], Fields]
    states: Mapping[str, str]
    shrinks: tuple[str, ...] = ("direct",)


@dataclass(frozen=True)
class At:
    """One increment; `where` begins the messages. Continued: the memory is that of a checkpoint."""

    per_update: int
    where: str
    continued: bool = False

    def error(self, why: str) -> RecipeError:
        return RecipeError(f"{self.where}: {why}")

    def life(self, retained: float) -> float:
        """h with 2^(−Δτ/h) = retained."""
        return half_life(retained, self.per_update)

    def life_of_loss(self, lost: float) -> float:
        """h with 1 − 2^(−Δτ/h) = lost."""
        if lost >= 1:
            raise self.error(f"one update would lose {lost:g} of what it shrinks; a half-life loses less than 1")
        return life_of_loss(lost, self.per_update)

    def lost(self, life: float) -> float:
        return complement(self.per_update, life)

    def kept(self, life: float) -> float:
        return retention(self.per_update, life)

    def memory(self, beta: float, readout: float = 1.0) -> Options:
        """A first memory of retention `beta`; at 0 the newest gradient is read instead."""
        if not beta:
            return {"readout": 0.0}
        return {"memory_half_life": self.life(beta), "readout": readout}

    def beta(self, action: Action, *, nesterov: bool = False) -> tuple[float, bool | None]:
        """(β, Nesterov) of a memory that is read plainly, not at all or, if `nesterov`, by its own β."""
        beta, mu = self.kept(action["memory_half_life"]), action["readout"]
        if mu == 0.0:
            return 0.0, None
        if mu == 1.0:
            return beta, False
        if not nesterov:
            raise self.error(f"it reads its memory plainly; readout must be 1 or 0, not {mu:.6g}")
        if not math.isclose(mu, beta, rel_tol=1e-9):  # a recipe may be written with ten digits
            raise self.error(f"Nesterov reads with the retention per update, here {beta:.6g}, but readout = {mu:.6g}")
        return beta, True

    def decay(self, action: Action) -> Fields:
        """{decay, decoupled} of a shrink or of a penalty; an action may have one of them."""
        lost, penalty = self.lost(action["shrink_half_life"]), action.get("l2", 0.0)
        if lost and penalty:
            raise self.error("it decays weights directly or by a penalty in the gradient, and the action does both")
        if lost and not action["step"]:
            raise self.error("weights that shrink without a step have no weight decay: it is per lr")
        if not lost and not penalty:
            return {"decay": 0.0, "decoupled": None}
        return {"decay": lost / action["step"] if lost else penalty, "decoupled": bool(lost)}

    def shrink(self, fields: Fields, lr: float) -> Options:
        """The inverse of `decay`: a = 1 − lr·λ, or λ in the gradient."""
        if fields["decoupled"]:
            return {"shrink_half_life": self.life_of_loss(lr * fields["decay"])}
        return {"l2": fields["decay"]} if fields["decay"] else {}

    def fixed(self, action: Action, key: str, value: object, why: str) -> None:
        if key in action and action[key] != value:
            raise self.error(f"{why}, but {key} = {action[key]!r}")
