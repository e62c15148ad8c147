"""What is wanted of one version."""

from __future__ import annotations

import msgspec

from forge.adapters.kubernetes.objects import Parts
from forge.model.configs import KubernetesTargetConfig
from forge.model.traffic import Version


class Wish(msgspec.Struct, frozen=True):
    """A version and how much of it; `parts` None: nobody knows its manifests (any more)."""

    version: Version
    config: KubernetesTargetConfig
    replicas: int
    token: int
    parts: Parts | None = None
