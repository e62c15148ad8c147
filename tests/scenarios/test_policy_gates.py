"""Policy gates in the virtual world: they hold releases where they are, and never what goes back."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import START, Behaviour, World, canary

from forge.core.policy.budget import remaining
from forge.core.release.state import RELEASE_FINAL
from forge.model.policy import Slo
from forge.model.strategy import Strategy, Threshold
from forge.model.units import WHOLE

SICK = Behaviour(failure_rate=0.2)
NEVER = {"windows": [{"text": "Mondays", "days": [0], "opens": 60, "closes": 61}]}
"""START is Monday 1970-01-12 13:46:40 UTC: the window opens a good six days later."""


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(START + seconds, UTC).replace(tzinfo=None).isoformat()


def freeze(begin: float, end: float) -> dict[str, Any]:
    return {"freezes": [{"begins": iso(begin), "ends": iso(end), "reason": "holidays"}]}


def spent(world: World, *, errors: int = 20_000, requests: int = 1_000_000) -> None:
    """Let the stable version have failed so often that nothing of the month's budget is left."""
    stable = world.counters[world.state.stable]
    stable.requests += requests
    stable.errors += errors


class TestFreeze:
    def test_it_holds_a_release_and_lets_it_start_when_it_ends(self) -> None:
        world = World(policy=freeze(100, 400)).established()
        world.now = START + 200
        world.deploy("1.4", canary(50, 5.0))
        decision = world.tick()
        release = world.release("1.4")
        assert (release.status, release.held_by) == ("queued", ("freeze",))
        assert release.waits_for == "the end of the freeze (holidays): Mon 1970-01-12 13:53 UTC"
        assert release.earliest == START + 400
        assert decision.wake_at == START + 400, "nobody looks before it can change"
        world.now = START + 400
        world.tick()
        assert world.release("1.4").status == "starting"
        assert world.until("promoted", version="1.4").held_by == ()

    def test_a_rollback_passes_it_at_once(self) -> None:
        world = World(policy=freeze(300, 10_000)).established("1.3")
        world.deploy("1.4", Strategy("blue_green", keep_previous=9000.0))
        world.until("promoted", version="1.4")
        world.now = START + 400
        world.send("rollback")
        world.tick()
        assert world.asked == {"1.3": WHOLE}
        assert world.until("promoted", version="1.3").kind == "rollback"

    def test_an_abort_passes_it_at_once(self) -> None:
        world = World(policy=freeze(100, 10_000), replicas=4).established()
        world.deploy("1.4", canary(25, "resume"))
        world.until("paused", version="1.4")
        world.now = START + 200
        world.send("abort")
        world.tick()
        assert world.asked == {"1.3": WHOLE}

    def test_a_sick_version_goes_back_in_the_middle_of_it(self) -> None:
        world = World(policy=freeze(20, 10_000), replicas=4).established()
        world.deploy("1.4", canary(25, 20.0, thresholds=(Threshold("error_rate", 0.05, 10.0),)))
        world.run(60)
        assert world.release("1.4").held_by == ("freeze",)
        assert world.split["1.4"] == 2500
        world.behaviour["1.4"] = SICK
        assert world.until("rolled_back", version="1.4", limit=30).failed_requests > 0

    def test_a_canary_under_way_stays_where_it_is(self) -> None:
        world = World(policy=freeze(20, 300), replicas=4).established()
        world.deploy("1.4", canary(25, 30.0, 50, 30.0))
        world.run(220)
        assert world.split == {"1.3": 7500, "1.4": 2500}
        release = world.release("1.4")
        assert release.held_by == ("freeze",)
        assert release.earliest == START + 300
        assert world.until("promoted", version="1.4").finished_at > START + 300

    def test_a_person_passes_it_only_with_a_reason(self) -> None:
        world = World(policy=freeze(20, 10_000), replicas=4).established()
        world.deploy("1.4", canary(25, 20.0, 50, 5.0))
        world.run(60)
        world.send("promote")
        world.tick()
        refusal = world.events("command_without_effect")[-1]
        assert "the end of the freeze (holidays)" in refusal
        assert "--override" in refusal
        assert world.split["1.4"] == 2500
        world.send("promote", override="the shop sells nothing", actor="bob")
        world.tick()
        assert "bob lets it pass the policy: the shop sells nothing" in world.events("policy_overridden")[-1]
        world.until("promoted", version="1.4")

    def test_full_promotion_needs_the_reason_too(self) -> None:
        world = World(policy=freeze(20, 10_000), replicas=4).established()
        world.deploy("1.4", canary(25, "resume"))
        world.run(60)
        world.send("promote", full=True)
        world.send("resume")
        world.run(20)
        assert world.release("1.4").status in {"paused", "progressing"}
        assert world.split["1.4"] == 2500

    def test_a_queued_release_is_let_through_by_name(self) -> None:
        world = World(policy=freeze(10, 10_000)).established()
        world.now = START + 200
        world.deploy("1.4")
        world.deploy("1.5")
        world.tick()
        world.send("promote", override="urgent")
        world.tick()
        assert "several releases wait" in world.events("command_without_effect")[-1]
        world.send("promote", release="production-3", override="urgent")
        assert world.until("promoted", version="1.5").override == "ada: urgent"
        assert world.release("1.4").status == "queued"


