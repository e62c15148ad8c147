"""Commands about runs: start, list, look, read logs, cancel, retry, carry on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Follow, Output, Parameters, RunId, Timeout, Yes, pairs, pick, run_id, seconds
from forge.cli.session import Session, actor_of, is_local, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.cli.render.tables import Column
    from forge.cli.subjects import RunSubject, Subject
    from forge.cli.watching import Foreground
    from forge.engine.engine import Engine
    from forge.service.base import Service
    from forge.views.environment import EnvironmentView
    from forge.views.listing import RunRow
    from forge.views.run import RunView

LIST_LIMIT = 20


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("run")(run)
    app.command("runs")(runs)
    app.command("status")(status)
    app.command("logs")(logs)
    app.command("cancel")(cancel)
    app.command("retry")(retry)
    app.command("resume")(resume)


def run(
    context: typer.Context,
    yes: Yes = False,
    parameters: Parameters = [],  # noqa: B006
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Carry it on in the background.")] = False,
    output: Output = "table",
) -> None:
    """Run the pipeline on the working tree as it is now.

    Works in the foreground until the run is over or waits for a person. At a manual gate it asks when it can;
    elsewhere it leaves the run waiting and exits 8: `forge approve` and `forge resume` go on.
    """
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)
    given = pairs(parameters, "-p")

    async def work(service: Service) -> int:
        from forge.cli.subjects import RunSubject, before

        who = await actor_of(service)
        known = await before(service)
        started = await service.runs.start(given, actor=who)
        if detach:
            where = "on the server"
            if is_local(service):
                from forge.cli.starting import carry_on_in_background

                carry_on_in_background(session.project, started)
                where = "in the background"
            say(started)
            tell(f"{started} goes on {where}: `forge status {started} --wait`, `forge logs {started} -f`")
            return ExitCode.SUCCEEDED
        if session.terminal.progress not in {"quiet", "json"}:
            tell(f"{started} started by {who}")
        return await _carry_on(service, session, RunSubject(service, started, known), yes=yes, output=output)

    session.run(work)


def runs(
    context: typer.Context,
    output: Output = "table",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many.")] = LIST_LIMIT,
    state: Annotated[list[str], typer.Option("--state", help="Only runs in this state.")] = [],  # noqa: B006
) -> None:
    """List runs, newest first."""
    from forge.cli.render.tables import check_output, listing

    check_output(output)
    session = session_of(context)
    from forge.core.pipeline.state import RunStatus

    known = list(RunStatus.__args__)  # type: ignore[attr-defined]
    wanted = tuple(pick(one, known, "state") for one in state)

    async def work(service: Service) -> int:
        rows = await _newest(service, limit, wanted)
        text = listing(rows, _columns(session), output, name=lambda row: row.id, empty="no runs yet: `forge run`")
        if text:
            say(text)
        return ExitCode.SUCCEEDED

    session.run(work)


def status(
    context: typer.Context,
    run: RunId = "",
    output: Output = "table",
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Until it is over or waits for a person.")] = False,
    timeout: Timeout = "",
) -> None:
    """Show a run (default: the newest); exits with its result. `--wait` watches without working on it."""
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)
    patience = seconds(timeout)

    async def work(service: Service) -> int:
        chosen = await _one_run(service, run)
        foreground = await _foreground(service, session, [chosen], logs=False)
        code = ExitCode.STILL_RUNNING
        if wait:
            code = ExitCode(await foreground.carry_on(work=False, timeout=patience))
        view = await foreground.subjects[0].look()
        _print_run(session, view, output)
        return code if code == ExitCode.INTERRUPTED else foreground.subjects[0].exit_code(view)

    session.run(work)


def logs(
    context: typer.Context,
    run: RunId = "",
    job: Annotated[str, typer.Argument(metavar="JOB", show_default=False, help="Only this job.")] = "",
    step: Annotated[str, typer.Argument(metavar="STEP", show_default=False, help="Only this step, by id.")] = "",
    follow: Follow = False,
    tail: Annotated[int, typer.Option("--tail", min=0, help="Only the last lines of each step; 0: all.")] = 0,
) -> None:
    """Print the logs of a run (default: the newest), of one job, or of one step."""
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.reading import print_logs

        chosen = await _one_run(service, run)
        return await print_logs(service, session, chosen, job=job, step=step, follow=follow, tail=tail)

    session.run(work)


def cancel(
    context: typer.Context,
    run: RunId,
    comment: Annotated[str, typer.Option("-m", "--comment", help="Why; kept with the run.")] = "",
    timeout: Timeout = "",
) -> None:
    """Cancel a run. Its processes get TERM, a grace period, then KILL; waits until nothing of it is left."""
    session = session_of(context)
    patience = seconds(timeout)

    async def work(service: Service) -> int:
        from forge.cli.subjects import RunSubject, before

        chosen = await _one_run(service, run)
        known = await before(service, chosen)
        await service.runs.command(chosen, "cancel", {"comment": comment}, actor=await actor_of(service))
        foreground = await _foreground(service, session, [RunSubject(service, chosen, known)])
        code = await foreground.carry_on(timeout=patience)
        ended = await service.runs.get(chosen)
        tell(f"{chosen} {ended.state}")
        return ExitCode.SUCCEEDED if ended.state == "cancelled" else code

    session.run(work)


def retry(
    context: typer.Context,
    run: RunId,
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Run again what failed in a run, and what depends on it; what succeeded is kept."""
    session = session_of(context)

    async def work(service: Service) -> int:
        from forge.cli.subjects import RunSubject, before

        chosen = await _one_run(service, run)
        known = await before(service, chosen)
        await service.runs.command(chosen, "retry", {}, actor=await actor_of(service))
        return await _carry_on(service, session, RunSubject(service, chosen, known), yes=yes, output=output)

    session.run(work)


