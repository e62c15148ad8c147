"""`download:` an artifact of the run into the workspace."""

from __future__ import annotations

import asyncio

import msgspec

from forge.adapters import archives
from forge.adapters.paths import inside
from forge.adapters.steps.base import PublishedArtifact, StepContext, StepResult
from forge.adapters.steps.private import private_file
from forge.model.configs import DownloadConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.units import format_size


class DownloadStep:
    """Brings an artifact, verified against its sha256.

    A file comes to `into/<name>`. A folder that was published comes as a folder `into/<name>`. With
    `extract`, the contents of an archive (or of the folder) come to `into` itself.
    """

    kind = "download"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, DownloadConfig)
        artifact = await context.index.find(context.run, config.name)
        if artifact is None:
            return StepResult("failed", f"the run has published no artifact `{config.name}`")
        try:
            await self._bring(context, config, artifact)
        except (UsageError, archives.UnsafeArchive) as error:
            return StepResult("failed", f"`{config.name}`: {error.message}")
        except KeyError as error:
            message = f"artifact `{config.name}` ({artifact.digest[:12]}) is not in the artifact store any more"
            raise DependencyFailed(message) from error
        except OSError as error:
            raise DependencyFailed(f"`{config.name}` could not be written: {error}") from error
        context.say(f"downloaded {config.name} ({format_size(artifact.size)}, sha256 {artifact.digest} verified)")
        return StepResult("succeeded", outputs={"digest": artifact.digest, "size": artifact.size})

    async def _bring(self, context: StepContext, config: DownloadConfig, artifact: PublishedArtifact) -> None:
        into = inside(context.workspace, config.into, context.cwd)
        place = inside(into, config.name)
        if not (config.extract or artifact.is_directory):
            if place.is_dir():
                raise UsageError(f"`{config.name}` is a folder in the workspace")
            await context.artifacts.get(artifact.digest, place)
            return
        packed = private_file(context, ".download")
        try:
            await context.artifacts.get(artifact.digest, packed)
            await asyncio.to_thread(archives.unpack, packed, into if config.extract else place)
        finally:
            packed.unlink(missing_ok=True)
