"""The options of ``pytest --pyargs dualopt_conformance``; in any other run of pytest this adds nothing."""

from __future__ import annotations

import sys
from typing import Any

PACKAGE = "dualopt_conformance"


def pytest_addoption(parser: Any) -> None:
    """--backend, --tier, --cases and --device, where the suite is what is run."""
    if not any(PACKAGE in argument for argument in sys.argv):
        return
    group = parser.getgroup("dualopt conformance")
    group.addoption("--backend", action="append", help="a registered backend; may be given again (default: all)")
    group.addoption("--tier", action="append", choices=["exact", "fast"], help="default: both")
    group.addoption("--cases", action="append", metavar="GLOB", help="of case names; default: all")
    group.addoption("--device", default=None, help="as the backend's library calls it")
