"""Going on with a run in the background, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.engine.project import Project


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
