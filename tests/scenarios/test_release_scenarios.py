"""Named scenarios: each one is a defect or a gap that users of other release tools reported."""

from __future__ import annotations

import math

import msgspec
import pytest
from msgspec.structs import replace
from world import Behaviour, World, canary

from forge.core.release.state import RELEASE_FINAL, EnvironmentState
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Gauge
from forge.model.units import WHOLE

SICK = Behaviour(failure_rate=0.2)


class TestA1AnotherReleaseArrives:
    """A1: canary 1.4 at 20 %, 1.5 arrives."""

    def at_twenty(self, **policy: object) -> World:
        world = World(replicas=4, policy=policy).established()
        world.deploy("1.4", canary(20, "resume", keep_previous=0.0))
        world.until("paused")
        world.deploy("1.5", canary(5, "resume", keep_previous=0.0))
        return world

    def test_both_live_side_by_side(self) -> None:
        world = self.at_twenty()
        world.until("paused", version="1.5")
        assert world.split == {"1.3": 7500, "1.4": 2000, "1.5": 500}

    def test_promoting_one_makes_it_stable_under_the_other(self) -> None:
        world = self.at_twenty()
        world.until("paused", version="1.5")
        world.send("promote", release="production-2", full=True)
        assert world.until("promoted", version="1.4").status == "promoted"
        assert world.state.stable == "1.4"
        world.run(3)
        assert world.split == {"1.4": 9500, "1.5": 500}
        world.send("abort", release="production-3")
        assert world.until("aborted", version="1.5").previous == "1.4"
        assert world.split == {"1.4": WHOLE}

    def test_a_bad_arm_costs_the_other_nothing(self) -> None:
        world = self.at_twenty()
        world.until("paused", version="1.5")
        world.behaviour["1.4"] = SICK
        world.until("rolled_back", version="1.4")
        assert world.release("1.5").status == "paused"
        assert world.split == {"1.3": 9500, "1.5": 500}

    def test_by_policy_the_newer_supersedes(self) -> None:
        world = self.at_twenty(on_overlap="supersede")
        world.until("paused", version="1.5")
        assert world.release("1.4").status == "superseded"
        assert "superseded by production-3 (1.5)" in world.release("1.4").reason
        assert world.split == {"1.3": 9500, "1.5": 500}

    def test_by_policy_the_newer_queues(self) -> None:
        world = self.at_twenty(on_overlap="queue").run(30)
        assert world.release("1.5").status == "queued"
        assert world.release("1.5").waits_for == "production-2 to finish (policy on_overlap: queue)"
        world.send("promote", full=True)
        world.until("paused", version="1.5")
        assert world.split == {"1.4": 9500, "1.5": 500}

    @pytest.mark.parametrize("name", ["rolling", "blue_green"])
    def test_what_replaces_all_of_stable_runs_alone(self, name: str) -> None:
        world = self.at_twenty()
        world.until("paused", version="1.5")
        world.deploy("1.6", Strategy(name=name))
        world.run(5)
        waits = f"production-2, production-3 to finish: a {name} release replaces all of stable and runs alone"
        assert (world.release("1.6").status, world.release("1.6").waits_for) == ("queued", waits)
        world.send("abort")
        assert world.until("promoted", version="1.6").previous == "1.3"

    def test_a_canary_queues_behind_a_rolling_release(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy(bake=20.0))
        world.run(3)
        world.deploy("1.5", canary(5, 2.0))
        world.run(1)
        assert world.release("1.5").waits_for == "production-2 to finish: a rolling release runs alone"
        assert world.until("promoted", version="1.5").previous == "1.4"

    def test_two_that_are_ready_take_stables_place_one_after_the_other(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(10, 5.0, bake=30.0))
        world.deploy("1.5", canary(10, 8.0, bake=5.0))
        world.run(25)
        assert world.release("1.4").status == "baking"
        assert world.release("1.5").waits_for == "production-2 to finish taking stable's place"
        world.until("promoted", version="1.5")
        assert (world.state.stable, world.state.previous) == ("1.5", ("1.4", "1.3"))


