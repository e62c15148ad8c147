"""Commands about environments: which version is where; start and stop what runs; logs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import EnvironmentName, Follow, Output
from forge.cli.session import Session, say, session_of, tell
from forge.model.errors import ExitCode

if TYPE_CHECKING:
    from forge.cli.render.tables import Column
    from forge.engine.engine import Engine
    from forge.service.base import Service
    from forge.views.environment import EnvironmentView
    from forge.views.run import RunView

app = typer.Typer(
    help="List environments; start, stop and look at what runs in them.", no_args_is_help=True, rich_markup_mode=None
)


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="env")


@app.command("list")
def list_(context: typer.Context, output: Output = "table") -> None:
    """List every environment: stable version, state, traffic."""
    from forge.cli.render.tables import check_output, listing

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        known = service.environments
        rows = [await known.get(name, closely=True) for name in await known.names()]
        text = listing(
            rows, _columns(session), output, name=lambda row: row.name, empty="the pipeline has no environments"
        )
        if text:
            say(text)
        return ExitCode.SUCCEEDED

    session.run(work)


@app.command("show")
def show(context: typer.Context, environment: EnvironmentName, output: Output = "table") -> None:
    """Show an environment: its versions, weights, replicas, releases, address."""
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(service: Service) -> int:
        print_environment(session, await service.environments.get(environment, closely=True), output)
        return ExitCode.SUCCEEDED

    session.run(work)


@app.command("up")
def up(context: typer.Context, environment: EnvironmentName) -> None:
    """Bring what the environment should run up again, after `env down` or a restart of the machine."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.power import bring_up
        from forge.service.locating import check_known

        await check_known(engine, environment)
        return await bring_up(engine, session, environment)

    session.run_here(work)


@app.command("down")
def down(
    context: typer.Context,
    environment: EnvironmentName,
    force: Annotated[bool, typer.Option("--force", help="Abort the releases that are under way first.")] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """End everything that runs in an environment: proxy, replicas, agent. What was released stays on record."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.gates import question
        from forge.cli.power import abort_all, check_at_rest, take_down, under_way
        from forge.service.locating import check_known

        await check_known(engine, environment)
        going = await under_way(engine, environment)
        if not force:
            check_at_rest(environment, going)
        if not yes and session.terminal.interactive:
            first = f"aborts {', '.join(going)} and " if going else ""
            typed = await question(f"this {first}stops everything in {environment}; type its name to go on: ")
            if typed != environment:
                tell("nothing was stopped")
                return ExitCode.REJECTED
        if force:
            await abort_all(engine, session, environment)
        return await take_down(engine, session, environment)

    session.run_here(work)


@app.command("hand-back")
def hand_back(
    context: typer.Context,
    environment: EnvironmentName,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Give an environment on a cluster back: the stable version runs under the manifests' own names, without a gap,
    traffic goes to the Service itself again, and nothing of Forge's is left."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.gates import question
        from forge.cli.power import give_back
        from forge.service.locating import check_known

        await check_known(engine, environment)
        if not yes and session.terminal.interactive:
            typed = await question(f"this ends Forge's work in {environment}; type its name to go on: ")
            if typed != environment:
                tell("nothing was changed")
                return ExitCode.REJECTED
        return await give_back(engine, session, environment)

    session.run_here(work)


@app.command("logs")
def logs(
    context: typer.Context,
    environment: EnvironmentName,
    version: Annotated[str, typer.Argument(metavar="[VERSION]", show_default=False, help="Only this version.")] = "",
    follow: Follow = False,
    tail: Annotated[int, typer.Option("--tail", min=0, help="How many lines of each replica to begin with.")] = 100,
) -> None:
    """Print what the replicas of an environment print, each line with `version/replica: `."""
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.cli.power import open_target
        from forge.cli.render.paint import strip_ansi, tame_ansi
        from forge.service.locating import check_known, environment_plan

        await check_known(engine, environment)
        plan = await environment_plan(engine, environment)
        clean = tame_ansi if session.terminal.colour_out else strip_ansi
        target = open_target(engine, plan)
        async for line in target.logs(version or None, follow=follow, tail=tail):
            sys.stdout.write(clean(line) + "\n")
            if follow:
                sys.stdout.flush()
        return ExitCode.SUCCEEDED

    session.run_here(work)


def print_environment(session: Session, view: EnvironmentView | RunView, output: str) -> None:
    """Print an environment's view in the output mode that was asked for."""
    from forge.cli.render.tables import document
    from forge.cli.render.tree import environment_tree
    from forge.views.environment import EnvironmentView

    assert isinstance(view, EnvironmentView)
    if output in {"json", "yaml"}:
        say(document(view, output))
    elif output == "name":
        say(view.name)
    else:
        say("\n".join(environment_tree(view, session.out)))


def _columns(session: Session) -> list[Column[EnvironmentView]]:
    from forge.cli.render.tables import Column
    from forge.model.units import format_weight

    paint = session.out

    def arms(view: EnvironmentView) -> str:
        carrying = [arm for arm in view.arms if arm.set_weight]
        return ", ".join(f"{arm.version} {format_weight(arm.set_weight)}" for arm in carrying) or "-"

    return [
        Column("ENVIRONMENT", lambda view: view.name),
        Column("STATE", lambda view: paint.state(view.state)),
        Column("STABLE", lambda view: view.stable or "-"),
        Column("TRAFFIC", arms),
        Column("ADDRESS", lambda view: view.address or "-"),
        Column("RELEASE", lambda view: view.current.id if view.current else "-", wide=True),
        Column("TARGET", lambda view: view.target, wide=True),
        Column("ROUTER", lambda view: view.router, wide=True),
    ]
