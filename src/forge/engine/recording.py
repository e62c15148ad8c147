"""What goes on record of each decision on an environment, and what need not.

A decision from which something followed (an action, an event, a command or an outcome taken in, another status or
verdict) is on record in the transaction that made it true. A look from which nothing followed only waits in memory
to be written together with the next ones: 60 at a time, which makes them small. After 600 looks in a row from which
nothing followed (ten minutes), only the newest 60 are kept; whatever follows then is written with the whole state
that it rests on. So the record grows with what happens, not with time, and every decision with consequences can be
made again. Looks that were waiting when Forge was killed are lost; the next record then begins with the whole state.
"""

from __future__ import annotations

import hashlib
import zlib
from collections import deque
from functools import lru_cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

from forge import __version__
from forge.core.release.replay import RecordedTick, Segment, recorded, state_digest
from forge.core.release.state import EnvironmentState
from forge.model.decision import Command, Decision, Outcome
from forge.model.errors import CorruptData
from forge.model.traffic import Observation

LOOKS_TOGETHER = 60
"""How many looks without consequence are written together."""
LOOKS_KEPT = 600
"""How many looks in a row without consequence are written at all."""
SEGMENTS_ON_ONE_STATE = 50
"""After so many records, the next one begins with the whole state, so that a recent piece can be read alone."""
_LEVEL = 3

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Segment).decode


class Recorder:
    """Makes the records of one environment. Given every tick; what it returns is written with that tick."""

    def __init__(self) -> None:
        self._state: EnvironmentState | None = None
        self._digest = ""
        self._waiting: deque[tuple[EnvironmentState, str, RecordedTick]] = deque()
        self._looks = 0
        self._passed = 0
        self._end = ""
        """The digest that the last record ended with; empty: the next one begins with the whole state."""
        self._on_one_state = 0

    def record(
        self,
        before: EnvironmentState,
        observation: Observation,
        commands: tuple[Command, ...],
        outcomes: tuple[Outcome, ...],
        now: float,
        decision: Decision[EnvironmentState],
    ) -> bytes:
        """Return what is to be written with this tick; empty: nothing yet."""
        digest_before = self._begin(before)
        after = digest_before if decision.state is before else state_digest(decision.state)
        self._state, self._digest = decision.state, after
        weighty = bool(commands or outcomes) or _follows(before, decision)
        if not weighty and after == digest_before:
            return b""  # the same state: the next decision can do without this look
        tick = recorded(observation, commands, outcomes, now, decision, after)
        self._waiting.append((before, digest_before, tick))
        if weighty or decision.wake_at is None:
            self._looks = 0
            return self._write()
        self._looks += 1
        if len(self._waiting) >= LOOKS_TOGETHER and self._looks <= LOOKS_KEPT:
            return self._write()
        if len(self._waiting) > LOOKS_TOGETHER:
            self._waiting.popleft()
            self._passed += 1
            self._end = ""
        return b""

    def _begin(self, before: EnvironmentState) -> str:
        """Return the digest of the state that this tick begins with. A state that is not where the last tick ended
        was read anew: what waits was perhaps never true."""
        if before is self._state:
            return self._digest
        found = state_digest(before)
        if found != self._digest:
            self._waiting.clear()
            self._end = ""
        return found

    def _write(self) -> bytes:
        start, digest_start, _ = self._waiting[0]
        ticks = tuple(tick for _, _, tick in self._waiting)
        goes_on = self._end == digest_start and self._on_one_state < SEGMENTS_ON_ONE_STATE
        whole = None if goes_on else msgspec.structs.replace(start, signals_state={})
        segment = Segment(start.name, rules(), digest_start, ticks, whole, self._passed)
        self._on_one_state = self._on_one_state + 1 if goes_on else 0
        self._waiting.clear()
        self._end, self._passed = ticks[-1].after, 0
        return zlib.compress(_encode(segment), _LEVEL)


def read(body: bytes, seq: int) -> Segment:
    """Return a record as it was made. Raises CorruptData."""
    try:
        return _decode(zlib.decompress(body))
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        msg = f"record {seq} of the decisions cannot be read: {error}"
        raise CorruptData(msg, hint="`forge audit verify` tells what was changed") from error


@lru_cache(maxsize=1)
def rules() -> str:
    """Return the name of the rules that decide here: the version of Forge and the digest of its pure core."""
    total = hashlib.sha256()
    for name, content in sorted(_sources(files("forge.core"), "")) + sorted(_sources(files("forge.model"), "")):
        total.update(f"{name} {len(content)} ".encode() + content)
    return f"{__version__}+{total.hexdigest()[:12]}"


def _sources(folder: Traversable, path: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        name = f"{path}/{entry.name}"
        if entry.is_dir():
            found += _sources(entry, name)
        elif name.endswith(".py"):
            found.append((name, entry.read_bytes()))
    return found


def _follows(before: EnvironmentState, decision: Decision[EnvironmentState]) -> bool:
    """Return whether anything follows from the decision beside that more is known."""
    if decision.actions or decision.events or decision.cancel:
        return True
    after = decision.state
    if (before.stable, before.traffic, before.plan) != (after.stable, after.traffic, after.plan):
        return True
    return _standing(before) != _standing(after)


def _standing(state: EnvironmentState) -> dict[str, tuple[object, ...]]:
    """Where each release stands, without how long it will yet take."""
    return {
        release.id: (release.status, release.step, release.verdict.kind if release.verdict else "", release.votes)
        for release in state.releases.values()
    }
