"""Names and labels of what Forge keeps in a cluster."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

MANAGER = "forge"
"""Field manager of every apply, and the value of the label `app.kubernetes.io/managed-by`."""
MANAGED_BY = "app.kubernetes.io/managed-by"
ENVIRONMENT = "forge.dev/environment"
VERSION = "forge.dev/version"
VERSION_ID = "forge.dev/version-id"
"""Annotation: the version as people call it; labels allow only its slug."""
TOKEN = "forge.dev/token"  # noqa: S105  # a fencing token, no secret
"""Annotation: the fencing token of the last writer."""
FRONT = "forge.dev/service"
"""Annotation of a version's Service: the Service of the environment, which it stands for."""
TRAFFIC = "forge.dev/traffic"
"""Annotation: the traffic table that was asked for last, as JSON."""
ORIGINAL = "forge.dev/original"
"""Annotation: what a routed object was before Forge routed it, as JSON; handing back restores it."""
CREATED = "forge.dev/created"
"""Annotation: Forge made the object, and may delete it. What was there before is never deleted by Forge."""
ADOPTED = "forge.dev/adopted"
"""Annotation: the object was there before Forge, and is never deleted by it."""

SLUG_LENGTH = 20
_HASH_LENGTH = 6
_LONGEST_NAME = 63


def version_slug(version_id: str) -> str:
    """Return a version's name as part of a DNS label: at most 20 of `a-z0-9-`, another one for another version.

    What had to be changed or cut gets the start of a hash, so that `1.4` and `1-4` do not meet.
    """
    return _label_of(version_id, SLUG_LENGTH)


def environment_label(environment: str) -> str:
    """Return an environment's name as a label's value."""
    return _label_of(environment, _LONGEST_NAME)


def _label_of(text: str, longest: int) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if slug == text and len(slug) <= longest:
        return slug
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{slug[: longest - _HASH_LENGTH - 1].strip('-')}-{digest}".strip("-")


def name_for_version(name: str, slug: str) -> str:
    """Return the name of a version's own copy of an object; cut where it would be too long for a Service."""
    whole = f"{name}-{slug}"
    if len(whole) <= _LONGEST_NAME:
        return whole
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: _LONGEST_NAME - len(slug) - _HASH_LENGTH - 2].strip('-.')}-{digest}-{slug}"


def labels_of(environment: str, slug: str = "") -> dict[str, str]:
    """Return the labels of what Forge keeps for an environment, or for one version of it."""
    labels = {MANAGED_BY: MANAGER, ENVIRONMENT: environment_label(environment)}
    return {**labels, VERSION: slug} if slug else labels


def selector(labels: Mapping[str, str]) -> str:
    """Return labels as a label selector."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def annotation(item: Mapping[str, Any], name: str) -> str:
    """Return an object's annotation, empty where it has none."""
    return str(((item.get("metadata") or {}).get("annotations") or {}).get(name, ""))


def label(item: Mapping[str, Any], name: str) -> str:
    """Return an object's label, empty where it has none."""
    return str(((item.get("metadata") or {}).get("labels") or {}).get(name, ""))


def title(item: Mapping[str, Any]) -> str:
    """Return what people call an object: `Deployment shop`."""
    return f"{item.get('kind', 'object')} {(item.get('metadata') or {}).get('name', '')}".strip()
