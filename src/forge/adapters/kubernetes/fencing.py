"""One writer: every change carries the environment's fencing token, and an older one is refused.

Each environment has a ConfigMap `forge-<environment>` whose annotation holds the largest token that was seen. It is
raised, under its resourceVersion, before anything else is written; objects that Forge patches are written under
their own resourceVersion with the token on them, so that a writer who read before a newer one came changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.errors import Conflict
from forge.adapters.kubernetes.kinds import CONFIG_MAP
from forge.adapters.kubernetes.naming import CREATED, TOKEN, annotation, environment_label, labels_of, title
from forge.model.errors import DependencyFailed, StaleLease

ATTEMPTS = 5


class Fence:
    """The record of one environment in its namespace."""

    def __init__(self, cluster: Cluster, environment: str) -> None:
        self._cluster = cluster
        self._environment = environment
        self._seen = -1

    @property
    def name(self) -> str:
        """The ConfigMap's name."""
        return f"forge-{environment_label(self._environment)}"

    async def pass_with(self, token: int) -> None:
        """Let a writer with this token through. Raises StaleLease when a larger one has been here."""
        if token < self._seen:
            raise self._stale(self._seen)
        for _ in range(ATTEMPTS):
            try:
                if await self._raised(token):
                    return
            except Conflict:
                continue
        raise DependencyFailed(f"{self._cluster.name}: ConfigMap {self.name} is changed by somebody all the time")

    async def _raised(self, token: int) -> bool:
        known = await self._cluster.get(CONFIG_MAP, self.name)
        if known is None:
            labels = labels_of(self._environment)
            metadata = {"name": self.name, "labels": labels, "annotations": {TOKEN: str(token), CREATED: "true"}}
            await self._cluster.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        else:
            self._seen = max(self._seen, token_of(known))
            if token < self._seen:
                raise self._stale(self._seen)
            if token > token_of(known):
                await self._cluster.replace(marked(known, token))
        self._seen = max(self._seen, token)
        return True

    def _stale(self, seen: int) -> StaleLease:
        return StaleLease(f"{self._environment} is worked on by a newer worker (token {seen})")


def token_of(item: Mapping[str, Any]) -> int:
    """Return the token of an object's last writer, -1 where nobody left one."""
    text = annotation(item, TOKEN)
    return int(text) if text.isdigit() else -1


def marked(item: Mapping[str, Any], token: int) -> dict[str, Any]:
    """Return an object as this writer may write it. Raises StaleLease when a newer one wrote it last."""
    if token < token_of(item):
        raise StaleLease(f"{title(item)} was written by a newer worker (token {token_of(item)})")
    metadata = dict(item.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), TOKEN: str(token)}
    metadata.pop("managedFields", None)
    return {**item, "metadata": metadata}
