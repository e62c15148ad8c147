"""Commands about releases: look, watch, steer, go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from forge.cli.options import EnvironmentName, Output, Timeout, Wait, seconds
from forge.cli.session import actor_of, is_local, session_of, tell
from forge.model.errors import ExitCode, StillRunning, UsageError

if TYPE_CHECKING:
    from forge.service.base import Service
    from forge.views.environment import EnvironmentView

PATIENCE = 30.0
"""Seconds that a server's workers may take to take a command in."""
app = typer.Typer(help="Look at a release and steer it.", no_args_is_help=True, rich_markup_mode=None)

Release = Annotated[
    str, typer.Option("--release", metavar="ID", help="Which one, when several are under way.", show_default=False)
]


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="release")
    root.command("rollback")(rollback)


@app.command("get")
def get(
    context: typer.Context,
    environment: EnvironmentName,
    output: Output = "table",
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Until it is settled.")] = False,
    timeout: Timeout = "",
) -> None:
    """Show the release of an environment. Weights, replicas, verdict, failed requests, what it waits for."""
    _show(context, environment, output, watch=watch, timeout=seconds(timeout))


@app.command("watch")
def watch_(
    context: typer.Context, environment: EnvironmentName, output: Output = "table", timeout: Timeout = ""
) -> None:
    """Watch a release until it is settled; exits with its result."""
    _show(context, environment, output, watch=True, timeout=seconds(timeout))


@app.command("promote")
def promote(
    context: typer.Context,
    environment: EnvironmentName,
    full: Annotated[bool, typer.Option("--full", help="Skip all steps and gates that are left.")] = False,
    release: Release = "",
    override: Annotated[
        str, typer.Option("--override", metavar="REASON", help="Pass freezes, windows, rate and budget; recorded.")
    ] = "",
    wait: Wait = False,
) -> None:
    """Let a release take its next step: open the gate or end the pause that it stands at."""
    payload = {"release": release, "full": full, "override": override}
    _command(context, environment, "promote", payload, wait=wait)


@app.command("approve")
def approve(context: typer.Context, environment: EnvironmentName, release: Release = "", wait: Wait = False) -> None:
    """Say yes at the gate that a release waits at."""
    _command(context, environment, "approve", {"release": release}, wait=wait)


@app.command("pause")
def pause(context: typer.Context, environment: EnvironmentName, release: Release = "") -> None:
    """Hold a release where it is. It is judged on, and rolls back by itself if it must."""
    _command(context, environment, "pause", {"release": release}, wait=False)


@app.command("resume")
def resume(context: typer.Context, environment: EnvironmentName, release: Release = "", wait: Wait = False) -> None:
    """Let a paused release go on."""
    _command(context, environment, "resume", {"release": release}, wait=wait)


@app.command("abort")
def abort(context: typer.Context, environment: EnvironmentName, release: Release = "", wait: Wait = True) -> None:
    """End a release and send its traffic back to stable, at once."""
    _command(context, environment, "abort", {"release": release}, wait=wait)


@app.command("retry")
def retry(context: typer.Context, environment: EnvironmentName, release: Release = "", wait: Wait = True) -> None:
    """Start the last release that did not succeed once more."""
    _command(context, environment, "retry", {"release": release}, wait=wait)


@app.command("undo")
def undo(context: typer.Context, environment: EnvironmentName, wait: Wait = True) -> None:
    """Take the last release back. Aborts it when it is under way, else rolls back to the version before."""
    _command(context, environment, "undo", {}, wait=wait)


def rollback(
    context: typer.Context,
    environment: EnvironmentName,
    to: Annotated[
        str, typer.Option("--to", metavar="VERSION", help="Default: the version that was stable before.")
    ] = "",
    override: Annotated[
        str,
        typer.Option("--override", metavar="REASON", help="Go back past a contract migration with --to; recorded."),
    ] = "",
    wait: Wait = True,
) -> None:
    """Roll an environment back in one step."""
    _command(context, environment, "rollback", {"to": to, "override": override}, wait=wait)


def _show(context: typer.Context, environment: str, output: str, *, watch: bool, timeout: float | None) -> None:
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.environments import print_environment
        from forge.cli.render.progress import progress_for
        from forge.cli.subjects import EnvironmentSubject
        from forge.cli.watching import Foreground
        from forge.service.steering import check_released

        check_released(await service.environments.get(environment))
        subject = EnvironmentSubject(service, environment)
        code = int(ExitCode.SUCCEEDED)
        if watch:
            foreground = Foreground(service, [subject], progress_for(session.terminal))
            code = await foreground.carry_on(work=False, timeout=timeout)
        print_environment(session, await service.environments.get(environment, closely=True), output)
        return code

    session.run(work)


def _command(context: typer.Context, environment: str, kind: str, payload: dict[str, Any], *, wait: bool) -> None:
    """Send a command; it takes effect in whichever process works on the environment, here if nobody does."""
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.render.progress import progress_for
        from forge.cli.subjects import EnvironmentSubject, TakenIn
        from forge.cli.watching import Foreground

        subject = EnvironmentSubject(service, environment)
        given = {name: value for name, value in payload.items() if value}
        accepted = await service.environments.command(environment, kind, given, actor=await actor_of(service))
        shown = subject if wait else TakenIn(service, environment, accepted)
        patience = None if wait or is_local(service) else PATIENCE
        code = await Foreground(service, [shown], progress_for(session.terminal)).carry_on(timeout=patience)
        refusal = await service.records.refusal(accepted)
        if refusal is None and code == ExitCode.STILL_RUNNING:
            raise StillRunning(
                f"no worker of the server has taken the {kind} in yet", hint="it does as soon as one is there"
            )
        if refusal:
            raise UsageError(refusal, hint=f"see `forge release get {environment}`")
        tell(f"{environment}: {outcome_line(await subject.look())}")
        if code == ExitCode.INTERRUPTED or (wait and kind not in {"rollback", "undo"}):
            return code
        # Whoever asks to go back has succeeded when the release under way is aborted.
        return code if wait and code not in {ExitCode.REJECTED, ExitCode.DID_NOT_SUCCEED} else ExitCode.SUCCEEDED

    session.run(work)


def outcome_line(view: EnvironmentView) -> str:
    """Return in one line where an environment stands."""
    current = view.current
    release = f"; {current.id} {current.state}" + (f" ({current.reason})" if current.reason else "") if current else ""
    return f"stable is {view.stable or 'nothing yet'}{release}"
