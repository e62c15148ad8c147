"""What Forge keeps for a job beside its workspace: scripts, outputs, marks. Never inside the user's tree."""

from __future__ import annotations

import hashlib
from pathlib import Path

from forge.adapters.steps.base import StepContext


def process_key(run: str, key: str) -> str:
    """Return the cookie of a step's processes; `Runner.kill` takes the same."""
    return key if key.startswith(f"{run}/") else f"{run}/{key}"


def private_folder(workspace: Path) -> Path:
    """Return the folder beside a job's workspace; only the user that Forge runs as may look into it."""
    folder = workspace.parent / f"{workspace.name}.private"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def private_file(context: StepContext, suffix: str) -> Path:
    """Return the path of a file that belongs to this execution of this step alone."""
    mark = hashlib.sha256(context.key.encode()).hexdigest()[:12]
    return private_folder(context.workspace) / f"{context.step.id}-{mark}{suffix}"
