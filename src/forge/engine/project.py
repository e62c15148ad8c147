"""Where a project's files are: the folder with `forge/pipeline.yaml`, and Forge's own `.forge/` in it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from forge.model.errors import UsageError

PIPELINE = Path("forge/pipeline.yaml")


@dataclass(frozen=True, slots=True)
class Project:
    """A project's folders. `FORGE_DATABASE` and `FORGE_ARTIFACTS` (URLs) override where state is kept, and
    `database` and `artifacts` (URLs, empty: not given) override these."""

    root: Path
    database: str = ""
    artifacts: str = ""

    @classmethod
    def find(cls, start: Path) -> Project:
        """Return the project of `start` or the nearest folder above it. Raises UsageError if there is none."""
        for folder in (start.resolve(), *start.resolve().parents):
            if (folder / PIPELINE).is_file():
                return cls(folder)
        msg = f"no {PIPELINE} in {start} or any folder above it"
        raise UsageError(msg, hint="run `forge init` to write one, or change to your project's folder")

    @property
    def pipeline(self) -> Path:
        """The pipeline file."""
        return self.root / PIPELINE

    @property
    def state(self) -> Path:
        """`.forge/`: everything that Forge keeps; safe to add to .gitignore."""
        return self.root / ".forge"

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database or os.environ.get("FORGE_DATABASE") or f"sqlite:///{self.state / 'forge.db'}"

    @property
    def artifacts_url(self) -> str:
        """Where artifacts are kept: a folder, or a URL such as `s3://bucket/prefix`."""
        return self.artifacts or os.environ.get("FORGE_ARTIFACTS") or str(self.state / "artifacts")

    @property
    def cache(self) -> Path:
        """Caches of jobs."""
        return self.state / "cache"

    def run_folder(self, run: str) -> Path:
        """Everything of one run that is a file."""
        return self.state / "runs" / run

    def workspace(self, run: str, job: str, attempt: int) -> Path:
        """The working folder of one attempt of a job."""
        return self.run_folder(run) / _safe(job) / str(attempt) / "workspace"

    def step_log(self, run: str, job: str, attempt: int, step: str) -> Path:
        """The log of one step; every retry of the step appends to it."""
        return self.run_folder(run) / _safe(job) / str(attempt) / f"{_safe(step)}.log"

    def environment_folder(self, name: str) -> Path:
        """Everything of an environment on the local target: agent, proxy, versions, logs."""
        return self.state / "environments" / _safe(name)


def _safe(name: str) -> str:
    """Return a name as one path element; different names stay different."""
    from urllib.parse import quote

    quoted = quote(name, safe=" ()=,+@")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted
