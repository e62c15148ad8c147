"""`forge serve` and `forge worker`: Forge for a team."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.server.serving import Started
    from forge.server.settings import Settings

ConfigFile = Annotated[
    str, typer.Option("--config", metavar="FILE", help="Settings; default: forge-server.yaml here.", show_default=False)
]
Format = Annotated[str, typer.Option("-o", "--output", metavar="FORMAT", help="text or json: what is printed.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("serve")(serve)
    app.command("worker")(worker)


def serve(
    context: typer.Context,
    host: Annotated[str, typer.Option("--host", help="Default 127.0.0.1.", show_default=False)] = "",
    port: Annotated[int, typer.Option("--port", help="Default 8700; 0: any.", show_default=False)] = -1,
    work: Annotated[bool, typer.Option("--work/--no-work", help="Whether it works on runs too.")] = True,
    config: ConfigFile = "",
    openapi: Annotated[bool, typer.Option("--openapi", help="Print the API's description and end.")] = False,
    output: Format = "text",
) -> None:
    """Serve API and dashboard, and work on what is started there, until Ctrl-C.

    Serves the project of this folder, or those of forge-server.yaml. On this machine only, unless logging in is
    configured; prints a link that logs in once, as administrator.
    """
    session = session_of(context)
    _check_output(output)
    if openapi:
        import json

        from forge.server.app import describe

        say(json.dumps(describe(), indent=2))
        leave(ExitCode.SUCCEEDED)
    from forge.server.serving import serve as serve_site

    settings = _settings(
        session, config, host=host or None, port=port if port >= 0 else None, work=None if work else False
    )

    def announce(started: Started) -> None:
        if output == "json":
            _say_json(started)
            _flush()
            return
        say(f"Forge serves {', '.join(started.projects) or 'no project yet'} at {started.url}")
        if started.link:
            say(f"  log in once, as administrator: {started.link}")
        if not started.works:
            say("  it does not work on runs: `forge worker` does")
        _flush()
        tell("  Ctrl-C ends it: what is under way stops, and goes on with the next worker")

    _run(lambda: serve_site(settings, announce))


def worker(
    context: typer.Context,
    config: ConfigFile = "",
    output: Format = "text",
) -> None:
    """Work on the runs and releases of a site, without API and pages, until Ctrl-C.

    With PostgreSQL any number of workers and servers share the work.
    """
    session = session_of(context)
    _check_output(output)
    from forge.server.serving import work

    settings = _settings(session, config)

    def announce(started: Started) -> None:
        if output == "json":
            _say_json(started)
        else:
            say(f"Forge works on {', '.join(started.projects)}")
        _flush()
        tell("  Ctrl-C ends it: what is under way stops, and goes on with the next worker")

    _run(lambda: work(settings, announce))


def _check_output(output: str) -> None:
    if output not in {"text", "json"}:
        raise UsageError(f"no output of the kind `{output}`", hint="known: `json`, `text`")


def _settings(session: Session, config: str, **given: Any) -> Settings:
    import os

    from forge.server.settings import read_settings

    named = config or os.environ.get("FORGE_SERVER_CONFIG", "")
    return read_settings(Path(named) if named else None, session.directory, **given)


def _say_json(started: Started) -> None:
    import msgspec

    say(msgspec.json.encode(started).decode())


def _flush() -> None:
    """Pass on what was said: whoever started the server waits for it, often through a pipe."""
    import sys

    sys.stdout.flush()


def _run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    import asyncio
    import sys

    from forge.server.telemetry.logs import configure_logs

    configure_logs(sys.stderr)
    asyncio.run(work())
    leave(ExitCode.SUCCEEDED)
