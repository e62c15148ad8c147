"""What can be worked on and watched until it is settled: a run, an environment."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from forge.model.errors import ExitCode
from forge.views.environment import EnvironmentView
from forge.views.release import ReleaseView
from forge.views.run import RunView

if TYPE_CHECKING:
    from forge.service.base import Accepted, Service

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


class Before(NamedTuple):
    """What was there before a command began to watch: the newest event, and how a run stood, if there was one."""

    event: int
    run: RunView | None


async def before(service: Service, run: str = "") -> Before:
    """Return how things stand before a command changes them."""
    return Before(await service.records.last(), await service.runs.get(run) if run else None)


class Subject(Protocol):
    """One durable machine as a person sees it. `name`: a run's id or an environment's name."""

    name: str

    async def environments(self) -> tuple[str, ...]:
        """Return the environments that belong to it, as far as something was released to them."""

    async def before(self) -> Before:
        """Return what need not be shown any more."""

    async def look(self) -> RunView | EnvironmentView:
        """Return what it looks like now."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Tell whether nothing more happens before a person acts."""

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """Return the exit code that its state stands for."""


class RunSubject:
    """A run. `known`: how it stood before the command did something to it; else as it stands when it is watched."""

    def __init__(self, service: Service, run: str, known: Before | None = None) -> None:
        self.service = service
        self.name = run
        self._known = known
        self._planned: tuple[str, ...] | None = None
        self._there: list[str] = []

    async def environments(self) -> tuple[str, ...]:
        """Return the environments that its plan releases to, as they come into being."""
        if self._planned is None:  # a plan never changes
            self._planned = tuple(each.name for each in (await self.service.runs.plan(self.name)).environments)
        for name in self._planned:
            if name not in self._there and await self.service.environments.exists(name):
                self._there.append(name)
        return tuple(self._there)

    async def before(self) -> Before:
        """Return what need not be shown any more."""
        return self._known or await before(self.service, self.name)

    async def look(self) -> RunView:
        """Return the run's view."""
        return await self.service.runs.get(self.name)

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """A waiting run with a command in its inbox is about to go on."""
        assert isinstance(view, RunView)
        return (view.final or view.state == "waiting") and not await self.service.records.waiting(self.name)

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """See RUN_EXIT; a run that is under way is still running."""
        assert isinstance(view, RunView)
        return RUN_EXIT.get(view.state, ExitCode.STILL_RUNNING)


class EnvironmentSubject:
    """An environment, watched for one of its releases or for whatever is under way in it."""

    def __init__(self, service: Service, name: str, release: str = "") -> None:
        self.service = service
        self.name = name
        self.release = release

    async def environments(self) -> tuple[str, ...]:
        """Return the environment alone."""
        return (self.name,)

    async def before(self) -> Before:
        """Return what need not be shown any more."""
        return await before(self.service)

    async def look(self) -> EnvironmentView:
        """Return the environment's view, as its last tick saw it."""
        return await self.service.environments.get(self.name)

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """Every watched release is over or needs a person, and no command waits."""
        assert isinstance(view, EnvironmentView)
        watched = self._watched(view)
        if any(not release.final and release.state not in NEEDS_A_PERSON for release in watched):
            return False
        return not await self.service.records.waiting(self.name)

    def exit_code(self, view: RunView | EnvironmentView) -> ExitCode:
        """That of the watched release; of several the one that needs the most attention."""
        assert isinstance(view, EnvironmentView)
        return worst(RELEASE_EXIT.get(release.state, ExitCode.STILL_RUNNING) for release in self._watched(view))

    def _watched(self, view: EnvironmentView) -> tuple[ReleaseView, ...]:
        if self.release:
            return tuple(release for release in view.releases if release.id == self.release)
        return view.under_way or view.releases[:1]


class InboxSubject(EnvironmentSubject):
    """An environment, watched only until it has taken in the commands that it was sent."""

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """No command waits."""
        del view
        return not await self.service.records.waiting(self.name)


class TakenIn(EnvironmentSubject):
    """An environment, watched only until it has taken in one command."""

    def __init__(self, service: Service, name: str, accepted: Accepted) -> None:
        super().__init__(service, name)
        self.accepted = accepted

    async def settled(self, view: RunView | EnvironmentView) -> bool:
        """The command waits no more, whatever came of it."""
        del view
        return all(command.id != self.accepted.id for command in await self.service.records.waiting(self.name))
