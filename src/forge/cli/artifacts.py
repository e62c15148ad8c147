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
    from forge.service.base import Service
    from forge.views.listing import ArtifactRow

app = typer.Typer(help="List, fetch and prune the artifacts of runs.", no_args_is_help=True, rich_markup_mode=None)


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

    async def work(service: Service) -> int:
        chosen = run_id(run)
        rows = list(await service.runs.artifacts(chosen))
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

    async def work(service: Service) -> int:
        chosen = run_id(run)
        pick(name, [row.name for row in await service.runs.artifacts(chosen)], f"artifact in {chosen}:")
        destination = session.directory / (to or Path(Path(name).name))
        if destination.is_dir():
            destination /= Path(name).name
        if destination.exists() and not force:
            raise UsageError(f"{destination} is there already", hint="`--force` replaces it, `--to` puts it elsewhere")
        destination.parent.mkdir(parents=True, exist_ok=True)
        digest = await service.runs.fetch(chosen, name, destination)
        tell(f"{destination}  sha256 {digest[:12]}, verified")
        return ExitCode.SUCCEEDED

    session.run(work)


@app.command("prune")
def prune(
    context: typer.Context,
    keep: Annotated[int, typer.Option("--keep", min=1, help="How many of the newest runs keep theirs.")] = 50,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be deleted.")] = False,
) -> None:
    """Delete artifacts and source snapshots that no recent run, no run under way and no environment needs."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.engine.pruning import prune as delete
        from forge.model.units import format_size

        done = await delete(engine, keep=keep, dry_run=dry_run)
        for digest, size in done.deleted:
            say(f"{digest[:12]}  {format_size(size)}")
        total = format_size(sum(size for _, size in done.deleted) + done.copies)
        verb = "would delete" if dry_run else "deleted"
        tell(f"{verb} {len(done.deleted)} artifacts and snapshots, {total} with copies; {done.kept} are needed")
        return ExitCode.SUCCEEDED

    session.run_here(work)
