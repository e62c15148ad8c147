"""Rolling, canary and blue-green, tick by tick: how many replicas there are, and who has which share."""

from __future__ import annotations

import pytest
from world import Behaviour, World, canary

from forge.model.strategy import Strategy, Threshold
from forge.model.units import WHOLE


def follow(world: World, limit: int = 300) -> list[tuple[dict[str, int], dict[str, int], int]]:
    """Tick until the newest release is promoted; return (split, ready replicas, all replicas) of each tick."""
    seen = []
    for _ in range(limit):
        world.tick()
        ready = {version: world.ready(version) for version in world.running}
        everything = sum(len(running.started) for running in world.running.values())
        seen.append((world.split, ready, everything))
        if world.release().status == "promoted" and world.release().version != "1.3":
            return seen
    raise AssertionError(world.log[-20:])


class TestRolling:
    @pytest.mark.parametrize("replicas", [1, 2, 3, 5])
    @pytest.mark.parametrize(("surge", "unavailable"), [(1, 0), (2, 0), (1, 1), (0, 1), (3, 2), (0, 0)])
    def test_keeps_to_surge_and_unavailable(self, replicas: int, surge: int, unavailable: int) -> None:
        world = World(replicas=replicas).established()
        world.deploy("1.4", Strategy(max_surge=surge, max_unavailable=unavailable))
        most = replicas + (surge or (0 if unavailable else 1))
        for _, ready, everything in follow(world):
            assert everything <= most
            assert sum(ready.values()) >= replicas - unavailable
        assert world.settle().split == {"1.4": WHOLE}
        assert world.ready("1.4") == replicas

    def test_the_weight_follows_the_ready_replicas(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy())
        shares = [split.get("1.4", 0) for split, _, _ in follow(world)]
        assert sorted(set(shares)) == [0, 2500, 5000, 7500, WHOLE]
        assert shares == sorted(shares)

    def test_no_request_meets_a_version_that_is_not_ready(self) -> None:
        world = World(replicas=3).established()
        world.deploy("1.4", Strategy(), behaviour=Behaviour(ready_after=7.0))
        follow(world)
        assert world.counters["1.4"].errors == world.counters["1.3"].errors == 0

    @pytest.mark.parametrize(("old", "new"), [(2, 5), (5, 2), (1, 4), (4, 1)])
    def test_versions_of_different_size(self, old: int, new: int) -> None:
        world = World(replicas=old).established()
        world.deploy("1.4", Strategy(), config={"replicas": new})
        for split, ready, everything in follow(world):
            assert everything <= max(old, new) + 1
            for version, weight in split.items():
                full = old if version == "1.3" else new
                assert weight <= -(-min(ready[version], full) * WHOLE // full)
        assert world.settle().ready("1.4") == new

    def test_a_bad_one_is_stopped_at_its_first_replica(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy(), behaviour=Behaviour(failure_rate=0.5))
        release = world.until("rolled_back")
        # Of a service without history the judge takes it that failures come many at a time, so it asks for more.
        assert release.requests <= 7 * 25, "it never has more than one replica's share"
        assert max(table.weights.get("1.4", 0) for _, table in world.applied) == 2500
        assert world.settle().ready("1.3") == 4

    def test_by_the_classic_rule_after_its_first_second(self) -> None:
        world = World(replicas=4, judge="threshold").established()
        world.deploy("1.4", Strategy(), behaviour=Behaviour(failure_rate=0.5))
        assert world.until("rolled_back").requests <= 2 * 25

    def test_one_that_breaks_half_way_gives_back_as_old_replicas_return(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy())
        while world.split.get("1.4", 0) < 7500:
            world.tick()
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        world.until("rolled_back", limit=30)
        assert world.split == {"1.3": WHOLE}
        assert world.settle().ready("1.3") == 4

    def test_a_paused_one_keeps_both_versions(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", Strategy())
        while world.split.get("1.4", 0) < 5000:
            world.tick()
        world.send("pause")
        world.run(30)
        assert world.split == {"1.3": 5000, "1.4": 5000}
        world.send("abort")
        world.until("aborted")
        assert world.settle().split == {"1.3": WHOLE}


class TestCanary:
    @pytest.mark.parametrize(("weight", "replicas"), [(1, 1), (25, 1), (26, 2), (50, 2), (75, 3), (100, 4)])
    def test_as_many_replicas_as_carry_the_weight(self, weight: int, replicas: int) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(weight, "resume"))
        world.until("paused")
        assert world.running["1.4"].desired == replicas
        assert world.running["1.3"].desired == 4, "stable keeps its full size until the promotion is finished"

    def test_weights_go_step_by_step_and_wait_for_the_router(self) -> None:
        world = World(replicas=4).established()
        world.run(5)
        world.router_lag = 3.0
        world.deploy("1.4", canary(5, 25, 50, keep_previous=0.0))
        shares = [split.get("1.4", 0) for split, _, _ in follow(world)]
        assert list(dict.fromkeys(shares)) == [0, 500, 2500, 5000, WHOLE]

    def test_a_timed_pause_lasts_as_long_as_it_says(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(5, 20.0, 50, keep_previous=0.0))
        at_five = sum(split.get("1.4") == 500 for split, _, _ in follow(world))
        assert 20 <= at_five <= 23

    def test_while_it_pauses_it_says_until_when(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(5, 60.0))
        world.run(10)
        release = world.release()
        assert release.waits_for == "1m 0s at 5%"
        assert release.earliest == (release.step_started_at or 0) + 60.0

    def test_promote_leaves_one_pause_and_full_leaves_all(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(5, 600.0, 25, "resume", 50, 600.0))
        world.run(6)
        world.send("promote")
        world.until("paused")
        assert world.split == {"1.3": 7500, "1.4": 2500}
        world.send("promote", full=True)
        world.until("promoted", limit=20)

    def test_without_auto_promote_a_person_does_it(self) -> None:
        world = World().established()
        world.deploy("1.4", canary(50, 1.0, auto_promote=False))
        release = world.until("paused")
        assert release.waits_for == "a person to promote it: forge release promote production"
        world.run(50)
        assert world.split == {"1.3": 5000, "1.4": 5000}
        world.send("promote")
        world.until("promoted", limit=20)

    def test_the_bake_watches_at_all_of_the_traffic(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(50, 1.0, bake=30.0))
        world.until("baking")
        world.run(10)
        world.behaviour["1.4"] = Behaviour(failure_rate=1.0)
        world.until("rolled_back", limit=6 + 10)
        assert world.split == {"1.3": WHOLE}

    @pytest.mark.parametrize(
        ("threshold", "behaviour", "words"),
        [
            (Threshold("latency", 0.5, 60.0), Behaviour(latency=0.9), "p99 latency is"),
            (Threshold("cpu", 0.5, 60.0), Behaviour(cpu_per_request=0.1), "cores over"),
            (Threshold("memory", 1e8, 60.0), Behaviour(memory=200_000_000), "the largest replica uses 200.0 MB"),
        ],
    )
    def test_slow_or_hungry_ones_are_rolled_back_too(
        self, threshold: Threshold, behaviour: Behaviour, words: str
    ) -> None:
        """A6: the saturation of the canary itself stops the ramp, whatever the average says."""
        world = World(replicas=4).established()
        world.deploy("1.4", canary(20, 20.0, 100, thresholds=(threshold,)), behaviour=behaviour)
        assert words in world.until("rolled_back").reason
        world = World(replicas=4).established()
        world.deploy("1.4", canary(20, 20.0, 100, thresholds=(threshold,)))
        assert world.until("promoted").failed_requests == 0


class TestBlueGreen:
    def test_switches_in_one_step_when_all_of_it_is_ready(self) -> None:
        world = World(replicas=4).established()
        world.deploy("1.4", canary(10.0, name="blue_green"))
        for split, ready, _ in follow(world):
            assert split in ({"1.3": WHOLE}, {"1.4": WHOLE})
            assert split == {"1.3": WHOLE} or ready["1.4"] == 4

    def test_checks_are_passed_before_the_switch(self) -> None:
        world = World(replicas=2).established()
        world.deploy("1.4", canary({"message": "look at the preview"}, name="blue_green"))
        world.until("waiting_approval")
        world.run(30)
        assert world.split == {"1.3": WHOLE}
        assert world.ready("1.4") == 2
        world.send("approve", "bob")
        world.until("promoted", limit=10)

    def test_the_old_one_stays_warm_and_goes_then(self) -> None:
        world = World(replicas=2).established()
        world.deploy("1.4", canary(name="blue_green", keep_previous=40.0))
        world.until("promoted")
        world.run(38)
        assert world.ready("1.3") == 2
        world.run(6)
        assert "1.3" not in world.running

    def test_a_replica_that_breaks_after_the_switch_gives_its_share_to_the_old_one(self) -> None:
        world = World(replicas=2).established()
        world.deploy("1.4", canary(name="blue_green", bake=60.0))
        world.until("baking")
        world.running["1.4"].broken = 1
        world.run(2)
        assert world.split == {"1.3": 5000, "1.4": 5000}

    def test_weights_among_its_steps_do_not_matter(self) -> None:
        world = World(replicas=2).established()
        world.deploy("1.4", canary(25, 1.0, 50, name="blue_green"))
        assert all(split in ({"1.3": WHOLE}, {"1.4": WHOLE}) for split, _, _ in follow(world))


class TestSupersede:
    def test_what_takes_stables_place_already_is_left_to_finish(self) -> None:
        world = World(replicas=2, policy={"on_overlap": "supersede"}).established()
        world.deploy("1.4", canary(50, 1.0, bake=15.0))
        world.until("baking")
        world.deploy("1.5", canary(10, 1.0))
        assert world.until("promoted", version="1.5").previous == "1.4"
        assert world.release("1.4").status == "promoted"

    def test_queued_ones_are_superseded_at_once(self) -> None:
        world = World(replicas=2, policy={"on_overlap": "supersede"}).established()
        world.deploy("1.4", Strategy(bake=5.0))
        world.run(4)
        world.deploy("1.5", Strategy())
        world.deploy("1.6", Strategy())
        world.until("promoted", version="1.6")
        assert [release.status for release in world.state.releases.values()][1:] == [
            "superseded",
            "superseded",
            "promoted",
        ]
        assert "it had not started" in world.events("release_superseded")[0]


def test_one_that_overlapped_is_watched_against_the_version_that_became_stable_meanwhile() -> None:
    world = World(replicas=4).established()
    world.deploy("1.4", canary(10, 2.0, keep_previous=5.0))
    world.deploy("1.5", canary(10, 20.0, keep_previous=60.0))
    world.until("promoted", version="1.5")
    world.behaviour["1.5"] = Behaviour(failure_rate=1.0)
    for _ in range(60):
        world.tick()
        if world.release_of("production-3").status != "promoted":
            break
    assert world.release_of("production-3").status == "rolled_back"
    assert world.release().version == "1.4"
    assert world.state.stable == "1.4"
