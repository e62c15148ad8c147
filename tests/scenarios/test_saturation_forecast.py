"""A release stops before the step that would fill something up; and the user's own queries are rules like others."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec.structs import replace as with_changes
from world import Behaviour, World, canary

from forge.model.strategy import Adaptive, Strategy, Threshold

RPS = 400
CALM = Behaviour(connections_per_request=0.1)
HUNGRY = Behaviour(connections_per_request=0.8)
"""At 5 % each of the canary's replicas holds 5 + 20 x 0.8 = 21 of 100 connections; at 25 %, on one, 85; at 50 % 165."""


def released(how: Behaviour, strategy: Strategy | None = None, replicas: int = 2) -> World:
    world = World(replicas=replicas, rps=RPS)
    world.behaviour["1.3"] = CALM
    world.established()
    world.run(40)
    world.deploy("1.4", strategy or canary(5, 30.0, 50, 30.0), behaviour=how)
    return world


def test_the_step_that_would_fill_the_pool_is_not_taken() -> None:
    world = released(HUNGRY)
    release = world.until("paused")
    assert world.asked["1.4"] == 500
    assert "at 50% connections would come to" in release.waits_for
    assert "a person decides" in release.waits_for
    assert world.events("saturation_ahead")
    assert release.failed_requests == 0


def test_a_version_that_needs_no_more_than_stable_goes_through() -> None:
    assert released(CALM).until("promoted").version == "1.4"


def test_with_two_loads_seen_the_forecast_knows_what_is_used_at_rest() -> None:
    """5 connections are open without any request: in proportion 100 % would look like 140, the line says 45."""
    how = Behaviour(connections_per_request=0.2)
    world = released(how, canary(5, 30.0, 25, 30.0))
    assert world.until("promoted").version == "1.4"


def test_given_more_room_a_person_resumes_and_it_goes_on() -> None:
    world = released(HUNGRY)
    world.until("paused")
    world.behaviour["1.4"] = replace(HUNGRY, connections_per_request=0.05)
    world.run(40)
    world.send("resume")
    assert world.until("promoted").version == "1.4"


def test_resumed_without_more_room_it_stops_at_the_same_place() -> None:
    world = released(HUNGRY)
    world.until("paused")
    world.send("resume")
    world.run(5)
    assert world.release().status == "paused"
    assert world.asked["1.4"] == 500


def test_a_person_who_insists_promotes_it() -> None:
    world = released(HUNGRY)
    world.until("paused")
    world.send("promote", full=True)
    assert world.until("promoted").version == "1.4"


def test_an_adaptive_canary_grows_no_further_than_it_has_room() -> None:
    strategy = Strategy(name="canary", adaptive=Adaptive(budget=1000.0, decide_within=300.0))
    world = released(HUNGRY, strategy)
    release = world.until("paused", limit=900)
    assert "connections would come to" in release.waits_for
    assert 0 < world.asked["1.4"] <= 2600


def test_a_leak_that_would_fill_the_memory_within_the_hour_stops_the_release() -> None:
    leaking = Behaviour(leaked_per_second=400_000.0)
    release = released(leaking).until("paused")
    assert "memory grows all the time and would be full in" in release.waits_for


def test_a_leak_that_takes_days_stops_nothing() -> None:
    assert released(Behaviour(leaked_per_second=100.0)).until("promoted").version == "1.4"


def test_how_full_is_too_full_is_the_users_choice() -> None:
    strict = with_changes(canary(5, 30.0, 50, 30.0), fullest=0.2)
    assert "above 20 %" in released(replace(CALM, connections_per_request=0.2), strict).until("paused").waits_for


def test_the_way_back_is_never_refused() -> None:
    world = released(HUNGRY)
    world.until("paused")
    world.send("abort")
    assert world.until("aborted").version == "1.4"


@pytest.mark.parametrize(("answer", "status"), [(0.9, "rolled_back"), (0.2, "promoted")])
def test_an_own_query_is_a_rule(answer: float, status: str) -> None:
    rule = Threshold("value", 0.5, 20.0, name="p99 of checkout")
    world = released(Behaviour(values=(("p99 of checkout", answer),)), canary(5, 20.0, thresholds=(rule,)))
    release = world.until("rolled_back", "promoted")
    assert release.status == status
    assert status == "promoted" or "p99 of checkout is 0.9" in release.reason


def test_an_own_query_that_nobody_answers_is_neither_good_nor_bad() -> None:
    rule = Threshold("value", 0.5, 20.0, name="p99 of checkout")
    world = released(Behaviour(), canary(5, 20.0, thresholds=(rule,), patience=60.0))
    release = world.until("paused")
    assert "nothing was answered for p99 of checkout" in release.waits_for
