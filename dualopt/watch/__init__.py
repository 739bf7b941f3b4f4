"""What a run does, beside what was expected of it: measured, written, and looked at.

    measure       sums over the entries of a parameter, in any namespace: all that touches arrays
    measurement   these for one update of all parameters, in one array
    reading       what the sums mean, and their mean over a group: host, float64
    forecast      what is expected of every update, and how far off that may be
    header        which run it is, and the forecast of it
    monitor       when is measured, and what is written
    stream        the file
    board         the same numbers for TensorBoard
    verdict       measured against expected
    panels        what a picture shows of it
    terminal, picture, page      what is seen

The last five never see an array; `dualopt watch` imports no framework.
"""

from __future__ import annotations

from .monitor import Monitor

__all__ = ["Monitor"]
