"""DORA's measures from the log of releases."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from forge.model.decision import Event
from forge.store.contract import StoredEvent
from forge.views.velocity import WEEK, Change, changes_of, csv_rows, measure, velocity

MONDAY = 1_700_438_400.0
"""2023-11-20, a Monday."""


def log(*entries: tuple[float, str, str], **more: float) -> list[StoredEvent]:
    return [
        StoredEvent(seq, "env-1", at, Event(kind, "", {"release": release, "version": f"v{release}", **more}), "", "")
        for seq, (at, kind, release) in enumerate(entries, 1)
    ]


def test_releases_are_read_from_the_log_with_how_they_ended() -> None:
    found = changes_of(log(
        (1, "release_accepted", "p-1"), (2, "release_started", "p-1"), (5, "release_promoted", "p-1"),
        (6, "release_accepted", "p-2"), (9, "release_rolled_back", "p-2"),
        (10, "release_accepted", "p-3"), (11, "release_aborted", "p-3"),
        (12, "release_accepted", "p-4"), (20, "release_promoted", "p-4"),
        (28, "rollback_started", "p-5"), (30, "release_promoted", "p-5"), (31, "release_rolled_back", "p-4"),
        (32, "release_rolled_back", "p-3"),
    ))  # fmt: skip
    assert [(one.release, one.state, one.restored_at) for one in found] == [
        ("p-1", "promoted", None), ("p-2", "rolled_back", 9.0), ("p-3", "aborted", None), ("p-4", "rolled_back", 31.0),
    ]  # fmt: skip
    assert (found[3].ended_at, found[3].failed_at) == (20, 28)


def change(state: str = "promoted", at: float = 100.0, **more: float) -> Change:
    return Change("p-1", "production", "1", state, at - 10, at, **more)


def test_the_measures_are_doras() -> None:
    found = measure(
        [
            change(committed_at=40.0, commits=3), change(committed_at=80.0, commits=1),
            change("rolled_back", restored_at=150.0, requests=1000, failed_requests=50, excess=48.0),
            change("rolled_back", restored_at=100.0), change("aborted"),
        ],
        86400.0,
    )  # fmt: skip
    assert found.deployments == 3, "one of those that were rolled back had been promoted before"
    assert found.per_day == 3
    assert found.lead_time == 40.0
    assert found.change_failure_rate == 0.5
    assert found.time_to_restore == 35.0
    assert found.batch_size == 2
    assert (found.failed_changes, found.failed_requests, found.excess_failed) == (2, 50, 48.0)


def test_nothing_is_not_zero() -> None:
    found = measure([], 86400.0)
    assert (found.lead_time, found.change_failure_rate, found.time_to_restore, found.batch_size) == (None,) * 4
    assert found.deployments == 0


@given(st.lists(st.tuples(st.sampled_from(["promoted", "rolled_back", "failed", "aborted"]), st.floats(0, 8 * WEEK))))
def test_weeks_add_up(entries: list[tuple[str, float]]) -> None:
    since, until = MONDAY + 3600, MONDAY + 3600 + 8 * WEEK
    changes = [change(state, since + at) for state, at in entries]
    found = velocity("shop", "production", changes, since, until)
    assert sum(week.measures.deployments for week in found.weeks) == found.total.deployments
    assert sum(week.measures.failed_changes for week in found.weeks) == found.total.failed_changes
    assert len(found.weeks) == 9
    assert found.weeks[0].monday == "2023-11-20"
    rows = csv_rows([found])
    assert len(rows) == 10
    assert {len(row) for row in rows} == {len(rows[0])}
    assert found.total.change_failure_rate is None or 0 <= found.total.change_failure_rate <= 1
