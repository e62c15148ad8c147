"""What happened in a project on a server. See `forge.service.base.Records`."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from forge.model.decision import Command
from forge.model.errors import DependencyFailed
from forge.service.base import Accepted
from forge.service.remote_http import Api, segment
from forge.store.contract import StoredDecision, StoredEvent

MOST = 200
RECONNECT = (0.2, 0.5, 1.0, 2.0, 5.0)
GIVE_UP = 120.0
"""Seconds without a connection after which a follower is told."""
_MACHINE = re.compile(r"(run|env|notify)-\d+")


class _Events(msgspec.Struct, frozen=True):
    items: list[StoredEvent]


class _Decision(msgspec.Struct, frozen=True):
    seq: int
    machine: str
    at: float
    body: bytes
    previous: str
    hash: str


class _Decisions(msgspec.Struct, frozen=True):
    items: list[_Decision]


class _Commands(msgspec.Struct, frozen=True):
    items: list[Command]


class _Last(msgspec.Struct, frozen=True):
    seq: int


class _Became(msgspec.Struct, frozen=True):
    state: str
    reason: str = ""


class RemoteRecords:
    """See `forge.service.base.Records`."""

    def __init__(self, api: Api, project: str) -> None:
        self._api = api
        self._project = project

    async def events(self, machine: str = "", *, after: int = 0, limit: int = MOST) -> list[StoredEvent]:
        """Return events in order."""
        params = {**_which(machine), "after": after, "limit": max(1, min(limit, MOST))}
        return (await self._api.get(f"{self._project}/events", _Events, params)).items

    async def follow(self, machine: str = "", *, after: int = 0) -> AsyncIterator[StoredEvent]:
        """Yield events for ever, as they come; a broken connection is resumed where it broke.

        Raises DependencyFailed when the server stays away.
        """
        failures, lost = 0, time.monotonic()
        while True:
            try:
                async with self._api.events(f"{self._project}/events", _which(machine), after) as source:
                    lost = time.monotonic()
                    async for message in source:
                        failures, lost = 0, time.monotonic()
                        if message.data and message.event == "message":
                            stored = msgspec.json.decode(message.data, type=StoredEvent)
                            after = stored.seq
                            yield stored
            except DependencyFailed:
                if time.monotonic() - lost > GIVE_UP:
                    raise
            except msgspec.MsgspecError as error:
                raise DependencyFailed(f"an event of {self._api.server} cannot be read: {error}") from error
            await asyncio.sleep(RECONNECT[min(failures, len(RECONNECT) - 1)])
            failures += 1

    async def last(self) -> int:
        """Return the number of the newest event."""
        return (await self._api.get(f"{self._project}/events/last", _Last)).seq

    async def decisions(self, machine: str = "", *, after: int = 0, limit: int = MOST) -> list[StoredDecision]:
        """Return records of decisions in order, their bodies byte for byte."""
        params = {"machine": machine, "after": after, "limit": max(1, min(limit, MOST))}
        found = await self._api.get(f"{self._project}/decisions", _Decisions, params)
        return [StoredDecision(one.seq, one.machine, one.at, one.body, one.previous, one.hash) for one in found.items]

    async def verify(self) -> dict[str, dict[str, int | None]]:
        """Have both chains checked by the server."""
        return await self._api.get(f"{self._project}/audit/verify", dict[str, dict[str, int | None]], patient=True)

    async def waiting(self, machine: str) -> list[Command]:
        """Return the commands that are not taken in yet, oldest first."""
        return (await self._api.get(f"{self._project}/commands/{segment(machine)}", _Commands)).items

    async def refusal(self, accepted: Accepted) -> str | None:
        """Return why a command had no effect. See Records."""
        path = f"{self._project}/commands/{segment(accepted.machine)}/{accepted.id}"
        became = await self._api.get(path, _Became, {"after": accepted.after})
        return {"waiting": None, "taken": ""}.get(became.state, became.reason)


def _which(machine: str) -> dict[str, Any]:
    """Return how the server is asked for one machine: by its id, or by the name of an environment."""
    if not machine:
        return {}
    return {"machine": machine} if _MACHINE.fullmatch(machine) else {"environment": machine}
