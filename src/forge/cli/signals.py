"""Commands about signals: does every source of metrics and logs answer, and what does it know?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from forge.cli.options import EnvironmentName, Output, pick
from forge.cli.session import Session, say, session_of, tell
from forge.model.diagnostics import did_you_mean
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.adapters.signals.base import RequestTrace
    from forge.core.release.state import EnvironmentState
    from forge.engine.engine import Engine
    from forge.engine.examining import SourceExamined
    from forge.model.plan import EnvironmentPlan

app = typer.Typer(
    help="Check the metrics and logs that releases are judged by.", no_args_is_help=True, rich_markup_mode=None
)


def register(root: typer.Typer) -> None:
    """Add these commands."""
    root.add_typer(app, name="signals")


@app.callback()
def _signals() -> None:
    """Check the metrics and logs that releases are judged by."""


@app.command("test")
def ask(context: typer.Context, environment: EnvironmentName, output: Output = "table") -> None:
    """Ask every source of an environment once; show each query's newest value by version, and what is missing.

    Reads the pipeline file as it is now, so that a new source can be tried before a release depends on it.
    Exits 5 when a source cannot be asked.
    """
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.engine.examining import examine_signals

        plan, state = await _subject(engine, environment)
        versions = [*state.versions] if state else []
        found = await examine_signals(engine.project, plan, versions)
        print_sources(session, found, versions, output)
        return ExitCode.SUCCEEDED if all(source.answers for source in found) else ExitCode.FORGE_FAILED

    session.run_here(work)


@app.command("traces")
def traces(
    context: typer.Context,
    environment: EnvironmentName,
    release: Annotated[str, typer.Option("--release", metavar="NAME", help="Default: the newest one.")] = "",
    version: Annotated[str, typer.Option("--version", metavar="NAME", help="Default: all that it is about.")] = "",
    output: Output = "table",
) -> None:
    """List single requests behind what a release measured: traces that its versions' exemplars name, newest first."""
    from forge.cli.render.tables import check_output

    check_output(output)
    session = session_of(context)

    async def work(engine: Engine) -> int:
        from forge.engine.examining import find_traces

        plan, state = await _subject(engine, environment)
        if state is None or not state.releases:
            raise UsageError(f"nothing was released to {environment} yet", hint="a `deploy` step does that")
        names = [*state.releases]
        asked = state.releases[pick(release, names, "release") if release else names[-1]]
        about = [each for each in (asked.version, asked.previous) if each]
        begun = asked.started_at or asked.created_at
        ended = asked.finished_at or await engine.store.now()
        found = await find_traces(engine.project, plan, [version] if version else about, begun, ended)
        if found is None:
            raise UsageError(
                f"no source of {environment} knows traces",
                hint="`prometheus` does, with a preset or a histogram: see docs/signals/prometheus.md",
            )
        print_traces(session, found, asked.id, output)
        return ExitCode.SUCCEEDED

    session.run_here(work)


async def _subject(engine: Engine, environment: str) -> tuple[EnvironmentPlan, EnvironmentState | None]:
    """Return the environment as the file describes it, and what is there now, if anything is."""
    from forge.engine.planning import load
    from forge.service.locating import environment_state

    plan = load(engine.project)
    names = [known.name for known in plan.environments]
    if environment not in names:
        raise UsageError(
            f"the pipeline has no environment `{environment}`",
            hint=did_you_mean(environment, names) or "declare it under `environments:`",
        )
    machine = await engine.store.machines.find("environment", environment)
    state = await environment_state(engine, machine) if machine is not None else None
    return plan.environment(environment), state


def print_traces(session: Session, found: list[RequestTrace], release: str, output: str) -> None:
    """Print requests, one a line."""
    from forge.cli.render.tables import Column, document, table
    from forge.cli.render.tree import clock

    if output in {"json", "yaml"}:
        say(document(found, output))
    elif output == "name":
        say("\n".join(one.trace for one in found))
    elif not found:
        tell(
            f"{session.err.icon('warn')} no exemplar of {release}: does the service write them, and the server keep them?"
        )
    else:
        columns: list[Column[RequestTrace]] = [
            Column("TRACE", lambda one: one.trace),
            Column("VERSION", lambda one: one.version),
            Column("AT", lambda one: clock(one.at)),
            Column("TOOK", lambda one: "-" if one.seconds is None else f"{one.seconds * 1000:.4g} ms", right=True),
            Column("URL", lambda one: one.url or "-"),
        ]
        say(table(columns, found, wide=output == "wide"))


class _Row(NamedTuple):
    source: str
    query: str
    version: str
    value: str
    text: str


def print_sources(session: Session, found: tuple[SourceExamined, ...], versions: list[str], output: str) -> None:
    """Print what the sources said: a line for each query and version."""
    from forge.cli.render.tables import Column, document, table

    if output in {"json", "yaml"}:
        say(document(list(found), output))
        return
    if output == "name":
        say("\n".join(source.source for source in found))
        return
    rows = [row for source in found for row in _rows(source, versions)]
    columns: list[Column[_Row]] = [
        Column("SOURCE", lambda row: row.source),
        Column("QUERY", lambda row: row.query),
        Column("VERSION", lambda row: row.version),
        Column("VALUE", lambda row: row.value, right=True),
        Column("ASKED", lambda row: row.text, wide=True),
    ]
    if rows:
        say(table(columns, rows, wide=output == "wide"))
    if not versions:
        tell("no version runs there yet: release one, then this shows what is known of it")
    for source in found:
        for query in source.queries:
            if query.problem:
                name = f"{source.source} {query.name}".strip()
                tell(f"{session.err.icon('fail')} {name}: {query.problem}")
        silent = _silent(source, versions)
        if silent:
            tell(f"{session.err.icon('warn')} {source.source} knows nothing of {', '.join(silent)}")


def _rows(source: SourceExamined, versions: list[str]) -> list[_Row]:
    rows = []
    for query in source.queries:
        if query.problem:
            rows.append(_Row(source.source, query.name or "-", "-", "failed", query.query))
            continue
        for version in versions or [*query.values]:
            value = query.values.get(version)
            rows.append(_Row(source.source, query.name, version, _number(value, query.unit), query.query))
    return rows


def _silent(source: SourceExamined, versions: list[str]) -> list[str]:
    """Return the versions of which no query has a value, though all could be answered."""
    if not source.answers or not source.queries:
        return []
    known = {version for query in source.queries for version, value in query.values.items() if value is not None}
    return [version for version in versions if version not in known]


def _number(value: float | None, unit: str) -> str:
    if value is None:
        return "no data"
    return f"{value:g}{' ' + unit if unit else ''}"
