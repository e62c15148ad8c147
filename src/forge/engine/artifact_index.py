"""The run's named artifacts, in the database."""

from __future__ import annotations

import msgspec

from forge.adapters.steps.base import PublishedArtifact
from forge.model.decision import canonical_json
from forge.model.errors import UsageError
from forge.store.contract import Documents

COLLECTION = "artifacts"


class _Entry(msgspec.Struct, frozen=True):
    """An artifact, and which attempt of its job published it."""

    artifact: PublishedArtifact
    attempt: int


class RunArtifacts:
    """An `ArtifactIndex` for one attempt of a job. A later attempt may publish other bytes under the same name."""

    def __init__(self, documents: Documents, attempt: int) -> None:
        self._documents = documents
        self._attempt = attempt

    async def publish(self, artifact: PublishedArtifact) -> None:
        """Record it. Raises UsageError if the name stands for other bytes of this attempt, or of another job."""
        key = _key(artifact.run, artifact.name)
        entry = canonical_json(_Entry(artifact, self._attempt))
        if await self._documents.put(COLLECTION, key, entry):
            return
        stored = await self._documents.get(COLLECTION, key)
        if stored is not None:
            earlier = msgspec.json.decode(stored, type=_Entry)
            if earlier.artifact.job != artifact.job:
                raise UsageError(f"job `{earlier.artifact.job}` has published an artifact `{artifact.name}` already")
            if earlier.attempt >= self._attempt:
                _check_same(earlier.artifact, artifact)
                return
        await self._documents.put(COLLECTION, key, entry, replace=True)

    async def find(self, run: str, name: str) -> PublishedArtifact | None:
        """Return the run's artifact of that name, or None."""
        stored = await self._documents.get(COLLECTION, _key(run, name))
        return None if stored is None else msgspec.json.decode(stored, type=_Entry).artifact


async def artifacts_of(documents: Documents, run: str) -> list[PublishedArtifact]:
    """Return everything that a run published, oldest first."""
    found = await documents.all(COLLECTION, _key(run, ""))
    artifacts = [msgspec.json.decode(stored, type=_Entry).artifact for stored in found.values()]
    return sorted(artifacts, key=lambda artifact: (artifact.created_at, artifact.name))


def _key(run: str, name: str) -> str:
    return f"{run}/{name}"


def _check_same(earlier: PublishedArtifact, artifact: PublishedArtifact) -> None:
    if earlier.digest != artifact.digest:
        raise UsageError(
            f"an artifact `{artifact.name}` with other contents was published by step {earlier.step} of this job",
            hint="artifacts never change; publish under another name",
        )
