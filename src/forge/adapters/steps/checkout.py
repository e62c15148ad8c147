"""`checkout:` the run's own source, another folder, or a git repository into the workspace."""

from __future__ import annotations

from pathlib import Path

import msgspec

from forge.adapters import source
from forge.adapters.paths import inside
from forge.adapters.steps import git
from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.private import private_folder
from forge.model.configs import CheckoutConfig
from forge.model.errors import UsageError
from forge.model.plan import Source

OWN = ("", ".", "./")


class CheckoutStep:
    """Makes a folder of the workspace hold exactly what is checked out; other files in it are removed.

    Outputs: `commit`, `ref`, and `dirty` where it comes from a working tree.
    """

    kind = "checkout"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, CheckoutConfig)
        try:
            into = inside(context.workspace, config.into, context.cwd)
            if config.repository:
                return await git.checkout(context, config, into)
            if config.path in OWN:
                return await self._bring(context, context.plan.source, into, "the source of this run")
            folder = _folder(context.project, config.path)
        except UsageError as error:
            return StepResult("failed", error.message)
        taken = await source.snapshot(folder, context.artifacts, private_folder(context.workspace))
        return await self._bring(context, taken, into, config.path)

    async def _bring(self, context: StepContext, what: Source, into: Path, name: str) -> StepResult:
        await source.unpack(what, context.artifacts, into, cache=context.cache / "sources")
        state = " with changes that are not committed" if what.dirty else ""
        at = f" at {what.commit[:12]}{f' ({what.ref})' if what.ref else ''}{state}" if what.commit else ""
        context.say(f"checked out {name}{at}")
        outputs = {"commit": what.commit, "ref": what.ref, "dirty": what.dirty}
        return StepResult("succeeded", outputs=outputs)


def _folder(project: Path, path: str) -> Path:
    folder = project / path
    if not folder.is_dir():
        raise UsageError(f"there is no folder `{path}` to check out")
    return folder
