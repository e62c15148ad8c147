"""How fast and how safely a team releases: DORA's four measures, the size of batches, and what releases cost.

The measures are those of DORA (dora.dev, "DORA's software delivery metrics"; Forsgren, Humble and Kim, *Accelerate*,
2018): deployment frequency, lead time for changes, change failure rate, and failed deployment recovery time. Here a
deployment is a release that was promoted; a failed one was rolled back, also after its promotion, or failed.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from forge.store.contract import StoredEvent

WEEK = 7 * 86400.0
MONDAY = 4 * 86400.0
"""The epoch was a Thursday: weeks begin on Mondays, in UTC."""


class Change(msgspec.Struct, frozen=True):
    """A release that is over. Times are seconds since the epoch; `state`: promoted, rolled_back, failed, aborted.

    `failed_at`: when one that had been promoted was told to go back, None: it was bad from its start; `restored_at`: when
    a failed one carried nothing any more. `committed_at` and `commits` come from Git, None: not
    known. `excess`: failed requests above what stable would have failed.
    """

    release: str
    environment: str
    version: str
    state: str
    started_at: float
    ended_at: float
    run: str = ""
    failed_at: float | None = None
    restored_at: float | None = None
    requests: int = 0
    failed_requests: int = 0
    excess: float = 0.0
    committed_at: float | None = None
    commits: int | None = None

    @property
    def failed(self) -> bool:
        """Whether it counts as a failed change. What a person aborted on the way is neither."""
        return self.state in {"rolled_back", "failed"}


class Measures(msgspec.Struct, frozen=True):
    """The measures over some time. None: nothing to measure it by. Medians, in seconds, where they are times."""

    deployments: int
    per_day: float
    lead_time: float | None
    change_failure_rate: float | None
    time_to_restore: float | None
    batch_size: float | None
    failed_changes: int
    requests: int
    failed_requests: int
    excess_failed: float


class Week(msgspec.Struct, frozen=True):
    """The measures of a week, which begins on `monday` (YYYY-MM-DD, UTC)."""

    monday: str
    measures: Measures


class Velocity(msgspec.Struct, frozen=True):
    """A service's measures in one environment: over all of the time, and by week, oldest first."""

    project: str
    environment: str
    since: float
    until: float
    total: Measures
    weeks: tuple[Week, ...] = ()
    changes: tuple[Change, ...] = ()
    """Newest first."""


def changes_of(events: Iterable[StoredEvent]) -> list[Change]:
    """Return the releases that ended, from the log of one environment, in order of their ends."""
    begun: dict[str, tuple[float, str, str]] = {}
    ended: dict[str, Change] = {}
    order: list[str] = []
    going_back = 0.0
    for stored in events:
        event, data = stored.event, stored.event.data
        release = str(data.get("release", ""))
        if event.kind == "rollback_started":
            going_back = stored.at
        if event.kind == "release_accepted":
            begun[release] = (stored.at, str(data.get("version", "")), str(data.get("run", "")))
        elif event.kind in {"release_promoted", "release_rolled_back", "release_failed", "release_aborted"}:
            if release not in begun:
                continue  # going back is no change of its own
            at, version, run = begun[release]
            known = ended.get(release)
            if known is not None:
                if known.state == "promoted" and event.kind == "release_rolled_back":
                    ended[release] = msgspec.structs.replace(
                        known, state="rolled_back", failed_at=going_back or stored.at, restored_at=stored.at
                    )
                continue
            state = event.kind.removeprefix("release_")
            ended[release] = Change(
                release=release, environment=str(data.get("environment", "")), version=version, state=state,
                started_at=at, ended_at=stored.at, run=run,
                restored_at=stored.at if state in {"rolled_back", "failed"} else None,
                requests=int(data.get("requests", 0)), failed_requests=int(data.get("failed_requests", 0)),
                excess=float(data.get("excess_failed", 0.0)),
            )  # fmt: skip
            order.append(release)
    return [ended[release] for release in order]


def measure(changes: Sequence[Change], seconds: float) -> Measures:
    """Return the measures of changes that ended within so many seconds."""
    deployed = [change for change in changes if change.state == "promoted" or (change.failed and _was_promoted(change))]
    failed = [change for change in changes if change.failed]
    judged = len([change for change in changes if change.state == "promoted" or change.failed])
    leads = [change.ended_at - change.committed_at for change in deployed if change.committed_at is not None]
    restored = [
        change.restored_at - (change.failed_at or change.started_at)
        for change in failed
        if change.restored_at is not None
    ]
    batches = [change.commits for change in deployed if change.commits is not None]
    return Measures(
        deployments=len(deployed),
        per_day=round(len(deployed) / max(seconds, 1.0) * 86400, 3),
        lead_time=_median([max(0.0, lead) for lead in leads]),
        change_failure_rate=round(len(failed) / judged, 4) if judged else None,
        time_to_restore=_median(restored),
        batch_size=_median(batches),
        failed_changes=len(failed),
        requests=sum(change.requests for change in changes),
        failed_requests=sum(change.failed_requests for change in changes),
        excess_failed=round(sum(change.excess for change in changes), 1),
    )


def velocity(project: str, environment: str, changes: Sequence[Change], since: float, until: float) -> Velocity:
    """Return the measures of the changes that ended between two times, in all and by week."""
    inside = [change for change in changes if since <= change.ended_at < until]
    weeks: list[Week] = []
    monday = (since - MONDAY) // WEEK * WEEK + MONDAY
    while monday < until:
        of_week = [change for change in inside if monday <= change.ended_at < monday + WEEK]
        length = min(until, monday + WEEK) - max(since, monday)
        name = datetime.fromtimestamp(monday, UTC).strftime("%Y-%m-%d")
        weeks.append(Week(name, measure(of_week, length)))
        monday += WEEK
    total = measure(inside, until - since)
    return Velocity(project, environment, since, until, total, tuple(weeks), tuple(reversed(inside)))


def csv_rows(found: Iterable[Velocity]) -> list[list[str]]:
    """Return a table: a heading, then a row for each project, environment and week."""
    names = [field.name for field in msgspec.structs.fields(Measures)]
    rows = [["project", "environment", "week", *names]]
    for one in found:
        for week in one.weeks:
            values = [getattr(week.measures, name) for name in names]
            rows.append(
                [one.project, one.environment, week.monday, *("" if value is None else str(value) for value in values)]
            )
    return rows


def _was_promoted(change: Change) -> bool:
    return change.restored_at is not None and change.restored_at > change.ended_at


def _median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None
