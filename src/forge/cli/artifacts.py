"""Commands about artifacts: list what a run published, get a file."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output, RunId, pick, run_id
from forge.cli.session import say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.engine.engine import Engine

app = typer.Typer(help="List and fetch the artifacts of a run.", no_args_is_help=True, rich_markup_mode=None)


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="artifacts")


@app.command("list")
def list_(context: typer.Context, run: RunId, output: Output = "table") -> None:
    """List the artifacts that a run published."""
    from forge.cli.render.tables import Column, age, check_output, listing
    from forge.model.units import format_size

    check_output(output)
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.subjects import find_run
        from forge.views.listing import ArtifactRow, artifact_row

        chosen = await find_run(engine, run_id(run))
        rows = [artifact_row(one) for one in await engine.artifacts_of(chosen)]
        now = time.time()
        columns: list[Column[ArtifactRow]] = [
            Column("NAME", lambda row: row.name),
            Column("DIGEST", lambda row: row.digest[:12]),
            Column("SIZE", lambda row: format_size(row.size), right=True),
            Column("JOB", lambda row: row.job),
            Column("AGE", lambda row: age(row.created_at, now)),
            Column("SHA256", lambda row: row.digest, wide=True),
        ]
        text = listing(rows, columns, output, name=lambda row: row.name, empty=f"{chosen} has published nothing")
        if text:
            say(text)
        return ExitCode.SUCCEEDED

    session.run(work)


@app.command("get")
def get(
    context: typer.Context,
    run: RunId,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The artifact's name.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="PATH", help="Where to (default: its name, here).", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Fetch an artifact; its bytes are checked against their digest on the way."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.subjects import find_run

        chosen = await find_run(engine, run_id(run))
        known = {one.name: one for one in await engine.artifacts_of(chosen)}
        pick(name, list(known), f"artifact in {chosen}:")
        destination = session.directory / (to or Path(Path(name).name))
        if destination.is_dir():
            destination /= Path(name).name
        if destination.exists() and not force:
            raise UsageError(f"{destination} is there already", hint="`--force` replaces it, `--to` puts it elsewhere")
        destination.parent.mkdir(parents=True, exist_ok=True)
        await engine.artifacts.get(known[name].digest, destination)
        tell(f"{destination}  sha256 {known[name].digest[:12]}, verified")
        return ExitCode.SUCCEEDED

    session.run(work)
