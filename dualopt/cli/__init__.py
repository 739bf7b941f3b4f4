"""The `dualopt` command. Its packages are the extra `cli`, which nothing else in dualopt imports."""

from __future__ import annotations

import os
import sys

EXTRA = ("typer", "rich", "matplotlib")


def missing(error: ModuleNotFoundError) -> str | None:
    """What to install if a package of the extra is what is missing, else None."""
    name = (error.name or "").partition(".")[0]
    return f"{name} is not installed; run: pip install 'dualopt-optim[cli]'" if name in EXTRA else None


def main() -> None:
    """The entry point of the script; without the extra one line on stderr, and exit status 3."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads of one framework leave the other its cores
    if sys.argv[1:2] == ["conformance"]:  # which needs numpy alone
        from dualopt_conformance.cli import main as conformance

        conformance(sys.argv[2:])
    try:
        from .app import app
    except ModuleNotFoundError as error:
        told = missing(error)
        if told is None:
            raise
        print(f"dualopt: {told}", file=sys.stderr)
        sys.exit(3)
    app()
