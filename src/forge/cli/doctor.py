"""`forge doctor`: is everything there that Forge needs, and is what it keeps whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of, tell
from forge.engine.project import Project
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.engine.health import Finding


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("doctor")(doctor)


def doctor(
    context: typer.Context,
    output: Output = "table",
    orphans: Annotated[
        bool, typer.Option("--remove-orphans", help="Remove what was left behind in clusters, after asking.")
    ] = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Check what Forge needs and what it left behind. Changes nothing; exits 5 if anything is broken."""
    import asyncio

    from forge.cli.render.tables import check_output, document

    check_output(output)
    session = session_of(context)
    if orphans:
        remove_orphans(session, yes=yes)
    tabular = output not in {"json", "yaml"}
    findings = asyncio.run(_examine(session, aloud=tabular))
    if not tabular:
        say(document(findings, output))
    elif any(finding.state != "ok" for finding in findings):
        counts = [(grade, sum(finding.state == grade for finding in findings)) for grade in ("fail", "warn")]
        say("\n" + ", ".join(f"{count} {grade}" for grade, count in counts if count))
    broken = any(finding.state == "fail" for finding in findings)
    leave(ExitCode.FORGE_FAILED if broken else ExitCode.SUCCEEDED)


def remove_orphans(session: Session, *, yes: bool) -> None:
    """List what was left behind in clusters and remove it, if that is wanted."""
    from forge.cli.gates import question
    from forge.engine.clusters import left_behind, remove_left_behind

    async def work(engine: Engine) -> int:
        found = await left_behind(engine.store)
        for each in found:
            tell(f"{each.title}: {each.orphan.why}")
        if not found:
            tell("nothing was left behind in the clusters of this database's environments")
            return ExitCode.SUCCEEDED
        if not yes and not session.terminal.interactive:
            raise UsageError("nobody can be asked here", hint="`--yes` removes what is listed")
        if not yes and await question(f"type {len(found)} to remove all of them: ") != str(len(found)):
            tell("nothing was removed")
            return ExitCode.REJECTED
        for each in found:
            gone = await remove_left_behind(each)
            tell(f"removed {each.title}" if gone else f"{each.title} was gone already")
        return ExitCode.SUCCEEDED

    session.run_here(work)


async def _examine(session: Session, *, aloud: bool) -> list[Finding]:
    from forge.engine.health import examine

    try:
        project = Project.find(session.directory)
    except UsageError:
        project = None
    findings = []
    async for finding in examine(project):
        findings.append(finding)
        if aloud:
            say(line(finding, session))
    return findings


def line(finding: Finding, session: Session) -> str:
    """Return a finding as a line, with what to do below it."""
    text = f"{session.out.icon(finding.state)} {finding.check:<12} {finding.message}"
    return text + (f"\n  {session.out.cyan('hint:')} {finding.hint}" if finding.hint else "")
