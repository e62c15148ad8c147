"""Runs of a project on a server. See `forge.service.base.Runs`."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from forge.model.diagnostics import did_you_mean
from forge.model.errors import CorruptData, DependencyFailed, UsageError
from forge.model.plan import Plan
from forge.service.base import Accepted, LogPart, Page
from forge.service.commands import RUN_COMMANDS
from forge.service.remote_http import Api, segment
from forge.views.listing import ArtifactRow, RunRow
from forge.views.run import RunView

MOST_ROWS = 200
MOST_BYTES = 1024 * 1024


class _Artifacts(msgspec.Struct, frozen=True):
    items: tuple[ArtifactRow, ...]


class RemoteRuns:
    """See `forge.service.base.Runs`."""

    def __init__(self, api: Api, project: str) -> None:
        self._api = api
        self._path = f"{project}/runs"

    async def start(self, parameters: Mapping[str, str], *, actor: str, key: str = "", ref: str = "") -> str:
        """Start a run of what the server has."""
        del actor
        body = {"parameters": dict(parameters), "ref": ref}
        return (await self._api.post(self._path, RunView, body, key=key)).id

    async def get(self, run: str) -> RunView:
        """Return a run. Raises UsageError."""
        return await self._api.get(self._of(run), RunView)

    async def plan(self, run: str) -> Plan:
        """Return the plan that a run is pinned to. Raises UsageError."""
        return await self._api.get(f"{self._of(run)}/plan", Plan)

    async def page(self, *, statuses: tuple[str, ...] = (), limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Return runs, newest first. The cursors are the server's."""
        params = {"state": list(statuses), "limit": max(1, min(limit, MOST_ROWS)), "cursor": cursor}
        return await self._api.get(self._path, Page[RunRow], params)

    async def command(self, run: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send a command. Raises UsageError, Rejected, NotAllowed."""
        del actor
        if kind not in RUN_COMMANDS:
            raise UsageError(f"a run knows no `{kind}`", hint=did_you_mean(kind, RUN_COMMANDS))
        return await self._api.post(f"{self._of(run)}/{kind}", Accepted, payload, key=key)

    async def artifacts(self, run: str) -> tuple[ArtifactRow, ...]:
        """Return what the run published, oldest first."""
        return (await self._api.get(f"{self._of(run)}/artifacts", _Artifacts)).items

    async def fetch(self, run: str, name: str, destination: Path) -> str:
        """Write the bytes of an artifact to a file, once they have the digest that they should; return that.

        Raises UsageError for an unknown name, CorruptData for other bytes; the file is whole or not there.
        """
        known = {row.name: row.digest for row in await self.artifacts(run)}
        if (digest := known.get(name)) is None:
            hint = did_you_mean(name, list(known)) or f"{run} has published nothing"
            raise UsageError(f"there is no artifact in {run}: `{name}`", hint=hint)
        with tempfile.NamedTemporaryFile(dir=destination.parent, prefix=".forge-", delete=False) as file:
            part = Path(file.name)
            try:
                found = hashlib.sha256()
                async with self._api.stream(f"{self._of(run)}/artifacts/{segment(name, safe='/')}") as answer:
                    async for chunk in answer.aiter_bytes(MOST_BYTES):
                        found.update(chunk)
                        await asyncio.to_thread(file.write, chunk)
                if found.hexdigest() != digest:
                    raise CorruptData(f"what came of {name} does not have its digest", hint="fetch it again")
                file.close()
                part.chmod(0o644)
                part.replace(destination)
            finally:
                part.unlink(missing_ok=True)
        return digest

    async def log(self, run: str, job: str, attempt: int, step: str, *, offset: int = 0, limit: int = 65536) -> LogPart:
        """Return a piece of a step's log. Raises UsageError for a job, attempt or step that the run has not."""
        path = f"{self._of(run)}/jobs/{segment(job)}/attempts/{attempt}/steps/{segment(step)}/log"
        params = {"offset": offset, "limit": max(1, min(limit, MOST_BYTES))}
        answer = await self._api.read(path, params)
        try:
            begin, size = (int(answer.headers[f"x-forge-log-{name}"]) for name in ("offset", "size"))
            return LogPart(answer.content, begin, size, answer.headers["x-forge-log-ended"] == "true")
        except (KeyError, ValueError):
            raise DependencyFailed(f"{self._api.server} does not answer with a log") from None

    def _of(self, run: str) -> str:
        return f"{self._path}/{segment(run)}"
