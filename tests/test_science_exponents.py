"""benchmarks/science/exponents.py on exponents that are made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("matplotlib")

from benchmarks.science import exponents
from benchmarks.science.exponents import DIAGONAL, GD, MOMENTUM, NATURAL, SIGN, SPECTRA, predicted


def test_exponents_are_judged(tmp_path: Path) -> None:
    """As predicted, with gradient descent at 1/2.6 of natural gradient at s = 1, and with the widest gap at 1.5."""
    assert predicted(1.0, DIAGONAL) is None
    every = {}
    for s in SPECTRA:
        of = {rule: np.full(3, predicted(s, rule) or 0.0) for rule in (GD, MOMENTUM, SIGN, NATURAL)}
        of[DIAGONAL] = (of[GD] + of[SIGN]) / 2
        every[s] = of
    source, ratio, peak, momentum, natural, others = exponents.judged(every)
    assert [c.holds for c in (source, ratio, peak, momentum, natural, others)] == [True, False, False, True, True, True]
    every[1.0][GD] = every[1.0][NATURAL] / 2.6 * np.array([0.9, 1.0, 1.1])
    every[1.0][DIAGONAL] = every[1.0][SIGN] - 0.01
    every[1.5][NATURAL] = every[1.5][NATURAL] + 2.0
    found = exponents.judged(every)
    assert [c.holds for c in found] == [True, True, True, True, False, False]
    every[0.5][DIAGONAL][1] = 9.0
    assert not exponents.judged(every)[0].holds
    exponents.picture(every, tmp_path / "there.png")
    assert (tmp_path / "there.png").stat().st_size > 10_000
    assert exponents.table(every).count("\n") == len(SPECTRA) + 1
