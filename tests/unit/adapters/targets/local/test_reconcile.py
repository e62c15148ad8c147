"""What happens to replicas, on virtual time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from forge.adapters.targets.local import reconcile
from forge.adapters.targets.local.processes import ProcessIdentity
from forge.adapters.targets.local.state import AgentState, Replica, Wish
from forge.model.configs import LocalTargetConfig, Readiness
from forge.model.traffic import Version

CONFIG = LocalTargetConfig(
    command=("serve",),
    stop_grace=10.0,
    drain=5.0,
    restart_delay=0.5,
    restart_max_delay=4.0,
    ready=Readiness(tcp=True, failures=3),
)


def wish(version: str = "1.0", replicas: int = 2, **options) -> Wish:
    return Wish(Version(version), replace(CONFIG, **options), replicas)


class Machine:
    """An agent without processes: performs actions at once, on its own clock."""

    def __init__(self, *wishes: Wish) -> None:
        self.state = AgentState()
        self.now = 100.0
        self.pid = 1000
        self.terminated: list[str] = []
        self.killed: list[str] = []
        for one in wishes:
            self.state = reconcile.want(self.state, one)

    def step(self, *, idle: frozenset[str] = frozenset()) -> reconcile.Reconciled:
        decided = reconcile.reconcile(self.state, self.now, idle)
        self.state = decided.state
        for action in decided.actions:
            if action.kind == "start":
                self.pid += 1
                process = ProcessIdentity(self.pid, self.pid, "boot")
                self.state = reconcile.on_started(self.state, action.key, process, self.pid, self.now)
            else:
                (self.terminated if action.kind == "terminate" else self.killed).append(action.key)
        return decided

    def ready(self, *keys: str) -> None:
        for key in keys or tuple(self.state.replicas):
            self.state = reconcile.on_probe(self.state, key, None, self.now)

    def exit(self, key: str, how: str = "exited with code 1", tail: str = "") -> None:
        self.state = reconcile.on_exit(self.state, key, how, tail, self.now)

    def after(self, seconds: float) -> Machine:
        self.now += seconds
        return self

    def replica(self, key: str) -> Replica:
        return self.state.replicas[key]

    @property
    def ports(self) -> tuple[list[int], list[int]]:
        return reconcile.endpoints(self.state, "1.0")


@pytest.fixture
def machine() -> Machine:
    machine = Machine(wish())
    machine.step()
    machine.ready()
    return machine


def test_wanted_replicas_are_started_once() -> None:
    machine = Machine(wish(replicas=3))
    assert [action.kind for action in machine.step().actions] == ["start"] * 3
    assert machine.step().actions == ()
    assert sorted(machine.state.replicas) == ["1.0/1", "1.0/2", "1.0/3"]


def test_a_replica_gets_traffic_only_when_it_is_ready() -> None:
    machine = Machine(wish(replicas=1))
    machine.step()
    assert machine.ports == ([], [])
    machine.ready()
    assert machine.ports == ([machine.replica("1.0/1").port], [])


def test_a_few_failed_probes_are_forgiven_and_then_it_is_not_ready(machine) -> None:
    for failed in range(1, 4):
        machine.state = reconcile.on_probe(machine.state, "1.0/1", "GET / answered 500", machine.now)
        assert machine.replica("1.0/1").ready == (failed < 3)
    assert machine.replica("1.0/1").message == "replica 1 is not ready: GET / answered 500"
    machine.ready("1.0/1")
    assert machine.replica("1.0/1").failures == 0
    assert machine.replica("1.0/1").message == ""


def test_one_good_probe_forgets_the_failed_ones(machine) -> None:
    for reason in ("no", "no", None, "no", "no"):
        machine.state = reconcile.on_probe(machine.state, "1.0/1", reason, machine.now)
    assert machine.replica("1.0/1").ready


def test_back_off_doubles_up_to_its_limit_and_begins_anew_after_a_good_while() -> None:
    machine = Machine(wish(replicas=1))
    delays = []
    for _ in range(6):
        machine.step()
        machine.exit("1.0/1")
        decided = machine.step()
        delays.append(decided.wake_at - machine.now)
        assert decided.actions == ()
        machine.after(delays[-1])
    assert delays == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]
    machine.step()
    machine.ready()
    machine.after(reconcile.STEADY).exit("1.0/1")
    assert machine.step().wake_at - machine.now == 0.5
    assert machine.replica("1.0/1").restarts == 7


def test_a_long_outage_does_not_overflow() -> None:
    machine = Machine(wish(replicas=1))
    machine.step()
    machine.state = reconcile.AgentState(
        wishes=machine.state.wishes, replicas={"1.0/1": replace(machine.replica("1.0/1"), crashes=100_000)}
    )
    machine.exit("1.0/1")
    assert machine.replica("1.0/1").retry_at == machine.now + 4.0


def test_an_exit_is_told_with_its_last_log_lines(machine) -> None:
    machine.after(1.5).exit("1.0/2", "was killed by SIGKILL", "out of memory | bye")
    count = reconcile.count(machine.state)["1.0"]
    assert (count.desired, count.running, count.ready, count.restarts) == (2, 1, 1, 1)
    assert count.message == (
        "replica 2 was killed by SIGKILL after 1.5s; last log lines: out of memory | bye; restarting in 0.5s"
    )


def test_a_replica_keeps_its_port_over_restarts(machine) -> None:
    port = machine.replica("1.0/1").port
    machine.exit("1.0/1")
    assert machine.replica("1.0/1").port == port


def test_scaling_down_drains_then_terminates_then_kills(machine) -> None:
    machine.state = reconcile.want(machine.state, wish(replicas=1))
    assert machine.step().wake_at == machine.now + 5.0
    leaving = machine.replica("1.0/2")
    assert machine.ports == ([machine.replica("1.0/1").port], [leaving.port])
    assert machine.terminated == []
    machine.after(5.0).step()
    assert machine.terminated == ["1.0/2"]
    assert machine.ports == ([machine.replica("1.0/1").port], [])
    machine.after(9.9).step()
    assert machine.killed == []
    machine.after(0.1).step()
    machine.step()
    assert machine.killed == ["1.0/2"]
    machine.exit("1.0/2", "was killed by SIGKILL")
    machine.step()
    assert list(machine.state.replicas) == ["1.0/1"]


def test_draining_ends_early_when_nothing_is_in_flight(machine) -> None:
    machine.state = reconcile.want(machine.state, wish(replicas=1))
    machine.step()
    machine.after(0.1).step(idle=frozenset({"1.0/2"}))
    assert machine.terminated == ["1.0/2"]


def test_scaling_down_prefers_what_is_not_ready(machine) -> None:
    machine.exit("1.0/1")
    machine.state = reconcile.want(machine.state, wish(replicas=1))
    machine.step()
    assert list(machine.state.replicas) == ["1.0/2"]
    assert machine.replica("1.0/2").ready


def test_a_removed_version_is_forgotten_when_its_last_replica_is_gone(machine) -> None:
    machine.state = reconcile.unwant(machine.state, "1.0")
    machine.step(idle=frozenset({"1.0/1", "1.0/2"}))
    assert reconcile.count(machine.state)["1.0"].desired == 0
    machine.step(idle=frozenset({"1.0/1", "1.0/2"}))
    for key in machine.terminated:
        machine.exit(key, "exited with code 0")
    machine.step()
    assert machine.state.wishes == machine.state.replicas == {}


def test_a_version_wanted_again_while_it_leaves_gets_new_replicas(machine) -> None:
    machine.state = reconcile.unwant(machine.state, "1.0")
    machine.step()
    machine.state = reconcile.want(machine.state, wish())
    machine.step()
    assert sorted(machine.state.replicas) == ["1.0/1", "1.0/2", "1.0/3", "1.0/4"]
    assert reconcile.count(machine.state)["1.0"].running == 2


def test_zero_replicas_keep_the_version(machine) -> None:
    machine.state = reconcile.want(machine.state, wish(replicas=0))
    machine.step()
    machine.after(5.0).step()
    for key in list(machine.state.replicas):
        machine.exit(key)
    machine.step()
    assert machine.state.replicas == {}
    assert reconcile.count(machine.state)["1.0"].desired == 0


def test_an_agent_that_takes_over_restarts_only_what_is_gone(machine) -> None:
    after = reconcile.adopt(machine.state, {"1.0/1"}, machine.now)
    assert after.replicas["1.0/1"] == machine.replica("1.0/1")
    assert after.replicas["1.0/2"].phase == "waiting"
    assert "was gone when the agent came back" in after.replicas["1.0/2"].message


def test_after_a_reboot_no_time_lies_in_the_future(machine) -> None:
    machine.exit("1.0/1")
    after = reconcile.adopt(machine.state, set(), 1.0)
    for replica in after.replicas.values():
        assert replica.since <= 1.0
        assert replica.started_at <= 1.0
        assert replica.retry_at <= 1.0 + CONFIG.restart_max_delay


def test_news_of_a_replica_that_is_gone_change_nothing(machine) -> None:
    assert reconcile.on_exit(machine.state, "9.9/1", "exited", "", 1.0) == machine.state
    assert reconcile.on_probe(machine.state, "9.9/1", None, 1.0) == machine.state
    assert reconcile.unwant(machine.state, "9.9") == machine.state


@given(st.integers(0, 6), st.integers(0, 6))
def test_going_from_any_size_to_any_size_ends_there(before: int, after: int) -> None:
    machine = Machine(wish(replicas=before))
    machine.step()
    machine.ready()
    machine.state = reconcile.want(machine.state, wish(replicas=after))
    for _ in range(4):
        machine.step(idle=frozenset(machine.state.replicas))
        for key in machine.terminated:
            machine.exit(key)
        machine.terminated.clear()
    assert len(machine.state.replicas) == after
    assert reconcile.count(machine.state)["1.0"].running == after


class AnyHistory(RuleBasedStateMachine):
    """Wishes, exits, probes, time and takeovers in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = Machine()
        self.actions_for_gone: list[str] = []

    @rule(version=st.sampled_from(["1.0", "1.1"]), replicas=st.integers(0, 4))
    def want(self, version: str, replicas: int) -> None:
        self.machine.state = reconcile.want(self.machine.state, wish(version, replicas))

    @rule(version=st.sampled_from(["1.0", "1.1"]))
    def unwant(self, version: str) -> None:
        self.machine.state = reconcile.unwant(self.machine.state, version)

    @rule(seconds=st.floats(0, 20), idle=st.booleans())
    def step(self, seconds: float, idle: bool) -> None:
        before = self.machine.state
        self.machine.after(seconds).step(idle=frozenset(before.replicas) if idle else frozenset())

    @precondition(lambda self: self.machine.state.replicas)
    @rule(data=st.data(), reason=st.one_of(st.none(), st.just("no")))
    def probe(self, data, reason) -> None:
        key = data.draw(st.sampled_from(sorted(self.machine.state.replicas)))
        self.machine.state = reconcile.on_probe(self.machine.state, key, reason, self.machine.now)

    @precondition(lambda self: any(r.process for r in self.machine.state.replicas.values()))
    @rule(data=st.data())
    def exit(self, data) -> None:
        running = sorted(key for key, r in self.machine.state.replicas.items() if r.process)
        self.machine.exit(data.draw(st.sampled_from(running)))

    @rule(data=st.data())
    def takeover(self, data) -> None:
        running = sorted(key for key, r in self.machine.state.replicas.items() if r.process)
        alive = set(data.draw(st.lists(st.sampled_from(running)))) if running else set()
        saved = msgspec.json.decode(msgspec.json.encode(self.machine.state), type=AgentState)
        assert saved == self.machine.state
        self.machine.state = reconcile.adopt(saved, alive, self.machine.now)

    @invariant()
    def only_ready_running_replicas_get_requests(self) -> None:
        for version in self.machine.state.wishes:
            ready, leaving = reconcile.endpoints(self.machine.state, version)
            here = {r.port: r for r in self.machine.state.replicas.values() if r.version == version and r.process}
            assert all(here[port].ready and here[port].phase == "running" for port in ready)
            assert not set(ready) & set(leaving)

    @invariant()
    def counts_add_up(self) -> None:
        for count in reconcile.count(self.machine.state).values():
            assert 0 <= count.ready <= count.running

    @invariant()
    def no_replica_is_an_orphan(self) -> None:
        assert {r.version for r in self.machine.state.replicas.values()} <= self.machine.state.wishes.keys()

    @invariant()
    def something_will_happen_to_what_waits(self) -> None:
        decided = reconcile.reconcile(self.machine.state, self.machine.now)
        for key, replica in decided.state.replicas.items():
            acted = any(action.key == key for action in decided.actions)
            settled = replica.phase == "running" or replica.killed or replica.process is None
            assert acted or settled or decided.wake_at is not None

    @invariant()
    def nothing_is_terminated_that_did_not_leave_the_proxy_first(self) -> None:
        before = self.machine.state
        for action in reconcile.reconcile(before, self.machine.now).actions:
            if action.kind != "start":
                assert before.replicas[action.key].phase in ("draining", "stopping")


TestAnyHistory = AnyHistory.TestCase
