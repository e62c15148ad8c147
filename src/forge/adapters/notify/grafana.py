"""Grafana: an annotation for each step of a release, a region from its start to its end."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.adapters.notify.base import Refused, Step
from forge.adapters.signals.base import SecretReader
from forge.adapters.signals.http import HttpConfig, StoreClient, StoreRefused
from forge.model.errors import DependencyFailed
from forge.model.plan import NotifierPlan

PATH = "/api/annotations"
MARK = "forge"
"""The tag that every annotation of Forge has: dashboards ask for it."""
LONGEST_TEXT = 2000
LONGEST_TAG = 100
"""Characters that Grafana's database keeps of a tag."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`dashboard`: the uid of the one that the annotations are on; empty: on all that ask for the tag."""

    http: HttpConfig
    dashboard: str = ""
    datasource: str = ""
    """The uid of the source of metrics that links to Explore ask; empty: Grafana's default."""
    tags: tuple[str, ...] = ()
    service: str = ""


class GrafanaNotifier:
    """Implements `Notifier` on Grafana's API of annotations."""

    def __init__(self, name: str, config: Config, secrets: SecretReader) -> None:
        self._config = config
        self._client = StoreClient(name, config.http, secrets)

    async def open(self, step: Step) -> str:
        """Make the annotation, unless a worker that died made it already."""
        found = await self._found(step)
        if found:
            if step.ended is not None:
                await self.close(found, step)
            return found
        body: dict[str, Any] = {"time": _ms(step.began), "tags": self.tags(step), "text": step.text[:LONGEST_TEXT]}
        if step.ended is not None:
            body["timeEnd"] = _ms(step.ended)
        if self._config.dashboard:
            body["dashboardUID"] = self._config.dashboard
        answer = await self._ask("POST", PATH, body=body)
        identity = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(identity, int):
            raise DependencyFailed(f"{self._client.name} did not tell the id of an annotation that it made")
        return str(identity)

    async def close(self, identity: str, step: Step) -> None:
        """Set the annotation's end."""
        await self._ask("PATCH", f"{PATH}/{int(identity)}", body={"timeEnd": _ms(step.ended or step.began)})

    async def aclose(self) -> None:
        """Close connections."""
        await self._client.close()

    def tags(self, step: Step) -> list[str]:
        """Return the tags of a step's annotation: Forge's, then the user's."""
        service = self._config.service or step.service
        own = [
            MARK, f"env:{step.environment}", f"service:{service}", f"version:{step.version}",
            f"release:{step.release}", f"step:{step.step}",
        ]  # fmt: skip
        return [tag[:LONGEST_TAG] for tag in dict.fromkeys((*own, *self._config.tags))]

    async def _found(self, step: Step) -> str:
        """Return the id of the step's annotation when it is there. Who may write but not read is not told twice
        either, save after a crash."""
        at = _ms(step.began)
        query = f"?from={at - 1000}&to={at + 1000}&type=annotation&limit=100&tags=" + _quoted(f"release:{step.release}")
        try:
            answer = await self._client.json("GET", PATH + query)
        except StoreRefused as refused:
            if refused.status in (401, 403, 404):
                return ""
            raise
        for one in answer if isinstance(answer, list) else ():
            if isinstance(one, dict) and one.get("time") == at and set(self.tags(step)) == set(one.get("tags") or ()):
                return str(one.get("id", ""))
        return ""

    async def _ask(self, method: str, path: str, body: dict[str, Any]) -> Any:
        try:
            return await self._client.json(method, path, body=body)
        except StoreRefused as refused:
            if 400 <= refused.status < 500 and refused.status not in (408, 429):
                raise Refused(refused.message) from None
            raise


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _quoted(text: str) -> str:
    from urllib.parse import quote

    return quote(text[:LONGEST_TAG], safe="")


def open_grafana(plan: NotifierPlan, secrets: SecretReader) -> GrafanaNotifier:
    """Return the notifier of a plan. Raises msgspec.ValidationError."""
    return GrafanaNotifier(plan.name, msgspec.convert(plan.config, Config), secrets)
