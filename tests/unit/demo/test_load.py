"""The demo's traffic counts truthfully: against a real server that answers, fails, breaks off and hangs up."""

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FILE = Path(__file__).parents[3] / "demo" / "load.py"
OK = b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"version":"1"}'
BAD = b'HTTP/1.1 500 Oops\r\nContent-Length: 15\r\n\r\n{"version":"2"}'
PROXY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 8\r\n\r\nno hosts"


@pytest.fixture(scope="module")
def load():
    spec = importlib.util.spec_from_file_location("demo_load_under_test", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def server() -> Iterator[Callable[..., str]]:
    """Return how to start a server that handles each connection with a function; gives its URL."""
    listening: list[socket.socket] = []

    def start(handle: Callable[[socket.socket], None]) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def accept() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=one, args=(connection,), daemon=True).start()

        def one(connection: socket.socket) -> None:
            with connection:
                connection.settimeout(5)
                try:
                    handle(connection)
                except OSError:
                    pass

        threading.Thread(target=accept, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/"

    yield start
    for listener in listening:
        listener.close()


def answering(*answers: bytes) -> Callable[[socket.socket], None]:
    """Give the answers in turn, again and again, to the requests of a connection."""

    def handle(connection: socket.socket) -> None:
        count = 0
        while connection.recv(4096):
            connection.sendall(answers[count % len(answers)])
            count += 1

    return handle


def send(load, url, **settings):
    sender = load.Load(url, **{"rate": 100, "clients": 2, "longest": 5, **settings})
    sender.start()
    time.sleep(0.6)
    return sender.stop()


def test_counts_who_answered_and_what_failed(load, server):
    tally = send(load, server(answering(OK, OK, BAD, PROXY)))
    assert set(tally.requests) == {"1", "2", load.PROXY}
    assert tally.failed["1"] == 0
    assert tally.failed["2"] == tally.requests["2"] > 0
    assert tally.failed[load.PROXY] == tally.requests[load.PROXY] > 0
    assert tally.exposure("2") > 0
    assert tally.exposure("1") == 0


def test_keeps_its_pace_whatever_the_answers(load, server):
    tally = send(load, server(answering(OK)), rate=50)
    assert 20 <= tally.requests.total() <= 40


def test_an_answer_that_breaks_off_has_failed(load, server):
    def half(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OK[:-4])

    tally = send(load, server(half))
    assert tally.failed.total() == tally.requests.total() > 0


def test_nobody_there_has_failed(load):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    tally = send(load, f"http://127.0.0.1:{port}/")
    assert tally.failed.total() == tally.requests.total() > 0


def test_a_connection_closed_while_idle_is_opened_anew(load, server):
    def once(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(OK)

    tally = send(load, server(once), rate=20, clients=1)
    assert tally.requests["1"] > 3
    assert tally.failed.total() == 0


def test_a_count_can_be_taken_from_an_earlier_one(load):
    tally = load.Tally()
    tally.count("1", failed=False, at=1.0)
    before = tally.copy()
    tally.count("1", failed=True, at=2.0)
    tally.count("2", failed=False, at=3.0)
    since = tally.since(before)
    assert dict(since.requests) == {"1": 1, "2": 1}
    assert dict(since.failed) == {"1": 1}
    assert dict(before.requests) == {"1": 1}


@pytest.mark.parametrize("url", ["http://192.0.2.1/", "http://example.invalid:80/"])
def test_sends_to_this_machine_only(load, url):
    with pytest.raises(ValueError, match="this machine only"):
        load.Load(url, rate=1)


def test_ends_by_itself(load, server):
    sender = load.Load(server(answering(OK)), rate=100, clients=2, longest=0.3)
    sender.start()
    sender._thread.join(timeout=5)
    assert not sender._thread.is_alive()
