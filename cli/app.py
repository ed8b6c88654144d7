"""The typer application, and the one place where errors become exit codes.

    0  done
    1  the work was done and the answer is "no" (nothing found, no answer)
    2  bad input, or a model that failed: one line on stderr
    130  interrupted by the user
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, cast

import typer

from ..core.errors import PlayheadError
from ..train.group import leave_group
from . import ask, collect, data, evaluate, find, rewards, scale, show, train, train_dpo, train_grpo, train_rft, world

# The line is the message: what a user needs is in it, and a traceback is for our own faults only.
app = typer.Typer(
    name="playhead",
    help="""Ask a long video: an agent skims, searches and zooms until it can point at the seconds that prove its answer.

    Start with **playhead demo**: it makes a 20-minute video, asks it four questions and writes a page to look at.
    """,
    epilog="Each command explains itself with examples: **playhead ask --help**",
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    add_completion=False,
    no_args_is_help=True,
)
evals = typer.Typer(help="Measure an agent on a benchmark.", no_args_is_help=True)
reward = typer.Typer(help="What rubrics pay for.", no_args_is_help=True)
sets = typer.Typer(help="Sets of trajectories: look, check, export, import.", no_args_is_help=True)
trains = typer.Typer(help="Train a model on what agents did.", no_args_is_help=True)
worlds = typer.Typer(help="Make long videos whose answers are known.", no_args_is_help=True)


def _version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"playhead {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    pass


app.command("ask")(ask.ask)
app.command("index")(find.index)
app.command("search")(find.search)
worlds.command("make")(world.make)
app.add_typer(worlds, name="world")
evals.command("world")(evaluate.world)
evals.command("compare")(evaluate.compare)
app.add_typer(evals, name="eval")
app.command("scale")(scale.scale)
reward.command("explain")(rewards.explain)
app.add_typer(reward, name="rewards")
app.command("collect")(collect.collect)
sets.command("stats")(data.stats)
sets.command("view")(data.view)
sets.command("export")(data.export)
sets.command("import")(data.import_)
sets.command("validate")(data.validate)
sets.command("think")(data.think)
sets.command("rerender")(data.rerender)
app.add_typer(sets, name="data")
trains.command("sft")(train.sft)
trains.command("merge")(train.merge)
trains.command("dpo")(train_dpo.dpo)
trains.command("rft")(train_rft.rft)
trains.command("grpo")(train_grpo.grpo)
app.add_typer(trains, name="train")
app.command("view")(show.view)
app.command("demo")(show.demo)

_UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""What every complaint about the command line itself derives from; typer does not name it in public."""


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    code = run(args)
    if code == 0:
        leave_group()
    sys.exit(code)


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line `args` (those of the process when None); returns the exit code, prints errors as one line."""
    try:
        return app(args=list(args) if args is not None else None, prog_name="playhead", standalone_mode=False) or 0
    except PlayheadError as error:
        return _refuse(str(error))
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            return 2  # the help has been printed
        context = getattr(error, "ctx", None)
        hint = f" (see {context.command_path} --help)" if context is not None else ""
        message = error.format_message().rstrip(".")  # pyright: ignore[reportAttributeAccessIssue]
        return _refuse(f"{message}{hint}")
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("playhead: interrupted", err=True)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): that is its right. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _refuse(message: str) -> int:
    typer.echo(f"playhead: {' '.join(message.split())}", err=True)
    return 2
