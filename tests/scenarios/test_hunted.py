"""What the hunt found, and a short hunt in every test run (`make hunt` is the long one)."""

from __future__ import annotations

import pytest
from world import Behaviour, World, canary

from forge.core.policy import gates
from forge.core.policy.gates import Gate
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.simulate.hunting import hunt
from forge.simulate.invariants import InvariantBroken
from forge.simulate.run import Simulation
from forge.simulate.story import Deed, FaultPlan, Occasion, Story

STEPS = 20_000
QUICK = canary(10, 2.0, keep_previous=0.0, thresholds=())

FOUND = {
    36: "a release that woke an environment did not say what it waits for",
    58: "going back to a version whose removal was asked for removed it as stable",
    325: "a removal was asked for again although the split showed the version with traffic",
    2000779: "a split that lagged came into effect after a newer one was refused, when nobody looked any more",
    2001402: "the same, in a blue-green release",
    91: "the same as 36, in another story",
    275: "the same as 36, beside a rollback",
    3001737: "what an environment that was down came up for did not say what it waits for",
    3004047: "going back to the version of a canary left the canary rolling back for ever",
    3004147: "the same, beside two other releases",
    7003724: "undoing a release that was over began two rollbacks to one version, which waited for each other for ever",
}


def test_a_paused_release_gets_back_what_it_had_lost_with_its_replicas_also_in_a_freeze() -> None:
    """Which is no growth, though the hunt once took it for that."""
    assert hunt(1795407767, with_gates=True) > 0


@pytest.mark.parametrize("seed", FOUND)
def test_what_was_found_stays_mended(seed: int) -> None:
    assert hunt(seed) > 0


def test_a_short_hunt_finds_nothing() -> None:
    steps, seed = 0, 1_000_000
    while steps < STEPS:
        steps, seed = steps + hunt(seed), seed + 1


def test_a_short_hunt_under_gates_finds_nothing() -> None:
    steps, seed = 0, 5_000_000
    while steps < STEPS // 2:
        steps, seed = steps + hunt(seed, with_gates=True), seed + 1


def _hunt_under_gates(first: int, seeds: int) -> None:
    for seed in range(first, first + seeds):
        hunt(seed, with_gates=True)


@pytest.mark.parametrize(
    ("gate", "words"),
    [("_freeze", "in a freeze"), ("_window", "outside of all windows"), ("_rate", "start number"),
     ("_approval", "votes")],
)  # fmt: skip
def test_a_gate_that_lets_everything_pass_is_found(monkeypatch: pytest.MonkeyPatch, gate: str, words: str) -> None:
    monkeypatch.setattr(gates, gate, lambda *_: Gate(gate, passes=True))
    with pytest.raises(InvariantBroken, match=words):
        _hunt_under_gates(0, 60)


def test_a_release_that_grows_in_a_freeze_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "GROWTH", frozenset())
    with pytest.raises(InvariantBroken, match="grew from"):
        _hunt_under_gates(130, 120)


def _with_two_versions() -> World:
    world = World().established("1.0")
    world.deploy("1.1", QUICK)
    world.until("promoted", version="1.1")
    return world


def test_going_back_to_a_version_that_is_being_removed_takes_the_removal_back() -> None:
    world = _with_two_versions()
    world.refuse["remove"] = "the target is busy"
    while not world.state.versions["1.0"].removing_since:
        world.tick()
    world.tick()
    world.refuse.clear()
    world.send("rollback")
    world.until("promoted", version="1.0")
    world.settle()
    assert world.state.stable == "1.0"
    assert world.split == {"1.0": 10_000}
    assert world.ready("1.0") == 2
    assert "1.0" in world.running


def test_a_version_that_went_after_all_is_started_again_before_it_gets_traffic() -> None:
    world = _with_two_versions()
    while "1.0" in world.running:  # removed, which Forge has not seen yet
        world.tick()
    assert world.state.versions["1.0"].removing_since
    world.send("rollback")
    world.tick()
    assert world.asked == {"1.1": 10_000}
    world.until("promoted", version="1.0")
    assert world.state.stable == "1.0"


