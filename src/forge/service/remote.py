"""A project on a server. See `forge.service.base.Service`; `actor` counts for nothing, the server knows by the token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.service.remote_environments import RemoteEnvironments
from forge.service.remote_http import Api, segment
from forge.service.remote_records import RemoteRecords
from forge.service.remote_runs import RemoteRuns

if TYPE_CHECKING:
    import httpx2


class _Me(msgspec.Struct, frozen=True):
    name: str


class _Project(msgspec.Struct, frozen=True):
    name: str


class _Projects(msgspec.Struct, frozen=True):
    items: tuple[_Project, ...]


class RemoteService:
    """See `forge.service.base.Service`. Made by `open_remote`."""

    def __init__(self, api: Api, name: str) -> None:
        self.name = name
        self._api = api
        self._who = ""
        path = f"projects/{segment(name)}"
        self.runs = RemoteRuns(api, path)
        self.environments = RemoteEnvironments(api, path)
        self.records = RemoteRecords(api, path)

    async def who(self) -> str:
        """Return the name of whoever the token belongs to. Raises NotAllowed."""
        self._who = self._who or await who(self._api)
        return self._who


@asynccontextmanager
async def open_api(
    server: str, token: str, *, transport: httpx2.AsyncBaseTransport | None = None
) -> AsyncIterator[Api]:
    """Open the API of a server. `transport` is how to get there, if not by the network."""
    api = Api(server, token, transport=transport)
    try:
        yield api
    finally:
        await api.close()


async def who(api: Api) -> str:
    """Return the name of whoever the token belongs to. Raises NotAllowed."""
    return (await api.get("me", _Me)).name


async def choose_project(api: Api, wanted: str) -> str:
    """Return the project that is meant: the one that is wanted, or the only one.

    Raises UsageError, with those that there are, when there is none of that name, or several to choose from.
    """
    names = [project.name for project in (await api.get("projects", _Projects)).items]
    if wanted and wanted not in names:
        raise UsageError(f"there is no project `{wanted}` at {api.server}", hint=did_you_mean(wanted, names))
    if wanted or len(names) == 1:
        return wanted or names[0]
    if not names:
        raise UsageError(f"there is no project at {api.server} that this token may see")
    raise UsageError(f"which project at {api.server}?", hint=f"`-P NAME` or FORGE_PROJECT: {', '.join(sorted(names))}")