class TestA2PromoteThenAbort:
    """A2: promote-full on an unhealthy canary, then abort."""

    @pytest.mark.parametrize("order", [("promote", "abort"), ("abort", "promote")])
    def test_abort_wins_within_one_tick(self, order: tuple[str, str]) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, "resume", thresholds=()), behaviour=SICK)
        world.until("paused")
        for kind in order:
            world.send(kind, full=True)
        world.tick()
        assert world.asked == {"1.3": WHOLE}
        assert world.until("aborted").reason == "aborted by ada"

    def test_a_bad_verdict_wins_over_promote(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, "resume"))
        world.until("paused")
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        world.now += 0.5
        world.serve(0.5)
        world.send("promote", full=True)
        world.run(4)
        assert world.release().status in {"rolling_back", "rolled_back"}
        assert world.asked == {"1.3": WHOLE}

    def test_abort_of_one_that_is_being_promoted(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(20, "resume", bake=60.0))
        world.until("paused")
        world.send("promote", full=True)
        world.until("baking")
        assert world.asked == {"1.4": WHOLE}
        world.send("abort")
        world.tick()
        assert world.asked == {"1.3": WHOLE}, "stable is kept at its full size until the promotion is finished"


@pytest.mark.parametrize(
    "kind", ["abort", "promote", "pause", "resume", "approve", "retry", "undo", "rollback", "dance"]
)
def test_a3_a_command_with_nothing_in_progress_does_nothing_and_says_so(kind: str) -> None:
    world = World().established()
    decision = world.decisions[-1]
    world.send(kind)
    decision = world.tick()
    assert decision.actions == ()
    assert decision.wake_at is None
    assert [event.kind for event in decision.events if event.kind != "rollback_impossible"] in (
        ["command_without_effect"],
        [],
    )
    assert decision.events[0].message
    assert world.asked == {"1.3": WHOLE}


class TestA4NeverReady:
    """A4: new pods never ready."""

    @pytest.mark.parametrize("strategy", [Strategy(progress_deadline=60.0), canary(10, 5.0, progress_deadline=60.0),
                                          canary(5.0, name="blue_green", progress_deadline=60.0)])  # fmt: skip
    def test_the_deadline_fires_and_the_reason_is_shown(self, strategy: Strategy) -> None:
        world = World().established()
        world.deploy("1.4", strategy, behaviour=Behaviour(never_ready=True))
        begun = world.now
        release = world.until("rolled_back")
        assert "replicas of 1.4 ready within 1m 0s: GET /health answers 503" in release.reason
        assert 60 <= world.now - begun <= 63
        assert world.asked == {"1.3": WHOLE}
        assert release.requests == 0
        world.settle()
        assert set(world.running) == {"1.3"}

    def test_a_crash_loop_is_not_waited_for(self) -> None:
        world = World().established()
        world.deploy("1.4", behaviour=Behaviour(crash_loops=True))
        begun = world.now
        assert "crash loop: exited with 1" in world.until("rolled_back").reason
        assert world.now - begun < 15

    def test_while_it_waits_it_says_for_what(self) -> None:
        world = World().established()
        world.deploy("1.4", behaviour=Behaviour(never_ready=True))
        world.run(5)
        assert world.release().waits_for == "0 of 1 replicas of 1.4 ready: GET /health answers 503"

    def test_what_the_target_refuses_again_and_again_is_given_up(self) -> None:
        world = World().established()
        world.refuse = {"ensure": "artifact sha-1.4 cannot be unpacked"}
        world.deploy("1.4")
        release = world.until("rolled_back")
        assert "cannot be unpacked" in release.reason

    def test_a_wish_that_got_lost_is_asked_for_again(self) -> None:
        world = World().established()
        world.lose_actions = True
        world.deploy("1.4")
        world.run(3)
        world.lose_actions = False
        assert world.until("promoted").version == "1.4"

    def test_a_removal_that_got_lost_is_asked_for_again(self) -> None:
        world = World().established()
        world.refuse = {"remove": "device or resource busy"}
        world.deploy("1.4", Strategy(keep_previous=0.0))
        world.until("promoted")
        world.run(8)
        assert "1.3" in world.running
        world.refuse = {}
        world.settle()
        assert set(world.running) == {"1.4"}
        assert len(world.events("action_failed")) >= 1

    def test_a_first_version_that_never_comes_up_fails(self) -> None:
        world = World()
        world.deploy("1.0", Strategy(progress_deadline=20.0), behaviour=Behaviour(never_ready=True))
        release = world.until("failed")
        assert release.reason.endswith("it had no traffic")
        world.settle()
        assert world.running == {}
        assert world.state.stable == ""


