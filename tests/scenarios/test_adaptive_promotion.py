"""An adaptive canary in the virtual world: it grows with what is known of it, and never past what that allows.

`Watched` looks at every tick: nothing grows in doubt, nothing is above the most before the promotion, and every
change says what it may cost, which is never more than the promise.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from world import START, Behaviour, World, canary

from forge.core.release.adaptive import NORMAL
from forge.core.release.judging import in_doubt
from forge.core.release.state import RELEASE_FINAL, ReleaseState
from forge.core.release.tick import MOVERS
from forge.model.decision import Decision
from forge.model.strategy import Adaptive, Strategy, Threshold
from forge.model.units import WHOLE
from forge.simulate.run import simulate
from forge.simulate.scenario import parse_story

NORMALLY = Behaviour(failure_rate=0.001)


def adaptive(*, budget: float = 20.0, most: int = 50, pace: dict[str, Any] | None = None, **options: Any) -> Strategy:
    """`most` in percent."""
    return Strategy("canary", adaptive=Adaptive(budget=budget, most=most * 100, **options), **(pace or {}))


class Watched(World):
    """A world in which stable fails a thousandth, and every tick of an adaptive release is looked at."""

    def __init__(self, rps: int = 500, *, replicas: int = 4, stable: Behaviour = NORMALLY, **options: Any) -> None:
        super().__init__(rps=rps, replicas=replicas, **options)
        self.behaviour["1.3"] = stable
        self.begun = 0.0
        self.established()
        self.run(60)

    def release_it(self, version: str = "1.4", strategy: Strategy | None = None, failing: float = 0.001) -> None:
        self.begun = self.now
        self.deploy(version, strategy or adaptive(), behaviour=Behaviour(failure_rate=failing))

    def tick(self) -> Decision[Any]:
        before = self.state
        decision = super().tick()
        assert sum(self.asked.values()) in {0, WHOLE}
        for name, release in self.state.releases.items():
            if (
                release.strategy.adaptive is not None
                and release.status not in RELEASE_FINAL
                and name in before.releases
            ):
                self._look(before.releases[name], release, before.traffic.weights if before.traffic else {})
        for event in decision.events:
            if event.kind == "release_grows" and event.data["before"]:
                assert event.data["worst_case"] <= max(event.data["budget"], NORMAL * event.data["normal"]) + 0.01
        return decision

    def _look(self, before: ReleaseState, release: ReleaseState, asked: dict[str, int]) -> None:
        weight, was = self.asked.get(release.version, 0), asked.get(release.version, 0)
        settings = release.strategy.adaptive
        assert settings is not None
        if release.status in {"starting", "progressing"}:
            assert weight <= settings.most
        if in_doubt(release) and before.status == "progressing" and release.status not in MOVERS:
            assert weight <= was, "it grew while in doubt"

    def took(self) -> float:
        return self.now - self.begun

    def weights(self, version: str = "1.4") -> list[int]:
        """Every weight that was asked for it, in turn."""
        seen: list[int] = []
        for _, table in self.applied:
            weight = table.weights.get(version, 0)
            if weight and (not seen or weight != seen[-1]):
                seen.append(weight)
        return seen


class TestGoodVersions:
    @pytest.mark.parametrize(("rps", "failing", "within"), [(500, 0.001, 200), (5000, 0.001, 110), (500, 0.0, 120)])
    def test_they_are_through_far_sooner_than_by_steps_of_five_minutes(
        self, rps: int, failing: float, within: int
    ) -> None:
        world = Watched(rps)
        world.release_it(failing=failing)
        world.until("promoted", version="1.4")
        assert world.took() < within < 900
        assert world.weights() == sorted(world.weights())
        assert world.weights()[-2:] == [5000, WHOLE]

    def test_the_first_weight_costs_the_budget_and_is_told(self) -> None:
        world = Watched(500)
        world.release_it()
        world.run(4)
        assert world.asked["1.4"] == 66
        told = world.events("release_grows")[0]
        assert "begins at 0.66% (500 requests a second, 6.0s to react)" in told
        assert "as good as stable, it takes all of the traffic after about" in world.events("release_sensitivity")[0]

    def test_the_reaction_may_be_set(self) -> None:
        world = Watched(500)
        world.release_it(strategy=adaptive(reaction=20.0, budget=10.0))
        world.run(4)
        assert world.asked["1.4"] == 10

    def test_waiting_says_on_which_data_and_until_when(self) -> None:
        world = Watched(500)
        world.release_it()
        world.run(60)
        words = world.release().waits_for
        assert "requests failed, at most" in words
        assert "pauses in 14m" in words

    def test_all_that_other_strategies_have_it_has_too(self) -> None:
        world = Watched(5000)
        pace = {"auto_promote": False, "bake": 30.0, "warm_up": 20.0}
        world.release_it(strategy=adaptive(pace=pace))
        world.run(20)
        assert world.asked["1.4"] == 6, "it does not grow while it warms up"
        assert world.until("paused", version="1.4").waits_for.startswith("a person to promote it")
        world.send("resume")
        world.until("baking", version="1.4")
        world.until("promoted", version="1.4", limit=60)

    def test_what_fails_in_the_warm_up_is_no_evidence(self) -> None:
        world = Watched(5000)
        world.release_it(strategy=adaptive(pace={"warm_up": 20.0, "thresholds": ()}), failing=1.0)
        world.run(15)
        world.behaviour["1.4"] = NORMALLY
        world.until("promoted", version="1.4")
        assert world.took() < 130

    def test_the_weight_waits_for_the_replicas_that_carry_it(self) -> None:
        world = Watched(5000)
        world.behaviour["1.4"] = Behaviour(ready_after=15.0, failure_rate=0.001)
        world.deploy("1.4", adaptive())
        world.tick()
        words = set()
        while world.release().status != "promoted":
            world.tick()
            words.add(world.release().waits_for.partition(";")[0])
        assert any("replicas for it: the ready ones carry 25%" in each for each in words)

    def test_a_person_promotes_it_at_any_time(self) -> None:
        world = Watched(50)
        world.release_it()
        world.run(30)
        world.send("promote")
        world.until("promoted", version="1.4", limit=20)

    @pytest.mark.parametrize("judge", ["threshold", "failure_limit", "mann_whitney", "none"])
    def test_its_evidence_is_its_own_whoever_judges(self, judge: str) -> None:
        world = Watched(5000, judge=judge)
        world.release_it()
        assert world.until("promoted", "paused", version="1.4", limit=1000).status == "promoted"


class TestBadVersions:
    @pytest.mark.parametrize("rps", [50, 500, 5000])
    @pytest.mark.parametrize("failing", [1.0, 0.2, 0.05])
    def test_they_cost_about_the_budget(self, rps: int, failing: float) -> None:
        world = Watched(rps)
        world.release_it(failing=failing)
        assert world.until("rolled_back", version="1.4", limit=300).failed_requests <= 2 * 20

    @pytest.mark.parametrize("rps", [500, 5000])
    def test_twice_as_bad_is_never_promoted(self, rps: int) -> None:
        world = Watched(rps, stable=Behaviour(failure_rate=0.01))
        world.release_it(failing=0.02)
        release = world.until("rolled_back", "paused", version="1.4", limit=1000)
        # Nothing is known of this world's own history, so twenty errors count as one; with it, it is ten times sooner.
        assert release.status == "rolled_back"
        assert release.excess_failed < 2000

    def test_one_that_turns_bad_at_the_most_goes_back_from_there(self) -> None:
        world = Watched(500)
        world.release_it()
        while world.asked.get("1.4", 0) < 5000:
            world.tick()
        world.run(3)
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        release = world.until("rolled_back", version="1.4", limit=10)
        assert release.failed_requests < 5 * 250

    def test_without_a_judge_that_stops_it_it_stays_small_and_a_person_decides(self) -> None:
        world = Watched(500, judge="none")
        world.release_it(failing=0.3)
        release = world.until("paused", version="1.4", limit=1000)
        assert release.held_weight < 600
        assert "inconclusive after 15m 0s" in release.waits_for


class TestPatience:
    def test_little_traffic_pauses_for_a_person_and_never_promotes_in_silence(self) -> None:
        world = Watched(5)
        world.release_it()
        world.run(4)
        assert "warning: the traffic is too little" in world.events("release_sensitivity")[0]
        release = world.until("paused", version="1.4", limit=1000)
        assert 895 <= world.took() <= 910
        assert "inconclusive after 15m 0s" in release.waits_for
        assert "a person decides: resume, promote or abort" in release.waits_for
        weight = world.asked["1.4"]
        world.run(600)
        assert world.asked["1.4"] == weight
        world.send("promote")
        world.until("promoted", version="1.4", limit=20)

    def test_resumed_it_has_as_long_again(self) -> None:
        world = Watched(50)
        world.release_it(strategy=adaptive(decide_within=200.0))
        world.until("paused", version="1.4", limit=300)
        world.send("resume")
        world.run(2)
        assert world.release().status == "progressing"
        again = world.now
        world.until("paused", version="1.4", limit=300)
        assert 190 <= world.now - again <= 205

    def test_without_any_request_it_waits_for_a_person(self) -> None:
        world = Watched(0)
        world.release_it()
        world.until("paused", version="1.4", limit=1000)
        assert world.asked["1.4"] <= 500


class TestData:
    def at_some_weight(self, **pace: Any) -> Watched:
        world = Watched(500)
        world.release_it(strategy=adaptive(pace=pace))
        while world.asked.get("1.4", 0) < 1000:
            world.tick()
        world.run(3)
        return world

    def test_an_outage_of_the_metrics_holds_then_shrinks_and_keeps_the_evidence(self) -> None:
        world = self.at_some_weight(patience=600.0)
        held, seen = world.asked["1.4"], world.release().growth
        world.metrics_away = True
        world.run(100)
        assert world.asked["1.4"] == held
        world.run(45)
        assert world.asked["1.4"] == 66
        assert "nothing was read of it for 2m" in world.events("release_shrinks")[0]
        world.run(300)
        assert world.asked["1.4"] == 66
        assert world.release().status == "progressing"
        world.metrics_away = False
        back = world.now
        world.until("promoted", version="1.4")
        assert world.now - back < 150, "what was known of it is still known"
        assert seen is not None
        after = world.release().growth
        assert after is not None
        assert after.evidence.requests > seen.evidence.requests

    def test_impatient_it_pauses_at_the_first_weight(self) -> None:
        world = self.at_some_weight(patience=40.0)
        world.metrics_away = True
        release = world.until("paused", version="1.4", limit=100)
        world.run(2)
        assert release.held_weight == world.asked["1.4"] == 66

    def test_nothing_grows_while_stable_cannot_be_read(self) -> None:
        world = self.at_some_weight()
        held = world.asked["1.4"]
        world.hidden = {"1.3"}
        world.run(60)
        assert world.asked["1.4"] == held
        assert "the newest reading of both versions is" in world.release().waits_for
        world.hidden = set()
        world.until("promoted", version="1.4")

    def test_a_burst_that_both_share_costs_it_nothing_but_a_moment(self) -> None:
        world = self.at_some_weight()
        world.behaviour |= {"1.3": Behaviour(failure_rate=0.04), "1.4": Behaviour(failure_rate=0.04)}
        world.run(20)
        world.behaviour |= {"1.3": NORMALLY, "1.4": NORMALLY}
        world.until("promoted", version="1.4", limit=400)


class TestPolicy:
    def test_a_freeze_holds_the_weight_and_its_time_does_not_count(self) -> None:
        freeze = {"begins": "1970-01-12T13:49:00", "ends": "1970-01-12T14:20:00"}  # 140 s to 2000 s after START
        world = Watched(500, policy={"freezes": [freeze]})
        world.release_it()
        world.run(100)
        assert world.release().held_by == ("freeze",)
        weight = world.asked["1.4"]
        world.run(1500)
        assert world.asked["1.4"] == weight
        assert world.release().status == "progressing"
        world.until("promoted", version="1.4")
        assert world.now > START + 2000

    def test_while_the_budget_is_low_no_change_is_larger_than_the_policy_lets_it_be(self) -> None:
        policy = {
            "slo": {"objective": 0.999, "window": 86400.0}, "when_budget_empty": "go_on",
            "when_budget_low": {"below": 0.5, "largest_step": 1000, "bake": 10.0},
        }  # fmt: skip
        world = Watched(500, policy=policy, stable=Behaviour(failure_rate=0.01))
        world.release_it(failing=0.005)
        world.until("promoted", version="1.4", limit=1000)
        assert world.release().strategy.adaptive is not None, "it is still adaptive"
        steps = [0, *world.weights()]
        assert max(b - a for a, b in pairwise(steps)) <= 1000
        assert world.weights()[-2] == 9000


class TestSeveral:
    def test_each_has_its_own_evidence_and_a_bad_one_costs_the_others_nothing(self) -> None:
        world = Watched(5000, replicas=8)
        for number, (version, failing) in enumerate({"1.4": 0.001, "1.5": 0.05, "1.6": 0.001}.items()):
            world.release_it(version, failing=failing)
            world.run(15 if number < 2 else 1)
        world.until("rolled_back", version="1.5", limit=300)
        world.until("promoted", version="1.4", limit=600)
        world.until("promoted", version="1.6", limit=600)
        assert world.release("1.5").failed_requests < 60

    def test_together_they_leave_stable_its_share(self) -> None:
        world = Watched(5000, replicas=8, policy={"max_arms": 4}, stable=Behaviour())
        for version in ("1.4", "1.5", "1.6", "1.7"):
            world.release_it(version, strategy=adaptive(tolerance=1e-6), failing=0.0)
        for _ in range(250):
            world.tick()
            shares = [world.asked.get(version, 0) for version in ("1.4", "1.5", "1.6", "1.7")]
            assert sum(shares) <= 5000
        assert shares == [1250] * 4

    def test_a_hot_fix_enters_while_another_is_under_way(self) -> None:
        """The first is at its most when the second comes: it makes room, and both end well."""
        world = Watched(5000, replicas=8, stable=Behaviour())
        world.release_it("1.4", strategy=adaptive(tolerance=1e-6), failing=0.0)
        while world.asked.get("1.4", 0) < 5000:
            world.tick()
        world.release_it("1.4.1", failing=0.0)
        assert world.until("promoted", version="1.4.1", limit=400).previous == "1.3"
        assert world.took() < 250
        assert "2500" in str(world.weights("1.4")), "it made room"
        assert any("other releases share the traffic" in line for line in world.events("release_shrinks"))
        release = world.until("promoted", "rolled_back", "paused", version="1.4", limit=1200)
        assert release.status != "rolled_back", "it is held against the version that is stable now"

    def test_beside_a_fixed_canary_it_takes_what_is_left(self) -> None:
        world = Watched(5000, replicas=8, stable=Behaviour())
        world.deploy("1.4", canary(60, "resume"))
        world.run(10)
        world.release_it("1.5", strategy=adaptive(tolerance=1e-6), failing=0.0)
        world.run(200)
        assert world.asked == {"1.3": 2000, "1.4": 6000, "1.5": 2000}


class TestGoingBack:
    def at_ninety(self) -> Watched:
        world = Watched(500, replicas=10)
        world.release_it(strategy=adaptive(most=90, tolerance=1e-6))
        while world.asked.get("1.4", 0) < 9000:
            world.tick()
        world.run(5)
        return world

    def test_it_goes_back_at_once_where_stable_can_take_it(self) -> None:
        world = self.at_ninety()
        world.send("abort")
        world.tick()
        assert world.asked == {"1.3": WHOLE}

    def test_it_goes_back_as_fast_as_replicas_of_stable_are_ready_and_never_faster(self) -> None:
        """Every tick also holds the world's invariants: no version is asked to carry more than is ready."""
        world = self.at_ninety()
        stable = world.running["1.3"]
        stable.broken = 8
        world.tick()
        world.send("abort")
        seen = []
        for broken in (8, 8, 6, 6, 3, 3, 1, 0, 0):
            stable.broken = broken
            world.tick()
            seen.append(world.asked["1.3"])
            assert world.asked["1.3"] <= (10 - broken) * 1000, "never above what is ready"
        assert seen == [2000, 2000, 4000, 4000, 7000, 7000, 9000, WHOLE, WHOLE], "and all of that at once"
        assert world.until("aborted", version="1.4", limit=10).finished_at is not None

    def test_when_neither_can_carry_it_all_each_carries_its_part(self) -> None:
        world = self.at_ninety()
        world.overload_allowed = True
        world.running["1.3"].broken, world.running["1.4"].broken = 9, 5
        world.run(2)
        world.send("abort")
        world.tick()
        assert sum(world.asked.values()) == WHOLE
        assert world.asked["1.3"] < 2500, "one ready replica of stable and four or five of the canary"
        world.running["1.3"].broken = 0
        world.run(3)
        assert world.asked == {"1.3": WHOLE}


