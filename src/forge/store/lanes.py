"""Threads that each own a connection and run transactions handed to them by the event loop.

Database drivers block, and a transaction is a handful of statements: one hop to a thread for the whole of it is
cheaper than one hop for each statement, and lets the same plain functions serve both databases.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from forge.model.errors import DependencyFailed
from forge.store.statements import Transaction


@dataclass(slots=True, eq=False)
class Job:
    """A transaction waiting for its turn; if it is not `whole`, each of its statements may be one of its own."""

    work: Callable[[Transaction], Any]
    done: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    whole: bool = True

    def resolve(self, result: Any) -> None:
        """Hand the result to who waits for it."""
        self._tell(self.done.set_result, result)

    def fail(self, error: BaseException) -> None:
        """Hand the error to who waits for the result."""
        self._tell(self.done.set_exception, error)

    def _tell(self, callback: Callable[[Any], None], value: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(lambda: None if self.done.done() else callback(value))
        except RuntimeError:  # the loop was closed; nobody waits any more
            return


class Session(Protocol):
    """A connection in a thread of its own."""

    def serve(self, first: Job, more: queue.SimpleQueue[Job | None]) -> bool:
        """Run the first job, and others from the queue if they can share its transaction.

        Resolves or fails every job that it took. Returns False when it took the end mark from the queue."""

    def close(self) -> None:
        """Close the connection."""


class Lanes:
    """A bounded number of sessions working on one queue. A session is opened when its thread gets its first job."""

    def __init__(self, name: str, open_session: Callable[[], Session], count: int = 1) -> None:
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._open = open_session
        self._closed = False
        self._threads = [
            threading.Thread(target=self._serve, name=f"forge-{name}-{number}", daemon=True) for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[[Transaction], Any], *, whole: bool = True) -> Any:
        """Run a transaction; a caller that is cancelled meanwhile does not undo one that has begun."""
        if self._closed:
            raise DependencyFailed("the database was closed already")
        loop = asyncio.get_running_loop()
        job = Job(work, loop.create_future(), loop, whole)
        self._jobs.put(job)
        return await job.done

    async def close(self) -> None:
        """Finish what is queued, then end the threads."""
        if self._closed:
            return
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self) -> None:
        session: Session | None = None
        going = True
        while going and (job := self._jobs.get()) is not None:
            try:
                session = session or self._open()
                going = session.serve(job, self._jobs)
            except BaseException as error:
                job.fail(error)
        if session is not None:
            session.close()


def forget_cancelled(job: Job) -> bool:
    """Return whether nobody wants the job's result any more, so that it need not begin."""
    return job.done.cancelled()
