"""What people do with a project, whatever the way in: the command line, the API and the pages all speak this.

Two implementations: `forge.service.local` works on the project's own database, `forge.service.remote` asks a server.
Everything that is returned is a view; everything that changes something is a command, which the run or environment
takes in when a worker comes to it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from forge.model.decision import Command
from forge.model.plan import EnvironmentPlan, Plan
from forge.store.contract import StoredDecision, StoredEvent
from forge.views.environment import EnvironmentView
from forge.views.explanation import Explanation
from forge.views.history import ReleaseHistory
from forge.views.listing import ArtifactRow, RunRow
from forge.views.run import RunView

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Some items of a long list. `next` is where the rest begins, empty when this is the end."""

    items: tuple[T, ...]
    next: str = ""


class Accepted(msgspec.Struct, frozen=True):
    """A command that is on disk. `id` is its number in the inbox of `machine`; `after` the newest event before it."""

    machine: str
    id: int
    after: int


class LogPart(msgspec.Struct, frozen=True):
    """A piece of a step's log. `offset` is where it begins, `size` how many bytes the log has by now.

    `ended`: the step is over, so that nothing is added any more.
    """

    data: bytes
    offset: int
    size: int
    ended: bool


class Runs(Protocol):
    """Runs of the project's pipeline."""

    async def start(self, parameters: Mapping[str, str], *, actor: str, key: str = "", ref: str = "") -> str:
        """Start a run and return its id; the same non-empty `key` starts one. `ref`: what to check out, where the
        project comes from Git. Raises InvalidConfiguration before anything is stored."""

    async def get(self, run: str) -> RunView:
        """Return a run. Raises UsageError, with a suggestion, when there is none."""

    async def plan(self, run: str) -> Plan:
        """Return the plan that a run is pinned to. Raises UsageError."""

    async def page(self, *, statuses: tuple[str, ...] = (), limit: int = 50, cursor: str = "") -> Page[RunRow]:
        """Return runs, newest first. Raises UsageError for a cursor that nobody gave."""

    async def command(self, run: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send `approve`, `reject`, `cancel` or `retry`; the same non-empty `key` is accepted once.

        Raises UsageError for what makes no sense now, Rejected for a word at a gate that the gate would refuse.
        """

    async def artifacts(self, run: str) -> tuple[ArtifactRow, ...]:
        """Return what the run published, oldest first."""

    async def fetch(self, run: str, name: str, destination: Path) -> str:
        """Write the bytes of an artifact to a file, checked against their digest; return that.

        Raises UsageError, with a suggestion, for an unknown name and for one that was pruned."""

    async def log(self, run: str, job: str, attempt: int, step: str, *, offset: int = 0, limit: int = 65536) -> LogPart:
        """Return a piece of a step's log; a negative `offset` counts from its end."""


class Environments(Protocol):
    """Environments and their releases."""

    async def names(self) -> tuple[str, ...]:
        """Return those of the pipeline file in its order, then those that only the database knows."""

    async def exists(self, name: str) -> bool:
        """Tell whether something was ever released to it."""

    async def get(self, name: str, *, closely: bool = False) -> EnvironmentView:
        """Return an environment as its last tick saw it, `closely`: as it is this very moment.

        One that nothing was released to is `empty`. Raises UsageError, with a suggestion, for an unknown name.
        """

    async def plan(self, name: str) -> EnvironmentPlan:
        """Return the plan that it runs by: the stored one, else the file's. Raises UsageError."""

    async def command(self, name: str, kind: str, payload: Mapping[str, Any], *, actor: str, key: str = "") -> Accepted:
        """Send `promote`, `approve`, `pause`, `resume`, `abort`, `retry`, `undo`, `rollback`, ...; payload keys as
        those of the CLI (`release`, `full`, `override`, `to`). Raises UsageError for what cannot have any effect."""

    async def explanation(self, release: str) -> Explanation:
        """Return why a release went as it did. Raises UsageError, with the nearest known one."""

    async def history(self, release: str) -> ReleaseHistory:
        """Return a release over time. Raises UsageError, with the nearest known one."""


class Records(Protocol):
    """What happened, and what was decided on what. A `machine` is a run's id or an environment's name; empty: all."""

    async def events(self, machine: str = "", *, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Return events after that number, oldest first, of one machine or of all."""

    def follow(self, machine: str = "", *, after: int = 0) -> AsyncIterator[StoredEvent]:
        """Yield events after that number, for ever, as they come."""

    async def last(self) -> int:
        """Return the number of the newest event of all, 0 when there is none."""

    async def decisions(self, machine: str = "", *, after: int = 0, limit: int = 200) -> list[StoredDecision]:
        """Return records of decisions, oldest first."""

    async def verify(self) -> dict[str, dict[str, int | None]]:
        """Return for `events` and `decisions` how many `records` there are and the `first_wrong` of each chain."""

    async def waiting(self, machine: str) -> list[Command]:
        """Return the commands that a machine has not taken in yet, oldest first."""

    async def refusal(self, accepted: Accepted) -> str | None:
        """Return why a command had no effect, in the machine's words; empty: it had; None: it is not taken in yet."""


class Service(Protocol):
    """One project."""

    name: str

    @property
    def runs(self) -> Runs:
        """See Runs."""

    @property
    def environments(self) -> Environments:
        """See Environments."""

    @property
    def records(self) -> Records:
        """See Records."""
