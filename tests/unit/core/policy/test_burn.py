"""The alerts against the numbers of the SRE workbook's table 5-8."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.policy.budget import HOUR, Ledger, burn_rate, record
from forge.core.policy.burn import LEAST_ERRORS, RULES, alerts
from forge.model.policy import Slo

START = 1_700_000_000 // HOUR * HOUR * 1.0
MONTH = 30 * 86400.0
SLO = Slo(0.999)


def history(*phases: tuple[float, float], rps: int = 100) -> tuple[Ledger, float]:
    """Return the ledger after phases of (seconds, error rate), read every minute."""
    ledger, now, requests, failed = record(Ledger(), {"1": (0, 0)}, START, MONTH), START, 0, 0.0
    for seconds, rate in phases:
        for _ in range(int(seconds // 60)):
            now += 60.0
            requests += rps * 60
            failed += rps * 60 * rate
            ledger = record(ledger, {"1": (requests, round(failed))}, now, MONTH)
    return ledger, now


def fired(*phases: tuple[float, float], rps: int = 100) -> set[float]:
    ledger, now = history(*phases, rps=rps)
    return {alert.rule.factor for alert in alerts(ledger, SLO, now)}


def test_the_table_is_the_workbooks() -> None:
    assert [(rule.factor, rule.long / 3600, rule.short / 60, rule.severity) for rule in RULES] == [
        (14.4, 1, 5, "page"), (6.0, 6, 30, "page"), (1.0, 72, 360, "ticket"),
    ]  # fmt: skip


def test_a_quiet_service_fires_nothing() -> None:
    assert fired((8 * HOUR, 0.0005)) == set()


def test_an_hour_at_fifteen_times_the_rate_pages() -> None:
    assert 14.4 in fired((3 * HOUR, 0.0), (3700, 0.015))


def test_an_hour_at_fourteen_times_does_not() -> None:
    assert 14.4 not in fired((3 * HOUR, 0.0), (2 * HOUR, 0.0140))


def test_six_hours_at_seven_times_the_rate_page_by_the_second_rule() -> None:
    assert fired((HOUR, 0.0), (7 * HOUR, 0.007)) >= {6.0}
    assert 14.4 not in fired((HOUR, 0.0), (7 * HOUR, 0.007))


def test_three_days_just_above_the_objective_are_a_ticket() -> None:
    assert fired((75 * HOUR, 0.0012)) == {1.0}


def test_what_is_over_pages_no_more() -> None:
    burning = ((3 * HOUR, 0.0), (3700, 0.02))
    assert 14.4 in fired(*burning)
    assert 14.4 not in fired(*burning, (420, 0.0))


def test_a_minute_of_failures_is_too_short_for_an_hours_rule() -> None:
    assert 14.4 not in fired((3 * HOUR, 0.0), (60, 0.2))


def test_a_handful_of_failures_on_a_handful_of_requests_is_no_alert() -> None:
    assert LEAST_ERRORS == 10
    ledger = record(Ledger(), {"1": (0, 0)}, START, MONTH)
    ledger = record(ledger, {"1": (40, 9)}, START + 30, MONTH)
    assert alerts(ledger, SLO, START + 30) == ()
    ledger = record(ledger, {"1": (42, 10)}, START + 40, MONTH)
    assert {alert.rule.factor for alert in alerts(ledger, SLO, START + 40)} == {14.4, 6.0, 1.0}


def test_a_rule_longer_than_the_objectives_window_is_left_out() -> None:
    ledger, now = history((5 * HOUR, 0.05))
    assert {alert.rule.factor for alert in alerts(ledger, Slo(0.999, 86400.0), now)} == {14.4, 6.0}


def test_it_ends_when_it_is_said_to() -> None:
    ledger, now = history((3 * HOUR, 0.0), (3700, 0.02))
    first = alerts(ledger, SLO, now)[0]
    assert first.ends is not None
    assert now < first.ends <= now + first.rule.short + 120
    assert "20.0x as fast as allowed over 1h" in first.words
    ahead = {alert.rule.factor for alert in alerts(*_quiet(ledger, now, first.ends))}
    assert first.rule.factor not in ahead


def _quiet(ledger: Ledger, now: float, until: float) -> tuple[Ledger, Slo, float]:
    requests, errors = ledger.seen["1"]
    while now < until:
        now += 30.0
        requests += 3000
        ledger = record(ledger, {"1": (requests, errors)}, now, MONTH)
    return ledger, SLO, now


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0.0, 0.05), hours=st.integers(1, 8))
def test_a_steady_rate_fires_exactly_the_rules_below_it(rate: float, hours: int) -> None:
    ledger, now = history((hours * HOUR, rate))
    requests, errors = ledger.seen["1"]
    steady = burn_rate(requests, errors, SLO.objective)
    got = {alert.rule.factor for alert in alerts(ledger, SLO, now)}
    for rule in RULES:
        if abs(steady - rule.factor) > 0.1:
            assert (rule.factor in got) == (steady > rule.factor and errors >= LEAST_ERRORS)
    assert got <= {rule.factor for rule in RULES}
    assert pytest.approx(steady, abs=0.05) == rate / 0.001
