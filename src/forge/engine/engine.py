"""The engine: one database, one artifact store, one runner, and what people do with runs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec

from forge.adapters.artifacts.base import ArtifactStore
from forge.adapters.artifacts.open import open_artifacts
from forge.adapters.runners.process import ProcessRunner
from forge.adapters.steps.base import PublishedArtifact
from forge.core.pipeline.decide import new_run
from forge.core.pipeline.state import RunState
from forge.engine.artifact_index import artifacts_of
from forge.engine.environments import EnvironmentMachine
from forge.engine.machine import MachineKind
from forge.engine.notifying import NotifierMachine
from forge.engine.plans import Plans
from forge.engine.project import Project
from forge.engine.releases import EngineReleases
from forge.engine.runs import KIND, RunMachine, encode_head, encode_parts, load_run
from forge.engine.step_performing import StepPerformer
from forge.engine.worker import Worker
from forge.engine.workspaces import remove_old
from forge.model.decision import Event
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import Plan
from forge.store.contract import Store, StoredEvent
from forge.store.database import open_store

_LOOK = 0.05
"""Seconds between two looks at whether the work is to end."""
_FOLLOW = 5.0


class Engine:
    """Everything that is done with runs in a project. Made by `Engine.open`."""

    def __init__(
        self,
        project: Project,
        store: Store,
        artifacts: ArtifactStore,
        runner: ProcessRunner,
        *,
        max_parallel: int,
        lease_seconds: float,
    ) -> None:
        self.project = project
        self.store = store
        self.artifacts = artifacts
        self.runner = runner
        self.plans = Plans(store.documents)
        self._max_parallel = max_parallel
        self._lease_seconds = lease_seconds

    @classmethod
    @asynccontextmanager
    async def open(
        cls, project: Project, *, max_parallel: int = 4, lease_seconds: float = 10.0
    ) -> AsyncIterator[Engine]:
        """Open the project's database and artifact store. `max_parallel`: how many jobs of a run go on at once.

        Raises UsageError for a URL that is wrong, DependencyFailed when the database is away.
        """
        project.state.mkdir(parents=True, exist_ok=True)
        store = await open_store(project.database_url)
        runner = ProcessRunner(scope=str(project.root))
        try:
            artifacts = open_artifacts(project.artifacts_url)
            yield cls(project, store, artifacts, runner, max_parallel=max_parallel, lease_seconds=lease_seconds)
        finally:
            runner.close()
            await _close_clusters()
            await store.close()

    async def start_run(self, plan: Plan, *, actor: str, key: str = "") -> str:
        """Pin the plan and create a run of it; return its id (`run-7`). The same non-empty `key` starts one run."""
        await self.plans.pin(plan)
        state = new_run(plan, "", actor=actor, at=await self.store.now())
        created = Event(
            "run_created", f"{actor} starts {plan.name}", {"actor": actor, "plan": state.plan_digest, "file": plan.file}
        )
        run = await self.store.machines.create(
            KIND, key, state.status, encode_head(state), encode_parts(state), events=(created,), id_prefix=KIND
        )
        await asyncio.to_thread(remove_old, self.project, {run, *await self.unfinished()})
        return run

    async def run_state(self, run: str) -> tuple[RunState, Plan]:
        """Return a run and its pinned plan. Raises UsageError if there is no such run."""
        record = await self.store.machines.load(run)
        if record is None or record.kind != KIND:
            raise await self.unknown(run)
        state = load_run(record)
        plan = await self.plans.get(state.plan_digest)
        ordered = {job.name: state.jobs[job.name] for job in plan.jobs if job.name in state.jobs}
        return msgspec.structs.replace(state, jobs=ordered), plan

    async def unfinished(self) -> list[str]:
        """Return the ids of runs that are not final, oldest first."""
        open_statuses = ("queued", "running", "waiting")
        records = await self.store.machines.newest(KIND, statuses=open_statuses, limit=10_000)
        return [record.id for record in reversed(records)]

    async def work(
        self,
        until: Callable[[], Awaitable[bool]] | None = None,
        *,
        only: tuple[str, ...] = (),
        kinds: tuple[MachineKind, ...] | None = None,
    ) -> None:
        """Be a worker in this process until `until` is true (None: for ever), on the machines in `only` or on all.

        Leaving early is safe at any time: what is under way is stopped, and run again by the next worker.
        """
        worker = Worker(self.store, kinds or self.kinds(), lease_seconds=self._lease_seconds)
        stop = asyncio.Event()
        working = asyncio.create_task(worker.run(stop, only))
        try:
            while not working.done():
                if until is not None and await until():
                    break
                await asyncio.wait({working}, timeout=_LOOK if until else None)
        finally:
            stop.set()
            await working

    def kinds(self) -> tuple[MachineKind, ...]:
        """Return the kinds of machines that a worker of this project tends."""
        environments = EnvironmentMachine(self.project, self.artifacts)
        releases = EngineReleases(self.store, environments)
        steps = StepPerformer(self.store, self.project, self.artifacts, self.runner, releases)
        runs = RunMachine(self.store, self.plans, steps, max_parallel=self._max_parallel)
        return runs, environments, NotifierMachine(self.store, self.project)

    async def follow(self, machine: str | None, after: int = 0) -> AsyncIterator[StoredEvent]:
        """Yield the events of a machine (None: of all) after that number, for ever, as they come."""
        while True:
            mark = self.store.mark_events()  # before reading, so that nothing is missed between the two
            events = await self.store.log.read(machine, after=after)
            for event in events:
                after = event.seq
                yield event
            if not events:
                await self.store.wait_for_events(_FOLLOW, since=mark)

    async def artifacts_of(self, run: str) -> list[PublishedArtifact]:
        """Return what a run published, oldest first."""
        return await artifacts_of(self.store.documents, run)

    async def unknown(self, run: str) -> UsageError:
        """Return the error for a run that does not exist, with the nearest that does."""
        known = tuple(record.id for record in await self.store.machines.newest(KIND, limit=20))
        return UsageError(f"there is no run `{run}`", hint=did_you_mean(run, known) or "`forge run` starts one")


async def _close_clusters() -> None:
    """Close connections to clusters, if this process has made any: only then is what makes them loaded."""
    sharing = sys.modules.get("forge.adapters.kubernetes.sharing")
    if sharing is not None:
        await sharing.close_shared()
