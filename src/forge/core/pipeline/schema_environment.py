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
    listed,
    plain,
    wrong,
)
from forge.core.pipeline.schema_judge import JudgeModel
from forge.core.pipeline.schema_kubernetes import (
    GatewayApiModel,
    IngressNginxModel,
    IstioModel,
    KubernetesOverrides,
    KubernetesTargetModel,
    ReplicasModel,
)
from forge.core.pipeline.schema_notify import NotifierList, check_notifiers
from forge.core.pipeline.schema_policy import PolicyModel
from forge.core.pipeline.schema_signals import SourceList, check_sources
from forge.model.configs import MOST_VERSIONS, ROUTERS_OF, EnvoyRouterConfig, LocalTargetConfig, Readiness
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


class LocalOverrides(Section):
    """What one version on this machine may have otherwise than its environment says."""

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

    def local_overrides(self) -> dict[str, Any]:
        """Return what is given, under the names of `LocalTargetConfig`, as plain data."""
        given: dict[str, Any] = {
            name: getattr(self, name) for name in LocalOverrides.model_fields if name in self.model_fields_set
        }
        for name, check in (("ready", self.ready), ("live", self.live)):
            if check is not None:
                given[name] = plain(check.readiness())
        return plain(given)


class TargetOverrides(LocalOverrides, KubernetesOverrides):
    """What one version may have otherwise than its environment says, whatever the environment's target is."""

    title: ClassVar[str] = "target"

    def overrides(self) -> dict[str, Any]:
        """Return what is given, under the names of the targets' configurations, as plain data."""
        return {**self.local_overrides(), **self.kubernetes_overrides()}


OVERRIDES: Mapping[str, frozenset[str]] = {
    "local": frozenset(LocalOverrides.model_fields),
    "kubernetes": frozenset(KubernetesOverrides.model_fields),
}
"""What a version may have of its own, by target."""


class LocalTargetModel(LocalOverrides):
    """Replicas as processes of this machine."""

    title: ClassVar[str] = "the local target"
    command: Command

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data; building it checks it."""
        config = msgspec.convert(self.local_overrides(), LocalTargetConfig)
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
    local: LocalTargetModel | None = None
    kubernetes: KubernetesTargetModel | None = None

    @model_validator(mode="after")
    def _one(self) -> TargetModel:
        if (self.local is None) == (self.kubernetes is None):
            raise wrong("must have exactly one of `local` and `kubernetes`", "an environment runs in one place")
        return self

    @property
    def name(self) -> str:
        """Which adapter runs the versions."""
        return "local" if self.local is not None else "kubernetes"

    def config(self) -> dict[str, Any]:
        """Return the target's configuration as plain data."""
        model = self.local or self.kubernetes
        return model.config() if model else {}


ROUTER_BY_DEFAULT = {"local": "envoy", "kubernetes": "replicas"}


class RouterModel(Named):
    """How traffic is split; nothing given: as the target does by itself."""

    title: ClassVar[str] = "router"
    short: ClassVar[str] = "name"
    short_schema: ClassVar[dict[str, Any]] = {"enum": ["envoy", "replicas"]}
    envoy: EnvoyModel | None = None
    gateway_api: GatewayApiModel | None = None
    istio: IstioModel | None = None
    ingress_nginx: IngressNginxModel | None = None
    replicas: ReplicasModel | None = None

    @model_validator(mode="after")
    def _one(self) -> RouterModel:
        given = [name for name in RouterModel.model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise wrong(f"has {listed(tuple(given))}", "one router splits the traffic; keep one", at=given[1])
        return self

    def name_for(self, target: str) -> str:
        """Return which adapter splits the traffic of an environment on `target`."""
        given = [name for name in RouterModel.model_fields if getattr(self, name) is not None]
        return given[0] if given else ROUTER_BY_DEFAULT[target]

    def config_for(self, target: str) -> dict[str, Any]:
        """Return the router's configuration as plain data."""
        defaults: dict[str, EnvoyModel | ReplicasModel] = {"envoy": EnvoyModel(), "replicas": ReplicasModel()}
        name = self.name_for(target)
        config: dict[str, Any] = (getattr(self, name) or defaults[name]).config()
        return config


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

    @model_validator(mode="after")
    def _fits_together(self) -> EnvironmentModel:
        target = self.target.name
        router = self.router.name_for(target)
        if router not in ROUTERS_OF[target]:
            known = tuple(sorted(ROUTERS_OF[target]))
            raise wrong(
                f"is on the target `{target}`, which `{router}` cannot route", f"it has {listed(known)}", at="router"
            )
        if target != "local" and any(source.kind == "envoy" for source in self.signals):
            hint = "read what the cluster's own Prometheus says: `prometheus: {url: https://HOST, preset: plain}`"
            raise wrong("has no proxy of Forge's own to read signals from", hint, at="signals")
        most = MOST_VERSIONS.get(router)
        if most is not None and "max_arms" in self.policy.model_fields_set and self.policy.max_arms >= most:
            message = (
                f"wants {self.policy.max_arms} versions beside stable, but `{router}` splits traffic between {most}"
            )
            raise wrong(message, f"write `max_arms: {most - 1}`; a release that comes meanwhile waits", at="policy")
        if not self.measured and self.judge.name != "none" and "judge" in self.model_fields_set:
            hint = "add `signals: [{prometheus: {url: https://HOST, preset: plain}}]`, or remove `judge`"
            raise wrong(f"has the judge `{self.judge.name}` and no signals to judge by", hint, at="judge")
        return self

    @property
    def measured(self) -> bool:
        """Whether anything tells how its versions fare."""
        return bool(self.signals) or self.target.name == "local"

    def plan(self, name: str, secrets: Mapping[str, SecretReference] | None = None) -> EnvironmentPlan:
        """Return it as plain data, with where its secrets come from."""
        target = self.target.name
        router = self.router.name_for(target)
        only_own = all(source.kind == "envoy" for source in self.signals)
        policy = self.policy.plan()
        if router in MOST_VERSIONS:
            policy["max_arms"] = min(policy["max_arms"], MOST_VERSIONS[router] - 1)
        return EnvironmentPlan(
            name=name,
            target=target,
            target_config=self.target.config(),
            router=router,
            router_config=self.router.config_for(target),
            signals="envoy" if target == "local" else target,
            sources=() if only_own else tuple(source.plan(secrets or {}) for source in self.signals),
            # Without a measure there is nothing to judge by: a release goes as far as its replicas are ready.
            judge=self.judge.name if self.measured else "none",
            judge_config=self.judge.config() if self.measured else {},
            policy=policy,
            notify=tuple(notifier.plan(secrets or {}) for notifier in self.notify),
        )
