"""`forge doctor`: is everything there that Forge needs, and is what it keeps whole?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from forge.cli.options import Output
from forge.cli.session import Session, leave, say, session_of
from forge.engine.project import Project
from forge.model.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from forge.engine.health import Finding


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command("doctor")(doctor)


def doctor(context: typer.Context, output: Output = "table") -> None:
    """Check what Forge needs and what it left behind. Changes nothing; exits 5 if anything is broken."""
    import asyncio

    from forge.cli.render.tables import check_output, document

    check_output(output)
    session = session_of(context)
    tabular = output not in {"json", "yaml"}
    findings = asyncio.run(_examine(session, aloud=tabular))
    if not tabular:
        say(document(findings, output))
    elif any(finding.state != "ok" for finding in findings):
        counts = [(grade, sum(finding.state == grade for finding in findings)) for grade in ("fail", "warn")]
        say("\n" + ", ".join(f"{count} {grade}" for grade, count in counts if count))
    broken = any(finding.state == "fail" for finding in findings)
    leave(ExitCode.FORGE_FAILED if broken else ExitCode.SUCCEEDED)


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
