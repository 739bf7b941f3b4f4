"""``dualopt conformance list | record | compare | report | mutants``, with numpy and the standard library alone.

Exit status: 0 everything holds, 1 numbers differ, 2 the records cannot be compared, 3 it could not be run.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NoReturn

from dualopt.errors import DualoptError
from dualopt.namespace import TIERS, known

from . import backends  # noqa: F401  (registers array-api-strict)
from .cases import EVERY, chosen
from .compare import compare
from .manifest import NotComparableError
from .verdict import COULD_NOT_RUN, NOT_COMPARABLE, NUMERIC_FAILURE, OK, Verdict

# What a library reads once, before it can be told otherwise: float32 products are float32 products.
FULL_PRECISION = {"MLX_ENABLE_TF32": "0"}
EPILOG = "Exit status: 0 everything holds, 1 numbers differ, 2 the records cannot be compared, 3 it could not be run."


class Parser(argparse.ArgumentParser):
    """Wrong usage is "could not run"; argparse's own 2 is taken."""

    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(COULD_NOT_RUN, f"{self.prog}: {message}\n")


class Progress:
    """One line on a terminal that says what is being done; nothing in a file."""

    def __init__(self, quiet: bool = False) -> None:
        self._shown = sys.stderr.isatty() and not quiet
        self._began = time.monotonic()

    def __call__(self, what: str, done: int, of: int) -> None:
        if self._shown:
            line = f"{time.monotonic() - self._began:4.0f} s  {done + 1:3d}/{of}  {what}"
            print(f"\r\x1b[K{line[:99]}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command; ends the process."""
    parsed = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = parsed.command
    try:
        sys.exit(command(parsed))
    except NotComparableError as error:
        _stop(error, NOT_COMPARABLE)
    except (DualoptError, OSError) as error:
        _stop(error, COULD_NOT_RUN)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception:  # status 1, Python's own for a crash, says that numbers differ
        traceback.print_exc()
        _stop(DualoptError("this is a defect: please report it with the lines above"), COULD_NOT_RUN)


def _stop(error: Exception, status: int) -> NoReturn:
    print(f"dualopt conformance: {error}", file=sys.stderr)
    sys.exit(status)


def _parser() -> Parser:
    parser = Parser(
        prog="dualopt conformance",
        description="Prove that two machines trained the same way, or say where they parted.",
        epilog=EPILOG,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    listing = commands.add_parser("list", help="the cases", epilog=EPILOG)
    listing.add_argument("cases", nargs="*", default=["*"], metavar="GLOB", help="of case names, e.g. 'adamw*/usual'")
    listing.set_defaults(command=_list)

    record = commands.add_parser("record", help="run all cases on a backend and keep what happened", epilog=EPILOG)
    record.add_argument("--backend", required=True, help=f"one of {', '.join(known())}, or one that you registered")
    record.add_argument("--device", help="e.g. cpu, cuda, mps, gpu; the library's default if unsaid")
    record.add_argument("--threads", type=int, help="of the library, where it can be set")
    record.add_argument("--tier", default=",".join(TIERS), help="exact, fast, or both (default)")
    record.add_argument("--cases", action="append", metavar="GLOB", help="only these cases; may be given again")
    record.add_argument("--without-loop", action="store_true", help="leave the closed loop out")
    record.add_argument("--processes", type=int, help="that share the work; by default as many as pay")
    record.add_argument("--out", required=True, type=Path, metavar="DIR", help="a new directory")
    record.set_defaults(command=_record)

    comparing = commands.add_parser("compare", help="the verdict on records", epilog=EPILOG)
    comparing.add_argument("records", nargs="+", type=Path, metavar="DIR", help="the first is what others are held to")
    comparing.add_argument("--json", action="store_true", help="everything, for programs")
    comparing.set_defaults(command=_compare)

    report = commands.add_parser("report", help="the same as report.md, report.xml (JUnit), report.html", epilog=EPILOG)
    report.add_argument("records", nargs="+", type=Path, metavar="DIR")
    report.add_argument("--out", required=True, type=Path, metavar="DIR")
    report.add_argument("--without-mutants", action="store_true", help="leave the table of wrong optimizers out")
    report.set_defaults(command=_report)

    mutants = commands.add_parser("mutants", help="try the suite on wrong optimizers", epilog=EPILOG)
    mutants.add_argument("names", nargs="*", default=["*"], metavar="GLOB", help="of mutants")
    mutants.set_defaults(command=_mutants)
    return parser


def _list(parsed: argparse.Namespace) -> int:
    for name, case in chosen(tuple(parsed.cases)).items():
        size = sum(math.prod(shape) for shape in case.shapes.values())
        lengths = f"{case.updates:5d} updates  {len(case.shapes):2d} parameters  {size:5d} elements"
        print(f"{name:32s} {case.dtype:9s} {lengths}")
    print(f"{len(chosen(tuple(parsed.cases)))} of {len(EVERY)} cases", file=sys.stderr)
    return OK


def _record(parsed: argparse.Namespace) -> int:
    from .record import record

    for name, value in FULL_PRECISION.items():
        os.environ.setdefault(name, value)
    progress = Progress()
    path = record(
        parsed.out,
        parsed.backend,
        device=parsed.device,
        threads=parsed.threads,
        tiers=tuple(tier.strip() for tier in parsed.tier.split(",")),
        globs=tuple(parsed.cases or ["*"]),
        loops=not parsed.without_loop,
        processes=parsed.processes,
        show=progress,
    )
    progress.end()
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"recorded {parsed.backend} in {path} ({size / 1e6:.1f} MB)")
    return OK


def _compare(parsed: argparse.Namespace) -> int:
    verdict = _judged(parsed.records)
    if parsed.json:
        print(json.dumps(verdict.to_dict(), ensure_ascii=False))
    else:
        from .report import terminal

        print(terminal(verdict))
    return verdict.exit_status


def _judged(records: Sequence[Path]) -> Verdict:
    progress = Progress()
    verdict = compare(records, progress)
    progress.end()
    return verdict


def _report(parsed: argparse.Namespace) -> int:
    from .mutants import examine_all
    from .report import terminal, write

    parsed.out.mkdir(parents=True, exist_ok=True)  # first: the work is not lost to a place that cannot be written
    verdict = _judged(parsed.records)
    progress = Progress()
    table = None if parsed.without_mutants else examine_all(progress)
    progress.end()
    written = write(verdict, parsed.out, table)
    print(terminal(verdict, table))
    print(f"written: {', '.join(str(path) for path in written)}")
    return verdict.exit_status if table is None or all(m.right for m in table) else NUMERIC_FAILURE


def _mutants(parsed: argparse.Namespace) -> int:
    from .mutants import every, examined
    from .report import mutation_table

    picked = [m for m in every() if any(fnmatchcase(m.name, glob) for glob in parsed.names)]
    if not picked:
        raise DualoptError(f"no mutant matches {', '.join(parsed.names)}")
    progress = Progress()
    table = examined(picked, progress)
    progress.end()
    print(mutation_table(table))
    return OK if all(m.right for m in table) else NUMERIC_FAILURE