class TestA5RollbackWhileReplicasStart:
    """A5: rollback inside the window while target pods start."""

    def test_traffic_follows_ready_capacity(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy(max_surge=1))
        world.until("promoted")
        world.settle()
        world.send("undo")
        world.tick()
        assert world.asked == {"1.4": WHOLE}
        for index in range(4):  # one replica after the other becomes ready
            world.running["1.3"].started[index] = world.now + 5 * index
        shares = []
        for _ in range(30):
            world.tick()
            share = world.asked.get("1.3", 0)
            assert share <= world.ready("1.3") * WHOLE / 4 + 1
            shares.append(share)
        assert sorted(set(shares)) == [0, 2500, 5000, 7500, WHOLE]
        assert shares == sorted(shares)
        assert world.state.stable == "1.3"

    def test_a_warm_version_gets_everything_in_the_same_tick(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(10, 1.0, keep_previous=60.0))
        world.until("promoted")
        world.send("rollback")
        world.tick()
        assert world.asked == {"1.3": WHOLE}
        world.until("promoted", version="1.3")
        assert world.release_of("production-2").status == "rolled_back"
        assert world.release_of("production-3").reason.startswith("went back from 1.4")

    def test_a_rolling_release_goes_back_as_fast_as_old_replicas_come(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy())
        while world.asked.get("1.4", 0) < 7500:
            world.tick()
        world.run(2)
        world.behaviour["1.3"] = Behaviour(ready_after=6.0)
        assert world.running["1.3"].desired < 4
        world.send("abort")
        world.tick()
        kept = world.asked["1.4"]
        assert kept == WHOLE - world.ready("1.3") * 2500
        assert "1.4 keeps" in world.release().waits_for or world.release().waits_for == ""
        world.until("aborted")
        assert world.asked == {"1.3": WHOLE}


class TestA7TheRouterLags:
    """A7: stable scaled down before proxies switched."""

    @pytest.mark.parametrize("strategy", [Strategy(), canary(50, 1.0, keep_previous=0.0)])
    def test_nothing_goes_down_before_the_split_is_seen(self, strategy: Strategy) -> None:
        world = World(replicas=2).established().run(30)
        world.router_lag = 25.0
        world.deploy("1.4", strategy)
        smallest = []
        while world.split == {"1.3": WHOLE}:
            world.tick()
            smallest.append(world.running["1.3"].desired)
        assert min(smallest) == 2
        assert world.asked != world.split or len(world.applied) > 1
        world.router_lag = 0.0
        world.until("promoted")
        world.settle()
        assert set(world.running) == {"1.4"}

    def test_a_router_that_forgot_is_asked_again(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, 30.0))
        while "1.4" not in world.asked:
            world.tick()
        world.applied = world.applied[:-1]
        world.run(8)
        assert world.split == {"1.3": 8000, "1.4": 2000}
        assert world.events("traffic_asked_again")

    def test_while_the_router_cannot_be_read_nothing_moves_on(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, 5.0, 50, 5.0))
        world.run(6)
        world.router_away = True
        world.run(60)
        assert world.asked == {"1.3": 8000, "1.4": 2000}
        assert "the router cannot be read: Envoy's admin port does not answer" in world.release().waits_for
        world.router_away = False
        assert world.until("promoted").status == "promoted"


