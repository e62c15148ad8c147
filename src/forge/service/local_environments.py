"""Environments of a project whose database is at hand. See `forge.service.base.Environments`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.service.base import Accepted
from forge.service.commands import RELEASE_COMMANDS
from forge.service.locating import environment_of, environment_plan, find_environment, known_environments
from forge.service.steering import check_possible
from forge.service.stories import explanation_of, history_of
from forge.views.environment import EnvironmentView
from forge.views.explanation import Explanation
from forge.views.history import ReleaseHistory

if TYPE_CHECKING:
    from forge.engine.engine import Engine


class LocalEnvironments:
    """See `forge.service.base.Environments`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def names(self) -> tuple[str, ...]:
        """Return the names of all environments."""
        return tuple(await known_environments(self._engine))

    async def exists(self, name: str) -> bool:
        """Tell whether something was ever released to it."""
        return await self._engine.store.machines.find("environment", name) is not None

    async def get(self, name: str, *, closely: bool = False) -> EnvironmentView:
        """Return an environment. Raises UsageError."""
        return await environment_of(self._engine, name, closely=closely)

    async def plan(self, name: str) -> EnvironmentPlan:
        """Return the plan that it runs by. Raises UsageError."""
        return await environment_plan(self._engine, name)

    async def command(self, name: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send a command. Raises UsageError for what cannot have any effect now."""
        if kind not in RELEASE_COMMANDS:
            raise UsageError(f"a release knows no `{kind}`", hint=did_you_mean(kind, RELEASE_COMMANDS))
        machine = await find_environment(self._engine, name)
        known = await self._engine.store.inbox.sent(machine, key)
        if known is not None:  # what it asks for may make no sense any more, now that it was done
            return Accepted(machine, known, 0)
        check_possible(await self.get(name), kind, payload)
        given = {key: value for key, value in payload.items() if value}
        after = await self._engine.store.log.last(machine)
        sent = await self._engine.store.inbox.send(machine, kind, actor, given, key=key)
        return Accepted(machine, sent, after)

    async def explanation(self, release: str) -> Explanation:
        """Return why a release went as it did. Raises UsageError."""
        return await explanation_of(self._engine.store, release)

    async def history(self, release: str) -> ReleaseHistory:
        """Return a release over time. Raises UsageError."""
        return await history_of(self._engine.store, release)
