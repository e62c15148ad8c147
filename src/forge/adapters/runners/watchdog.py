"""Ends a worker's processes when the worker is gone. Run as a program of its own; imports nothing but these two.

`python -I -S watchdog.py WORKER GRACE` reads standard input, whose other end only the worker holds, and which
names the sessions that the worker starts (`+123`) and has seen end (`-123`). End of file means that the worker
has died, by whatever cause: then everything that carries its cookie or belongs to those sessions is ended.
"""

from __future__ import annotations

import os
import signal
import sys
import time

PAUSE = 0.05


def listen(descriptor: int) -> set[int]:
    """Return the sessions that were open when the worker died."""
    sessions: set[int] = set()
    rest = b""
    while chunk := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            number = int(line[1:])
            sessions.add(number) if line[:1] == b"+" else sessions.discard(number)
        # A thousand starts a second shall not wake us a thousand times: the pipe holds them meanwhile.
        time.sleep(PAUSE)
    return sessions


def end_all(worker: str, sessions: set[int], grace: float) -> None:
    """TERM, then KILL after `grace` seconds, until two looks in a row find nothing alive."""
    from live_processes import alive, send  # type: ignore[import-not-found,unused-ignore]

    def living() -> set[int]:
        found = set(alive(0, {"FORGE_WORKER": worker}))
        for session in sessions:
            found |= set(alive(session, {}))
        return found

    deadline = time.monotonic() + grace
    told: set[int] = set()
    empty_looks = 0
    while empty_looks < 2:
        pids = living()
        empty_looks = 0 if pids else empty_looks + 1
        if time.monotonic() >= deadline:
            send(pids, signal.SIGKILL)
        else:
            send(pids - told, signal.SIGTERM)
            told |= pids
        time.sleep(PAUSE)


def main() -> None:
    """Wait for the worker's death, clean up, exit."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    worker, grace = sys.argv[1], float(sys.argv[2])
    end_all(worker, listen(0), grace)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120 - pathlib is slow to load
    main()
