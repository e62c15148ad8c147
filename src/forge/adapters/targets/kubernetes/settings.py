"""A version's configuration for a cluster, read back from plain data."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.model.configs import KubernetesTargetConfig
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError


def target_config(data: dict[str, Any]) -> KubernetesTargetConfig:
    """Return the configuration. Raises UsageError that names the key that is wrong."""
    known = KubernetesTargetConfig.__struct_fields__
    for key in data:
        if key not in known:
            msg = f"the kubernetes target knows no option `{key}`"
            raise UsageError(msg, hint=did_you_mean(key, known))
    try:
        return msgspec.convert(data, KubernetesTargetConfig)
    except msgspec.ValidationError as error:
        msg = f"the configuration of the kubernetes target is wrong: {error}"
        raise UsageError(msg) from None


def full_size(config: KubernetesTargetConfig, manifest: dict[str, Any]) -> int:
    """Return how many replicas carry all of the traffic: of the configuration, else of the manifest, else one."""
    told = (manifest.get("spec") or {}).get("replicas")
    return config.replicas or (told if isinstance(told, int) and told > 0 else 1)
