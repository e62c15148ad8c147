"""Replicas that hang, on virtual time: started anew one at a time, and left alone when it would not help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from forge.adapters.targets.local import reconcile
from forge.adapters.targets.local.processes import ProcessIdentity
from forge.adapters.targets.local.state import AgentState, Replica, Wish
from forge.adapters.targets.local.target import target_config
from forge.model.configs import LocalTargetConfig, Readiness
from forge.model.errors import UsageError
from forge.model.traffic import Version

CONFIG = LocalTargetConfig(
    command=("serve",),
    stop_grace=10.0,
    restart_delay=0.5,
    restart_max_delay=4.0,
    live=Readiness(http="/healthz", failures=3),
)
HANGS = "GET /healthz gave no answer within 2s"


class Machine:
    """An agent without processes. What is condemned ends when told to, or only when it is killed."""

    def __init__(self, replicas: int, **options) -> None:
        self.state = reconcile.want(AgentState(), Wish(Version("1"), replace(CONFIG, **options), replicas))
        self.now = 100.0
        self.pid = 1000
        self.stubborn = False
        self.killed: list[str] = []
        self.step()

    def step(self) -> reconcile.Reconciled:
        decided = reconcile.reconcile(self.state, self.now)
        self.state = decided.state
        for action in decided.actions:
            if action.kind == "start":
                self.pid += 1
                process = ProcessIdentity(self.pid, self.pid, "boot")
                self.state = reconcile.on_started(self.state, action.key, process, self.pid, self.now)
            elif action.kind == "kill":
                self.killed.append(action.key)
                self.exit(action.key, "was killed by SIGKILL")
        return decided

    def exit(self, key: str, how: str) -> None:
        self.state = reconcile.on_exit(self.state, key, how, "", self.now)

    def ready(self, key: str) -> None:
        self.state = reconcile.on_probe(self.state, key, None, self.now)

    def live(self, key: str, reason: str | None) -> None:
        """One liveness check, and the TERM that may follow from it."""
        self.state = reconcile.on_live(self.state, key, reason, self.now)
        if self.replica(key).condemned_at is not None and not self.stubborn:
            self.exit(key, "was killed by SIGTERM")

    def replica(self, key: str) -> Replica:
        return self.state.replicas[key]

    def restarts(self) -> list[int]:
        return [replica.restarts for _, replica in sorted(self.state.replicas.items())]


@pytest.fixture
def machine() -> Machine:
    made = Machine(3)
    for key in made.state.replicas:
        made.ready(key)
    return made


def test_a_replica_that_hangs_is_started_anew_after_so_many_failures_in_a_row(machine) -> None:
    for reason in (HANGS, HANGS, None, HANGS, HANGS):
        machine.live("1/2", reason)
    assert machine.restarts() == [0, 0, 0]
    machine.live("1/2", HANGS)
    assert machine.restarts() == [0, 1, 0]
    assert machine.replica("1/2").message == (
        f"replica 2 hangs: 3 liveness checks in a row failed: {HANGS}; it was killed by SIGTERM; restarting in 0.5s"
    )
    machine.now += 0.5
    assert [action.kind for action in machine.step().actions] == ["start"]
    assert machine.replica("1/2").live_failures == 0


def test_it_leaves_the_proxy_before_it_ends_and_no_probe_brings_it_back(machine) -> None:
    machine.stubborn = True
    for _ in range(3):
        machine.live("1/1", HANGS)
    port = machine.replica("1/1").port
    machine.ready("1/1")
    machine.live("1/1", None)
    assert port not in reconcile.endpoints(machine.state, "1")[0]
    assert machine.step().wake_at == machine.now + CONFIG.stop_grace


def test_what_ignores_term_is_killed_after_its_grace(machine) -> None:
    machine.stubborn = True
    for _ in range(3):
        machine.live("1/1", HANGS)
    machine.now += CONFIG.stop_grace - 0.1
    machine.step()
    assert machine.killed == []
    machine.now += 0.1
    machine.step()
    assert (machine.killed, machine.restarts()) == (["1/1"], [1, 0, 0])


def test_what_has_never_worked_is_starting_and_does_not_hang() -> None:
    machine = Machine(1)
    for _ in range(20):
        machine.live("1/1", HANGS)
    assert machine.restarts() == [0]
    machine.live("1/1", None)
    for _ in range(3):
        machine.live("1/1", HANGS)
    assert machine.restarts() == [1]


def test_without_the_rule_nothing_is_ended() -> None:
    machine = Machine(1, live=None)
    machine.ready("1/1")
    for _ in range(20):
        machine.live("1/1", HANGS)
    assert machine.restarts() == [0]


def test_two_that_hang_are_started_anew_one_after_the_other(machine) -> None:
    for _ in range(5):
        machine.live("1/1", HANGS)
        machine.live("1/2", HANGS)
    assert machine.restarts() == [1, 0, 0]
    machine.now += 0.5
    machine.step()
    machine.live("1/2", HANGS)
    assert machine.restarts() == [1, 0, 0], "the first has not passed yet"
    machine.live("1/1", None)
    machine.live("1/2", HANGS)
    assert machine.restarts() == [1, 1, 0]


def test_a_replica_that_hangs_again_and_again_is_started_ever_later() -> None:
    machine = Machine(1)
    delays = []
    for _ in range(6):
        machine.live("1/1", None)
        for _ in range(3):
            machine.live("1/1", HANGS)
        delays.append(machine.replica("1/1").retry_at - machine.now)
        machine.now += delays[-1]
        machine.step()
    assert delays == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_an_agent_that_comes_back_ends_what_the_one_before_had_condemned(machine) -> None:
    machine.stubborn = True
    for _ in range(3):
        machine.live("1/1", HANGS)
    machine.state = reconcile.adopt(machine.state, set(machine.state.replicas), machine.now)
    machine.now += CONFIG.stop_grace
    machine.step()
    assert machine.killed == ["1/1"]


@given(
    replicas=st.integers(1, 6),
    rounds=st.lists(st.tuples(st.floats(0.1, 20.0), st.booleans()), min_size=1, max_size=60),
    stubborn=st.booleans(),
)
def test_when_what_all_need_is_away_at_most_one_is_ended(replicas, rounds, stubborn) -> None:
    machine = Machine(replicas)
    machine.stubborn = stubborn
    for key in machine.state.replicas:
        machine.ready(key)
    for pause, order in rounds:
        for key in sorted(machine.state.replicas, reverse=order):
            if machine.replica(key).phase == "running":
                machine.live(key, HANGS)
        machine.now += pause
        machine.step()
        for key in machine.state.replicas:
            machine.ready(key)  # which needs nothing
        gone = [one for one in machine.state.replicas.values() if one.restarts or one.condemned_at is not None]
        assert len(gone) <= 1
        assert sum(machine.restarts()) <= 1, "it is not ended again before it has worked again"


@given(st.lists(st.tuples(st.sampled_from(["1/1", "1/2", "1/3"]), st.booleans()), max_size=80))
def test_whatever_the_checks_say_only_one_of_a_version_is_on_its_way_at_a_time(checks) -> None:
    machine = Machine(3)
    for key in machine.state.replicas:
        machine.ready(key)
    for key, well in checks:
        machine.live(key, None if well else HANGS)
        assert sum(one.renewed for one in machine.state.replicas.values()) <= 1
        machine.now += 1.0
        machine.step()


def test_an_option_of_an_earlier_forge_is_no_error_and_an_unknown_one_is() -> None:
    assert target_config({"command": ["a"], "capacity": 250.0}) == LocalTargetConfig(command=("a",))
    with pytest.raises(UsageError, match="no option 'lives'"):
        target_config({"command": ["a"], "lives": {"tcp": True}})
