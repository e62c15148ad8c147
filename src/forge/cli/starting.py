"""Starting a run: snapshot the source, resolve the plan, put it on disk; and going on in the background."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.engine.project import Project


async def start(engine: Engine, parameters: Mapping[str, str], actor: str) -> str:
    """Return the id of a new run of the project's pipeline. Raises InvalidConfiguration before anything is stored.

    The pipeline is checked before the (slower) snapshot is taken, so that a typo is told at once.
    """
    from forge.adapters.source import snapshot
    from forge.engine.planning import load

    load(engine.project, parameters)
    source = await snapshot(engine.project.root, engine.artifacts, engine.project.state / "scratch")
    return await engine.start_run(load(engine.project, parameters, source=source), actor=actor)


def carry_on_in_background(project: Project, run: str) -> int:
    """Start a process of its own that carries the run on; return its process id. It survives this terminal."""
    folder = project.run_folder(run)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "background.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "forge", "resume", run, "--progress", "plain", "--no-input"],
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return process.pid
