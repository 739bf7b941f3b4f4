"""What in a prediction is probably not meant, in words: what, where, and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..motion import ADDITIVE, AVERAGED
from ..plaintext import readable

if TYPE_CHECKING:
    from .prediction import Outlook

FORGOTTEN = 0.1  # of its fair share that early data keeps at least
REMEMBERED = 0.5  # of the initial weights that is left at most
APART = 10.0  # the ratio of two groups' angles


def doubts_about(groups: Sequence[Outlook], base: str, end: int, curvature: float | None) -> Iterator[str]:
    """One sentence or two for each."""
    for g in groups:
        where = f"group {g.name!r}"
        if g.early < FORGOTTEN * 0.25:
            yield (
                f"{where} forgets its early data: the first quarter of the run has {_percent(g.early)} of what "
                f"is in the final weights, half of them reach back {readable(float(f'{g.reach:.3g}'))} {base}. "
                "A longer shrink_half_life, or a schedule that lets shrink fall with the step, keeps more of it"
            )
        if g.matrices and g.left > REMEMBERED:
            yield from _initial(g, where, end, base)
        yield from _steep(g, where, curvature)
    yield from _apart(groups)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share >= 1e-3 else "less than 0.1%"


def _initial(g: Outlook, where: str, end: int, base: str) -> Iterator[str]:
    cosines = [s.cosine for s in g.seen if s.cosine is not None and len(s.shape) > 1]
    if cosines and max(cosines) < REMEMBERED:  # what has grown since is much longer
        return
    why, cure = "its updates turn it too little", "Larger angles forget more"
    if g.motion in (ADDITIVE, AVERAGED):
        why = "nothing shrinks" if g.shrink_half_life == math.inf else "the shrink_half_life is long beside the run"
        cure = "A shrink_half_life of a fifth of the run leaves 3 %"
    yield (
        f"{where} never forgets its initialisation: {g.left:.0%} of it is left after {readable(end)} {base}, as {why}. "
        f"{cure}"
    )


def _steep(g: Outlook, where: str, curvature: float | None) -> Iterator[str]:
    if g.threshold is None:
        return
    of = "the preconditioned Hessian" if g.preconditioned else "the Hessian"
    if not g.preconditioned and g.penalty >= g.threshold:
        yield (
            f"{where} is unstable: l2 = {g.penalty:g} alone is a curvature above the threshold of its peak step, "
            f"{g.threshold:.4g}. Lower step or l2"
        )
    elif curvature is not None and curvature > g.threshold:
        yield (
            f"{where} is unstable where {of} has the curvature {curvature:g}: its peak step stands "
            f"{g.threshold:.4g}. Lower the step"
        )


def _apart(groups: Sequence[Outlook]) -> Iterator[str]:
    angles = [(s.angle, g.name) for g in groups for s in g.seen if s.angle and len(s.shape) > 1]
    if not angles:
        return
    (slow, slowly), (fast, quickly) = min(angles), max(angles)
    if slowly != quickly and fast > APART * slow:
        yield (
            f"groups turn at very different speeds: {quickly!r} by {fast:.2g} rad per update, {slowly!r} by "
            f"{slow:.2g}. Half-lives of shrink set the speed in the long run, steps that at the start"
        )
