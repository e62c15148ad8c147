"""`forge analyse`: judge recorded releases."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of, tell
from forge.model.diagnostics import did_you_mean
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.core.judge.analysis import AnalysisSettings
    from forge.engine.analysing import Judged

JUDGES = ("sequential", "threshold", "failure_limit", "mann_whitney")
DETAILED = 3
"""Up to so many releases are drawn; more are a table."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("analyse")(analyse)


def analyse(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Readings as CSV: release,t,arm,requests,errors[,le_…].")
    ],
    stable: Annotated[str, typer.Option("--stable", metavar="NAME", help="The arm to compare with.")] = "stable",
    judge: Annotated[
        str, typer.Option("--judge", metavar="NAME", help="sequential, threshold, failure_limit or mann_whitney.")
    ] = "sequential",
    alpha: Annotated[float, typer.Option("--alpha", help="Bound on the chance of a false rollback.")] = 0.01,
    limit: Annotated[
        str, typer.Option("--limit", metavar="RATE", help="No arm may fail more often, such as 5%; or none.")
    ] = "5%",
    only: Annotated[
        list[str], typer.Option("--release", metavar="NAME", help="Only these; give it once for each.")
    ] = [],  # noqa: B006  # typer reads it
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="Processes; 0: one a processor.")] = 0,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="VERDICT", help="Exit 1 when a release gets it.", show_default=False)
    ] = "",
    output: Output = "table",
) -> None:
    """Judge recorded releases: the verdict, when it came, and what it rests on. Changes nothing."""
    from forge.cli.render.tables import check_output, document
    from forge.engine.analysing import judge_release, limits
    from forge.model.errors import UsageError as Wrong

    check_output(output)
    one_of(judge, JUDGES, "judge")
    if fail_on:
        one_of(fail_on, ("rollback", "promote", "hold", "inconclusive"), "verdict")
    if jobs < 0:
        raise Wrong("`--jobs` is 0 or more")
    session = session_of(context)
    rate = fraction(limit)
    work = partial(
        judge_release, judge=judge, settings=settings_of(alpha, rate), strategy=limits(rate),
        traced=output in {"table", "wide"},
    )  # fmt: skip
    found = judge_file(session, session.directory / file, work, stable=stable, only=only, jobs=jobs)
    if output == "json":
        import msgspec

        for one in found:
            say(msgspec.json.encode(one.analysis).decode())
    elif output == "yaml":
        say(document([one.analysis for one in found], output))
    elif output == "name":
        say("\n".join(one.analysis.release for one in found))
    else:
        _show(session, found, wide=output == "wide")
    bad = fail_on and any(one.analysis.verdict == fail_on for one in found)
    leave(ExitCode.DID_NOT_SUCCEED if bad else ExitCode.SUCCEEDED)


def judge_file(
    session: Session, path: Path, work: partial[Judged], *, stable: str, only: list[str], jobs: int
) -> list[Judged]:
    """Judge every release of a file, with progress on a terminal. Raises UsageError, InvalidConfiguration."""
    import msgspec

    from forge.engine.recorded import check_stable, each_release, read_index

    index = read_index(path)
    check_stable(index, stable)
    if only:
        for name in only:
            one_of(name, tuple(index.places), "release")
        index = msgspec.structs.replace(index, places={name: index.places[name] for name in only})
    progress = partial(_progress, session) if session.terminal.progress == "tty" else None
    return each_release(index, work, stable=stable, jobs=jobs, progress=progress)


def settings_of(alpha: float, limit: float | None) -> AnalysisSettings:
    """Return the settings. Raises UsageError for an alpha that is no probability."""
    from forge.core.judge.analysis import AnalysisSettings
    from forge.core.judge.settings import SequentialSettings

    try:
        return AnalysisSettings(SequentialSettings(alpha=alpha), limit)
    except ValueError as error:
        raise UsageError(str(error)) from None


def one_of(word: str, known: tuple[str, ...], kind: str) -> None:
    """Raise UsageError, with what is nearest, for a word that is not known."""
    if word not in known:
        raise UsageError(f"there is no {kind} `{word}`", hint=did_you_mean(word, known[:50]))


def fraction(word: str) -> float | None:
    """Return `5%` or `0.05` as a fraction, None for `none`. Raises UsageError for anything else."""
    if word.strip().lower() == "none":
        return None
    number, percent = word.strip().removesuffix("%").strip(), word.strip().endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = -1.0
    if not 0 < value < 1:
        raise UsageError(f"`{word}` is no rate", hint="write it as 5% or 0.05, or `none`")
    return value


def _progress(session: Session, done: int, total: int) -> None:
    import sys

    if done == total or done % max(1, total // 200) == 0:
        end = "\n" if done == total else "\r"
        sys.stderr.write(f"{session.err.dim(f'judged {done:,} of {total:,} releases')}{end}")
        sys.stderr.flush()


def _show(session: Session, found: list[Judged], *, wide: bool) -> None:
    from forge.cli.render.evidence import drawing, sentence
    from forge.cli.render.tables import Column, table

    if len(found) <= DETAILED:
        width = min(100, max(60, session.terminal.width))
        for number, one in enumerate(found):
            say(("\n" if number else "") + sentence(one, session.out))
            if one.trace:
                say("\n" + drawing(one, width))
        return
    columns: list[Column[Judged]] = [
        Column("RELEASE", lambda one: one.analysis.release),
        Column("VERDICT", lambda one: one.analysis.verdict),
        Column("AFTER", lambda one: f"{one.analysis.t_verdict:g}s", right=True),
        Column("ARM", lambda one: one.analysis.arm or "-"),
        Column("EVIDENCE", lambda one: "-" if one.analysis.evidence is None else f"{one.analysis.evidence:.3g}:1", right=True),
        Column("RATIO", _ratio, right=True),
        Column("FAILED", lambda one: f"{one.analysis.failed_requests:,}", right=True),
        Column("EXCESS", lambda one: f"{one.analysis.excess_failed_requests:,.1f}", right=True),
        Column("WHY", lambda one: one.why, wide=True),
    ]  # fmt: skip
    say(table(columns, found, wide=wide))
    counted = {
        kind: sum(one.analysis.verdict == kind for one in found)
        for kind in ("rollback", "promote", "hold", "inconclusive")
    }
    tell(
        ", ".join(f"{number:,} {kind}" for kind, number in counted.items() if number) + f", of {len(found):,} releases"
    )


def _ratio(one: Judged) -> str:
    interval = one.analysis.ratio_interval
    if interval is None:
        return "-"
    low, high = interval
    return f"{low:.2g}-{'∞' if high is None else f'{high:.2g}'}"