class TestWindowAndRate:
    def test_a_closed_window_holds_only_the_start(self) -> None:
        world = World(policy=NEVER)
        world.deploy("1.3")
        decision = world.tick()
        assert world.release().held_by == ("window",)
        assert decision.wake_at == world.release().earliest
        assert decision.wake_at > START + 5 * 86400
        world.now = decision.wake_at
        world.until("promoted")

    def test_the_third_release_of_the_hour_waits(self) -> None:
        world = World(policy={"max_releases": {"count": 2, "per": 3600.0}}).established("1.3")
        world.deploy("1.4", Strategy("blue_green"))
        world.until("promoted", version="1.4")
        world.settle()
        world.deploy("1.5", Strategy("blue_green"))
        decision = world.tick()
        release = world.release("1.5")
        assert release.waits_for == "its turn: at most 2 releases start within 1h 0m"
        first = world.state.releases["production-1"].started_at
        assert first is not None
        assert decision.wake_at == release.earliest == first + 3600

    def test_what_is_held_keeps_nobody_else(self) -> None:
        world = World(policy={"approvals": {"required": 1, "allow_self": False}})
        world.deploy("1.3", actor="ada")
        world.deploy("1.4", actor="bob")
        world.tick()
        world.send("approve", "ada", release="production-2")
        world.until("promoted", version="1.4")
        assert world.release("1.3").status == "queued"

    def test_a_held_release_supersedes_nothing_until_it_starts(self) -> None:
        world = World(policy={"on_overlap": "supersede", **freeze(60, 400)}, replicas=4).established()
        world.deploy("1.4", canary(25, "resume"))
        world.until("paused", version="1.4")
        world.now = max(world.now, START + 70)
        world.deploy("1.5", canary(25, "resume"))
        world.run(20)
        assert world.release("1.4").status == "paused"
        world.now = START + 400
        world.until("paused", version="1.5")
        assert world.release("1.4").status == "superseded"


class TestApprovals:
    POLICY = {"approvals": {"required": 2, "approvers": ["ada", "bob", "cyd"], "allow_self": False}}

    def test_two_others_must_say_yes(self) -> None:
        world = World(policy=self.POLICY)
        world.deploy("1.3", actor="ada")
        decision = world.tick()
        assert decision.wake_at is None, "only a person can change it"
        for who in ("ada", "eve", "bob", "bob"):
            world.send("approve", who)
            world.tick()
        assert world.release().status == "queued"
        assert world.release().votes == ("bob",)
        refusals = world.events("command_without_effect")
        assert "another person has to approve it" in refusals[0]
        assert "eve is not one of ada, bob, cyd" in refusals[1]
        world.send("approve", "cyd")
        world.until("promoted")

    def test_no_reason_replaces_them(self) -> None:
        world = World(policy=self.POLICY)
        world.deploy("1.3", actor="ada")
        world.tick()
        world.send("promote", override="I want to")
        world.run(5)
        assert world.release().held_by == ("approval",)


