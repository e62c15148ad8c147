"""Opens the artifact store that a URL names."""

from __future__ import annotations

from pathlib import Path

from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.artifacts.folder import FolderArtifacts
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

OBJECT_STORES = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "file", "memory")


def open_artifacts(url: str) -> ArtifactStore:
    """Return the store of `url`: a folder's path, or `s3://bucket/prefix`, `gs://…`, `az://…`, `file://…`, `memory://`.

    Raises UsageError for a scheme that is not known.
    """
    scheme, separator, _ = url.partition("://")
    if not separator:
        return FolderArtifacts(Path(url).absolute())
    if scheme not in OBJECT_STORES:
        raise UsageError(f"artifacts cannot be kept at `{scheme}://`", hint=did_you_mean(scheme, OBJECT_STORES))
    from forge.adapters.artifacts.object_store import ObjectStoreArtifacts  # takes 40 ms to load

    return ObjectStoreArtifacts(url)
