"""Environments: the target where versions run, the router that splits traffic, the policy between releases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    Command,
    Count,
    Duration,
    Env,
    Flag,
    Leaf,
    Positive,
    Section,
    Text,
    plain,
    wrong,
)
from forge.core.pipeline.schema_judge import JudgeModel
from forge.core.pipeline.schema_notify import NotifierList, check_notifiers
from forge.core.pipeline.schema_policy import PolicyModel
from forge.core.pipeline.schema_signals import SourceList, check_sources
from forge.model.configs import EnvoyRouterConfig, LocalTargetConfig, Readiness
from forge.model.diagnostics import did_you_mean
from forge.model.plan import EnvironmentPlan, SecretReference

_PLAIN_COMMAND = {"type": ["string", "array"]}


class ReadyModel(Section):
    """How a replica says that it is ready; a bare path is `http`."""

    title: ClassVar[str] = "ready"
    short: ClassVar[str] = "http"
    http: Text = ""
    tcp: Flag = False
    command: Annotated[tuple[str, ...], Leaf(leaves.argv, _PLAIN_COMMAND)] = ()
    interval: Duration = 0.25
    timeout: Duration = 2.0
    failures: Positive = 3

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """`tcp` is an open port; a path is asked by HTTP."""
        return {"tcp": True} if value == "tcp" else super().from_short(value)

    @model_validator(mode="after")
    def _one(self) -> ReadyModel:
        if sum(map(bool, (self.http, self.tcp, self.command))) != 1:
            raise wrong(
                "must have exactly one of `http`, `tcp` and `command`", f"write `{self.title}: {{http: /healthz}}`"
            )
        if self.http and not self.http.startswith("/"):
            raise wrong(f"has an `http` that is not a path: `{self.http}`", f"write `http: /{self.http}`")
        if self.interval <= 0 or self.timeout <= 0:
            raise wrong("has an `interval` or a `timeout` of 0")
        return self

    def readiness(self) -> Readiness:
        """Return it as plain data."""
        return Readiness(self.http, self.tcp, self.command, self.interval, self.timeout, self.failures)


class LiveModel(ReadyModel):
    """How a replica that hangs is told from one that works."""

    title: ClassVar[str] = "live"
    interval: Duration = 5.0


class TargetOverrides(Section):
    """What one version may have otherwise than its environment says."""

    title: ClassVar[str] = "target"
    command: Command = ()
    replicas: Positive | None = None
    env: Env | None = None
    ready: ReadyModel | None = None
    live: LiveModel | None = None
    stop_grace: Duration | None = None
    drain: Duration | None = None
    restart_delay: Duration | None = None
    restart_max_delay: Duration | None = None

    def overrides(self) -> dict[str, Any]:
        """Return what is given, under the names of `LocalTargetConfig`, as plain data."""
        given: dict[str, Any] = {
            name: getattr(self, name) for name in TargetOverrides.model_fields if name in self.model_fields_set
        }
        for name, check in (("ready", self.ready), ("live", self.live)):
            if check is not None:
                given[name] = plain(check.readiness())
        return plain(given)


class LocalTargetModel(TargetOverrides):
    """Replicas as processes of this machine."""

    title: ClassVar[str] = "the local target"
    command: Command

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data; building it checks it."""
        config = msgspec.convert(self.overrides(), LocalTargetConfig)
        return plain(config)


class EnvoyModel(Section):
    """The environment's proxy."""

    title: ClassVar[str] = "envoy"
    listen: Text = "127.0.0.1"
    port: Count = 0
    sticky: Flag = False
    request_timeout: Duration = 60.0
    max_connections: Positive = 4096

    @model_validator(mode="after")
    def _port(self) -> EnvoyModel:
        if self.port > 65535:
            raise wrong(f"has a port that does not exist: {self.port}", "ports end at 65535")
        return self

    def config(self) -> dict[str, Any]:
        """Return it as plain data."""
        config = EnvoyRouterConfig(**{name: getattr(self, name) for name in EnvoyModel.model_fields})
        return plain(config)


class Named(Section):
    """A section that names its implementation: `envoy`, or `envoy:` with its settings."""

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A name alone is the implementation with its defaults."""
        if not isinstance(value, str):
            raise wrong(f"must be a name or a mapping, not {leaves.kind_of(value)}")
        if value not in cls.model_fields:
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, cls.keys()))
        return {value: {}}


class TargetModel(Named):
    """Where versions run."""

    title: ClassVar[str] = "target"
    local: LocalTargetModel


class RouterModel(Named):
    """How traffic is split."""

    title: ClassVar[str] = "router"
    short: ClassVar[str] = "name"
    short_schema: ClassVar[dict[str, Any]] = {"enum": ["envoy"]}
    envoy: EnvoyModel = Field(default_factory=EnvoyModel)


class EnvironmentModel(Section):
    """One environment."""

    title: ClassVar[str] = "an environment"
    target: TargetModel
    router: RouterModel = Field(default_factory=RouterModel)
    signals: SourceList = ()
    judge: JudgeModel = Field(default_factory=JudgeModel)
    policy: PolicyModel = Field(default_factory=PolicyModel)
    notify: NotifierList = ()

    @model_validator(mode="after")
    def _sources(self) -> EnvironmentModel:
        if "signals" in self.model_fields_set:
            check_sources(self.signals)
        check_notifiers(self.notify)
        return self

    def plan(self, name: str, secrets: Mapping[str, SecretReference] | None = None) -> EnvironmentPlan:
        """Return it as plain data, with where its secrets come from."""
        only_own = all(source.kind == "envoy" for source in self.signals)
        return EnvironmentPlan(
            name=name,
            target_config=self.target.local.config(),
            router_config=self.router.envoy.config(),
            sources=() if only_own else tuple(source.plan(secrets or {}) for source in self.signals),
            judge=self.judge.name,
            judge_config=self.judge.config(),
            policy=self.policy.plan(),
            notify=tuple(notifier.plan(secrets or {}) for notifier in self.notify),
        )
