"""Streams of events: as they come, replayed, alive, and never more than the viewer can take."""

from __future__ import annotations

import asyncio
import json

import httpx2
import pytest

from forge.model.decision import Event
from forge.server import streaming
from forge.server.streaming import QUEUE, ServerSentEvent
from forge.store.contract import Claim, Write
from serving.listening import listening, watching
from serving.running import make_project

EVENTS = "/api/v1/projects/shop/events"


@pytest.fixture
async def site(tmp_path):
    async with listening(make_project(tmp_path / "shop"), keep_alive_seconds=0.2) as opened:
        yield opened


class Log:
    """Writes events as a machine of the project does."""

    def __init__(self, site) -> None:
        self.store = site.site.engine("shop").store
        self.claim: Claim | None = None

    async def add(self, *words: str) -> None:
        if self.claim is None:
            await self.store.machines.create("talker", "t", "on", b"{}", {}, id_prefix="talker")
            (self.claim,) = await self.store.machines.claim("w", ("talker",), 1, 600)
        events = tuple(Event("said", one) for one in words)
        await self.store.machines.write(self.claim, Write("on", b"{}", events=events))


async def said(messages) -> str:
    return (await messages.event("said"))["event"]["message"]


class TestEvents:
    async def test_they_come_from_now_on_with_their_numbers(self, site):
        log = Log(site)
        await log.add("old")
        async with watching(site.client, EVENTS) as messages:
            await log.add("new")
            message = await messages.next()
            assert json.loads(message["data"])["event"]["message"] == "new"
            assert message["id"] == "2"

    async def test_who_comes_back_gets_what_he_missed_and_then_what_comes(self, site):
        log = Log(site)
        await log.add(*(str(number) for number in range(1, 6)))
        async with watching(site.client, EVENTS, last_event_id="2") as messages:
            assert [await said(messages) for _ in range(3)] == ["3", "4", "5"]
            await log.add("6")
            assert await said(messages) == "6"

    async def test_a_long_absence_is_replayed_whole_and_in_order(self, site):
        log = Log(site)
        for begin in range(0, 2500, 500):
            await log.add(*(str(number) for number in range(begin, begin + 500)))
        async with watching(site.client, f"{EVENTS}?after=0", last_event_id="1") as messages:
            assert [await said(messages) for _ in range(2499)] == [str(number) for number in range(1, 2500)]

    async def test_nothing_is_lost_between_replay_and_what_comes(self, site):
        log = Log(site)
        await log.add("0")

        async def write() -> None:
            for number in range(1, 60):
                await log.add(str(number))

        writing = asyncio.create_task(write())
        async with watching(site.client, f"{EVENTS}?after=0") as messages:
            assert [await said(messages) for _ in range(60)] == [str(number) for number in range(60)]
        await writing

    async def test_of_one_run_only(self, site):
        log = Log(site)
        await log.add("of another")
        await site.post("/runs", {})
        async with watching(site.client, f"{EVENTS}?machine=run-1&after=0") as messages:
            assert (await messages.event())["machine"] == "run-1"
            await log.add("of another")
            await site.post("/runs/run-1/cancel")
            await site.site.workers.start()
            for _ in range(3):
                assert (await messages.event())["machine"] == "run-1"

    async def test_of_nobody_is_told(self, site):
        answer = await site.client.get(f"{EVENTS}?machine=run-9", headers={"accept": "text/event-stream"})
        assert answer.status_code == 404

    async def test_silence_is_broken(self, site):
        async with watching(site.client, EVENTS) as messages:
            with pytest.raises(TimeoutError):
                await messages.next(0.9)
            assert messages.comments >= 2

    @pytest.mark.parametrize("given", ["x", "-1", "1.5", "9" * 20])
    async def test_an_id_that_is_none_is_refused(self, site, given):
        answer = await site.client.get(EVENTS, headers={"accept": "text/event-stream", "last-event-id": given})
        assert answer.status_code == 400

    async def test_the_log_is_read_once_for_all_who_watch(self, site):
        log = Log(site)
        await log.add("first")
        store = site.site.engine("shop").store
        limits = httpx2.Limits(max_connections=100)
        async with httpx2.AsyncClient(base_url=site.client.base_url, limits=limits, trust_env=False) as crowd:
            opened = [watching(crowd, f"{EVENTS}?after=0") for _ in range(40)]
            viewers = [await one.__aenter__() for one in opened]
            assert [await said(one) for one in viewers] == ["first"] * 40
            read, reads = store.log.read, []
            store.log.read = lambda *words, **more: (reads.append(1), read(*words, **more))[1]
            assert site.site.viewers == site.site.live("shop").viewers == 40
            await log.add("second")
            assert [await said(one) for one in viewers] == ["second"] * 40
            store.log.read = read
            assert len(reads) <= 4
            for one in opened:
                await one.__aexit__(None, None, None)
        for _ in range(100):
            if not site.site.viewers:
                break
            await asyncio.sleep(0.05)
        assert site.site.viewers == site.site.live("shop").viewers == 0

    async def test_who_does_not_keep_up_is_let_go_and_can_come_back(self, site):
        log, live = Log(site), site.site.live("shop")
        await log.add("0")
        events = live.events(after=0)
        assert (await anext(events)).event.message == "0"
        waiting = asyncio.create_task(anext(events))
        await asyncio.sleep(0.1)
        await log.add("1")
        assert (await waiting).seq == 2
        await log.add(*(str(number) for number in range(2, QUEUE + 100)))
        for _ in range(100):
            if any(viewer.behind.is_set() for viewer in live._viewers):
                break
            await asyncio.sleep(0.05)
        with pytest.raises(StopAsyncIteration):
            await anext(events)
        assert live.viewers == 0
        again = live.events(after=2)
        assert [(await anext(again)).seq for _ in range(QUEUE)] == list(range(3, QUEUE + 3))
        await again.aclose()

    async def test_a_stream_ends_after_long_so_that_rights_are_looked_at_anew(self, site, monkeypatch):
        monkeypatch.setattr(streaming, "LONGEST_SECONDS", 0.5)
        async with watching(site.client, EVENTS) as messages:
            with pytest.raises(StopAsyncIteration):
                await messages.next(5)

    async def test_streams_end_with_the_server(self, site):
        async with watching(site.client, EVENTS) as messages:
            site.site.closing.set()
            with pytest.raises(StopAsyncIteration):
                await messages.next(5)