def resume(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="[RUN]", show_default=False, help="Only this run.")] = "",
    yes: Yes = False,
    output: Output = "table",
) -> None:
    """Carry on whatever is unfinished, in the foreground: runs and releases. Exits with the result."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.subjects import RunSubject
        from forge.cli.unfinished import unfinished
        from forge.service.local import LocalService

        service = LocalService(engine)
        if run:
            return await _carry_on(
                service, session, RunSubject(service, await _one_run(service, run)), yes=yes, output=output
            )

        subjects = await unfinished(engine)
        if not subjects:
            tell("nothing is unfinished")
            return ExitCode.SUCCEEDED
        foreground = await _foreground(service, session, subjects, yes=yes, ask=True, everything=True)
        code = await foreground.carry_on()
        if code == ExitCode.INTERRUPTED:
            tell("stopped: steps that were under way will run again, environments keep serving; `forge resume` goes on")
            return code
        _print_all(session, foreground, output)
        return code

    session.run_here(work)


async def _carry_on(service: Service, session: Session, watched: RunSubject, *, yes: bool, output: str) -> int:
    run = watched.name
    foreground = await _foreground(service, session, [watched], yes=yes, ask=True)
    code = await foreground.carry_on()
    if code == ExitCode.INTERRUPTED and not is_local(service):
        tell(f"stopped watching: {run} goes on on the server")
        tell(f"  `forge status {run} --wait` watches it again, `forge cancel {run}` ends it")
        return code
    if code == ExitCode.INTERRUPTED:
        tell(f"stopped: steps that were under way will run again, environments keep serving; {run} is unfinished")
        tell(f"  `forge resume {run}` goes on, `forge cancel {run}` ends it")
        return code
    _print_all(session, foreground, output)
    return code


async def _foreground(
    service: Service,
    session: Session,
    what: Sequence[str | Subject],
    *,
    yes: bool = False,
    ask: bool = False,
    logs: bool = True,
    everything: bool = False,
) -> Foreground:
    from forge.cli.gates import Gatekeeper
    from forge.cli.render.progress import progress_for
    from forge.cli.subjects import RunSubject
    from forge.cli.watching import Foreground

    quiet = session.terminal.progress in {"quiet", "json"}
    gatekeeper = Gatekeeper(
        service,
        actor=await actor_of(service),
        yes=yes,
        ask=ask and session.terminal.interactive and not quiet,
        paint=session.err,
    )
    return Foreground(
        service,
        [RunSubject(service, one) if isinstance(one, str) else one for one in what],
        progress_for(session.terminal),
        gatekeeper=gatekeeper if yes or ask else None,
        logs=logs and session.terminal.progress != "quiet",
        everything=everything,
    )


async def _one_run(service: Service, run: str) -> str:
    if run:
        return (await service.runs.get(run_id(run))).id
    newest = await service.runs.page(limit=1)
    if not newest.items:
        raise UsageError("there is no run yet", hint="`forge run` starts one")
    return newest.items[0].id


async def _newest(service: Service, limit: int, statuses: tuple[str, ...]) -> list[RunRow]:
    """Return that many runs, newest first."""
    rows: list[RunRow] = []
    cursor = ""
    while len(rows) < limit:
        page = await service.runs.page(statuses=statuses, limit=min(limit - len(rows), 200), cursor=cursor)
        rows += page.items
        cursor = page.next
        if not cursor:
            break
    return rows


def _print_all(session: Session, foreground: Foreground, output: str) -> None:
    views = list(foreground.views.values())
    if len(views) == 1:
        _print_run(session, views[0], output)
        return
    from forge.cli.render.tables import document

    if output in {"json", "yaml"}:
        say(document(views, output))
        return
    for view in views:
        _print_run(session, view, output)


def _print_run(session: Session, view: RunView | EnvironmentView, output: str) -> None:
    from forge.cli.render.tables import document
    from forge.cli.render.tree import environment_tree, run_tree
    from forge.views.run import RunView

    if output in {"json", "yaml"}:
        say(document(view, output))
    elif output == "name" or (session.terminal.progress == "quiet" and output == "table"):
        say(view.id if isinstance(view, RunView) else view.name)
    elif isinstance(view, RunView):
        say("\n".join(run_tree(view, session.out)))
    else:
        say("\n".join(environment_tree(view, session.out)))


def _columns(session: Session) -> list[Column[RunRow]]:
    from forge.cli.render.tables import Column, age
    from forge.model.units import format_duration

    now = time.time()
    paint = session.out
    return [
        Column("RUN", lambda row: row.id),
        Column("STATE", lambda row: paint.state(row.state)),
        Column("JOBS", lambda row: row.done),
        Column("AGE", lambda row: age(row.created_at, now)),
        Column("DURATION", lambda row: "-" if row.duration is None else format_duration(row.duration)),
        Column("BY", lambda row: row.actor or "-"),
        Column("COMMIT", lambda row: row.commit[:12] or "-", wide=True),
        Column("REF", lambda row: row.ref or "-", wide=True),
        Column("ATTEMPT", lambda row: str(row.attempt), wide=True, right=True),
        Column("PIPELINE", lambda row: row.pipeline or "-", wide=True),
        Column("MESSAGE", lambda row: row.message or _not_succeeded(row)),
    ]


def _not_succeeded(row: RunRow) -> str:
    """Which jobs are in the way, for a run without a message of its own."""
    notable = {"failed", "error", "waiting_approval", "rejected"}
    return ", ".join(f"{job.name} {job.state.replace('_', ' ')}" for job in row.jobs if job.state in notable) or "-"
