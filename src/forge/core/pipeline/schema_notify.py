"""Who is told of an environment's releases: `notify:`, a list of which each item is one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import TEXT_SCHEMA, Leaf, Name, Section, Text, wrong
from forge.core.pipeline.schema_signals_store import StoreModel
from forge.model.plan import NotifierPlan, SecretReference

LONGEST_UID = 40
"""Characters that Grafana allows."""
MOST_TAGS = 20


def _uid(value: Any) -> str:
    text = leaves.text(value)
    if not text or len(text) > LONGEST_UID or not all(letter.isalnum() or letter in "-_" for letter in text):
        raise leaves.LeafError(
            f"must be the uid of a dashboard, not {leaves.shown(text)}", "it stands in its address: `/d/UID/name`"
        )
    return text


Uid = Annotated[str, Leaf(_uid, TEXT_SCHEMA)]


class GrafanaModel(StoreModel):
    """A Grafana: annotations for every step of every release, and links to Explore."""

    title: ClassVar[str] = "grafana"
    dashboard: Uid | None = None
    datasource: Uid | None = None
    tags: tuple[Text, ...] = ()
    service: Text = ""

    @model_validator(mode="after")
    def _few_tags(self) -> GrafanaModel:
        if len(self.tags) > MOST_TAGS:
            raise wrong(f"has {len(self.tags)} tags", f"at most {MOST_TAGS}; Forge adds some of its own", at="tags")
        if not all(self.tags):
            raise wrong("has an empty tag", at="tags")
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data, under the names of `adapters.notify.grafana.Config`."""
        return {
            "http": self.http(),
            "dashboard": self.dashboard or "",
            "datasource": self.datasource or "",
            "tags": list(self.tags),
            "service": self.service,
        }


class NotifierModel(Section):
    """One place that is told: its kind with its settings, and a name when there are two of a kind."""

    title: ClassVar[str] = "an item of `notify`"
    name: Name = ""
    grafana: GrafanaModel | None = None

    @model_validator(mode="after")
    def _one(self) -> NotifierModel:
        if self.grafana is None:
            raise wrong("must say who is told", "write `grafana: {url: https://HOST}`")
        return self

    @property
    def named(self) -> str:
        """How messages call it."""
        return self.name or "grafana"

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path in this section, name) of each secret that it needs."""
        if self.grafana is not None:
            for path, name in self.grafana.secret_names():
                yield ("grafana", *path), name

    def plan(self, secrets: Mapping[str, SecretReference]) -> NotifierPlan:
        """Return it as plain data, with where its secrets come from."""
        names = [name for _, name in self.secret_names()]
        found = tuple(secrets[name] for name in dict.fromkeys(names) if name in secrets)
        return NotifierPlan("grafana", self.named, self.grafana.config() if self.grafana else {}, found)


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _one_or_list(schema: dict[str, Any]) -> None:
    several = dict(schema)
    schema.clear()
    schema["anyOf"] = [several["items"], several]


NotifierList = Annotated[tuple[NotifierModel, ...], BeforeValidator(_as_list), Field(json_schema_extra=_one_or_list)]
"""One place stands for a list of one."""


def check_notifiers(notifiers: tuple[NotifierModel, ...]) -> None:
    """Raise the error of a list in which two places have one name."""
    names = [notifier.named for notifier in notifiers]
    for name in names:
        if names.count(name) > 1:
            raise wrong(f"tells two places called `{name}`", "give one of them a `name:`")