class TestLogs:
    PIPELINE = """\
name: shop
jobs:
  build:
    steps:
      - id: talk
        run: |
          printf 'gr\\303'; sleep 0.7; printf '\\274n\\n'
          for number in 1 2 3; do echo "line $number"; sleep 0.2; done
"""
    LOG = "/api/v1/projects/shop/runs/run-1/jobs/build/attempts/1/steps/talk/log"

    @pytest.fixture
    async def site(self, tmp_path):
        async with listening(make_project(tmp_path / "shop", self.PIPELINE)) as opened:
            await opened.site.workers.start()
            await opened.post("/runs", {})
            yield opened

    async def whole(self, messages) -> tuple[str, list[int], int]:
        text, ids = "", []
        while True:
            message = await messages.next(20)
            ids.append(int(message["id"]))
            if message.get("event") == "end":
                return text, ids, json.loads(message["data"])["size"]
            text += json.loads(message["data"])["text"]

    async def test_it_is_followed_to_its_end_and_letters_stay_whole(self, site):
        async with watching(site.client, self.LOG) as messages:
            text, ids, size = await self.whole(messages)
        assert text == "grün\nline 1\nline 2\nline 3\n"
        assert ids == sorted(ids)
        assert ids[-1] == size == len(text.encode())
        assert len(ids) > 3  # it came in pieces, as it grew

    async def test_who_comes_back_goes_on_where_he_was(self, site):
        async with watching(site.client, self.LOG) as messages:
            first = await messages.next()
        got = json.loads(first["data"])["text"]
        async with watching(site.client, self.LOG, last_event_id=first["id"]) as messages:
            rest, _, _ = await self.whole(messages)
        assert got + rest == "grün\nline 1\nline 2\nline 3\n"


class TestMessages:
    def test_every_line_of_data_is_one(self):
        assert (
            ServerSentEvent("a\nb\r\nc", id="7", event="x").encode()
            == b"id: 7\nevent: x\ndata: a\ndata: b\ndata: c\n\n"
        )

    def test_no_words_are_a_message_too(self):
        assert ServerSentEvent("").encode() == b"data: \n\n"
