"""`local`: versions as processes of this machine."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from forge.adapters.targets.local.client import AgentClient
from forge.adapters.targets.local.logs import read_logs
from forge.adapters.targets.local.versions import prepare
from forge.model.configs import LocalTargetConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.traffic import ReplicaCount, Version

_PAST = frozenset({"capacity"})
"""Options of earlier versions of Forge, without effect: what was pinned with them still runs."""


class LocalTarget:
    """Runs replicas through the environment's agent, which lives on when Forge does not."""

    def __init__(self, client: AgentClient, defaults: dict[str, Any]) -> None:
        """`defaults` is the environment's target configuration, for versions that do not pin one of their own."""
        self._client = client
        self._defaults = defaults

    async def ensure(self, version: Version, replicas: int, artifact: str | None, token: int) -> None:
        """Want `replicas` of `version`; unpack its artifact first. See Target."""
        # A pinned configuration stands alone: new defaults must not change a version that runs already.
        pinned = "command" in version.config
        config = target_config(version.config if pinned else {**self._defaults, **version.config})
        for last in (False, True):
            if replicas or artifact is not None or not version.artifact:
                await asyncio.to_thread(prepare, self._client.folder, version, artifact)
            try:
                await self._client.ask("ensure", version=version, config=config, replicas=replicas, token=token)
                return
            except DependencyFailed as error:
                # An earlier removal of the same version may have taken the files away in between.
                if last or "are not there" not in error.message:
                    raise

    async def remove(self, version_id: str, token: int) -> None:
        """Drain and stop a version. DependencyFailed while it has traffic. See Target."""
        await self._client.ask("remove", version_id=version_id, token=token)

    async def observe(self) -> dict[str, ReplicaCount]:
        """Return what runs. See Target."""
        return msgspec.convert(await self._client.ask("observe"), dict[str, ReplicaCount])

    def logs(self, version_id: str | None, *, follow: bool, tail: int) -> AsyncIterator[str]:
        """Yield log lines. See Target."""
        return read_logs(self._client.folder, version_id, follow=follow, tail=tail)


def target_config(data: dict[str, Any]) -> LocalTargetConfig:
    """Return a version's configuration. Raises UsageError that names the key that is wrong."""
    known = LocalTargetConfig.__struct_fields__
    data = {key: value for key, value in data.items() if key not in _PAST}
    for key in data:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            msg = f"the local target knows no option {key!r}"
            raise UsageError(msg, hint=f"did you mean {close[0]!r}?" if close else None)
    command = data.get("command")
    if isinstance(command, str):
        data = {**data, "command": ["sh", "-c", f"exec {command}"]}
    try:
        config = msgspec.convert(data, LocalTargetConfig)
    except msgspec.ValidationError as error:
        msg = f"the configuration of the local target is wrong: {error}"
        raise UsageError(msg) from None
    if not config.command:
        msg = "the configuration of the local target is wrong: `command` is empty"
        raise UsageError(msg)
    return config
