"""Log lines as signals: the local target's own logs, Elasticsearch and OpenSearch, Loki."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.kql import KqlError, translate
from forge.core.pipeline.schema_base import Duration, Leaf, Section, Text, TextList, choice, wrong
from forge.core.pipeline.schema_signals_store import AuthModel, SecretName, StoreModel

FORMATS = ("auto", "json", "logfmt", "text")


class LogsModel(Section):
    """The log files of the local target's replicas."""

    title: ClassVar[str] = "the signals of logs"
    errors: Text = ""
    ignore: TextList = ()
    format: Annotated[str, choice(*FORMATS)] = "auto"

    @model_validator(mode="after")
    def _patterns(self) -> LogsModel:
        for key, patterns in (("errors", (self.errors,)), ("ignore", self.ignore)):
            for pattern in patterns:
                _compiles(pattern, key)
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {"errors": self.errors, "ignore": list(self.ignore), "format": self.format}


def _dsl(value: Any) -> dict[str, Any]:
    """Return query DSL: a mapping as it is, a text is KQL."""
    if isinstance(value, dict):
        if len(value) != 1:
            raise leaves.LeafError(
                f"must have one kind of query, not {len(value)}", "several belong into `bool: {filter: [...]}`"
            )
        return value
    try:
        return translate(leaves.text(value))
    except KqlError as error:
        hint = error.hint or "KQL is like `service.name: shop and not url.path: /health*`"
        raise leaves.LeafError(f"is not understood at character {error.at}: {error}", hint) from None


Dsl = Annotated[dict[str, Any], Leaf(_dsl, {"type": ["string", "object"]})]


class IndexAuthModel(AuthModel):
    """How Forge logs in: `api_key`, `bearer`, or `user` and `password`. Secrets are named, never written."""

    api_key: SecretName = ""

    @model_validator(mode="after")
    def _one(self) -> IndexAuthModel:
        given = [name for name in ("api_key", "bearer", "user") if getattr(self, name)]
        if len(given) != 1:
            raise wrong("must have one of `api_key`, `bearer` and `user`", "`api_key: NAME_OF_A_SECRET`")
        if self.password and not self.user:
            raise wrong("has a `password` without a `user`")
        return self


class LogStoreModel(StoreModel):
    """A store that keeps log lines and counts them by time."""

    step: Duration = 10.0

    @model_validator(mode="after")
    def _whole_seconds(self) -> LogStoreModel:
        if not 1 <= self.step <= 300 or self.step != round(self.step):
            raise wrong(f"has a `step` of {self.step:g} s", "write whole seconds, from `1s` to `5m`", at="step")
        return self


class ElasticsearchModel(LogStoreModel):
    """Elasticsearch or OpenSearch."""

    title: ClassVar[str] = "elasticsearch"
    auth: IndexAuthModel | None = None
    index: Text = "logs-*"
    version: Text = "service.version"
    time: Text = "@timestamp"
    level: Text = "log.level"
    message: TextList = ("message", "error.type", "error.message")
    query: Dsl = Field(default_factory=dict)
    errors: Dsl = Field(default_factory=dict)

    @model_validator(mode="after")
    def _index_is_one(self) -> ElasticsearchModel:
        if not re.fullmatch(r"[^\s/?#\\\"<>|]+", self.index) or ".." in self.index:
            raise wrong(
                f"cannot be {leaves.shown(self.index)}", "write names or patterns, such as `logs-*`", at="index"
            )
        for name in ("query", "errors"):
            if "$version" in repr(getattr(self, name)) or "${version}" in repr(getattr(self, name)):
                raise wrong(
                    "names `$version`", "versions are told apart by the field that `version` names", at=name
                )  # fmt: skip
        return self

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path in this section, name) of each secret that it needs."""
        yield from super().secret_names()
        if self.auth is not None and self.auth.api_key:
            yield ("auth", "api_key"), self.auth.api_key

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        http = self.http()
        if self.auth is not None and self.auth.api_key:
            http |= {"bearer": self.auth.api_key, "scheme": "ApiKey"}
        fields = ("index", "version", "time", "level", "query", "errors", "step")
        return {"http": http, "message": list(self.message), **{name: getattr(self, name) for name in fields}}


LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class LokiModel(LogStoreModel):
    """Grafana Loki."""

    title: ClassVar[str] = "loki"
    query: Text
    version: Text = "version"
    levels: Annotated[str, choice("detected", "label", "json", "logfmt", "text")] = "detected"
    level: Text = "level"
    errors: Text = ""
    tenant: Text = ""

    @model_validator(mode="after")
    def _logql(self) -> LokiModel:
        if not self.query.strip().startswith("{"):
            raise wrong(
                "must begin with the labels of the streams",
                '`{app="shop"}`, and what follows is a pipeline',
                at="query",
            )
        if self.errors and not self.errors.strip().startswith("|"):
            raise wrong("must be a pipeline", '`| json | status >= 500`, or `|= "ERROR"`', at="errors")
        names = ("version", "level") if self.levels == "label" else ("version",)
        for name in names:
            if not LABEL.fullmatch(getattr(self, name)):
                raise wrong(
                    f"cannot be {leaves.shown(getattr(self, name))}", "a label has letters, digits and `_`", at=name
                )
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        fields = ("query", "version", "levels", "level", "errors", "tenant", "step")
        return {"http": self.http(), **{name: getattr(self, name) for name in fields}}


def _compiles(pattern: str, key: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        place = f" at character {error.pos + 1}" if error.pos is not None else ""
        raise wrong(
            f"is no regular expression: {error.msg}{place} of `{pattern[:60]}`",
            "signs such as `(`, `[`, `*` and `?` need a `\\` in front where they stand for themselves",
            at=key,
        ) from None
