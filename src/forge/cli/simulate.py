"""`forge simulate`: try a release policy against a scenario in virtual time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.simulate.report import Report, Told
    from forge.simulate.story import Story


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("simulate")(simulate)


def simulate(
    context: typer.Context,
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A scenario; by default a month of the project's own policy.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Another history.", show_default=False)
    ] = None,
    releases: Annotated[int, typer.Option("--releases", metavar="N", help="At most so many; 0: all.")] = 0,
    days: Annotated[float, typer.Option("--days", metavar="D", help="So long instead.", show_default=False)] = 0.0,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="OUT.SVG", help="Draw it into a file.", show_default=False)
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Check every decision against the invariants.")] = False,
    output: Output = "table",
) -> None:
    """Try a release policy on a simulated world: harm, time, false alarms. Changes nothing."""
    from forge.cli.render.tables import check_output, document
    from forge.simulate.run import simulate as play

    check_output(output)
    session = session_of(context)
    story = _shortened(_story(session, file), releases, days)
    report = play(story, seed, checked=check, traced=svg is not None)
    if svg is not None:
        _draw(report, session.directory / svg)
        tell(f"{session.err.icon('ok')} drew {svg}")
    if output in {"json", "yaml"}:
        say(document(report, output))
    elif output == "name":
        say("\n".join(one.id for one in report.releases))
    else:
        say(_table(report.releases, wide=output == "wide"))
        tell(_words(report))
    leave(ExitCode.SUCCEEDED)


def _story(session: Session, file: Path | None) -> Story:
    """The scenario, with the project's own policy for what it leaves open."""
    from forge.engine.project import Project
    from forge.simulate.policy import instructive_story, project_policy
    from forge.simulate.scenario import load_story

    try:
        project = Project.find(session.directory)
    except UsageError:
        own = plan = None
    else:
        own, plan = project_policy(project) if file is None else (None, None)
    return instructive_story(own, plan) if file is None else load_story(session.directory / file)


def _shortened(story: Story, releases: int, days: float) -> Story:
    from msgspec.structs import replace

    if days < 0 or days > 366:
        raise UsageError("`--days` is between 0 and 366")
    if releases < 0:
        raise UsageError("`--releases` is 0 or more")
    return replace(story, releases=releases or story.releases, seconds=days * 86400 or story.seconds)


def _draw(report: Report, path: Path) -> None:
    from forge.simulate.plot import svg

    try:
        path.write_text(svg(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from None


def _table(releases: tuple[Told, ...], *, wide: bool) -> str:
    from forge.cli.render.tables import Column, table
    from forge.model.units import format_duration

    def took(seconds: float | None) -> str:
        return "-" if seconds is None else format_duration(seconds)

    columns: list[Column[Told]] = [
        Column("RELEASE", lambda one: one.id),
        Column("AT", lambda one: format_duration(one.asked)),
        Column("VERSION IS", lambda one: one.kind),
        Column("OUTCOME", lambda one: one.outcome.replace("_", " ")),
        Column("TOOK", lambda one: took(one.seconds), right=True),
        Column("REQUESTS", lambda one: f"{one.requests:,}", right=True),
        Column("FAILED", lambda one: f"{one.failed:,}", right=True),
        Column("EXCESS", lambda one: f"{one.excess:,.1f}", right=True),
        Column("WHY", lambda one: one.reason, wide=True),
    ]
    return table(columns, releases, wide=wide)


def _words(report: Report) -> str:
    """The totals in three lines."""
    from forge.model.units import format_duration

    totals = report.totals
    good, bad = totals.promoted + totals.false_alarms, totals.caught + totals.missed

    def median(seconds: float | None) -> str:
        return "never" if seconds is None else f"{format_duration(seconds)} in the median"

    lines = [
        f"{report.name}: {totals.releases} releases in {report.days:g} days by {report.policy}, judge "
        f"{report.judge}, seed {report.seed}; {report.decisions:,} decisions"
        + (", every invariant held" if report.checked else ""),
        (
            f"{totals.caught} of {bad} bad ones rolled back ({median(totals.median_detection)}), {totals.missed} missed; "
            f"{totals.promoted} of {good} good ones promoted ({median(totals.median_promotion)}), "
            f"{totals.false_alarms} false alarms; {totals.stopped} stopped, {totals.unfinished} unfinished"
        ),
        f"{totals.failed_requests:,} of {totals.requests:,} requests to new versions failed, "
        f"{totals.excess_failed:,.1f} more than normal" + (f"; worst: {totals.worst}" if totals.worst else ""),
    ]
    return "\n".join(lines)
