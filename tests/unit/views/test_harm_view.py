"""What screens show of harm: one release's ledger, and an environment's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from forge.core.release.account import Account, opened, read
from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import HarmBudget, Strategy
from forge.views.environment import environment_view
from forge.views.explanation import explain
from forge.views.harm import (
    EnvironmentHarmView,
    HarmView,
    environment_harm_view,
    environment_harm_words,
    harm_view,
    harm_words,
)
from forge.views.release import describe_strategy, release_view


def a_minute() -> Account:
    """A tenth of the traffic for a minute, 300 of 600 requests failed, of stable's 54 of 5,400."""
    account = opened("1.3", (0, 0), (0, 0), 0.0)
    for second in range(1, 61):
        account = read(account, (10 * second, 5 * second), (90 * second, second * 9 // 10), second, 0.1, rests=False)
    return account


def release(number: int = 2, budget: HarmBudget | None = None, **fields: Any) -> ReleaseState:
    basics: dict[str, Any] = {
        "previous": "1.3", "traffic_since": 0.0, "requests": 600, "failed_requests": 300, "excess_failed": 294.0,
        "account": a_minute(), "status": "progressing",
    }  # fmt: skip
    return ReleaseState(f"p-{number}", "1.4", Strategy(harm_budget=budget), **(basics | fields))


def environment(*releases: ReleaseState, **policy: Any) -> EnvironmentState:
    plan = EnvironmentPlan("p", policy=policy)
    return EnvironmentState("p", plan, "1.3", releases={each.id: each for each in releases})


def shown(one: ReleaseState, **policy: Any) -> HarmView:
    found = harm_view(environment(one, **policy), one)
    assert found is not None
    return found


def test_without_traffic_there_is_no_ledger() -> None:
    one = release(traffic_since=None)
    assert harm_view(environment(one), one) is None
    assert environment_harm_view(environment(one), 100.0) is None


def test_the_ledger_of_a_release() -> None:
    found = shown(release(budget=HarmBudget(400.0)))
    assert (found.requests, found.failed_requests, found.beside) == (600, 300, "1.3")
    assert found.interval is not None
    assert found.interval[0] < 294 < found.interval[1]
    assert found.outage_seconds == pytest.approx(60 * 0.1 * 0.49, abs=0.01)
    assert found.user_minutes is None
    assert found.spent == pytest.approx(294 / 400)
    assert harm_words(found)[1:] == (
        "as bad as 2.9s of full outage",
        "harm budget: 400 failed requests above stable, 74% spent",
    )


def test_user_minutes_need_the_number_of_users() -> None:
    found = shown(release(), users=5000)
    assert found.user_minutes == pytest.approx(5000 * 2.94 / 60, abs=1)
    assert "245 user-minutes" in harm_words(found)[1]


def test_a_budget_of_outage_is_spent_by_what_is_nearest_to_its_limit() -> None:
    found = shown(release(budget=HarmBudget(2940.0, 3.0)))
    assert found.spent == pytest.approx(0.98, abs=0.01)
    assert "2,940 failed requests above stable or 3.0s of full outage, 98% spent" in harm_words(found)[-1]


def test_a_first_version_has_nothing_to_compare_with() -> None:
    one = release(account=opened("", (0, 0), None, 0.0))
    assert harm_words(shown(one)) == ("a first version: there is nothing to compare it with",)


def test_one_that_went_better_costs_nothing_of_its_budget() -> None:
    one = release(budget=HarmBudget(10.0), excess_failed=-20.0)
    assert harm_words(shown(one))[0].startswith("20 fewer than 1.3 would have failed on as many")
    assert harm_words(shown(one))[-1].endswith("0% spent")


def test_a_strategy_in_one_line_has_its_budget() -> None:
    words = describe_strategy(Strategy("blue_green", harm_budget=HarmBudget(100, 30.0)))
    assert words == "blue_green, at most 100 failed requests above stable or 30s of full outage"


def test_an_environment_adds_up_its_releases() -> None:
    ended = {"status": "rolled_back", "finished_at": 90.0}
    state = environment(
        release(1, previous="", excess_failed=0.0), msgspec.structs.replace(release(2), **ended), release(3),
        release(4, kind="rollback"),
    )  # fmt: skip
    found = environment_harm_view(state, 100.0)
    assert found is not None
    assert (found.releases, found.rolled_back, found.complete) == (2, 1, True)
    assert (found.requests, found.failed_requests, found.excess_failed) == (1200, 600, 588.0)
    assert environment_view(state, 100.0).harm == found
    assert environment_harm_words(found) == (
        "2 releases, 1 rolled back; 600 of 1,200 requests to new versions failed, 588 more than stable would have, "
        "as bad as 5.9s of full outage"
    )


def test_what_ended_before_the_window_is_not_in_the_sum_and_what_is_forgotten_is_said() -> None:
    old = release(2, status="promoted", finished_at=50.0)
    found = environment_harm_view(environment(old, release(3)), 1000.0, window=100.0)
    assert found is not None
    assert (found.releases, found.complete) == (1, True)
    found = environment_harm_view(environment(old, release(3)), 1000.0)
    assert isinstance(found, EnvironmentHarmView)
    assert not found.complete
    assert "older ones are forgotten" in environment_harm_words(found)


def test_the_json_of_a_release_and_its_story_have_it_all() -> None:
    one = release(budget=HarmBudget(400.0))
    state = environment(one, users=100)
    json = msgspec.to_builtins(release_view(state, one, 100.0))["harm"]
    assert json["budget"] == {"failed_requests": 400.0, "outage": None}
    assert json["user_minutes"] > 0
    harm = explain(state, one, 100.0).harm
    assert harm is not None
    assert list(harm.interval or ()) == list(json["interval"])
    assert harm.words[0].startswith("294 more than 1.3 would have failed on as many (95 % interval ")
