"""Puts on record what the worlds of the scenarios decide, as the engine does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forge.core.release.decide import decide
from forge.core.release.replay import Segment
from forge.engine.recording import Recorder, read


class Stenographer:
    """Decides for worlds and keeps the records. A world begun anew is, to it, a state read anew."""

    def __init__(self) -> None:
        self.recorder = Recorder()
        self.bodies: list[bytes] = []
        self.ticks = 0

    def decide(self, *given: Any) -> Any:
        decision = decide(*given)
        self.ticks += 1
        body = self.recorder.record(*given, decision)
        if body:
            self.bodies.append(body)
        return decision

    def segments(self) -> Iterator[tuple[int, Segment]]:
        for number, body in enumerate(self.bodies, 1):
            yield number, read(body, number)
