"""The ledger against a list of every single request, and the budget against the arithmetic of the SRE workbook."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.policy.budget import (
    HOUR,
    LEAST_ALLOWED,
    MINUTE,
    TEN_MINUTES,
    VERSIONS_KEPT,
    Ledger,
    burn_rate,
    counts,
    record,
    recovers_at,
    remaining,
)
from forge.model.policy import Slo

START = 1_700_000_000 // HOUR * HOUR * 1.0
MONTH = 30 * 86400.0
SLO = Slo(0.999)


class Service:
    """One version whose counters grow as told."""

    def __init__(self, window: float = MONTH) -> None:
        self.window = window
        self.now = START
        self.requests = self.errors = 0
        self.ledger = record(Ledger(), {"1": (0, 0)}, START, window)

    def serve(self, seconds: float, requests: int, errors: int = 0) -> Service:
        self.now += seconds
        self.requests += requests
        self.errors += errors
        self.ledger = record(self.ledger, {"1": (self.requests, self.errors)}, self.now, self.window)
        return self


class TestRecord:
    def test_the_first_reading_counts_nothing(self) -> None:
        ledger = record(Ledger(), {"1": (5000, 50)}, START, MONTH)
        assert counts(ledger, MONTH, START) == (0, 0)
        assert ledger.since == START

    def test_a_version_that_appears_later_counts_whole(self) -> None:
        ledger = record(record(Ledger(), {"1": (5, 0)}, START, MONTH), {"1": (5, 0), "2": (7, 3)}, START + 1, MONTH)
        assert counts(ledger, MONTH, START + 1) == (7, 3)

    def test_a_version_that_cannot_be_read_for_a_while_is_made_up_for(self) -> None:
        ledger = record(Ledger(), {"1": (100, 1)}, START, MONTH)
        ledger = record(ledger, {"2": (10, 0)}, START + 1, MONTH)
        ledger = record(ledger, {"1": (150, 4)}, START + 2, MONTH)
        assert counts(ledger, MONTH, START + 2) == (60, 3)

    def test_a_counter_that_fell_began_anew(self) -> None:
        ledger = record(Ledger(), {"1": (100, 10)}, START, MONTH)
        ledger = record(ledger, {"1": (30, 2)}, START + 1, MONTH)
        assert counts(ledger, MONTH, START + 1) == (30, 2)

    def test_never_more_errors_than_requests(self) -> None:
        ledger = record(record(Ledger(), {"1": (100, 0)}, START, MONTH), {"1": (101, 50)}, START + 1, MONTH)
        assert counts(ledger, MONTH, START + 1) == (1, 1)

    def test_a_clock_that_was_set_back_loses_nothing(self) -> None:
        ledger = record(Ledger(), {"1": (0, 0)}, START, MONTH)
        ledger = record(ledger, {"1": (10, 1)}, START - 500, MONTH)
        assert counts(ledger, MONTH, START) == (10, 1)
        assert ledger.at == START

    def test_what_came_while_nobody_looked_is_spread_over_that_time(self) -> None:
        service = Service().serve(10 * HOUR, 10_000, 100)
        assert counts(service.ledger, MONTH, service.now) == (10_000, 100)
        hours = [bucket for bucket in (*service.ledger.hours, service.ledger.hour) if bucket[1]]
        assert {bucket[1:] for bucket in hours} == {(1000, 10)}
        assert len(hours) == 10

    def test_after_a_gap_longer_than_the_window_only_its_share_counts(self) -> None:
        service = Service(window=24 * HOUR).serve(48 * HOUR, 48_000)
        requests, _ = counts(service.ledger, 24 * HOUR, service.now)
        assert requests == 24_000

    def test_it_stays_small(self) -> None:
        ledger = Ledger()
        for step in range(3000):
            counters = {f"v{step // 10}": (step * 7, step)}
            ledger = record(ledger, counters, START + step * 997.0, MONTH)
        assert len(ledger.seen) <= VERSIONS_KEPT
        assert len(ledger.hours) <= MONTH / HOUR + 1
        assert len(ledger.minutes) <= 61
        assert len(ledger.tens) <= 37
        assert len(msgspec.json.encode(msgspec.structs.replace(ledger, hours=()))) < 6000

    def test_finished_hours_change_only_with_the_hour(self) -> None:
        service = Service()
        seen = set()
        for _ in range(3 * 60):
            service.serve(60.0, 100, 1)
            seen.add(service.ledger.hours)
        assert len(seen) == 4

    def test_it_comes_back_from_json(self) -> None:
        ledger = Service().serve(5000, 1234, 7).ledger
        assert msgspec.json.decode(msgspec.json.encode(ledger), type=Ledger) == ledger

    @settings(max_examples=80, deadline=None)
    @given(
        looks=st.lists(
            st.tuples(st.integers(1, 4 * HOUR), st.integers(0, 500), st.integers(0, 40)), min_size=1, max_size=40
        ),
        window=st.sampled_from([300.0, 1800.0, 3600.0, 6 * 3600.0, 3 * 86400.0]),
    )
    def test_no_request_is_lost_or_counted_twice(self, looks: list[tuple[int, int, int]], window: float) -> None:
        service = Service()
        spans = []
        for seconds, requests, errors in looks:
            began = service.now
            service.serve(seconds, requests, min(errors, requests))
            spans.append((began, service.now, requests, min(errors, requests)))
        size = {300.0: MINUTE, 1800.0: MINUTE, 3600.0: MINUTE, 6 * 3600.0: TEN_MINUTES}.get(window, HOUR)
        for which in (2, 3):
            got = counts(service.ledger, window, service.now)[which - 2]
            # Spread evenly: at least what lies in the window itself, at most what lies in it and one bucket more.
            least, most = (sum(span[which] * overlap(span, service.now - back) for span in spans)
                           for back in (window, window + size))  # fmt: skip
            assert least - len(looks) <= got <= most + len(looks)
        assert counts(service.ledger, MONTH, service.now) == (service.requests, service.errors)


def overlap(span: tuple[float, float, int, int], since: float) -> float:
    begin, end = span[0], span[1]
    return max(0.0, end - max(begin, since)) / (end - begin)


class TestBudget:
    def test_a_million_requests_at_three_nines_may_fail_a_thousand_times(self) -> None:
        budget = remaining(Service().serve(HOUR, 1_000_000, 250).ledger, SLO, START + HOUR)
        assert budget.allowed == pytest.approx(1000)
        assert budget.remaining == pytest.approx(0.75)
        assert budget.enough

    @settings(max_examples=100, deadline=None)
    @given(requests=st.integers(0, 10**9), errors=st.integers(0, 10**6), nines=st.sampled_from([0.5, 0.9, 0.999]))
    def test_it_is_what_the_formula_says(self, requests: int, errors: int, nines: float) -> None:
        errors = min(errors, requests)
        budget = remaining(Service().serve(1800, requests, errors).ledger, Slo(nines), START + 1800)
        allowed = requests * (1 - nines)
        assert budget.allowed == pytest.approx(allowed)
        if allowed:
            assert budget.remaining == pytest.approx(1 - errors / allowed)
        assert budget.enough == (budget.allowed >= LEAST_ALLOWED)

    def test_nothing_observed_is_an_untouched_budget_of_which_little_is_known(self) -> None:
        budget = remaining(Ledger(), SLO, START)
        assert (budget.remaining, budget.enough) == (1.0, False)

    def test_old_failures_leave_the_window(self) -> None:
        service = Service().serve(HOUR, 100_000, 500)
        for _ in range(29 * 24):
            service.serve(HOUR, 1000)
        assert remaining(service.ledger, SLO, service.now).remaining < 1
        for _ in range(25):
            service.serve(HOUR, 1000)
        assert remaining(service.ledger, SLO, service.now).remaining == 1.0

    def test_it_recovers_when_it_is_said_to(self) -> None:
        slo = Slo(0.999, 86400.0)
        service = Service(86400.0)
        for hour in range(20):
            service.serve(HOUR, 10_000, 400 if hour == 3 else 0)
        told = recovers_at(service.ledger, slo.window, 0.001, service.now)
        assert told is not None
        assert remaining(service.ledger, slo, service.now).remaining < 0
        while remaining(service.ledger, slo, service.now).remaining < 0:
            service.serve(600, round(10_000 / 6))
        assert abs(service.now - told) <= 2 * HOUR

    def test_without_traffic_it_recovers_when_the_failures_are_old(self) -> None:
        service = Service(86400.0).serve(HOUR, 1000, 500)
        told = recovers_at(service.ledger, 86400.0, 0.001, service.now)
        assert told is not None
        assert START + 86400.0 <= told <= START + 86400.0 + 2 * HOUR


class TestBurnRate:
    @pytest.mark.parametrize(
        ("share", "seconds", "rate"), [(0.02, 3600, 14.4), (0.05, 6 * 3600, 6.0), (0.10, 3 * 86400, 1.0)]
    )
    def test_the_workbooks_shares_of_a_month_are_its_rates(self, share: float, seconds: int, rate: float) -> None:
        per_second = 100
        requests = per_second * seconds
        month = per_second * MONTH * (1 - SLO.objective)
        assert burn_rate(requests, round(share * month), SLO.objective) == pytest.approx(rate, rel=1e-6)

    def test_nothing_burns_without_requests(self) -> None:
        assert burn_rate(0, 0, 0.999) == 0.0
