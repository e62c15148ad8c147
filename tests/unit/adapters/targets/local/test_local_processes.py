"""Processes told apart for certain, and started so that none is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.targets.local import processes, replicas
from forge.adapters.targets.local.processes import ProcessIdentity, ProcessStat


def wait_for(condition, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


@given(st.text(st.characters(blacklist_characters="\0"), max_size=15))
def test_a_stat_line_is_read_whatever_the_command_is_called(name: str) -> None:
    fields = ["S", "7", "7", "42", "0", "-1", "0", "0", "0", "0", "0", "100", "50", "30", "20", *["0"] * 4, "0"]
    stat = processes.parse_stat(f"42 ({name}) " + " ".join([*fields[:19], "777", "0", "3"]))
    assert (stat.pid, stat.state, stat.parent, stat.session, stat.started) == (42, "S", 7, 42, 777)
    assert stat.memory == 3 * os.sysconf("SC_PAGE_SIZE")
    assert stat.cpu_seconds == pytest.approx(200 / os.sysconf("SC_CLK_TCK"))


def test_our_own_process_is_read_as_it_is() -> None:
    stat = processes.stat_of(os.getpid())
    assert stat.parent == os.getppid()
    assert stat.session == os.getsid(0)
    assert stat.memory > 1_000_000
    assert os.getpid() in {one.pid for one in processes.all_stats()}


@pytest.mark.parametrize("text", ["", "42 (sh", "42 (sh) S 1"])
def test_what_is_no_stat_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        processes.parse_stat(text)


def test_a_pid_that_changed_hands_is_somebody_else(sleeper) -> None:
    identity = processes.identify(sleeper.pid)
    assert processes.is_alive(identity)
    for impostor in (
        ProcessIdentity(identity.pid, identity.started + 1, identity.boot),
        ProcessIdentity(identity.pid, identity.started, "another boot"),
    ):
        assert not processes.is_alive(impostor)
        assert processes.watch(impostor) is None
        processes.signal_group(impostor, signal.SIGKILL)
    assert sleeper.poll() is None


def test_a_zombie_is_dead(sleeper) -> None:
    identity = processes.identify(sleeper.pid)
    sleeper.send_signal(signal.SIGKILL)
    wait_for(lambda: processes.stat_of(sleeper.pid).state == "Z")
    assert not processes.is_alive(identity)
    assert processes.identify(sleeper.pid) is None


def test_leftovers_are_killed_only_with_the_mark(tmp_path) -> None:
    script = "sleep 600 & sleep 600 & wait"
    leader = subprocess.Popen(["sh", "-c", script], env={"PATH": os.defpath, "MARK": "yes"}, start_new_session=True)
    identity = processes.identify(leader.pid)

    def members() -> list[int]:
        return [one.pid for one in processes.all_stats() if one.session == leader.pid and one.state != "Z"]

    wait_for(lambda: len(members()) == 3)
    leader.kill()
    leader.wait()
    assert processes.kill_leftovers(identity, "MARK=no") == []
    assert len(members()) == 2
    assert len(processes.kill_leftovers(identity, "MARK=yes")) == 2
    wait_for(lambda: members() == [])


def test_a_tree_has_all_descendants_and_the_rest_of_the_session() -> None:
    def stat(pid: int, parent: int, session: int) -> ProcessStat:
        return ProcessStat(pid, "S", parent, session, pid, 1.0, 1)

    stats = [stat(10, 1, 10), stat(11, 10, 10), stat(12, 11, 12), stat(13, 1, 10), stat(20, 1, 20), stat(21, 20, 20)]
    found = processes.trees([10, 20, 30], stats)
    assert {root: sorted(one.pid for one in tree) for root, tree in found.items()} == {
        10: [10, 11, 12, 13],
        20: [20, 21],
        30: [],
    }


def test_a_command_waits_at_the_gate_until_it_may_go(tmp_path) -> None:
    mark, log = tmp_path / "mark", tmp_path / "logs" / "1.log"
    gate = replicas.start_gated(["sh", "-c", f"echo ran; touch {mark}"], env={}, cwd=tmp_path, log=log)
    assert processes.is_alive(gate.identity)
    assert os.getsid(gate.identity.pid) == gate.identity.pid
    time.sleep(0.1)
    assert not mark.exists()
    gate.go()
    assert gate.process.wait(10) == 0
    assert mark.exists()
    assert log.read_text() == "ran\n"


def test_a_dropped_gate_runs_nothing(tmp_path) -> None:
    mark = tmp_path / "mark"
    gate = replicas.start_gated(["touch", str(mark)], env={"PATH": os.defpath}, cwd=tmp_path, log=tmp_path / "log")
    gate.drop()
    assert not mark.exists()
    assert not processes.is_alive(gate.identity)


def test_a_starter_that_is_killed_at_the_gate_leaves_no_process(tmp_path) -> None:
    """The moment between a fork and its record, as a kill -9 hits it."""
    mark = tmp_path / "mark"
    code = (
        "import sys, time; from pathlib import Path; from forge.adapters.targets.local.replicas import start_gated\n"
        f"gate = start_gated(['touch', {str(mark)!r}], env={{}}, cwd=Path('/'), log=Path({str(tmp_path / 'log')!r}))\n"
        "print(gate.identity.pid, flush=True); time.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    waiting = int(starter.stdout.readline())
    starter.kill()
    starter.wait()
    starter.stdout.close()
    wait_for(lambda: processes.identify(waiting) is None)
    assert not mark.exists()


def test_a_missing_folder_is_an_error_and_no_process(tmp_path) -> None:
    with pytest.raises(OSError):
        replicas.start_gated(["true"], env={}, cwd=tmp_path / "none", log=tmp_path / "log")


def test_the_environment_passed_on_has_nothing_of_ours(monkeypatch) -> None:
    for name in ("FORGE_WORKER", "FORGE_STEP", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD"):
        monkeypatch.setenv(name, "x")
    passed = replicas.clean_environment()
    assert "PATH" in passed
    assert not {"FORGE_WORKER", "FORGE_STEP", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "LD_PRELOAD"} & passed.keys()


def test_a_port_in_use_is_not_free() -> None:
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert not replicas.port_is_free(port)
    assert replicas.port_is_free(port)
    assert replicas.choose_port({port}) != port


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "was killed by SIGKILL"),
        (-60, "was killed by signal 60"),
        (None, "ended (its exit code is not known: an earlier agent had started it)"),
    ],
)
def test_exits_in_words(status: int | None, words: str) -> None:
    assert replicas.describe_exit(status) == words