class TestFixedStepsInDoubt:
    """20 errors at 1 %: above the limit by the letter, which proves nothing yet."""

    def test_it_does_not_take_the_next_step_although_nothing_makes_it_wait(self) -> None:
        world = Watched(100, stable=Behaviour())
        world.deploy("1.4", canary(5, 25, 50, thresholds=(Threshold("error_rate", 0.3, 60.0),)))
        world.behaviour["1.4"] = Behaviour(failure_rate=0.6)
        world.tick()
        grown = []
        while world.release("1.4").status not in RELEASE_FINAL:
            before = world.asked.get("1.4", 0)
            world.tick()
            release = world.release("1.4")
            if in_doubt(release) and release.status == "progressing":
                grown.append(world.asked.get("1.4", 0) - before)
        assert world.release("1.4").status == "rolled_back"
        assert grown
        assert max(grown) <= 0


def test_a_scenario_of_the_simulator_may_have_it() -> None:
    text = """
name: adaptive
lasts: 3h
service: {requests_per_second: 500, errors: 0.1%}
strategy: {canary: {adaptive: {budget: 20, tolerance: 0.1%, most: 50%}}}
releases:
  versions:
    - {name: good, at: [10m]}
    - {name: broken, at: [1h], errors: 100%}
    - {name: worse, at: [2h], errors: 5%}
"""
    report = simulate(parse_story(text, "adaptive.yaml"), checked=True)
    assert [told.outcome for told in report.releases[-3:]] == ["promoted", "caught", "caught"]
    assert report.releases[-3].seconds is not None
    assert report.releases[-3].seconds < 400
    assert report.releases[-2].failed < 60
