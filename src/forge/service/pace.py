"""The measures of a project's releases: from its log, and what Git knows of their commits."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from forge.engine.environments import KIND
from forge.model.errors import UsageError
from forge.store.contract import StoredEvent
from forge.views.velocity import Change, Velocity, changes_of, velocity

if TYPE_CHECKING:
    from forge.engine.engine import Engine

PAGE = 1000
GIT_SECONDS = 10.0


async def velocity_of(engine: Engine, project: str, since: float, until: float) -> list[Velocity]:
    """Return the measures of every environment that something was released to, by name."""
    records = await engine.store.machines.newest(KIND, limit=1000)
    found = []
    for record in sorted(records, key=lambda one: one.key):
        changes = changes_of(await _events(engine, record.id))
        inside = [change for change in changes if since <= change.ended_at < until]
        found.append(velocity(project, record.key, await _with_commits(engine, inside), since, until))
    return found


async def _events(engine: Engine, machine: str) -> list[StoredEvent]:
    events: list[StoredEvent] = []
    while page := await engine.store.log.read(machine, after=events[-1].seq if events else 0, limit=PAGE):
        events += page
        if len(page) < PAGE:
            break
    return events


async def _with_commits(engine: Engine, changes: list[Change]) -> list[Change]:
    """Return the changes with when each was committed and how many commits it brought, where Git can tell."""
    commits: dict[str, str] = {}
    for run in {change.run for change in changes if change.run}:
        try:
            _, plan = await engine.run_state(run)
        except UsageError:
            continue
        commits[run] = plan.source.commit
    known = sorted({commit for commit in commits.values() if commit})
    times = await asyncio.to_thread(_commit_times, engine.project.root, known)
    told, before = [], ""
    for change in changes:
        commit = commits.get(change.run, "")
        count = None
        if commit in times and before in times:
            count = await asyncio.to_thread(_commits_between, engine.project.root, before, commit)
        told.append(msgspec.structs.replace(change, committed_at=times.get(commit), commits=count))
        if change.state == "promoted" and commit:
            before = commit
    return told


def _commit_times(root: Path, commits: list[str]) -> dict[str, float]:
    """Return when each commit was made, of those that the repository has."""
    if not commits:
        return {}
    said = _git(root, "show", "--no-patch", "--format=%H %ct", *commits) or "\n".join(
        filter(None, (_git(root, "show", "--no-patch", "--format=%H %ct", commit) for commit in commits))
    )
    pairs = (line.split() for line in said.splitlines())
    return {pair[0]: float(pair[1]) for pair in pairs if len(pair) == 2}


def _commits_between(root: Path, before: str, after: str) -> int | None:
    said = _git(root, "rev-list", "--count", f"{before}..{after}").strip()
    return int(said) if said.isdigit() else None


def _git(root: Path, *words: str) -> str:
    """Return what git says, nothing when it cannot."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=GIT_SECONDS, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
