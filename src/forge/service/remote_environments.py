"""Environments of a project on a server. See `forge.service.base.Environments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.service.base import Accepted
from forge.service.commands import RELEASE_COMMANDS
from forge.service.remote_http import Api, segment
from forge.views.environment import EnvironmentView
from forge.views.explanation import Explanation
from forge.views.history import ReleaseHistory


class _Environments(msgspec.Struct, frozen=True):
    items: tuple[EnvironmentView, ...]


class RemoteEnvironments:
    """See `forge.service.base.Environments`."""

    def __init__(self, api: Api, project: str) -> None:
        self._api = api
        self._project = project

    async def names(self) -> tuple[str, ...]:
        """Return the names of all environments."""
        return tuple(view.name for view in (await self._api.get(f"{self._project}/environments", _Environments)).items)

    async def exists(self, name: str) -> bool:
        """Tell whether something was ever released to it."""
        return (await self.get(name)).state != "empty"

    async def get(self, name: str, *, closely: bool = False) -> EnvironmentView:
        """Return an environment. Raises UsageError."""
        return await self._api.get(self._of(name), EnvironmentView, {"closely": "true"} if closely else {})

    async def plan(self, name: str) -> EnvironmentPlan:
        """Return the plan that it runs by. Raises UsageError."""
        return await self._api.get(f"{self._of(name)}/plan", EnvironmentPlan)

    async def command(self, name: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send a command. Raises UsageError for what cannot have any effect now, NotAllowed."""
        del actor
        if kind not in RELEASE_COMMANDS:
            raise UsageError(f"a release knows no `{kind}`", hint=did_you_mean(kind, RELEASE_COMMANDS))
        given = {name: value for name, value in payload.items() if value}
        return await self._api.post(f"{self._of(name)}/{kind}", Accepted, given, key=key)

    async def explanation(self, release: str) -> Explanation:
        """Return why a release went as it did. Raises UsageError."""
        return await self._api.get(f"{self._project}/releases/{segment(release)}", Explanation)

    async def history(self, release: str) -> ReleaseHistory:
        """Return a release over time. Raises UsageError."""
        return await self._api.get(f"{self._project}/releases/{segment(release)}/history", ReleaseHistory)

    def _of(self, name: str) -> str:
        return f"{self._project}/environments/{segment(name)}"
