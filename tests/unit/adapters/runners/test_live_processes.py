"""Finding processes in /proc."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from forge.adapters.runners.live_processes import alive, group_exists, send, send_group


@pytest.fixture
def sleeper():
    started = []

    def start(*argv: str, **env: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            argv or ("sleep", "60"), env={"PATH": os.environ["PATH"], **env}, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_cookie_must_match_whole(sleeper):
    process = sleeper(COOKIE="run-1", OTHER="x")
    assert alive(0, {"COOKIE": "run-1"}) == [process.pid]
    assert alive(0, {"COOKIE": "run-1", "OTHER": "x"}) == [process.pid]
    assert alive(0, {"COOKIE": "run-1", "OTHER": "y"}) == []
    assert alive(0, {"COOKIE": "run-"}) == []
    assert alive(0, {"OOKIE": "run-1"}) == []


def test_no_cookie_and_no_session_is_nobody(sleeper):
    sleeper()
    assert alive(0, {}) == []


def test_a_session_is_found_whatever_the_command_is_called(sleeper, tmp_path):
    odd = tmp_path / "a) R 1 (b c"
    odd.symlink_to("/bin/sleep")
    process = sleeper(str(odd), "60")
    assert alive(process.pid, {}) == [process.pid]


def test_zombies_are_not_alive_but_their_group_exists(sleeper):
    process = sleeper("sleep", "60", COOKIE="zombie")
    send([process.pid], signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert alive(process.pid, {"COOKIE": "zombie"}) == []
    assert group_exists(process.pid)
    process.wait()
    assert not group_exists(process.pid)


def test_signals_to_what_is_gone_are_no_error(sleeper):
    process = sleeper("true")
    process.wait()
    send([process.pid], signal.SIGTERM)
    send_group(process.pid, signal.SIGTERM)


def test_a_signal_reaches_the_whole_group(sleeper):
    process = sleeper("sh", "-c", "sleep 60 & wait", COOKIE="group")
    while len(alive(0, {"COOKIE": "group"})) < 2:
        pass
    send_group(process.pid, signal.SIGKILL)
    process.wait()
    while alive(0, {"COOKIE": "group"}):
        pass
