"""Starting a run: snapshot the source, resolve the plan, put it on disk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.engine.engine import Engine


async def start(engine: Engine, parameters: Mapping[str, str], actor: str, *, key: str = "") -> str:
    """Return the id of a new run of the project's pipeline. Raises InvalidConfiguration before anything is stored.

    The pipeline is checked before the (slower) snapshot is taken, so that a typo is told at once. The same non-empty
    `key` starts one run.
    """
    from forge.adapters.source import snapshot
    from forge.engine.planning import load

    known = await engine.store.machines.find("run", key) if key else None
    if known is not None:  # what is in the folder by now is of no interest to it
        return known
    load(engine.project, parameters)
    source = await snapshot(engine.project.root, engine.artifacts, engine.project.state / "scratch")
    return await engine.start_run(load(engine.project, parameters, source=source), actor=actor, key=key)
