"""`publish:` a file or a folder as an artifact of the run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from forge.adapters import archives
from forge.adapters.paths import inside, near_names
from forge.adapters.steps.base import PublishedArtifact, StepContext, StepResult
from forge.adapters.steps.private import private_file
from forge.model.configs import PublishConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.units import format_size


class PublishStep:
    """Stores the bytes under their sha256 and records what produced them. A folder is packed, always alike."""

    kind = "publish"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, PublishConfig)
        wanted = config.path or config.name
        try:
            path = inside(context.workspace, wanted, context.cwd)
        except UsageError as error:
            return StepResult("failed", error.message)
        if not path.exists():
            hint = near_names(context.cwd, wanted)
            return StepResult("failed", f"there is no `{wanted}` to publish" + (f"; {hint}" if hint else ""))
        if not (path.is_file() or path.is_dir()):
            return StepResult("failed", f"`{wanted}` is neither a file nor a folder")
        foreign = archives.foreign_link(path) if path.is_dir() else None
        if foreign:
            return StepResult("failed", f"`{wanted}/{foreign}` is a link that leads out of the folder")
        return await self._publish(context, config.name, path)

    async def _publish(self, context: StepContext, name: str, path: Path) -> StepResult:
        packed = private_file(context, ".tar.gz")
        is_folder = path.is_dir()
        try:
            if is_folder:
                await asyncio.to_thread(archives.pack_folder, path, packed)
            stored = packed if is_folder else path
            size = stored.stat().st_size
            digest = await context.artifacts.put(stored)
        except OSError as error:
            raise DependencyFailed(f"`{name}` could not be read or packed: {error}") from error
        finally:
            packed.unlink(missing_ok=True)
        artifact = PublishedArtifact(
            name=name,
            digest=digest,
            size=size,
            run=context.run,
            job=context.job.name,
            step=context.step.id,
            plan=context.plan.digest,
            commit=context.plan.source.commit,
            created_at=context.now(),
            is_directory=is_folder,
        )
        try:
            await context.index.publish(artifact)
        except UsageError as error:
            return StepResult("failed", error.message)
        context.say(f"published {name} ({format_size(size)}, sha256 {digest})")
        return StepResult("succeeded", outputs={"artifact": name, "digest": digest, "size": size})
