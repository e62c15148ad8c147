"""A worker of a project as a process of its own, to be killed: `python engine_program.py FOLDER LEASE_SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from forge.engine.engine import Engine
from forge.engine.project import Project


async def main(folder: str, lease_seconds: str) -> None:
    async with Engine.open(Project(Path(folder)), lease_seconds=float(lease_seconds)) as engine:
        sys.stdout.write("works\n")
        sys.stdout.flush()
        await engine.work()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
