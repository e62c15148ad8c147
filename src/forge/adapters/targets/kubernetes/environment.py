"""One environment on a cluster: its target and its router, which share one connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.sharing import shared_cluster
from forge.adapters.routers.base import Router
from forge.adapters.targets.kubernetes.settings import target_config
from forge.adapters.targets.kubernetes.target import KubernetesTarget, open_target
from forge.model.configs import (
    GatewayApiRouterConfig,
    IngressNginxRouterConfig,
    IstioRouterConfig,
    ReplicasRouterConfig,
)
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import Sample

C = TypeVar("C", bound=msgspec.Struct)


class Unmeasured:
    """The signals of an environment without sources: nobody knows how its versions fare, and nobody pretends to."""

    async def read(self, _version_ids: list[str]) -> dict[str, Sample]:
        """Return nothing: no data is not zero traffic."""
        return {}

    def state(self) -> dict[str, object]:
        """Nothing is remembered."""
        return {}

    def restore(self, state: dict[str, object]) -> None:
        """There is nothing to go on from."""


@dataclass(frozen=True, slots=True)
class KubernetesEnvironment:
    """The three adapters of one environment."""

    target: KubernetesTarget
    router: Router
    signals: Unmeasured


def open_kubernetes(environment: EnvironmentPlan, _folder: Path) -> KubernetesEnvironment:
    """Return the adapters of an environment on a cluster. Asks nothing of the cluster yet.

    Raises UsageError for a configuration that is wrong.
    """
    config = target_config(environment.target_config)
    cluster = shared_cluster(config.access)
    target = open_target(cluster, environment.name, environment.target_config)
    return KubernetesEnvironment(target, _router(environment, cluster), Unmeasured())


def _router(environment: EnvironmentPlan, cluster: Cluster) -> Router:
    make = _ROUTERS.get(environment.router)
    if make is None:
        message = f"environment {environment.name}: no router of a cluster is called `{environment.router}`"
        raise UsageError(message, hint=did_you_mean(environment.router, [*_ROUTERS]))
    return make(environment, cluster)


def _gateway_api(environment: EnvironmentPlan, cluster: Cluster) -> Router:
    from forge.adapters.routers.gateway_api import GatewayApiRouter

    return GatewayApiRouter(cluster, environment.name, _config(environment, GatewayApiRouterConfig))


def _istio(environment: EnvironmentPlan, cluster: Cluster) -> Router:
    from forge.adapters.routers.istio import IstioRouter

    return IstioRouter(cluster, environment.name, _config(environment, IstioRouterConfig))


def _ingress_nginx(environment: EnvironmentPlan, cluster: Cluster) -> Router:
    from forge.adapters.routers.ingress_nginx import IngressNginxRouter

    return IngressNginxRouter(cluster, environment.name, _config(environment, IngressNginxRouterConfig))


def _replicas(environment: EnvironmentPlan, cluster: Cluster) -> Router:
    from forge.adapters.routers.replicas import ReplicasRouter

    return ReplicasRouter(cluster, environment.name, _config(environment, ReplicasRouterConfig))


_ROUTERS: dict[str, Callable[[EnvironmentPlan, Cluster], Router]] = {
    "gateway_api": _gateway_api,
    "istio": _istio,
    "ingress_nginx": _ingress_nginx,
    "replicas": _replicas,
}


def _config(environment: EnvironmentPlan, kind: type[C]) -> C:
    data: dict[str, Any] = environment.router_config
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        message = f"the configuration of the router {environment.router} of {environment.name} is wrong: {error}"
        raise UsageError(message) from None
