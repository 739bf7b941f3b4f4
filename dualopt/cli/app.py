"""The command line as a whole: one typer application, and what an error looks like on it."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from ..errors import DualoptError, MissingFrameworkError
from . import bench, conversion, demo, inspection, listing, missing, prediction, replaying, training, watching
from .output import complain

BAD_INPUT, MISSING = 2, 3  # exit statuses; 1 is a comparison that failed, 130 an interrupted run


class Guarded(TyperGroup):
    """Errors of dualopt end a command with one line on stderr: status 2, or 3 for a missing framework."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except MissingFrameworkError as error:
            complain(error)
            raise typer.Exit(MISSING) from error
        except ModuleNotFoundError as error:  # matplotlib is imported when it is needed
            if (told := missing(error)) is None:
                raise
            complain(told)
            raise typer.Exit(MISSING) from error
        except DualoptError as error:
            complain(error)
            raise typer.Exit(BAD_INPUT) from error


app = typer.Typer(
    name="dualopt",
    cls=Guarded,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    help="Optimizers in action coordinates: one definition, run by PyTorch and MLX.",
)
app.command("demo")(demo.demo)
app.command("train")(training.train)
app.command("explain")(inspection.explain)
app.command("predict")(prediction.command)
app.command("watch")(watching.command)
app.command("convert")(conversion.convert)
app.command("replay")(replaying.replay)
app.command("list")(listing.catalogue)
app.command("bench")(bench.bench)


@app.command("conformance", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def conformance(context: typer.Context) -> None:
    """Prove that two machines trained alike: list, record, compare, report, mutants."""
    from dualopt_conformance.cli import main

    main(context.args)
