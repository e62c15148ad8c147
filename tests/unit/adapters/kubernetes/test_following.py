"""Reading a log that breaks off: every line once, in order, whatever breaks where."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes import following
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.following import Position, Reader, follow
from forge.model.configs import KubernetesAccess

BASE = 1_700_000_000


def stamped(second: int, text: bytes, *, fraction: str = ".5", zone: str = "Z") -> bytes:
    import time

    return time.strftime(f"%Y-%m-%dT%H:%M:%S{fraction}{zone} ", time.gmtime(BASE + second)).encode() + text + b"\n"


def since(position: Position) -> int:
    return min(position.lines) - BASE if position.lines else -1


class Kept:
    def __init__(self) -> None:
        self.data = b""

    def __call__(self, data: bytes) -> None:
        self.data += data


def test_lines_lose_their_stamps_and_nothing_else() -> None:
    kept = Kept()
    reader = Reader(Position(), kept)
    reader.begin()
    reader.feed(stamped(0, b"one") + stamped(0, b"") + stamped(1, b"  \x1b[31mred\x1b[0m \xff", fraction=""))
    assert kept.data == b"one\n\n  \x1b[31mred\x1b[0m \xff\n"


def test_a_line_comes_when_it_is_whole_and_a_log_may_end_without_a_line_end() -> None:
    kept = Kept()
    reader = Reader(Position(), kept)
    reader.begin()
    line = stamped(0, b"in pieces")
    for byte in range(len(line) - 1):
        reader.feed(line[byte : byte + 1])
    assert kept.data == b""
    reader.end()
    assert kept.data == b"in pieces"


def test_words_of_the_cluster_without_a_stamp_are_passed_on() -> None:
    kept = Kept()
    reader = Reader(Position(), kept)
    reader.begin()
    reader.feed(b"unable to retrieve container logs\n")
    assert kept.data == b"unable to retrieve container logs\n"


def test_a_line_that_never_ends_is_passed_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LONGEST_LINE", 64)
    kept = Kept()
    reader = Reader(Position(), kept)
    reader.begin()
    line = stamped(0, b"x" * 500)
    for start in range(0, len(line), 50):
        reader.feed(line[start : start + 50])
    reader.feed(stamped(0, b"next"))
    assert kept.data == b"x" * 500 + b"\nnext\n"


def test_zones_are_understood() -> None:
    reader = Reader(Position(), Kept())
    reader.begin()
    reader.feed(b"2023-11-15T00:13:20+02:00 a\n")
    assert reader.position.newest == BASE
    reader.feed(b"2023-11-14T20:13:20.25-02:00 b\n")
    assert reader.position.lines == {BASE: 2}
    assert reader.position.since == "2023-11-14T22:13:20Z"


def test_a_rotated_log_does_not_swallow_what_is_new() -> None:
    kept = Kept()
    reader = Reader(Position(), kept)
    reader.begin()
    reader.feed(b"".join(stamped(5, b"old") for _ in range(3)))
    reader.begin()
    reader.feed(stamped(9, b"new"))  # what was seen is in a file that is not read any more
    assert kept.data.endswith(b"new\n")


logs = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([b"a", b"b", b""])), max_size=40)


@given(logs, st.lists(st.integers(0, 2000), max_size=6), st.booleans(), st.integers(1, 40))
def test_every_line_comes_once_wherever_the_connection_breaks(
    steps: list[tuple[int, bytes]], breaks: list[int], restarted: bool, slice_size: int
) -> None:
    """The log grows with time; stamps may be a little out of order, as two streams make them."""
    second, lines = 10, []
    for step, text in steps:
        second += step
        lines.append((second - (1 if step == 2 and len(lines) % 3 == 0 else 0), text))
    kept, position = Kept(), Position()
    reader = Reader(position, kept)
    for cut in [*breaks, None]:
        offered = b"".join(stamped(at, text) for at, text in lines if at >= since(reader.position))
        reader.begin()
        part = offered if cut is None else offered[: cut % (len(offered) + 1)]
        for start in range(0, len(part), slice_size):
            reader.feed(part[start : start + slice_size])
        if restarted:
            again = msgspec.json.decode(msgspec.json.encode(reader.position), type=Position)
            reader = Reader(again, kept)
    assert kept.data == b"".join(text + b"\n" for _, text in lines)


class Api:
    """Answers for a pod's log: each time with the next of what it was told; an exception breaks the connection."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[dict[str, str]] = []

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(dict(request.url.params))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, int):
            return httpx2.Response(answer, json={"kind": "Status", "message": "busy"})

        async def body() -> Any:
            for part in answer:
                if isinstance(part, Exception):
                    raise part
                yield part

        return httpx2.Response(200, content=body())


def cluster(api: Api, tmp_path: Any) -> Cluster:
    config = tmp_path / "kubeconfig"
    config.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: t\nclusters: [{name: t, cluster: {server: 'http://127.0.0.1:1'}}]\n"
        "contexts: [{name: t, context: {cluster: t, user: t, namespace: shop}}]\nusers: [{name: t, user: {}}]\n"
    )
    return Cluster(KubernetesAccess(kubeconfig=str(config)), transport=httpx2.MockTransport(api))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(following, "LONGEST_PAUSE", 0.04)


async def test_a_broken_connection_is_made_anew_from_where_it_was(tmp_path: Any) -> None:
    first, second, third = stamped(0, b"one"), stamped(0, b"two"), stamped(3, b"three")
    api = Api([first, httpx2.ReadError("reset")], 503, [first, second], [first, second, third])
    kept = Kept()
    await follow(cluster(api, tmp_path), "pod", "step", Reader(Position(), kept), lambda: len(api.asked) >= 3)
    assert kept.data == b"one\ntwo\nthree\n"
    assert "sinceTime" not in api.asked[0]
    assert api.asked[1]["sinceTime"] == "2023-11-14T22:13:20Z"
    assert api.asked[0]["follow"] == "true"
    assert "follow" not in api.asked[-1]


async def test_the_log_is_read_once_more_when_the_container_has_ended(tmp_path: Any) -> None:
    """The stream may end a moment before the last line is in the file."""
    api = Api([stamped(0, b"one")], [stamped(0, b"one"), stamped(0, b"last")])
    kept = Kept()
    await follow(cluster(api, tmp_path), "pod", "step", Reader(Position(), kept), lambda: len(api.asked) >= 1)
    assert kept.data == b"one\nlast\n"


async def test_a_log_whose_node_is_gone_ends_by_itself(tmp_path: Any) -> None:
    api = Api(500)
    kept = Kept()
    async with asyncio.timeout(20):
        await follow(cluster(api, tmp_path), "pod", "step", Reader(Position(), kept), lambda: True)
    assert kept.data == b""


async def test_how_far_it_was_read_is_told(tmp_path: Any) -> None:
    told: list[int] = []
    api = Api([stamped(0, b"one"), stamped(4, b"two")])
    await follow(
        cluster(api, tmp_path), "pod", "step", Reader(Position(), Kept()), lambda: True,
        changed=lambda position: told.append(position.newest - BASE),
    )  # fmt: skip
    assert told[-1] == 4