class TestBudget:
    POLICY = {"slo": {"objective": 0.99}}

    def test_an_empty_one_lets_only_fixes_pass(self) -> None:
        world = World(policy=self.POLICY).established()
        spent(world)
        world.deploy("1.4")
        world.tick()
        world.tick()
        release = world.release("1.4")
        assert release.held_by[0] == "budget"
        assert "only fixes pass" in release.waits_for
        fix(world, "1.5")
        assert world.until("promoted", version="1.5").fix
        assert world.release("1.4").status == "queued"

    def test_a_fix_that_is_tried_again_is_still_a_fix(self) -> None:
        world = World(policy=self.POLICY, replicas=4).established()
        spent(world)
        fix(world, "1.5", canary(25, "resume"))
        world.until("paused", version="1.5")
        world.send("abort")
        world.until("aborted", version="1.5")
        world.send("retry")
        world.until("paused", version="1.5")

    def test_it_looks_again_from_time_to_time_and_starts_when_it_has_recovered(self) -> None:
        world = World(policy=self.POLICY).established()
        world.now += 10_000
        spent(world)
        world.deploy("1.4")
        for _ in range(8):
            decision = world.tick()
        assert decision.wake_at == pytest.approx(world.now - 1 + 60)
        world.counters["1.3"].requests += 10_000_000
        world.now += 8 * 3600
        world.tick()
        assert world.release("1.4").status == "starting"

    def test_a_release_under_way_stays_where_it_is(self) -> None:
        world = World(policy=self.POLICY, replicas=4).established()
        world.deploy("1.4", canary(25, 20.0, 50, 20.0))
        world.run(10)
        spent(world)
        world.run(60)
        assert world.release("1.4").held_by[0] == "budget"
        assert world.split == {"1.3": 7500, "1.4": 2500}

    def test_a_low_one_makes_steps_small_and_the_watch_long(self) -> None:
        policy = {**self.POLICY, "when_budget_low": {"below": 0.25, "largest_step": 2500, "bake": 30.0}}
        world = World(policy=policy, replicas=4).established()
        world.counters["1.3"].requests += 1_000_000
        world.counters["1.3"].errors += 9_000
        world.now += 30 * 3600
        world.deploy("1.4", Strategy("blue_green"))
        release = world.until("baking", version="1.4")
        assert release.strategy.name == "canary"
        assert release.strategy.bake == 30.0
        weights = [log["1.4"] for log in (table.weights for _, table in world.applied) if "1.4" in log]
        assert weights == [2500, 5000, 7500, 10000]
        assert "of the error budget is left, less than 25%" in world.events("release_goes_carefully")[0]
        world.until("promoted", version="1.4")

    def test_an_environment_at_rest_is_looked_at_now_and_then_to_keep_its_books(self) -> None:
        world = World(policy=self.POLICY)
        world.deploy("1.3")
        world.until("promoted")
        for _ in range(120):
            decision = world.tick()
        assert decision.wake_at == world.now - 1 + 300
        assert World().established().tick().wake_at is None

    def test_the_books_hold_every_request_of_every_version(self) -> None:
        world = World(policy=self.POLICY, replicas=4)
        world.deploy("1.3")
        world.until("promoted")
        world.deploy("1.4", canary(25, 20.0), behaviour=Behaviour(failure_rate=0.02))
        world.run(200)
        served = sum(counters.requests for counters in world.counters.values())
        failed = sum(counters.errors for counters in world.counters.values())
        world.tick()
        budget = remaining(world.state.ledger, Slo(0.99), world.now)
        assert (budget.requests, budget.errors) == (served, failed)


def fix(world: World, version: str, strategy: Strategy | None = None) -> None:
    world.deploy(version, strategy)
    world.inbox[-1].payload["request"]["fix"] = True


def test_a_policy_that_cannot_be_read_is_refused_in_words() -> None:
    world = World(policy={"slo": {"objective": "high"}})
    world.deploy("1.3")
    world.tick()
    assert world.release().status == "failed"
    assert "the policy of production cannot be read" in world.release().reason


POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "slo": st.just({"objective": 0.999}),
        "when_budget_low": st.just({"below": 0.5, "largest_step": 1000, "bake": 20.0}),
        "windows": st.just(NEVER["windows"]),
        "freezes": st.just(freeze(0, 10**7)["freezes"]),
        "max_releases": st.just({"count": 1, "per": 10**7}),
        "approvals": st.just({"required": 2}),
        "on_overlap": st.sampled_from(["overlap", "queue", "supersede"]),
    },
)


@settings(max_examples=25, deadline=None)
@given(
    policy=POLICIES, before=st.integers(1, 80), how=st.sampled_from(["abort", "rollback", "undo", "sick", "to"]),
    name=st.sampled_from(["canary", "blue_green", "rolling"]), burnt=st.booleans(),
)  # fmt: skip
def test_no_gate_ever_delays_what_goes_back(
    policy: dict[str, Any], before: int, how: str, name: str, burnt: bool
) -> None:
    """The same story without and with the policy: what goes back does so in the very same tick."""
    split = []
    for gates in ({}, policy):
        world = World(replicas=4).established("1.2")
        world.deploy("1.3", Strategy("blue_green", keep_previous=9000.0))
        world.until("promoted", version="1.3")
        steps = canary(25, 30.0, 50, "resume", keep_previous=9000.0, thresholds=(Threshold("error_rate", 0.05, 10.0),))
        world.deploy("1.4", steps if name == "canary" else Strategy(name, thresholds=steps.thresholds))
        world.run(before)
        # From here on the policy holds; the story up to here is the same.
        world.plan = world.state.plan
        world.state = change_policy(world.state, gates)
        if burnt:
            spent(world)
        if how == "sick":
            world.behaviour["1.4"] = SICK
            world.run(40)
        else:
            world.send("rollback" if how == "to" else how, **({"to": "1.2"} if how == "to" else {}))
            world.run(12)
        going_back = [
            release for release in world.state.releases.values()
            if release.status == "rolling_back" or release.kind == "rollback" or release.status in RELEASE_FINAL
        ]  # fmt: skip
        split.append((world.asked if how != "sick" else None, [(r.id, r.kind) for r in going_back], world.now))
        if how == "sick":
            assert world.asked.get("1.4", 0) in {0, WHOLE}
    if how != "sick":
        assert split[0][0] == split[1][0]
        assert split[0] == split[1]


def change_policy(state: Any, policy: dict[str, Any]) -> Any:
    from msgspec.structs import replace

    return replace(state, plan=replace(state.plan, policy=policy))


def test_in_a_month_releases_overspend_the_budget_by_no_more_than_one_look() -> None:
    """30 days, several releases a day, most of them sick: none starts or grows once the budget is spent."""
    rng = random.Random(11)
    objective, rps, weight = 0.999995, 50, 40
    policy = {"slo": {"objective": objective}, "on_overlap": "queue"}
    world = World(policy=policy, rps=rps, replicas=4, judge="threshold").established()
    rules = (Threshold("error_rate", 0.5, 5.0),)
    number, started, held, worst = 3, {"production-1"}, 0, 0.0
    while world.now < START + 30 * 86400:
        leap(world, rng.randrange(4, 12) * 3600)
        if world.release().status != "queued":
            number += 1
            failing = Behaviour(failure_rate=rng.uniform(0.6, 1.0) if rng.random() < 0.6 else 0.0)
            steps = canary(weight, 6.0, thresholds=rules, keep_previous=0.0)
            world.deploy(f"1.{number}", steps, behaviour=failing)
        for _ in range(60):
            world.tick()
            budget = remaining(world.state.ledger, Slo(objective), world.now)
            release = world.release()
            if release.started_at is not None and release.id not in started:
                started.add(release.id)
                assert not budget.enough or budget.remaining > 0
            worst = max(worst, budget.errors - budget.allowed if budget.enough else 0.0)
            if release.status in RELEASE_FINAL or release.held_by:
                break
        held += bool(world.release().held_by)
    assert len(started) > 15
    assert held > 5, "the budget was never spent: this month proves nothing"
    assert worst <= rps * weight / 100, "one second of all that the arm carries"


def leap(world: World, seconds: int) -> None:
    """Let time go by with users but without looks."""
    world.now += seconds
    world.serve(float(seconds))
