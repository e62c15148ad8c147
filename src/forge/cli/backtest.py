"""`forge backtest`: what a policy would have cost on past releases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.analyse import JUDGES, fraction, judge_file, one_of
from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.cli.render.tables import Column
    from forge.engine.backtest import Cost
    from forge.model.plan import EnvironmentPlan
    from forge.model.strategy import Strategy


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("backtest")(backtest)


def backtest(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Readings as CSV, as `forge analyse` takes them.")],
    truth: Annotated[
        Path | None, typer.Option("--truth", metavar="FILE", help="CSV release,bad.", show_default=False)
    ] = None,
    judge: Annotated[
        list[str], typer.Option("--judge", metavar="NAME", help="Only these; give it once for each.")
    ] = [],  # noqa: B006  # typer reads it
    stable: Annotated[str, typer.Option("--stable", metavar="NAME", help="The arm to compare with.")] = "stable",
    limit: Annotated[
        str, typer.Option("--limit", metavar="RATE", help="Instead of the pipeline's limit, such as 5%.")
    ] = "",
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Processes; 0: one a processor.")] = 0,
    output: Output = "table",
) -> None:
    """Say what each judge would have cost on past releases: failed requests, hours, false alarms. Changes nothing."""
    from msgspec.structs import replace

    from forge.cli.render.tables import check_output, listing
    from forge.core.judge.analysis import AnalysisSettings
    from forge.engine.analysing import configured, judge_release, limits
    from forge.engine.backtest import cost_of, read_truth, step_seconds

    check_output(output)
    if jobs < 0:
        raise UsageError("`--jobs` is 0 or more")
    for name in judge:
        one_of(name, JUDGES, "judge")
    session = session_of(context)
    strategy, plan = _policy(session)
    if limit:
        strategy = replace(strategy, thresholds=limits(fraction(limit)).thresholds)
    rates = [rule.above for rule in strategy.thresholds if rule.metric == "error_rate"]
    settings = AnalysisSettings(configured(plan), min(rates, default=None))
    costs: list[Cost] = []
    told = None
    for name in judge or JUDGES:
        work = partial(judge_release, judge=name, settings=settings, strategy=strategy, plan=plan)
        found = judge_file(session, session.directory / file, work, stable=stable, only=[], jobs=jobs)
        if truth is not None and told is None:
            told = read_truth(session.directory / truth, [one.analysis.release for one in found])
        costs.append(cost_of(name, found, told, step_seconds(strategy)))
    say(listing(costs, _columns(), output, name=lambda one: one.judge))
    leave(ExitCode.SUCCEEDED)


def _columns() -> list[Column[Cost]]:
    from forge.cli.render.tables import Column, flatten

    return [
        Column("JUDGE", lambda one: one.judge),
        Column("RELEASES", lambda one: f"{one.releases:,}", right=True),
        Column("ROLLED BACK", lambda one: f"{one.rolled_back:,}", right=True),
        Column("CAUGHT", lambda one: flatten(one.caught), right=True),
        Column("MISSED", lambda one: flatten(one.missed), right=True),
        Column("FALSE ALARMS", lambda one: flatten(one.false_alarms), right=True),
        Column("FAILED", lambda one: f"{one.failed_requests:,}", right=True),
        Column("EXCESS", lambda one: f"{one.excess_failed_requests:,.1f}", right=True),
        Column("HOURS", lambda one: f"{one.hours:,.2f}", right=True),
    ]


def _policy(session: Session) -> tuple[Strategy, EnvironmentPlan | None]:
    """The project's own strategy and environment, or the default strategy where there is no project."""
    from forge.engine.project import Project
    from forge.model.strategy import Strategy
    from forge.simulate.policy import project_policy

    try:
        project = Project.find(session.directory)
    except UsageError:
        return Strategy(), None
    return project_policy(project)
