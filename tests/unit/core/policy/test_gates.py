"""Every gate, alone and with others; and how a strategy goes when it has to go carefully."""

from __future__ import annotations

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.policy.budget import HOUR, Ledger, record
from forge.core.policy.careful import careful
from forge.core.policy.gates import (
    GROWTH,
    OVERRIDABLE,
    Facts,
    Limits,
    earliest_start,
    evaluate,
    holding,
    limits,
)
from forge.core.policy.rate import free_at, remember
from forge.core.policy.windows import cron_window, parse_window
from forge.model.policy import Approvals, Freeze, LowBudget, MaxReleases, ReleasePolicy, Slo
from forge.model.strategy import Adaptive, Strategy, StrategyStep
from forge.model.units import WHOLE

BERLIN = ZoneInfo("Europe/Berlin")
START = 1_700_000_000 // HOUR * HOUR * 1.0
MONTH = 30 * 86400.0


def berlin(*parts: int) -> float:
    return datetime(*parts, tzinfo=BERLIN).timestamp()  # type: ignore[misc, arg-type]


def ledger(requests: int, errors: int, *, ago: float = 10 * HOUR) -> tuple[Ledger, float]:
    """A quiet service of which `errors` of `requests` failed `ago` seconds before now."""
    book = record(Ledger(), {"1": (0, 0)}, START, MONTH)
    book = record(book, {"1": (requests, errors)}, START + HOUR, MONTH)
    return record(book, {"1": (requests + 1, errors)}, START + HOUR + ago, MONTH), START + HOUR + ago


POLICY = ReleasePolicy(
    slo=Slo(0.999),
    when_budget_low=LowBudget(0.25, 1000, 600.0),
    windows=(parse_window("Mon-Fri 09:00-16:00 Europe/Berlin"),),
    freezes=(Freeze("2026-12-20T00:00:00", "2027-01-03T00:00:00", "Europe/Berlin", "holidays"),),
    max_releases=MaxReleases(2, 3600.0),
    approvals=Approvals(2, ("ada", "bob", "cyd")),
)


def names(policy: ReleasePolicy, facts: Facts, now: float) -> list[str]:
    return [gate.name for gate in holding(policy, facts, now)]


