"""Logs of steps by the API: pieces, whole files however long, and what a viewer may not do."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forge.model.errors import UsageError
from forge.server.api.logs import PART, follow_log
from forge.service.base import LogPart
from serving.inside import asked
from serving.running import make_project

LOG = "/runs/run-1/jobs/build/attempts/1/steps/compile/log"


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop")) as opened:
        await opened.post("/runs", {})
        yield opened


def write(site, content: bytes) -> None:
    path = site.site.engine("shop").project.step_log("run-1", "build", 1, "compile")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


async def test_a_log_that_is_not_there_yet_is_empty(site):
    answer = await site.get(LOG)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["x-forge-log-size"] == "0"
    assert answer.headers["x-forge-log-ended"] == "false"


@pytest.mark.parametrize("size", [1, PART - 1, PART, PART + 1, 3 * PART + 17])
async def test_a_log_of_any_length_comes_whole(site, size):
    content = bytes(65 + number % 26 for number in range(size))
    write(site, content)
    answer = await site.get(LOG)
    assert answer.content == content
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-forge-log-size"] == str(size)


@pytest.mark.parametrize(
    ("offset", "limit", "expected", "begin"),
    [
        (0, 3, b"abc", 0),
        (2, 3, b"cde", 2),
        (-3, 2, b"hi", 7),
        (-99, 4, b"abcd", 0),
        (99, 4, b"", 10),
        (8, 99, b"ij", 8),
    ],
)
async def test_pieces(site, offset, limit, expected, begin):
    write(site, b"abcdefghij")
    answer = await site.get(LOG, params={"offset": offset, "limit": limit})
    assert answer.content == expected
    assert answer.headers["x-forge-log-offset"] == str(begin)


@pytest.mark.parametrize("query", [{"limit": -1}, {"limit": 2_000_000}, {"offset": "x"}, {"offset": 2**60}])
async def test_what_makes_no_sense_is_refused(site, query):
    assert (await site.get(LOG, params=query)).status_code == 422


@pytest.mark.parametrize("step", ["..%2F..%2Fforge.db", "%2e%2e", "compile%00", "compile/../../x"])
async def test_no_other_file_can_be_read(site, step):
    answer = await site.client.get(f"/api/v1/projects/shop/runs/run-1/jobs/build/attempts/1/steps/{step}/log")
    assert answer.status_code == 404


class Growing:
    """A log that has grown by some piece each time that it is read; over at its end."""

    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces
        self._there = b""

    async def log(self, _run, _job, _attempt, _step, *, offset=0, limit=PART) -> LogPart:
        if self._pieces:
            self._there += self._pieces.pop(0)
        data = self._there[offset : offset + limit]
        return LogPart(data, offset, len(self._there), not self._pieces)


@given(st.text(min_size=1, max_size=40), st.lists(st.integers(1, 5), min_size=1, max_size=30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_however_it_grows_it_is_followed_whole_and_every_id_is_a_place_to_go_on_at(text, cuts):
    content, pieces, at = text.encode("utf-8", "replace"), [], 0
    for cut in cuts:
        pieces.append(content[at : at + cut])
        at += cut
    pieces.append(content[at:])
    messages = [
        one async for one in follow_log(Growing([one for one in pieces if one]), "run-1", "build", 1, "compile", 0)
    ]

    assert messages[-1].event == "end"
    parts = [json.loads(one.data) for one in messages[:-1]]
    assert "".join(one["text"] for one in parts) == content.decode()
    for number, message in enumerate(messages[:-1]):
        rest = "".join(one["text"] for one in parts[number + 1 :])
        assert content[int(message.id) :].decode() == rest


async def test_a_run_that_is_gone_ends_the_stream():
    class Gone:
        async def log(self, *_words, **_more):
            raise UsageError("there is no run")

    assert [one async for one in follow_log(Gone(), "run-1", "a", 1, "b", 0)] == []