@pytest.mark.parametrize("command", ["undo", "rollback"])
def test_taking_back_a_release_that_is_over_leaves_the_one_under_way_alone(command: str) -> None:
    world = _with_two_versions()
    world.deploy("1.2", Strategy("rolling", bake=30.0, thresholds=()))
    world.run(2)
    for name in ("production-1", "production-2", "production-9"):
        world.send(command, release=name)
        world.tick()
        assert [release.kind for release in world.state.releases.values() if release.finished_at is None] == ["deploy"]
    assert len(world.events("command_without_effect")) == 3
    world.until("promoted", version="1.2")
    world.settle()
    world.send(command, release="production-2")  # its version is not stable any more
    world.tick()
    assert world.state.stable == "1.2"
    world.send(command, release="production-3")
    world.until("promoted", version="1.1")
    assert world.settle().split == {"1.1": 10_000}


def test_a_removal_is_not_asked_for_again_while_the_split_shows_traffic() -> None:
    world = _with_two_versions()
    world.refuse["remove"] = "the target is busy"
    while not world.state.versions["1.0"].removing_since:
        world.tick()
    table = world.applied[-1]
    world.applied.append((world.now, table[1].__class__({"1.0": 10_000}, table[1].generation)))  # somebody else did
    world.refuse["traffic"] = "the router is busy"
    asked = [action.kind for _ in range(20) for action in world.tick().actions]
    assert "traffic" in asked
    assert "remove" not in asked
    world.refuse.clear()
    world.settle()
    assert "1.0" not in world.running


def test_a_release_that_wakes_an_environment_says_at_once_what_it_waits_for() -> None:
    world = World().established("1.0")
    world.send("down")
    world.tick()
    assert world.state.down
    world.deploy("1.1", Strategy("rolling", thresholds=()), behaviour=Behaviour(ready_after=1.0))
    world.tick()
    assert world.release("1.1").status == "queued"
    assert world.release("1.1").waits_for
    world.until("promoted", version="1.1")


def test_a_split_that_lags_behind_a_newer_one_finds_its_version_alive() -> None:
    """The router shows what is wanted all the while, but an older split is still on its way to it."""
    strategy = canary(50, 60.0, thresholds=(), keep_previous=0.0)
    story = Story(
        seconds=400.0, strategy=strategy, plan=EnvironmentPlan("production", judge="none"), sequence=((0.0, 0),),
        faults=(FaultPlan("router_lags", Occasion(at=0.0), 12.0, 60.0),), deeds=(Deed(20.0, "abort"),),
    )  # fmt: skip
    simulation = Simulation(story, checked=True)
    carried = False
    while simulation.step() is not None:
        split = simulation.world.router.split
        carried = carried or split.get("v1", 0) > 0
        assert all(simulation.world.replicas.ready(version) for version in split), split
    assert carried
    assert simulation.world.router.split == {"v0": 10_000}
    assert "v1" not in simulation.world.replicas.running
    assert simulation.state.releases["production-2"].status == "aborted"


def test_a_split_that_was_refused_is_asked_for_until_it_is_taken() -> None:
    strategy = canary(50, 60.0, thresholds=(), keep_previous=0.0)
    story = Story(
        seconds=400.0, strategy=strategy, plan=EnvironmentPlan("production", judge="none"), sequence=((0.0, 0),),
        faults=(
            FaultPlan("router_lags", Occasion(at=0.0), 12.0, 30.0),
            FaultPlan("actions_refused", Occasion(at=19.0), 60.0),
        ),
        deeds=(Deed(20.0, "abort"),),
    )  # fmt: skip
    report = Simulation(story, checked=True)
    report.play()
    assert report.world.router.split == {"v0": 10_000}
    assert report.state.traffic_problem == ""
