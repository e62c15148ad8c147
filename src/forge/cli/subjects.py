"""What can be worked on and watched until it is settled: a run, an environment."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from forge.model.errors import ExitCode
from forge.service.locating import environment_state
from forge.views.environment import EnvironmentView, environment_view
from forge.views.release import ReleaseView
from forge.views.run import RunView, run_view

if TYPE_CHECKING:
    from forge.engine.engine import Engine

RUN_EXIT = {
    "succeeded": ExitCode.SUCCEEDED,
    "failed": ExitCode.DID_NOT_SUCCEED,
    "cancelled": ExitCode.REJECTED,
    "rejected": ExitCode.REJECTED,
    "error": ExitCode.FORGE_FAILED,
    "waiting": ExitCode.WAITING_FOR_APPROVAL,
}
RELEASE_EXIT = {
    "promoted": ExitCode.SUCCEEDED,
    "rolled_back": ExitCode.DID_NOT_SUCCEED,
    "failed": ExitCode.FORGE_FAILED,
    "aborted": ExitCode.REJECTED,
    "superseded": ExitCode.REJECTED,
    "waiting_approval": ExitCode.WAITING_FOR_APPROVAL,
    "paused": ExitCode.WAITING_FOR_APPROVAL,
}
NEEDS_A_PERSON = frozenset({"waiting_approval", "paused"})


_GRAVITY = (
    ExitCode.FORGE_FAILED, ExitCode.DID_NOT_SUCCEED, ExitCode.REJECTED,
    ExitCode.WAITING_FOR_APPROVAL, ExitCode.STILL_RUNNING, ExitCode.SUCCEEDED,
)  # fmt: skip


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code of several that a person has to know about first; SUCCEEDED for none."""
    return min(codes, key=_GRAVITY.index, default=ExitCode.SUCCEEDED)


class Subject(Protocol):
    """One durable machine as a person sees it."""

    machine: str

    async def machines(self) -> tuple[str, ...]:
        """Return the machines that have to be worked on for it to go on."""

    async def look(self) -> RunView | EnvironmentView:
        """Return what it looks like now."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Tell whether nothing more happens before a person acts."""

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """Return the exit code that its state stands for."""


class RunSubject:
    """A run."""

    def __init__(self, engine: Engine, run: str) -> None:
        self.engine = engine
        self.machine = run
        self._planned: tuple[str, ...] | None = None
        self._environments: dict[str, str] = {}
        """Machines by name of environment, as far as they exist."""

    async def machines(self) -> tuple[str, ...]:
        """Return the run, and the environments that its plan releases to, as they come into being."""
        if self._planned is None:  # a plan never changes
            _, plan = await self.engine.run_state(self.machine)
            self._planned = tuple(environment.name for environment in plan.environments)
        for name in self._planned:
            if name not in self._environments:
                found = await self.engine.store.machines.find("environment", name)
                if found is not None:
                    self._environments[name] = found
        return (self.machine, *self._environments.values())

    async def look(self) -> RunView:
        """Return the run's view."""
        state, plan = await self.engine.run_state(self.machine)
        return run_view(state, plan, time.time())

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """A waiting run with a command in its inbox is about to go on."""
        assert isinstance(view, RunView)
        if view.final:
            return not await self.engine.store.inbox.of(self.machine)
        return view.state == "waiting" and not await self.engine.store.inbox.of(self.machine)

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """See RUN_EXIT; a run that is under way is still running."""
        assert isinstance(view, RunView)
        return RUN_EXIT.get(view.state, ExitCode.STILL_RUNNING)


class EnvironmentSubject:
    """An environment, watched for one of its releases or for whatever is under way in it."""

    def __init__(self, engine: Engine, machine: str, release: str = "") -> None:
        self.engine = engine
        self.machine = machine
        self.release = release

    async def machines(self) -> tuple[str, ...]:
        """Return the environment alone."""
        return (self.machine,)

    async def look(self) -> EnvironmentView:
        """Return the environment's view, as its last tick saw it."""
        return environment_view(await environment_state(self.engine, self.machine), time.time())

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Every watched release is over or needs a person, and no command waits."""
        assert isinstance(view, EnvironmentView)
        watched = self._watched(view)
        if any(not release.final and release.state not in NEEDS_A_PERSON for release in watched):
            return False
        return not await self.engine.store.inbox.of(self.machine)

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """That of the watched release; of several the one that needs the most attention."""
        assert isinstance(view, EnvironmentView)
        return worst(RELEASE_EXIT.get(release.state, ExitCode.STILL_RUNNING) for release in self._watched(view))

    def _watched(self, view: EnvironmentView) -> tuple[ReleaseView, ...]:
        if self.release:
            return tuple(release for release in view.releases if release.id == self.release)
        return view.under_way or view.releases[:1]


class Accepted(EnvironmentSubject):
    """An environment, watched only until it has taken in the commands that it was sent."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """No command waits."""
        del view
        return not await self.engine.store.inbox.of(self.machine)
