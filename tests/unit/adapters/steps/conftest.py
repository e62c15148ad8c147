"""A job to run real steps in: a workspace, a runner, a store and a log, all real and of this test alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from forge.adapters.artifacts.folder import FolderArtifacts
from forge.adapters.masking import Masker, StepLog
from forge.adapters.runners.process import ProcessRunner
from forge.adapters.steps.base import PublishedArtifact, StepContext
from forge.adapters.steps.registry import step
from forge.model.errors import UsageError
from forge.model.plan import JobPlan, Plan, Source, StepPlan


class Index:
    """The run's artifacts, in memory, with the rule of the contract."""

    def __init__(self) -> None:
        self.artifacts: dict[tuple[str, str], PublishedArtifact] = {}

    async def publish(self, artifact: PublishedArtifact) -> None:
        before = self.artifacts.setdefault((artifact.run, artifact.name), artifact)
        if before.digest != artifact.digest:
            raise UsageError(f"artifact `{artifact.name}` was already published with other content")

    async def find(self, run: str, name: str) -> PublishedArtifact | None:
        return self.artifacts.get((run, name))


class Job:
    """Runs steps one after another as the engine would."""

    def __init__(self, root: Path) -> None:
        self.project = root / "project"
        self.workspace = root / "runs" / "1" / "workspace"
        self.cache = root / "cache"
        self.log = root / "step.log"
        self.project.mkdir()
        self.workspace.mkdir(parents=True)
        self.artifacts: Any = FolderArtifacts(root / "artifacts")
        self.index = Index()
        self.runner = ProcessRunner(scope=str(root))
        self.source = Source(digest="")
        self.env = {"PATH": os.environ["PATH"], "HOME": str(root), "PASSWORD": "hunter22"}
        self.count = 0
        self.logs: list[StepLog] = []
        self.shell = ""

    async def step(self, kind: str, *, cwd: str = "", timeout: float | None = None, shell: str = "", **config: Any):
        return await step(kind).run(self.context(kind, config, cwd=cwd, timeout=timeout, shell=shell))

    def context(
        self, kind: str, config: dict[str, Any], *, cwd="", timeout=None, shell="", **other: Any
    ) -> StepContext:
        self.count += 1
        planned = StepPlan(id=str(self.count), kind=kind, name=kind, config=config, timeout=timeout, shell=shell)
        job = JobPlan(name="job", base="job", steps=(planned,), shell=self.shell)
        log = StepLog(self.log, Masker({"PASSWORD": "hunter22"}))
        self.logs.append(log)
        fields: dict[str, Any] = {
            "key": f"job#1/{self.count}#1",
            "run": "run-1",
            "plan": Plan(name="p", jobs=(job,), source=self.source),
            "job": job,
            "step": planned,
            "attempt": 1,
            "actor": "tester",
            "workspace": self.workspace,
            "cwd": self.workspace / cwd,
            "env": self.env,
            "output": log,
            "say": log.say,
            "runner": self.runner,
            "artifacts": self.artifacts,
            "index": self.index,
            "releases": None,
            "project": self.project,
            "cache": self.cache,
            "now": lambda: 1234.5,
        }
        return StepContext(**{**fields, **other})

    @property
    def said(self) -> str:
        """Return everything in the log."""
        return self.log.read_text(errors="replace")

    def files(self) -> dict[str, str]:
        """Return the workspace's files and their text."""
        return {
            str(path.relative_to(self.workspace)): path.read_text(errors="replace")
            for path in sorted(self.workspace.rglob("*"))
            if path.is_file()
        }

    def write(self, name: str, text: str = "x") -> Path:
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def private(self) -> list[str]:
        """Return the names of what is left beside the workspace."""
        folder = self.workspace.parent / "workspace.private"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def job(tmp_path: Path):
    job = Job(tmp_path)
    yield job
    job.runner.close()
    for log in job.logs:
        log.close()