class TestA8MetricsAreAway:
    """A8: the metrics source returns 500 / empty / stale for 5 minutes."""

    def waiting(self, patience: float = 600.0) -> World:
        world = World().established()
        world.deploy("1.4", canary(20, 30.0, 50, 30.0, patience=patience))
        world.run(10)
        world.metrics_away = True
        return world

    def test_holds_and_then_goes_on(self) -> None:
        world = self.waiting()
        counted = world.release().requests
        world.run(300)
        release = world.release()
        assert (release.status, world.asked) == ("progressing", {"1.3": 8000, "1.4": 2000})
        assert "holds, waits for metrics of 1.4, missing for" in release.waits_for
        assert "scrape answered 500" in release.waits_for
        world.metrics_away = False
        release = world.until("promoted")
        assert release.requests > counted + 300 * 20, "cumulative counters cover the gap"
        assert world.events("data_missing")
        assert world.events("data_back")

    def test_a_fault_in_the_gap_is_found_afterwards(self) -> None:
        world = self.waiting()
        world.behaviour["1.4"] = SICK
        world.run(100)
        assert world.release().status == "progressing"
        world.metrics_away = False
        assert world.until("rolled_back").failed_requests > 300

    def test_patience_ends_in_a_pause_for_a_person(self) -> None:
        world = self.waiting(patience=60.0)
        world.run(70)
        release = world.release()
        assert (release.status, release.paused_by) == ("paused", "forge")
        assert "neither good nor bad" in release.waits_for
        assert world.asked == {"1.3": 8000, "1.4": 2000}
        world.metrics_away = False
        world.run(20)
        assert world.release().status == "paused"
        world.send("resume")
        assert world.until("promoted").requests > 0

    def test_resumed_too_early_it_waits_for_its_patience_again(self) -> None:
        world = self.waiting(patience=60.0)
        world.until("paused")
        world.send("resume")
        world.run(50)
        assert world.release().status == "progressing"
        world.run(20)
        assert world.release().status == "paused"

    def test_nothing_grows_meanwhile(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(25, 1.0, 100, 1.0, patience=600.0))
        while world.asked.get("1.4", 0) < 2500:
            world.tick()
        world.run(2)
        world.metrics_away = True
        world.run(20)
        assert world.asked == {"1.3": 7500, "1.4": 2500}
        world.metrics_away = False
        world.until("promoted")

    def test_a_person_may_force_it_but_never_past_a_bad_verdict(self) -> None:
        world = self.waiting(patience=60.0)
        world.until("paused")
        world.send("promote", full=True)
        world.until("baking", "promoted")
        assert world.asked == {"1.4": WHOLE}
        world = self.waiting(patience=60.0)
        world.behaviour["1.4"] = SICK
        world.until("paused")
        world.metrics_away = False
        world.send("promote", full=True)
        assert world.until("rolled_back").forced

    def test_one_version_that_is_missing_is_missing_data_too(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, 10.0))
        world.run(5)
        world.hidden = {"1.4"}
        world.run(60)
        assert world.release().status == "progressing"
        assert "metrics of 1.4" in world.release().waits_for

    def test_stale_samples_are_no_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = self.waiting()
        world.metrics_away = False
        frozen = world.sample("1.4")
        monkeypatch.setattr(world, "sample", lambda version: frozen)
        world.run(120)
        assert world.release().status == "progressing"
        assert "holds" in world.release().waits_for

    def test_what_is_not_a_number_is_no_data(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nothing is decided on it, nothing breaks, and the state survives the disk (each tick checks that)."""
        world = self.waiting()
        world.metrics_away = False
        real = world.sample
        nonsense = {
            "cpu_seconds": math.nan, "gauges": (Gauge("queue", math.nan, 10.0), Gauge("pool", 3.0, math.inf)),
            "values": (("conversion", math.nan), ("orders", 7.0)),
        }  # fmt: skip
        monkeypatch.setattr(world, "sample", lambda version: replace(real(version), **nonsense))
        release = world.until("promoted", "rolled_back", "paused")
        assert release.status == "promoted"
        kept = world.state.history[-1][1]["1.4"]
        assert (kept.cpu_seconds, kept.gauges, kept.values) == (None, (), (("orders", 7.0),))
        assert kept.lacks == (), "a rule about it says itself that nothing was answered"

    def test_an_unreadable_target_changes_nothing(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, 5.0, 50, 5.0))
        world.run(6)
        world.target_away = True
        world.send("abort")
        decisions = [world.tick() for _ in range(30)]
        assert all(decision.actions == () for decision in decisions)
        assert "the target cannot be read" in world.release().waits_for
        world.target_away = False
        assert world.until("aborted").status == "aborted"


class TestA9ZeroTraffic:
    """A9: zero traffic: "cannot know"."""

    def test_a_canary_holds_and_then_asks_a_person(self) -> None:
        world = World(rps=0).established()
        world.deploy("1.4", canary(20, 10.0, 50, 10.0, patience=60.0))
        world.run(30)
        assert world.release().waits_for.startswith("holds: 1.4: cannot know yet: 0 of at least 1 requests")
        release = world.until("paused")
        assert release.verdict is not None
        assert release.verdict.kind == "inconclusive"
        assert "a person decides" in release.waits_for
        assert world.asked == {"1.3": 8000, "1.4": 2000}
        world.send("promote", full=True)
        assert "not judged" in world.until("promoted").reason

    def test_traffic_that_comes_in_time_lets_it_go_on(self) -> None:
        world = World(rps=0).established()
        world.deploy("1.4", canary(20, 10.0, patience=60.0))
        world.run(30)
        world.rps = 100
        assert world.until("promoted").requests > 0

    @pytest.mark.parametrize("strategy", [Strategy(bake=5.0), canary(3.0, name="blue_green", bake=5.0)])
    def test_rolling_and_blue_green_finish_with_a_note(self, strategy: Strategy) -> None:
        world = World(rps=0).established()
        world.deploy("1.4", strategy)
        assert "not judged: 1.4: cannot know yet: 0 of at least 1 requests" in world.until("promoted").reason

    def test_fewer_requests_than_a_threshold_needs(self) -> None:
        world = World(rps=10).established()
        few = (Threshold("error_rate", 0.05, minimum_requests=100),)
        world.deploy("1.4", canary(20, 10.0, thresholds=few, patience=600.0))
        world.run(20)
        assert "of at least 100 requests" in world.release().waits_for
        assert world.until("promoted").requests >= 100


class TestA10AWaitingGate:
    """A10: waiting at an approval while errors rise."""

    @pytest.mark.parametrize("gate", [{"required": 1}, "resume", 600.0])
    def test_rollback_still_fires(self, gate: object) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, gate, 50))
        world.run(10)
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        world.run(8)
        assert world.release().status == "rolled_back"
        assert world.asked == {"1.3": WHOLE}
        # Nothing is known of this service's failures yet, so the judge takes it that they come many at a time.
        assert world.release().failed_requests <= 5 * 20 + 20

    @pytest.mark.parametrize("gate", [{"required": 1}, "resume", 600.0])
    def test_by_the_classic_rule_after_the_first_bad_second(self, gate: object) -> None:
        world = World(judge="threshold").established()
        world.deploy("1.4", canary(20, gate, 50))
        world.run(10)
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        world.run(4)
        assert world.release().status == "rolled_back"
        assert world.release().failed_requests <= 2 * 20

    def test_rollback_fires_while_a_person_has_paused_it(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, 600.0))
        world.run(6)
        world.send("pause")
        world.run(2)
        assert world.release().status == "paused"
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        assert world.until("rolled_back", limit=8)


def test_a11_the_decision_uses_counts_and_says_them() -> None:
    """A11: errors 0,1,2,1,0,0 against zeros: few, and far from the limit."""
    world = World(rps=500).established()
    world.deploy("1.4", canary(20, 6.0, bake=2.0))
    world.tick()
    while world.release().traffic_since is None:
        world.tick()
    for errors in (0, 1, 2, 1, 0, 0):
        world.counters["1.4"].errors += errors
        world.tick()
    release = world.until("promoted")
    assert release.failed_requests == 4
    assert release.verdict is not None
    assert "4 of" in release.verdict.why
    assert "4 failed" in release.reason
    told = release.verdict.data
    assert (told["errors"], told["requests"]) == (4, release.requests)
    assert told["log_evidence"] < 0, "the evidence is stated, and it does not speak against the release"


class TestA13ABadFirstMinute:
    """A13: bad first minute that heals."""

    def release_with(self, warm_up: float) -> World:
        world = World().established()
        world.deploy("1.4", canary(20, 90.0, warm_up=warm_up), behaviour=SICK)
        world.run(50)
        world.behaviour["1.4"] = Behaviour()
        return world

    def test_with_a_declared_warm_up_it_is_counted_but_no_rollback(self) -> None:
        world = self.release_with(60.0)
        assert world.release().verdict.why.startswith("warming up for")  # type: ignore[union-attr]
        release = world.until("promoted")
        assert release.failed_requests == pytest.approx(0.2 * 20 * 47, abs=8)
        assert release.excess_failed == release.failed_requests

    def test_without_it_is_rolled_back(self) -> None:
        assert self.release_with(0.0).release().status == "rolled_back"


class TestA25QueuedReleases:
    """A25: none vanish; each is released or explicitly ended."""

    def test_more_than_the_most_arms(self) -> None:
        world = World(replicas=4, policy={"max_arms": 2}).established()
        for number in range(6):
            world.deploy(f"2.{number}", canary(5, 10.0, keep_previous=0.0))
        world.run(2)
        assert [release.status for release in world.state.releases.values()].count("queued") == 4
        waiting = [release.waits_for for release in world.state.releases.values() if release.status == "queued"]
        assert waiting[0] == (
            "one of production-2, production-3 to finish: at most 2 versions beside stable (policy max_arms)"
        )
        assert waiting[1] == "production-4 to start first"
        world.until("promoted", version="2.5")
        world.settle()
        assert [release.status for release in world.state.releases.values()] == ["promoted"] * 7
        assert world.state.stable == "2.5"

    def test_the_same_key_is_the_same_release(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(5, 5.0), key="run-7/deploy")
        world.deploy("1.4", canary(5, 5.0), key="run-7/deploy")
        world.run(3)
        world.deploy("1.4", canary(5, 5.0), key="run-7/deploy")
        world.until("promoted")
        assert len(world.state.releases) == 2

    def test_the_same_version_again_waits_and_is_then_stable_already(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(5, 5.0))
        world.deploy("1.4", canary(5, 5.0))
        world.run(3)
        assert world.release().waits_for == "production-2 to finish, which releases 1.4 too"
        world.until("promoted")
        world.settle()
        assert world.release_of("production-3").reason == "1.4 is already stable in production"

    def test_a_version_name_with_other_content_is_refused(self) -> None:
        world = World().established()
        world.deploy("1.3", config={"replicas": 3})
        world.tick()
        assert world.release().status == "failed"
        assert "exists already with other content" in world.release().reason

    def test_a_queued_release_can_be_aborted_by_name(self) -> None:
        world = World(policy={"on_overlap": "queue"}).established()
        world.deploy("1.4", canary(5, "resume"))
        world.deploy("1.5", canary(5, "resume"))
        world.run(8)
        world.send("abort", release="production-3")
        world.tick()
        assert world.release("1.5").status == "aborted"
        assert world.release("1.4").status == "paused"


def test_a23_forge_is_killed_at_every_tick_and_ends_the_same() -> None:
    """A23: the state that was written is all there is; from it every continuation is the same."""

    def story(*, killed: bool) -> list[str]:
        world = World(replicas=3).established()
        world.deploy("1.4", canary(10, 3.0, 50, 3.0, bake=3.0, keep_previous=3.0))
        for _ in range(40):
            if killed:
                world.state = msgspec.json.decode(msgspec.json.encode(world.state), type=EnvironmentState)
                world.outcomes = []
            world.tick()
        return world.log

    assert story(killed=True) == story(killed=False)


class TestFirstVersion:
    """The first version ever has nothing behind it."""

    def test_a_bad_one_fails_and_keeps_the_traffic(self) -> None:
        world = World()
        world.deploy("1.0", canary(5, 5.0, bake=10.0), behaviour=SICK)
        release = world.until("failed")
        assert "there is no earlier version to return to, so it keeps the traffic" in release.reason
        world.settle()
        assert (world.asked, world.state.stable) == ({"1.0": WHOLE}, "1.0")

    def test_the_next_one_replaces_it(self) -> None:
        world = World()
        world.deploy("1.0", Strategy(bake=5.0), behaviour=SICK)
        world.until("failed")
        world.deploy("1.1", canary(20, 5.0))
        world.until("promoted")
        assert world.settle().asked == {"1.1": WHOLE}

    def test_a_second_release_waits_for_the_first(self) -> None:
        world = World()
        world.deploy("1.0", Strategy(bake=10.0))
        world.deploy("1.1", canary(20, 5.0))
        world.run(4)
        assert world.release("1.1").waits_for == "production-1 to finish, the first release of production"
        assert world.until("promoted", version="1.1").previous == "1.0"


class TestAfterPromotion:
    """Until the version before is given up, a bad verdict still goes back by itself."""

    def test_it_goes_back_to_the_warm_version_in_the_same_tick(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(20, 3.0, keep_previous=120.0))
        world.until("promoted")
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        for _ in range(30):
            decision = world.tick()
            if any(event.kind == "rollback_started" for event in decision.events):
                break
        assert world.asked == {"1.3": WHOLE}
        world.until("promoted", version="1.3")
        bad = world.release_of("production-2")
        assert bad.status == "rolled_back"
        assert "rolled back by production-3 after its promotion" in bad.reason
        world.settle()
        assert set(world.running) == {"1.3"}

    def test_undo_skips_a_version_that_was_rolled_back(self) -> None:
        world = World().established("1.2")
        for version in ("1.3", "1.4"):
            world.deploy(version, canary(50, 1.0, keep_previous=0.0))
            world.until("promoted")
            world.settle()
        world.send("undo")
        world.until("promoted", version="1.3")
        world.settle()
        world.send("undo")
        release = world.until("promoted", version="1.2")
        assert release.kind == "rollback"
        assert world.state.stable == "1.2"

    def test_rollback_to_a_named_version(self) -> None:
        world = World().established("1.2")
        for version in ("1.3", "1.4"):
            world.deploy(version, canary(50, 1.0, keep_previous=0.0))
            world.until("promoted")
            world.settle()
        world.deploy("1.5", canary(20, "resume"))
        world.until("paused")
        world.send("rollback", to="1.2", comment="1.3 leaks")
        world.until("promoted", version="1.2")
        assert world.release("1.5").status == "aborted"
        assert world.settle().asked == {"1.2": WHOLE}
        assert "1.3 leaks" in world.release("1.2").reason

    def test_rollback_to_an_unknown_version_says_which_there_are(self) -> None:
        world = World().established("1.2")
        world.deploy("1.3", canary(50, 1.0))
        world.until("promoted")
        world.send("rollback", to="9.9")
        decision = world.tick()
        assert "versions to go back to: 1.2" in decision.events[0].message

    def test_a_rollback_whose_target_never_comes_up_fails_and_changes_nothing(self) -> None:
        world = World().established("1.3")
        world.deploy("1.4", canary(50, 1.0, keep_previous=0.0))
        world.until("promoted")
        world.settle()
        world.behaviour["1.3"] = Behaviour(crash_loops=True)
        world.send("undo")
        assert "keeps failing" in world.until("failed", version="1.3").reason
        assert world.settle().asked == {"1.4": WHOLE}


class TestCapacity:
    """Weights follow what is ready, in both directions."""

    def test_a_canary_that_loses_its_replicas_loses_its_traffic_and_gets_it_back(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(50, 60.0))
        while world.asked.get("1.4") != 5000:
            world.tick()
        world.run(2)
        world.running["1.4"].broken = 1
        world.tick()
        assert world.asked == {"1.3": 7500, "1.4": 2500}
        world.running["1.4"].broken = 0
        world.tick()
        assert world.asked == {"1.3": 5000, "1.4": 5000}

    def test_stable_that_lost_replicas_takes_back_what_it_can_carry(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(50, "resume"))
        world.until("paused")
        world.running["1.3"].broken = 1
        world.send("abort")
        world.tick()
        assert world.asked == {"1.3": 7500, "1.4": 2500}
        assert world.release().status == "rolling_back"
        world.tick()
        assert "1.4 keeps 25% until more are ready" in world.release().waits_for
        world.running["1.3"].broken = 0
        world.until("aborted")
        assert world.asked == {"1.3": WHOLE}

    def test_a_pause_keeps_weight_and_replicas(self) -> None:
        world = World(replicas=3).established()
        world.deploy("1.4", Strategy())
        while world.asked.get("1.4", 0) == 0:
            world.tick()
        world.send("pause", actor="bob")
        world.tick()
        wanted = {name: known.wanted for name, known in world.state.versions.items()}
        world.run(20)
        assert {name: known.wanted for name, known in world.state.versions.items()} == wanted
        assert world.release().waits_for.startswith("bob to resume it")
        world.send("resume")
        world.until("promoted")


class TestApprovals:
    """Gates of a canary: N of M, no approval of one's own release."""

    def test_votes_of_two_people(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, {"required": 2, "allow_self": False}, 50, 1.0), actor="ada")
        world.until("waiting_approval")
        world.send("approve", "ada")
        world.send("approve", "bob")
        world.send("approve", "bob")
        world.run(2)
        release = world.release()
        assert (release.status, release.votes) == ("waiting_approval", ("bob",))
        assert "1 more approval(s) (so far: bob)" in release.waits_for
        assert "another person has to approve it" in world.events("command_without_effect")[0]
        world.send("approve", "cleo")
        world.until("promoted")

    def test_nobody_in_time(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, {"timeout": 30.0}))
        assert world.until("aborted").reason == "nobody approved within 30s"

    def test_only_those_who_are_named(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(20, {"approvers": ["cleo"]}))
        world.until("waiting_approval")
        world.send("approve", "bob")
        world.run(2)
        assert world.release().status == "waiting_approval"


