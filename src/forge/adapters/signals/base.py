"""Signals: what each version's users experience, read as cumulative counters.

The engine reads `Signals`, one object an environment. It is put together (`combined.py`) from one or more
`Source`s: the proxy's counters, a Prometheus, a log store, ...; each tells what it knows of every version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal, Protocol, runtime_checkable

import msgspec

from forge.model.traffic import Gauge, LogTemplate, Sample


class Signals(Protocol):
    """Reads every version of an environment at once.

    Called once a tick. A version that is missing from the answer has no data (not zero traffic).
    Counter resets are handled here: what is returned never falls while the reader lives, and `state`
    carries it over a restart. DependencyFailed: the source is away; the caller holds, it never guesses.
    """

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """Return one sample a version, taken now."""

    def state(self) -> dict[str, object]:
        """Return JSON data that `restore` needs to go on without a jump after a restart."""

    def restore(self, state: dict[str, object]) -> None:
        """Continue from `state`, which an earlier reader of the same environment returned."""


Field = Literal["requests", "latency", "groups", "cpu", "memory", "logs", "templates", "gauges", "values"]
"""What a source may know of a version. `requests` is requests and errors: both come from one source."""


class Reading(msgspec.Struct, frozen=True):
    """What one source knows of one version; None and empty: nothing. Units and meaning as in `Sample`.

    `at` is when the store's newest data is from, seconds since the epoch (not when it was asked): what is old is
    told as old. None: now.
    """

    at: float | None = None
    good_for: float | None = None
    """Seconds for which it tells of now: some three times the store's own rhythm, and its delay. None: 15 s."""
    requests: int | None = None
    errors: int | None = None
    latency: tuple[tuple[float, int], ...] = ()
    groups: tuple[tuple[str, int, int], ...] = ()
    cpu_seconds: float | None = None
    memory: int | None = None
    log_errors: int | None = None
    templates: tuple[LogTemplate, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    values: tuple[tuple[str, float], ...] = ()


class QueryResult(msgspec.Struct, frozen=True):
    """What one query of a source answers now, for people: `forge signals test`.

    `values`: the newest value by version, None where the store has no series of it. `problem`: why it could not be
    answered, in words, with what to do about it; empty when it could.
    """

    name: str
    query: str
    values: dict[str, float | None] = {}
    problem: str = ""
    at: float | None = None
    unit: str = ""


class RequestTrace(msgspec.Struct, frozen=True):
    """One request of a version that a tracing system kept: when it ended, how long it took, where to look at it.

    `seconds` is None where the store does not tell; `url` is empty where nobody said how the system is reached.
    """

    trace: str
    version: str
    at: float
    seconds: float | None = None
    url: str = ""


@runtime_checkable
class TracingSource(Protocol):
    """A source that also knows which requests stand for its counts, such as Prometheus' exemplars."""

    async def traces(self, version: str, start: float, end: float) -> list[RequestTrace]:
        """Return requests of the version between two times (seconds since the epoch), newest first, each trace once.

        DependencyFailed: the store is away or refuses."""


class Source(Protocol):
    """One place where signals are kept. Made once an environment; nothing is asked until the first `read`.

    `read` is called once a tick with all versions, and may take 4 seconds; what takes longer is cut off. A version
    that the store knows nothing of is missing from the answer. What is returned never falls over the source's life
    (resets, restarts of pods and late data are handled by the source, see `counters.py`), and `state` carries that
    over a restart of Forge. DependencyFailed: the store is away, refuses, or answers what cannot be understood:
    never a zero in its place.
    """

    @property
    def gives(self) -> frozenset[Field]:
        """What it is configured to know; the same over its life."""

    async def read(self, version_ids: list[str], now: float) -> dict[str, Reading]:
        """Return what it knows of these versions. `now` is seconds since the epoch."""

    async def examine(self, version_ids: list[str], now: float) -> list[QueryResult]:
        """Run each query once and tell what came back; never raises for what the store did."""

    def state(self) -> dict[str, object]:
        """Return JSON data for `restore`; bounded, whatever it has seen."""

    def restore(self, state: dict[str, object]) -> None:
        """Go on from `state` of an earlier source of the same configuration; one that does not fit is ignored."""

    async def close(self) -> None:
        """Let go of connections and listeners."""


SecretReader = Callable[[str], Awaitable[str]]
"""Returns the value of the secret of that name, fetched when it is needed and never kept on disk.
Raises DependencyFailed, which names the secret and never its value."""
