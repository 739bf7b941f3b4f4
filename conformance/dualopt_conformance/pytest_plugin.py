"""The options of ``pytest --pyargs dualopt_conformance``; in any other run of pytest this adds nothing."""

from __future__ import annotations

import sys
from typing import Any

PACKAGE = "dualopt_conformance"


def pytest_addoption(parser: Any) -> None:
    """--backend, --tier, --cases, --device and --longest, where the suite is what is run."""
    if not any(PACKAGE in argument for argument in sys.argv):
        return
    group = parser.getgroup("dualopt conformance")
    group.addoption("--backend", action="append", help="a registered backend; may be given again (default: all)")
    group.addoption("--tier", action="append", choices=["exact", "fast"], help="default: both")
    group.addoption("--cases", action="append", metavar="GLOB", help="of case names; default: all")
    group.addoption("--device", default=None, help="as the backend's library calls it")
    group.addoption("--longest", action="store_true", help="exact free runs of full length, beside numpy's")
