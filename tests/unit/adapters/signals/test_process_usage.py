"""CPU time that never falls and counts nobody twice, over processes that come and go."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.signals.process import ProcessUsage
from forge.adapters.targets.local.processes import ProcessStat

MB = 1_000_000


def stat(pid: int, cpu: float, *, parent: int = 1, session: int | None = None, memory: int = MB) -> ProcessStat:
    return ProcessStat(pid, "S", parent, session or pid, pid * 10, cpu, memory)


def used(usage: ProcessUsage, stats: list[ProcessStat], **replicas: int) -> float:
    return usage.take({"1.0": replicas}, stats, ["1.0"])["1.0"].cpu_seconds


def test_replicas_and_their_children_are_added_up() -> None:
    stats = [stat(10, 1.0, memory=5 * MB), stat(11, 2.0, parent=10, session=10, memory=7 * MB), stat(20, 4.0)]
    read = ProcessUsage().take({"1.0": {"1": 10, "2": 20}, "1.1": {}}, stats, ["1.0", "1.1"])
    assert read["1.0"].cpu_seconds == 7.0
    assert read["1.0"].memory == 12 * MB
    assert (read["1.1"].cpu_seconds, read["1.1"].memory) == (0.0, None)


def test_a_child_that_ends_is_not_counted_twice() -> None:
    usage = ProcessUsage()
    assert used(usage, [stat(10, 1.0), stat(11, 5.0, parent=10)], a=10) == 6.0
    assert used(usage, [stat(10, 6.5)], a=10) == pytest.approx(6.5)


def test_a_replica_that_ends_stays_counted() -> None:
    usage = ProcessUsage()
    assert used(usage, [stat(10, 5.0), stat(20, 1.0)], a=10, b=20) == 6.0
    assert used(usage, [stat(20, 1.5)], b=20) == 6.5
    assert used(usage, [stat(20, 1.5), stat(30, 0.25)], a=30, b=20) == 6.75


def test_another_reader_goes_on_from_a_saved_state() -> None:
    usage = ProcessUsage()
    used(usage, [stat(10, 5.0)], a=10)
    again = ProcessUsage()
    again.restore(json.loads(json.dumps(usage.state())))
    assert used(again, [stat(10, 5.5)], a=10) == 5.5


@given(st.lists(st.lists(st.tuples(st.integers(10, 14), st.floats(0, 100)), max_size=4), max_size=12))
def test_no_look_at_the_machine_makes_it_fall(looks) -> None:
    usage = ProcessUsage()
    before = 0.0
    for look in looks:
        stats = [stat(pid, cpu) for pid, cpu in dict(look).items()]
        now = used(usage, stats, **{str(one.pid): one.pid for one in stats})
        assert now >= before
        before = now
