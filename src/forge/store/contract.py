"""What the database keeps: machines with leases, their intents and inbox, the log, documents and slots.

All of it works the same on SQLite and PostgreSQL and is written once, on SQLAlchemy Core (async). Time for
leases is the database's own (clocks of machines differ). Values are JSON bytes, never pickle.
"""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from forge.model.decision import Action, Command, Event, Outcome


class Claim(msgspec.Struct, frozen=True):
    """A machine leased to a worker. `token` is the fencing token: it grows with every new claim."""

    machine: str
    kind: str
    worker: str
    token: int


class Record(msgspec.Struct, frozen=True):
    """A machine as stored: a header and named parts, each JSON. `status` is for lists and filters."""

    id: str
    kind: str
    key: str
    status: str
    head: bytes
    parts: dict[str, bytes]
    created_at: float
    updated_at: float
    wake_at: float | None
    schema_version: int = 1


class MachineCounts(msgspec.Struct, frozen=True):
    """How many machines there are by (kind, status), how many are due and free (`waiting`), and for how many seconds
    the first of them has been (`oldest_due`)."""

    by_status: dict[tuple[str, str], int]
    waiting: int
    oldest_due: float


class Write(msgspec.Struct, frozen=True):
    """One tick's whole effect, written in one transaction under the claim."""

    status: str
    head: bytes
    parts: dict[str, bytes] = {}
    """Only the parts that changed; an empty one is deleted."""
    actions: tuple[Action, ...] = ()
    """New intents; a key that exists already is not written again."""
    events: tuple[Event, ...] = ()
    consumed: tuple[int, ...] = ()
    """Ids of commands that this tick took into account."""
    settled: tuple[str, ...] = ()
    """Keys of finished intents whose outcome this tick took into account."""
    wake_at: float | None = None
    outcomes: tuple[Outcome, ...] = ()
    """Outcomes that are not on disk yet: recorded and settled by this very tick."""
    cancel: tuple[str, ...] = ()
    """Keys of intents that are asked to stop, so that a worker that takes over knows it too."""
    start: bool = False
    """Mark the new intents as under way at once: the writer performs them right after."""
    decision: bytes = b""
    """The record of what was decided on what, for the chain of decisions; empty: none."""


class Intent(msgspec.Struct, frozen=True):
    """An action on disk: `pending` (not begun), `started` (under way; by `worker`), `finished`."""

    action: Action
    state: str
    worker: str = ""
    token: int = 0
    outcome: Outcome | None = None
    cancel: bool = False
    """A tick asked for it to be stopped."""


class StoredEvent(msgspec.Struct, frozen=True):
    """An event in the hash-chained log: hash = sha256(previous hash + canonical JSON of the rest)."""

    seq: int
    machine: str
    at: float
    event: Event
    previous: str
    hash: str


class StoredDecision(msgspec.Struct, frozen=True):
    """A record in the hash-chained log of decisions; `body` is for whoever wrote it."""

    seq: int
    machine: str
    at: float
    body: bytes
    previous: str
    hash: str


class Machines(Protocol):
    """Durable state machines. A `StaleLease` means that nothing was written."""

    async def create(
        self,
        kind: str,
        key: str,
        status: str,
        head: bytes,
        parts: dict[str, bytes],
        *,
        events: tuple[Event, ...] = (),
        id_prefix: str,
    ) -> str:
        """Create a machine that is due now; return its id (`run-7`). An existing (kind, key) is returned as is,
        so creation is idempotent; `key` "" is never equal to another."""

    async def load(self, machine: str) -> Record | None:
        """Return the machine, or None."""

    async def find(self, kind: str, key: str) -> str | None:
        """Return the id of the machine of that kind and key."""

    async def newest(
        self, kind: str, *, statuses: tuple[str, ...] = (), limit: int = 50, before: str = ""
    ) -> list[Record]:
        """Return machines, newest first, without their parts."""

    async def count(self) -> MachineCounts:
        """Return how many there are, and how many wait for a worker."""

    async def claim(
        self, worker: str, kinds: tuple[str, ...], limit: int, lease_seconds: float, only: tuple[str, ...] = ()
    ) -> list[Claim]:
        """Lease up to `limit` machines that are due (wake_at passed, a command or an outcome waits) and free."""

    async def renew(self, worker: str, lease_seconds: float) -> set[str]:
        """Prolong every lease of the worker; return the machines that it still holds."""

    async def holds(self, claim: Claim) -> bool:
        """Return whether the lease is still the worker's, as far as the database knows."""

    async def let_go(self, claim: Claim) -> None:
        """End the lease; ignored if it was lost already."""

    async def let_go_all(self, worker: str, keep: tuple[str, ...] = ()) -> None:
        """End all leases of the worker except those on the machines in `keep`; the machines are due at once."""

    async def remind(self, machine: str) -> None:
        """Make a machine due: it was `told` something that nobody could act on."""

    async def told(self, worker: str) -> set[str]:
        """Return the machines leased to the worker that were told something (a command, a free place) since the
        claim or the last call."""

    async def next_due(self, worker: str, kinds: tuple[str, ...], only: tuple[str, ...] = ()) -> float | None:
        """Return in how many seconds a claim may find something: a free machine wakes, or the lease of another
        worker ends. None: not before somebody tells a machine something."""

    async def write(self, claim: Claim, write: Write) -> tuple[str, ...]:
        """Write a tick; return the keys of the intents that are new."""


