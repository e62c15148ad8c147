"""The `forge` command. Every command imports what it needs when it is called, so that help is instant."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from forge.cli import (
    analyse,
    approvals,
    artifacts,
    audit,
    backtest,
    doctor,
    environments,
    explanations,
    grafana,
    importing,
    initialise,
    login,
    people,
    pipeline,
    releases,
    runs,
    serve,
    shell,
    signals,
    simulate,
)
from forge.cli.failures import explain
from forge.cli.options import hoist
from forge.cli.render.paint import Paint
from forge.cli.sections import SectionedGroup
from forge.cli.session import Session
from forge.cli.terminal import detect_here, wants_colour
from forge.model.errors import UsageError

app = typer.Typer(
    name="forge",
    cls=SectionedGroup,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=f"The options above may also stand after the command.\n\nExit codes:\n{shell.EXIT_CODES}",
)
for room in (
    initialise,
    importing,
    pipeline,
    runs,
    approvals,
    artifacts,
    releases,
    explanations,
    environments,
    signals,
    grafana,
    simulate,
    analyse,
    backtest,
    doctor,
    audit,
    people,
    serve,
    login,
    shell,
):
    room.register(app)


def _version(wanted: bool) -> None:
    if wanted:
        shell.version()
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    directory: Annotated[
        str, typer.Option("-C", "--directory", metavar="FOLDER", help="Work as if started there.", show_default=False)
    ] = ".",
    project: Annotated[
        str,
        typer.Option("-P", metavar="NAME", help="Which project of FORGE_SERVER; FORGE_PROJECT.", show_default=False),
    ] = "",
    progress: Annotated[
        str, typer.Option("--progress", metavar="MODE", help="auto, tty, plain, json or quiet; FORGE_PROGRESS.")
    ] = "",
    no_color: Annotated[bool, typer.Option("--no-color", "--no-colour", help="No colours; NO_COLOR.")] = False,
    no_input: Annotated[bool, typer.Option("--no-input", help="Never ask; FORGE_NO_INPUT.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version of Forge.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Release management for SREs: from source to a judged, self-rolling-back release."""
    del version  # printed before anything else is looked at
    folder = Path(directory)  # as str above: a Path costs the import of pydantic, which help must not wait for
    if not folder.is_dir():
        raise UsageError(f"there is no folder {directory}")
    context.obj = Session(
        directory=folder,
        terminal=detect_here(no_colour=no_color, no_input=no_input, progress=progress),
        debug=debug,
        server=(server := os.environ.get("FORGE_SERVER", "").strip().rstrip("/")),
        project_name=project or (os.environ.get("FORGE_PROJECT", "").strip() if server else ""),
    )


def run_command(arguments: list[str]) -> int:
    """Run one command line and return its exit code; never raises."""
    arguments = hoist(arguments)
    paint = Paint(wants_colour(os.environ, is_terminal=_err_is_terminal(), no_colour="--no-color" in arguments))
    try:
        if "_FORGE_COMPLETE" in os.environ:
            from typer._completion_classes import completion_init

            completion_init()  # which `add_completion=False` leaves out: `forge completion` prints the scripts
        command = typer.main.get_command(app)
        code = command.main(args=arguments or ["--help"], prog_name="forge", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except SystemExit as done:  # the shell asked for completions
        return done.code if isinstance(done.code, int) else 0
    except BaseException as error:
        return explain(error, paint, debug="--debug" in arguments)


def _err_is_terminal() -> bool:
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        return False


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run_command(sys.argv[1:]))
