"""Which runner a job's commands have. Loaded when first asked for: `forge --help` needs no cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from forge.adapters.runners.base import Runner
from forge.model.configs import KubernetesRunnerConfig
from forge.model.errors import UsageError

LOCAL = "process"
"""The runner that every worker has."""
RemoteRunner = Callable[[str, Mapping[str, Any], str, Callable[[], Awaitable[bool]]], Runner]


def remote_runner(
    name: str, config: Mapping[str, Any], scope: str, told_to_stop: Callable[[], Awaitable[bool]]
) -> Runner:
    """Return the runner of that name. `scope` is the project; `told_to_stop` as in `KubernetesRunner`.

    Raises UsageError for a name or for settings that cannot be read.
    """
    if name != "kubernetes":
        raise UsageError(f"no runner is called `{name}`")
    try:
        settings = msgspec.convert(config, KubernetesRunnerConfig)
    except msgspec.ValidationError as error:
        raise UsageError(f"the kubernetes runner's settings cannot be read: {error}") from error
    from forge.adapters.kubernetes.sharing import shared_cluster
    from forge.adapters.runners.kubernetes_job import KubernetesRunner

    return KubernetesRunner(settings, shared_cluster(settings.access), scope=scope, told_to_stop=told_to_stop)
