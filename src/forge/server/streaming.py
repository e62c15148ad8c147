"""Server-sent events: replay by `Last-Event-ID`, signs of life, and one follower of the log for all who watch.

However many people watch a project, its log is read once: the follower gives each new event to a bounded queue of
every viewer. A viewer that does not keep up is let go; it comes back with the id of the last event that it has.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

import msgspec
import structlog
from fastapi import Request
from fastapi.responses import StreamingResponse

from forge.model.errors import DependencyFailed
from forge.server.problems import Problem
from forge.store.clocks import steady
from forge.store.contract import StoredEvent

if TYPE_CHECKING:
    from forge.engine.engine import Engine
    from forge.server.site import Site

MEDIA_TYPE = "text/event-stream"
QUEUE = 1000
"""How many events a viewer may be behind."""
REPLAY = 1000
RETRY_SECONDS = 1.0
"""How long a browser waits until it connects again, and how long until the log is read again after an error."""
LONGEST_SECONDS = 3600.0
"""Then a stream ends, and whoever watches comes back and is asked anew who he is."""
_log = structlog.get_logger("forge.server")


class ServerSentEvent(msgspec.Struct, frozen=True):
    """One message. `id` is what the browser comes back with; empty: not to be resumed after."""

    data: str
    id: str = ""
    event: str = ""

    def encode(self) -> bytes:
        """Return the message as it is sent."""
        lines = [f"id: {self.id}"] if self.id else []
        if self.event:
            lines.append(f"event: {self.event}")
        lines.extend(f"data: {line}" for line in self.data.replace("\r\n", "\n").replace("\r", "\n").split("\n"))
        return ("\n".join(lines) + "\n\n").encode()


def event_message(stored: StoredEvent) -> ServerSentEvent:
    """Return an event of the log as a message; its number is the id to resume after."""
    return ServerSentEvent(msgspec.json.encode(stored).decode(), id=str(stored.seq))


class Fallen(Exception):
    """The viewer did not keep up: its queue was full."""


class _Over(Exception):
    """There are no more messages."""


class Viewer:
    """Someone who watches. Made by `Live.watch`."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[StoredEvent] = asyncio.Queue(QUEUE)
        self.behind = asyncio.Event()

    def give(self, event: StoredEvent) -> None:
        """Put an event in the queue; a full one ends the viewer's stream."""
        try:
            self.queue.put_nowait(event)
        except asyncio.QueueFull:
            self.behind.set()

    async def next(self) -> StoredEvent:
        """Return the next event. Raises Fallen once events were lost."""
        if self.behind.is_set():
            raise Fallen
        return await self.queue.get()


class Live:
    """The events of one project as they come, for any number of viewers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._viewers: set[Viewer] = set()
        self._follower: asyncio.Task[None] | None = None

    @property
    def viewers(self) -> int:
        """How many watch now."""
        return len(self._viewers)

    async def events(self, machine: str = "", *, after: int | None = None) -> AsyncGenerator[StoredEvent, None]:
        """Yield events after that number (None: from now on), of one machine or of all, for ever.

        Ends when the viewer does not keep up. Raises DependencyFailed when the log cannot be read at first.
        """
        viewer = Viewer()
        last = await self._newest() if after is None else after
        self._viewers.add(viewer)
        try:
            self._ensure_following(await self._newest())
            # What came before the follower began is read; what comes after is given. Some of it comes both ways.
            while batch := await self._engine.store.log.read(machine or None, after=last, limit=REPLAY):
                for stored in batch:
                    last = stored.seq
                    yield stored
            while True:
                stored = await viewer.next()
                if stored.seq > last:
                    last = stored.seq
                    if not machine or stored.machine == machine:
                        yield stored
        except Fallen:
            return
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._stop_following()

    async def close(self) -> None:
        """Stop to follow."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await follower

    async def _newest(self) -> int:
        return await self._engine.store.log.count()

    def _ensure_following(self, after: int) -> None:
        if self._follower is None or self._follower.done():
            self._follower = asyncio.create_task(self._follow(after), name="forge-live")

    def _stop_following(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            self._follower = None

    async def _follow(self, after: int) -> None:
        while True:
            try:
                async for stored in self._engine.follow(None, after):
                    after = stored.seq
                    for viewer in tuple(self._viewers):
                        viewer.give(stored)
            except DependencyFailed as error:
                _log.warning("the log cannot be followed for now", error=error.message)
            await asyncio.sleep(RETRY_SECONDS)


def last_event_id(request: Request) -> int | None:
    """Return the number that a client resumes after: its `Last-Event-ID`, else `?after=`; None: it gave none.

    Raises Problem for one that is no number.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("after") or ""
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise Problem(400, "a stream resumes after the id of an event, which is a number")
    return int(text)


def wants_stream(request: Request) -> bool:
    """Whether a client asks for a stream instead of one answer."""
    return MEDIA_TYPE in request.headers.get("accept", "")


def stream(site: Site, messages: AsyncIterator[ServerSentEvent]) -> StreamingResponse:
    """Answer with messages as they come. Silence is broken by comments, so that proxies and dead viewers are
    noticed; ends with the server. An error of `messages` after the beginning ends the stream."""
    return StreamingResponse(
        _sent(site, messages),
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _sent(site: Site, messages: AsyncIterator[ServerSentEvent]) -> AsyncGenerator[bytes, None]:
    site.viewers += 1
    closing = asyncio.create_task(site.closing.wait())
    coming: asyncio.Task[ServerSentEvent] | None = None
    end = steady() + LONGEST_SECONDS
    try:
        yield f"retry: {int(RETRY_SECONDS * 1000)}\n\n".encode()
        while steady() < end:
            coming = coming or asyncio.create_task(_next(messages))
            await asyncio.wait(
                {coming, closing},
                timeout=site.settings.keep_alive_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if closing.done():
                return
            if not coming.done():
                yield b": still here\n\n"
                continue
            message = coming.result()
            coming = None
            yield message.encode()
    except _Over:
        return
    except DependencyFailed as error:
        _log.warning("a stream ended", error=error.message)
    finally:
        site.viewers -= 1
        closing.cancel()
        if coming is not None and not coming.done():
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()


async def _next(messages: AsyncIterator[ServerSentEvent]) -> ServerSentEvent:
    try:
        return await anext(messages)
    except StopAsyncIteration:
        raise _Over from None  # a task cannot end by StopAsyncIteration