class Intents(Protocol):
    """Actions and what became of them."""

    async def of(self, machine: str) -> list[Intent]:
        """Return the machine's intents that are not settled, in order of writing."""

    async def start(self, claim: Claim, key: str) -> None:
        """Mark as under way, before it is performed."""

    async def finish(self, claim: Claim, outcome: Outcome) -> None:
        """Record the outcome and make the machine due."""

    async def finish_all(self, claim: Claim, outcomes: tuple[Outcome, ...]) -> None:
        """Record several outcomes in one transaction."""


class Inbox(Protocol):
    """Commands to machines."""

    async def send(self, machine: str, kind: str, actor: str, payload: dict[str, Any], *, key: str = "") -> int:
        """Put a command on disk and make the machine due; the same non-empty `key` is accepted once."""

    async def sent(self, machine: str, key: str) -> int | None:
        """Return the id of the command that was sent with that key, or None."""

    async def of(self, machine: str) -> list[Command]:
        """Return the commands not yet consumed, oldest first."""


class Log(Protocol):
    """The hash-chained log of everything that happened."""

    async def append(self, machine: str, events: tuple[Event, ...]) -> None:
        """Add events that are no machine's decision: what people did to the site itself."""

    async def last(self, machine: str) -> int:
        """Return the seq of the newest event of a machine, 0 when there is none."""

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        """Return events in order."""

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""


class Decisions(Protocol):
    """The hash-chained log of what was decided on what. Written by `Machines.write`."""

    async def read(self, machine: str | None = None, *, after: int = 0, limit: int = 200) -> list[StoredDecision]:
        """Return records in order."""

    async def count(self) -> int:
        """Return how many records there are, as the head of the chain says."""

    async def verify(self) -> int | None:
        """Return the seq of the first record that does not fit the chain, or None when all do."""


class Documents(Protocol):
    """Small immutable or versioned JSON documents: plans by digest, artifact records, environment facts."""

    async def put(self, collection: str, key: str, value: bytes, *, replace: bool = False) -> bool:
        """Store; return False and change nothing if the key exists (and not `replace`)."""

    async def get(self, collection: str, key: str) -> bytes | None:
        """Return a document, or None."""

    async def all(self, collection: str, prefix: str = "") -> dict[str, bytes]:
        """Return all documents whose key begins with `prefix`."""


class Slots(Protocol):
    """Concurrency groups: at most `limit` holders, others in order of arrival."""

    async def ask(self, group: str, holder: str, limit: int) -> int:
        """Take a place or queue for one, idempotent; return 0 when held, else the position in the queue (1...).
        When a place becomes free the next holder's machine (the part of `holder` before `/`) is made due."""

    async def free(self, group: str, holder: str) -> None:
        """Give the place, or the place in the queue, back."""

    async def holders(self, group: str) -> list[str]:
        """Return who holds a place now, oldest first."""

    async def queue(self, group: str) -> list[str]:
        """Return who waits for a place, in order of arrival."""


class Store(Protocol):
    """One database. Made by `forge.store.database.open_store(url)` (`sqlite:///path` or `postgresql://…`)."""

    @property
    def machines(self) -> Machines:
        """See Machines."""

    @property
    def intents(self) -> Intents:
        """See Intents."""

    @property
    def inbox(self) -> Inbox:
        """See Inbox."""

    @property
    def log(self) -> Log:
        """See Log."""

    @property
    def decisions(self) -> Decisions:
        """See Decisions."""

    @property
    def documents(self) -> Documents:
        """See Documents."""

    @property
    def slots(self) -> Slots:
        """See Slots."""

    async def now(self) -> float:
        """Return the database's time."""

    async def wait(self, timeout: float, *, since: int | None = None) -> None:
        """Return when something became due (LISTEN/NOTIFY on PostgreSQL, in-process wake-ups plus a cheap
        change check of the file on SQLite), or after `timeout` seconds.

        `since`, from an earlier `mark()`: also return at once if something became due after that mark, so that
        nothing is missed between looking and waiting."""

    def mark(self) -> int:
        """Return the present point in the count of wake-ups, for `wait(since=…)`."""

    def mark_events(self) -> int:
        """Return the present point in the growth of the log, for `wait_for_events(since=…)`."""

    async def wait_for_events(self, timeout: float, *, since: int | None = None) -> None:
        """Return when the log may have grown (with `since`: after that mark), or after `timeout` seconds."""

    async def close(self) -> None:
        """Close all connections."""
