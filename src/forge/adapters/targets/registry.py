"""Which adapters an environment's plan names. An unknown name is an error, never another target."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from forge.adapters.routers.base import Router
from forge.adapters.signals.base import Signals, Source
from forge.adapters.signals.combined import CombinedSignals
from forge.adapters.signals.proxy import OwnSignals
from forge.adapters.signals.registry import SourceContext, open_source
from forge.adapters.targets.base import Target
from forge.model.configs import ROUTERS_OF
from forge.model.diagnostics import did_you_mean
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan, SecretReference, SourcePlan


class OpenEnvironment(Protocol):
    """The adapters of one environment, ready for use."""

    @property
    def target(self) -> Target:
        """Where its versions run."""

    @property
    def router(self) -> Router:
        """How its traffic is split."""

    @property
    def signals(self) -> Signals:
        """How its versions fare."""


Opener = Callable[[EnvironmentPlan, Path], OpenEnvironment]
"""Takes an environment's plan and its folder; starts nothing yet."""

SecretResolver = Callable[[SecretReference], Awaitable[str]]
"""Fetches one secret's value. Raises DependencyFailed."""


@dataclass(frozen=True, slots=True)
class SeveralSources:
    """An environment whose signals come from more than its target."""

    target: Target
    router: Router
    signals: CombinedSignals


def _local(environment: EnvironmentPlan, folder: Path) -> OpenEnvironment:
    from forge.adapters.targets.local.environment import open_local

    return cast("OpenEnvironment", open_local(environment, folder))


def _kubernetes(environment: EnvironmentPlan, folder: Path) -> OpenEnvironment:
    from forge.adapters.targets.kubernetes.environment import open_kubernetes

    return cast("OpenEnvironment", open_kubernetes(environment, folder))


_OPENERS: dict[str, Opener] = {"local": _local, "kubernetes": _kubernetes}
_SIGNALS = {"local": "envoy", "kubernetes": "kubernetes"}
"""The signals that each target has of its own."""


def open_environment(
    environment: EnvironmentPlan, folder: Path, secrets: SecretResolver | None = None
) -> OpenEnvironment:
    """Return the adapters that the plan names. Raises UsageError for an unknown name or combination."""
    target = environment.target
    if target not in _OPENERS:
        raise UsageError(
            f"environment {environment.name}: there is no target `{target}`", hint=did_you_mean(target, [*_OPENERS])
        )
    routers, own = ROUTERS_OF[target], _SIGNALS[target]
    for what, name, known in (("router", environment.router, routers), ("signals", environment.signals, {own})):
        if name not in known:
            raise UsageError(
                f"environment {environment.name}: target `{target}` has no {what} `{name}`",
                hint=did_you_mean(name, sorted(known)),
            )
    opened = _OPENERS[target](environment, folder)
    if not environment.sources:
        return opened
    sources = [(plan.name, _source(plan, environment, folder, opened, secrets)) for plan in environment.sources]
    return SeveralSources(opened.target, opened.router, CombinedSignals(sources))


def _source(
    plan: SourcePlan,
    environment: EnvironmentPlan,
    folder: Path,
    opened: OpenEnvironment,
    secrets: SecretResolver | None,
) -> Source:
    if plan.kind == environment.signals:
        return OwnSignals(opened.signals)

    async def read(name: str) -> str:
        for reference in plan.secrets:
            if reference.name == name and secrets is not None:
                return await secrets(reference)
        raise DependencyFailed(f"secret `{name}` of signals `{plan.name}` is not known here")

    source = open_source(plan, SourceContext(environment, folder, read))
    if environment.target == "kubernetes":
        from forge.adapters.targets.kubernetes.sources import named_source

        return named_source(source)
    return source
