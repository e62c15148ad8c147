"""Everything at once, in any order: commands, slow and broken replicas, a lagging router, missing data, crashes.

`world.check_invariants` holds at every tick; here are the orders of events that try to break it.
"""

from __future__ import annotations

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from world import Behaviour, World, canary

from forge.core.release.decide import decide
from forge.core.release.state import RELEASE_FINAL, EnvironmentState
from forge.model.decision import Outcome
from forge.model.strategy import Strategy, Threshold

STRATEGIES = (
    Strategy(bake=2.0),
    Strategy(max_surge=0, max_unavailable=1, keep_previous=5.0),
    Strategy(max_surge=2, max_unavailable=1, thresholds=()),
    canary(5, 3.0, 50, 2.0, bake=3.0, keep_previous=6.0, patience=20.0, progress_deadline=20.0),
    canary(10, "resume", 40, {"required": 1}, 80, 1.0, patience=10.0, progress_deadline=15.0),
    canary(
        50,
        5.0,
        auto_promote=False,
        thresholds=(Threshold("error_rate", 0.05, 300.0, minimum_requests=50),),
        patience=8.0,
    ),
    canary(100, 2.0, bake=2.0, warm_up=2.0),
    canary(2.0, name="blue_green", bake=4.0, keep_previous=10.0),
    canary({"required": 2}, name="blue_green", auto_promote=False),
)
BEHAVIOURS = (
    Behaviour(), Behaviour(), Behaviour(ready_after=5.0), Behaviour(failure_rate=0.3), Behaviour(never_ready=True),
    Behaviour(crash_loops=True), Behaviour(failure_rate=0.01),
)  # fmt: skip
COMMANDS = ("promote", "pause", "resume", "abort", "retry", "undo", "rollback", "approve", "nonsense")


