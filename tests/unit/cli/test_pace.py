"""When a watcher looks again: soon at home, by events from a server."""

from __future__ import annotations

import asyncio
import time

import pytest

from forge.cli import pace
from forge.cli.pace import EventPace, Pace
from forge.model.errors import DependencyFailed


class Telling:
    """A service whose records tell of events when the test says so."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[int | Exception] = asyncio.Queue()
        self.asked: list[int] = []

    @property
    def records(self):
        return self

    async def follow(self, machine, *, after):
        assert machine == ""
        self.asked.append(after)
        while True:
            event = await self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event


async def timed(resting) -> float:
    began = time.monotonic()
    await asyncio.wait_for(resting, 5)
    return time.monotonic() - began


async def test_at_home_looking_takes_at_most_a_tenth_of_the_time():
    stop = asyncio.Event()
    assert await timed(Pace().rest(stop, looked=0.0, busy=True)) >= pace.LOOK_EVERY * 0.9
    assert await timed(Pace().rest(stop, looked=0.03, busy=True)) >= 0.25
    stop.set()
    assert await timed(Pace().rest(stop, looked=100.0, busy=False)) < 1


@pytest.fixture
async def told(monkeypatch):
    monkeypatch.setattr(pace, "QUIET", 1.0)
    monkeypatch.setattr(pace, "LOGS_EVERY", 0.2)
    service = Telling()
    paced = EventPace(service)  # type: ignore[arg-type]
    paced.begin(7)
    yield service, paced
    await paced.close()


async def test_an_event_ends_the_rest_at_once(told):
    service, paced = told
    resting = asyncio.create_task(timed(paced.rest(asyncio.Event(), looked=0.0, busy=False)))
    await asyncio.sleep(0.05)
    service.events.put_nowait(8)
    assert await resting < 0.6
    assert service.asked == [7]


async def test_one_that_came_while_looking_is_not_missed(told):
    service, paced = told
    service.events.put_nowait(8)
    await asyncio.sleep(0.01)
    assert await timed(paced.rest(asyncio.Event(), looked=0.0, busy=False)) < 0.6
    assert await timed(paced.rest(asyncio.Event(), looked=0.0, busy=False)) >= 0.9, "and looked at once"


async def test_silence_ends_too_and_sooner_while_logs_are_written(told):
    _, paced = told
    assert 0.15 <= await timed(paced.rest(asyncio.Event(), looked=0.0, busy=True)) < 0.8
    assert await timed(paced.rest(asyncio.Event(), looked=0.0, busy=False)) >= 0.9


async def test_to_stop_ends_the_rest(told):
    _, paced = told
    stop = asyncio.Event()
    stop.set()
    assert await timed(paced.rest(stop, looked=0.0, busy=False)) < 0.6


async def test_a_stream_that_is_gone_is_told_by_the_looks_not_by_the_listener(told):
    service, paced = told
    service.events.put_nowait(DependencyFailed("gone"))
    assert await timed(paced.rest(asyncio.Event(), looked=0.0, busy=False)) >= 0.9
    await paced.close()