class TestGates:
    def test_no_policy_has_no_gates(self) -> None:
        assert evaluate(ReleasePolicy(), Facts(), START) == ()

    def test_all_are_told_in_order(self) -> None:
        gates = evaluate(POLICY, Facts(), berlin(2026, 11, 23, 10))
        assert [gate.name for gate in gates] == ["freeze", "window", "rate", "budget", "burn", "approval"]

    def test_a_freeze_says_why_and_until_when(self) -> None:
        (gate,) = holding(ReleasePolicy(freezes=POLICY.freezes), Facts(), berlin(2026, 12, 24, 12))
        assert gate.what == "the end of the freeze (holidays): Sun 2027-01-03 00:00 CET"
        assert gate.earliest == berlin(2027, 1, 3)
        assert gate.by_time

    def test_a_closed_window_says_when_it_opens(self) -> None:
        (gate,) = holding(ReleasePolicy(windows=POLICY.windows), Facts(), berlin(2026, 11, 21, 12))
        assert gate.what == "the release window Mon-Fri 09:00-16:00 Europe/Berlin: Mon 2026-11-23 09:00 CET"
        assert gate.earliest == berlin(2026, 11, 23, 9)

    def test_a_spent_budget_says_its_numbers(self) -> None:
        book, now = ledger(1_000_000, 1500)
        (gate,) = holding(ReleasePolicy(slo=Slo(0.999)), Facts(book), now)
        assert gate.what == (
            "the error budget to recover: 1,500 of 1,000,001 requests failed, 1,000 may (99.9% over 30d 0h); "
            "only fixes pass"
        )
        assert gate.earliest is not None
        assert gate.earliest > now
        assert gate.data["errors"] == 1500

    def test_a_fix_passes_the_budget_and_nothing_else(self) -> None:
        book, now = ledger(1_000_000, 1500)
        assert names(ReleasePolicy(slo=Slo(0.999)), Facts(book, fix=True), now) == []
        assert names(POLICY, Facts(fix=True), berlin(2026, 12, 24, 20)) == ["freeze", "window", "approval"]

    def test_by_policy_an_empty_budget_stops_nothing(self) -> None:
        book, now = ledger(1_000_000, 1500)
        assert names(ReleasePolicy(slo=Slo(0.999), when_budget_empty="go_on"), Facts(book), now) == []

    def test_too_little_was_observed_to_call_it_spent(self) -> None:
        book, now = ledger(5000, 9)
        assert names(ReleasePolicy(slo=Slo(0.999)), Facts(book), now) == []

    def test_an_incident_holds_all_but_fixes(self) -> None:
        book, now = ledger(1_000_000, 0, ago=6 * HOUR)
        book = record(book, {"1": (1_010_000, 500)}, now + 240, MONTH)
        book = record(book, {"1": (1_020_000, 900)}, now + 300, MONTH)
        policy = ReleasePolicy(slo=Slo(0.999))
        (gate,) = holding(policy, Facts(book), now + 300)
        assert gate.name == "burn"
        assert "x as fast as allowed over 1h" in gate.what
        assert gate.earliest is not None
        assert names(policy, Facts(book, fix=True), now + 300) == []

    def test_approvals_count_down(self) -> None:
        policy = ReleasePolicy(approvals=POLICY.approvals)
        (gate,) = holding(policy, Facts(votes=("ada",)), START)
        assert gate.what == "1 more approval(s) of ada, bob, cyd (so far: ada)"
        assert gate.earliest is None
        assert holding(policy, Facts(votes=("ada", "bob")), START) == ()

    def test_an_override_passes_everything_but_approvals(self) -> None:
        book, _ = ledger(1_000_000, 5000)
        starts = (berlin(2026, 12, 24, 11), berlin(2026, 12, 24, 11, 1))
        facts = Facts(book, starts, override="ada: the shop is down")
        gates = evaluate(POLICY, facts, berlin(2026, 12, 24, 11, 2))
        assert [gate.name for gate in gates if not gate.passes] == ["approval"]
        assert next(gate for gate in gates if gate.name == "freeze").data["overridden"] == "ada: the shop is down"
        assert "approval" not in OVERRIDABLE

    def test_under_way_only_freeze_and_budget_hold(self) -> None:
        night = berlin(2026, 12, 24, 23)
        assert [gate.name for gate in holding(POLICY, Facts(), night, growing=True)] == ["freeze"]
        assert {"freeze", "budget", "burn"} == GROWTH

    def test_the_earliest_start_is_when_all_times_agree(self) -> None:
        inside = berlin(2026, 12, 23, 10)
        assert earliest_start(POLICY, Facts(), inside) == berlin(2027, 1, 4, 9)

    def test_the_rate_pushes_it_past_the_window(self) -> None:
        starts = (berlin(2026, 11, 20, 15, 30), berlin(2026, 11, 20, 15, 40))
        assert earliest_start(POLICY, Facts(starts=starts), berlin(2026, 11, 20, 15, 50)) == berlin(2026, 11, 23, 9)

    def test_windows_that_never_meet_the_freezes_have_no_earliest_start(self) -> None:
        window = cron_window("0 9 29 2 *", 3600.0, "UTC")
        freezes = tuple(Freeze(f"{year}-02-28T00:00:00", f"{year}-03-02T00:00:00") for year in range(2024, 2100))
        assert earliest_start(ReleasePolicy(windows=(window,), freezes=freezes), Facts(), START) is not None

    @settings(max_examples=60, deadline=None)
    @given(
        minutes=st.integers(0, 60 * 24 * 60), begin=st.integers(0, 40), days=st.integers(1, 20),
        taken=st.lists(st.integers(0, 180), max_size=3),
    )  # fmt: skip
    def test_nothing_before_the_earliest_start_passes(
        self, minutes: int, begin: int, days: int, taken: list[int]
    ) -> None:
        now = berlin(2026, 10, 1) + 60 * minutes
        base = date(2026, 10, 10).toordinal() + begin
        freeze = Freeze(date.fromordinal(base).isoformat(), date.fromordinal(base + days).isoformat(), "Europe/Berlin")
        policy = ReleasePolicy(windows=POLICY.windows, freezes=(freeze,), max_releases=MaxReleases(2, 10800.0))
        facts = Facts(starts=tuple(sorted(now - 60 * ago for ago in taken)))
        told = earliest_start(policy, facts, now)
        assert told is not None
        assert names(policy, facts, told) == []
        for step in range(20):
            between = now + (told - now) * step / 20
            assert between == told or names(policy, facts, between) != []