class ReleaseMachine(RuleBasedStateMachine):
    """One environment and everything that can happen to it."""

    @initialize(
        rps=st.sampled_from([0, 7, 100, 1000]),
        replicas=st.integers(1, 4),
        policy=st.sampled_from([{}, {}, {"on_overlap": "queue"}, {"on_overlap": "supersede"}, {"max_arms": 2}]),
        begun=st.booleans(),
    )
    def open(self, rps: int, replicas: int, policy: dict[str, object], begun: bool) -> None:
        self.world = World(rps=rps, replicas=replicas, policy=policy)
        self.deployed = 0
        if begun:
            self.world.established()

    @rule(strategy=st.sampled_from(STRATEGIES), behaviour=st.sampled_from(BEHAVIOURS), again=st.booleans())
    def deploy(self, strategy: Strategy, behaviour: Behaviour, again: bool) -> None:
        if not again or not self.deployed:
            self.deployed += 1
        self.world.deploy(f"2.{self.deployed}", strategy, behaviour=behaviour)

    @rule(
        kind=st.sampled_from(COMMANDS), actor=st.sampled_from(["ada", "bob"]), full=st.booleans(), named=st.booleans()
    )
    def command(self, kind: str, actor: str, full: bool, named: bool) -> None:
        payload: dict[str, object] = {"full": full} if kind == "promote" else {}
        if named and kind == "rollback" and self.world.state.previous:
            payload["to"] = self.world.state.previous[-1]
        elif named and self.world.state.releases:
            payload["release"] = self.world.release().id
        self.world.send(kind, actor, **payload)

    @rule(ticks=st.integers(1, 12))
    def time_passes(self, ticks: int) -> None:
        self.world.run(ticks)

    @rule(
        what=st.sampled_from(["metrics_away", "target_away", "router_away", "lose_actions"]), ticks=st.integers(1, 15)
    )
    def something_is_away(self, what: str, ticks: int) -> None:
        setattr(self.world, what, True)
        self.world.run(ticks)
        setattr(self.world, what, False)

    @rule(lag=st.sampled_from([0.0, 0.0, 1.0, 4.0]))
    def router_lags(self, lag: float) -> None:
        self.world.router_lag = lag

    @rule(index=st.integers(0, 5), broken=st.integers(0, 4), ticks=st.integers(1, 5))
    def replicas_break(self, index: int, broken: int, ticks: int) -> None:
        versions = sorted(self.world.running)
        if versions:
            running = self.world.running[versions[index % len(versions)]]
            running.broken = broken
            self.world.run(ticks)
            running.broken = 0

    @rule(index=st.integers(0, 5), hidden=st.booleans())
    def one_version_without_metrics(self, index: int, hidden: bool) -> None:
        versions = sorted(self.world.running)
        if versions and hidden:
            self.world.hidden = {versions[index % len(versions)]}
        else:
            self.world.hidden = set()

    @rule(index=st.integers(0, 5), rate=st.sampled_from([0.0, 0.5]))
    def a_version_turns(self, index: int, rate: float) -> None:
        versions = sorted(self.world.running)
        if versions:
            version = versions[index % len(versions)]
            self.world.behaviour[version] = Behaviour(failure_rate=rate)

    @rule(kind=st.sampled_from(["traffic", "ensure", "remove"]), ticks=st.integers(1, 7))
    def the_world_refuses(self, kind: str, ticks: int) -> None:
        self.world.refuse = {kind: "no space left on device"}
        self.world.run(ticks)
        self.world.refuse = {}

    @rule()
    def forge_is_killed(self) -> None:
        """What was not written is lost; outcomes come again, late, and for actions long forgotten."""
        encoded = msgspec.json.encode(self.world.state)
        self.world.state = msgspec.json.decode(encoded, type=EnvironmentState)
        self.world.outcomes += [
            *self.world.outcomes,
            Outcome("ensure#1:2.1", "lost", self.world.now),
            Outcome("odd", "error", 0.0),
        ]

    @invariant()
    def same_input_same_decision(self) -> None:
        world = self.world
        observation, commands = world.observe(), tuple(world.inbox)
        first = decide(world.state, observation, commands, (), world.now)
        assert decide(world.state, observation, commands, (), world.now) == first

    def teardown(self) -> None:
        """With the world in order again, every release ends, or waits for a person and says so."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.router_lag, world.hidden = 0.0, set()
        for version in world.behaviour:
            world.behaviour[version] = Behaviour()
        world.run(60)
        for _ in range(8):
            if all(release.status in RELEASE_FINAL for release in world.state.releases.values()):
                break
            for release in world.state.releases.values():
                waiting = release.status in {"paused", "waiting_approval", "queued"} or release.waits_for
                assert release.status in RELEASE_FINAL or waiting, release
            world.send("abort")
            world.run(60)
        assert all(release.status in RELEASE_FINAL for release in world.state.releases.values()), world.log[-30:]
        world.settle()
        serving = {world.state.stable} if world.state.stable else set()
        assert set(world.asked) == set(world.split) == serving, (world.asked, world.split)
        assert set(world.running) == serving


ReleaseMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=15, deadline=None)
TestReleaseMachine = ReleaseMachine.TestCase


def _going_back() -> World:
    """1.4 is stable, and somebody has asked to go back to 1.3, which has to be started first."""
    world = World().established("1.3")
    world.deploy("1.4", canary(50, 1.0, keep_previous=0.0))
    world.until("promoted", version="1.4")
    world.settle()
    world.behaviour["1.3"] = Behaviour(ready_after=20.0)
    world.send("undo")
    world.run(3)
    assert world.release("1.3").status == "promoting"
    return world


def test_asking_twice_to_go_back_does_not_end_the_way_back() -> None:
    world = _going_back()
    world.send("undo")
    world.send("rollback")
    decision = world.tick()
    assert [event.kind for event in decision.events].count("command_without_effect") == 2
    assert "goes back to 1.3 already; `forge release abort production` stops that" in decision.events[0].message
    world.until("promoted", version="1.3")
    assert world.settle().asked == {"1.3": 10_000}


def test_who_stops_the_way_back_has_not_rolled_back_what_is_stable() -> None:
    world = _going_back()
    assert world.state.versions["1.4"].faulted
    world.send("abort")
    world.until("aborted", version="1.3")
    assert world.state.stable == "1.4"
    assert not world.state.versions["1.4"].faulted
    world.deploy("1.5", canary(50, 1.0, keep_previous=0.0))
    world.until("promoted", version="1.5")
    world.settle()
    world.send("undo")
    world.run(2)
    assert world.release().version == "1.4"
