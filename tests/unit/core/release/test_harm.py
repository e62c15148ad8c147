"""What a release has cost: requests, failed requests, and the excess over stable."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forge.core.release.harm import begin, count
from forge.core.release.state import EnvironmentState, ReleaseState, VersionState
from forge.core.release.tick import Tick
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.model.traffic import Observation, Sample, Version


def release(**fields: object) -> ReleaseState:
    basics: dict[str, object] = {"baseline": Sample(0.0, 100, 10), "stable_baseline": Sample(0.0, 5000, 50)}
    return ReleaseState("production-2", "1.4", Strategy(), "progressing", **(basics | fields))  # type: ignore[arg-type]


def counted(one: ReleaseState, own: Sample, stable: Sample | None) -> ReleaseState:
    samples = {"1.4": own} | ({"1.3": stable} if stable else {})
    now = tick(environment(one), samples, own.at)
    count(now)
    return now.state.releases[one.id]


def test_counted_from_the_first_traffic() -> None:
    found = counted(release(), Sample(9.0, 1100, 60), Sample(9.0, 15_000, 150))
    assert (found.requests, found.failed_requests) == (1000, 50)
    assert found.excess_failed == pytest.approx(50 - 1000 * 100 / 10_000)


def test_better_than_stable_is_a_negative_excess() -> None:
    found = counted(release(), Sample(9.0, 1100, 10), Sample(9.0, 15_000, 1050))
    assert found.excess_failed == pytest.approx(-100.0)


@pytest.mark.parametrize("stable", [None, Sample(9.0, 5000, 50)])
def test_without_anything_to_compare_with_all_that_failed_counts_until_there_is(stable: Sample | None) -> None:
    before = counted(release(), Sample(9.0, 200, 14), stable)
    assert (before.requests, before.failed_requests, before.excess_failed) == (100, 4, 4.0)
    found = counted(before, Sample(10.0, 300, 18), Sample(10.0, 5200, 58))
    assert (found.requests, found.failed_requests, found.excess_failed) == (200, 8, pytest.approx(0.0))


def test_nothing_is_counted_before_the_first_traffic() -> None:
    assert counted(release(baseline=None), Sample(9.0, 200, 14), None).requests == 0


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), max_size=20))
def test_what_failed_never_falls(readings: list[tuple[int, int]]) -> None:
    now = release()
    for at, (requests, errors) in enumerate(readings, start=1):
        later = counted(now, Sample(float(at), requests, errors), None)
        assert later.requests >= now.requests
        assert later.failed_requests >= now.failed_requests
        now = later


def tick(state: EnvironmentState, samples: dict[str, Sample], now: float = 50.0) -> Tick:
    return Tick(state, Observation(now, samples=samples), now)


def environment(*releases: ReleaseState) -> EnvironmentState:
    versions = {name: VersionState(Version(name)) for name in ("1.3", "1.4")}
    return EnvironmentState(
        "production", EnvironmentPlan("production"), "1.3", versions=versions,
        releases={each.id: each for each in releases},
    )  # fmt: skip


def test_a_clock_that_is_set_back_does_not_stop_the_counting() -> None:
    later = counted(release(traffic_since=5000.0), Sample(5000.0, 200, 14), Sample(5000.0, 6000, 60))
    for second in range(1, 12):
        own, stable = Sample(second, 200 + 10 * second, 14), Sample(second, 6000 + 10 * second, 60)
        later = counted(later, own, stable)
    assert later.requests == 210
    assert later.account.own is not None
    assert later.account.own[0] > 200


class TestBegin:
    def test_takes_the_present_readings(self) -> None:
        found = begin(
            tick(environment(), {"1.4": Sample(49.0, 7, 1, ((1.0, 7),)), "1.3": Sample(49.0, 900, 9)}), release()
        )
        assert found.baseline == Sample(49.0, 7, 1, ((1.0, 7),))
        assert found.stable_baseline == Sample(49.0, 900, 9)
        assert found.traffic_since == 50.0

    def test_a_version_without_readings_begins_at_zero(self) -> None:
        found = begin(tick(environment(), {}), release())
        assert found.baseline == Sample(50.0, 0, 0)
        assert found.stable_baseline is None


class TestWhoIsCounted:
    def requests(self, each: ReleaseState, now: float = 50.0) -> int:
        later = tick(environment(each), {"1.4": Sample(now, 600, 10)}, now)
        count(later)
        return later.state.releases["production-2"].requests

    @pytest.mark.parametrize("status", ["progressing", "paused", "waiting_approval", "baking", "rolling_back"])
    def test_every_release_under_way(self, status: str) -> None:
        assert self.requests(_with(status)) == 500

    def test_one_that_was_just_rolled_back_for_a_moment(self) -> None:
        assert self.requests(_with("rolled_back", finished_at=45.0)) == 500
        assert self.requests(_with("rolled_back", finished_at=30.0)) == 0

    def test_a_promoted_one_no_longer(self) -> None:
        assert self.requests(_with("promoted", finished_at=45.0)) == 0

    def test_only_the_newest_release_of_a_version(self) -> None:
        old = _with("rolled_back", finished_at=49.0)
        new = ReleaseState("production-3", "1.4", Strategy(), "progressing", baseline=Sample(0.0, 500, 10))
        later = tick(environment(old, new), {"1.4": Sample(50.0, 600, 10)})
        count(later)
        assert [each.requests for each in later.state.releases.values()] == [0, 100]


def _with(status: str, **fields: object) -> ReleaseState:
    return ReleaseState("production-2", "1.4", Strategy(), status, baseline=Sample(0.0, 100, 10), **fields)  # type: ignore[arg-type]


def test_a_change_of_stable_ends_one_comparison_and_begins_another() -> None:
    """1.4 is as good as 1.3 (10 %); then 1.5, which fails half of its requests, becomes stable beside it."""
    state = environment(_with("progressing", stable_baseline=Sample(0.0, 1000, 100), traffic_since=0.0))
    state = replace(state, versions={**state.versions, "1.5": VersionState(Version("1.5"))})
    readings = [
        (10.0, "1.3", {"1.4": (1100, 110), "1.3": (2000, 200), "1.5": (5000, 0)}),
        (20.0, "1.5", {"1.4": (1200, 120), "1.3": (2100, 210), "1.5": (9000, 0)}),
        (30.0, "1.5", {"1.4": (2200, 620), "1.3": (2100, 210), "1.5": (10_000, 500)}),
    ]
    for now, stable, counters in readings:
        state = replace(state, stable=stable)
        later = tick(state, {name: Sample(now, *pair) for name, pair in counters.items()}, now)
        count(later)
        state = later.state
    found = state.releases["production-2"]
    assert (found.requests, found.failed_requests) == (2100, 610)
    assert found.excess_failed == pytest.approx(0.0, abs=15.0)