class TestLimits:
    def test_a_low_budget_sets_the_step_and_the_bake(self) -> None:
        book, now = ledger(1_000_000, 800)
        found = limits(POLICY, Facts(book), now)
        assert (found.largest_step, found.bake) == (1000, 600.0)
        assert found.why == "20% of the error budget is left, less than 25%"

    def test_enough_budget_sets_nothing(self) -> None:
        book, now = ledger(1_000_000, 100)
        assert limits(POLICY, Facts(book), now) == Limits()

    def test_a_slow_burn_sets_them_too(self) -> None:
        book, now = ledger(2_000_000, 0, ago=96 * HOUR)
        book = record(book, {"1": (2_200_000, 900)}, now + 5 * HOUR, MONTH)
        policy = ReleasePolicy(slo=Slo(0.999), when_budget_low=LowBudget(0.10, 1000))
        assert "over 3d" in limits(policy, Facts(book), now + 5 * HOUR).why

    def test_a_person_lifts_them(self) -> None:
        book, now = ledger(1_000_000, 800)
        assert limits(POLICY, Facts(book, override="ada: urgent"), now) == Limits()


def steps_of(strategy: Strategy) -> list[float]:
    return [step.weight / 100 if step.weight is not None else (step.pause or 0.0) for step in strategy.steps]


class TestCareful:
    def test_large_steps_become_several(self) -> None:
        strategy = Strategy("canary", (StrategyStep(weight=500), StrategyStep(pause=30.0), StrategyStep(weight=5000)))
        found = careful(strategy, Limits(2000, 600.0))
        assert steps_of(found) == [5, 30, 25, 30, 45, 30, 50, 70, 60, 90, 60]
        assert found.bake == 600.0

    def test_a_longer_bake_stays(self) -> None:
        assert careful(Strategy(bake=900.0), Limits(None, 600.0)) == Strategy(bake=900.0)

    @pytest.mark.parametrize("name", ["rolling", "blue_green"])
    def test_what_moves_everything_at_once_becomes_a_canary(self, name: str) -> None:
        found = careful(Strategy(name), Limits(5000))  # type: ignore[arg-type]
        assert (found.name, steps_of(found)) == ("canary", [50, 60])

    def test_an_adaptive_canary_stays_one_and_no_change_is_larger(self) -> None:
        found = careful(Strategy("canary", adaptive=Adaptive(most=3000)), Limits(1000, 600.0))
        assert found.adaptive == Adaptive(most=9000, largest_step=1000)
        assert (found.steps, found.bake) == ((), 600.0)
        assert careful(found, Limits(1000, 600.0)) == found
        assert careful(found, Limits(2000)).adaptive == found.adaptive, "what was bounded stays so"
        assert careful(found, Limits(500)).adaptive == Adaptive(most=9500, largest_step=500)

    def test_without_limits_nothing_changes(self) -> None:
        assert careful(Strategy(), Limits()) == Strategy()

    @settings(max_examples=200, deadline=None)
    @given(
        plan=st.lists(st.one_of(st.integers(1, WHOLE), st.floats(1.0, 600.0)), max_size=8),
        largest=st.integers(50, WHOLE), done=st.integers(0, 8),
    )  # fmt: skip
    def test_no_step_is_larger_and_again_changes_nothing(self, plan: list[float], largest: int, done: int) -> None:
        steps = tuple(StrategyStep(weight=s) if isinstance(s, int) else StrategyStep(pause=s) for s in plan)
        strategy, done = Strategy("canary", steps), min(done, len(steps))
        found = careful(strategy, Limits(largest), done=done)
        assert found.steps[:done] == steps[:done]
        weights = [step.weight for step in found.steps[:done] if step.weight is not None]
        here = weights[-1] if weights else 0
        for step in (*found.steps[done:], StrategyStep(weight=WHOLE)):
            if step.weight is not None:
                assert step.weight - here <= largest
                here = step.weight
        assert careful(found, Limits(largest), done=done) == found
        assert [step for step in found.steps if step in steps] or not steps


class TestRate:
    def test_the_third_waits_for_the_first_to_be_old(self) -> None:
        rule = MaxReleases(2, 3600.0)
        assert free_at((100.0, 900.0), rule, 1000.0) == 3700.0
        assert free_at((100.0, 900.0), rule, 3700.0) == 3700.0
        assert free_at((900.0,), rule, 1000.0) == 1000.0

    def test_without_a_rule_nothing_is_remembered(self) -> None:
        assert remember((1.0, 2.0), None, 3.0) == ()

    @settings(max_examples=100, deadline=None)
    @given(gaps=st.lists(st.floats(0.0, 2000.0), max_size=40), count=st.integers(1, 5), per=st.floats(1.0, 5000.0))
    def test_never_more_than_so_many_in_any_while(self, gaps: list[float], count: int, per: float) -> None:
        rule, now = MaxReleases(count, per), START
        starts: tuple[float, ...] = ()
        every: list[float] = []
        for gap in gaps:
            now += gap
            now = free_at(starts, rule, now)
            starts = remember(starts, rule, now)
            every.append(now)
            assert len(starts) <= count
        for at in every:
            assert sum(at - per < other <= at for other in every) <= count