def test_a_release_that_failed_can_be_retried() -> None:
    world = World().established()
    world.deploy("1.4", canary(20, 5.0), behaviour=SICK)
    world.until("rolled_back")
    world.settle()
    world.behaviour["1.4"] = Behaviour()
    world.send("retry")
    release = world.until("promoted")
    assert (release.id, release.version) == ("production-3", "1.4")
    assert release.failed_requests == 0, "what the first try cost is not counted again"
    assert release.requests > 20
    assert world.release_of("production-2").failed_requests > 0


def test_routes_live_as_long_as_their_release() -> None:
    world = World().established()
    route = {"version": "", "header": "x-preview", "value": "1"}
    world.deploy("1.4", canary("resume", name="blue_green"), routes=[route])
    world.until("paused")
    table = world.table()
    assert table is not None
    assert [(r.version, r.header) for r in table.routes] == [("1.4", "x-preview")]
    assert table.weights == {"1.3": WHOLE}
    world.send("abort")
    world.settle()
    table = world.table()
    assert table is not None
    assert table.routes == ()


def test_nobody_judges_with_the_judge_none() -> None:
    world = World(judge="none").established()
    world.deploy("1.4", canary(20, 2.0), behaviour=SICK)
    world.metrics_away = True
    assert world.until("promoted").status == "promoted"


def test_the_state_stays_small_however_long_it_runs() -> None:
    world = World(rps=1000, replicas=4, policy={"max_arms": 4}).established()
    for number in range(4):
        world.deploy(f"2.{number}", canary(5, "resume"))
    world.run(500)
    assert len(world.state.history) < 60
    assert len(msgspec.json.encode(world.state)) < 150_000


def test_every_finished_version_goes_and_the_newest_ten_are_remembered() -> None:
    world = World(rps=10, replicas=1).established("0.0")
    for number in range(1, 16):
        world.deploy(f"0.{number}", Strategy(keep_previous=0.0))
        world.until("promoted")
        world.settle()
    assert set(world.running) == {"0.15"}
    assert world.state.previous == tuple(f"0.{number}" for number in range(14, 4, -1))
    assert all(release.status in RELEASE_FINAL for release in world.state.releases.values())
