"""Who waits for a release is told everything up to its end, whenever the end comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from forge.core.release.state import ReleaseState
from forge.engine.releases import EngineReleases
from forge.model.decision import Event
from forge.model.strategy import Strategy
from forge.store.contract import StoredEvent


def said(seq: int, words: str) -> StoredEvent:
    return StoredEvent(seq, "env-1", 0.0, Event("x", words, {"release": "production-1"}), "", "")


class Environment(EngineReleases):
    """An environment whose release ends just after its log was read."""

    def __init__(self) -> None:
        self.events = [said(1, "starts")]
        log = SimpleNamespace(read=self.read)
        super().__init__(SimpleNamespace(log=log, machines=SimpleNamespace(find=self.find)), None)

    async def find(self, kind: str, key: str) -> str:
        return "env-1"

    async def read(self, machine: str, *, after: int = 0, limit: int = 1000) -> list[StoredEvent]:
        return [event for event in self.events if event.seq > after][:limit]

    async def _state(self, environment: str) -> Any:
        if len(self.events) == 1:
            self.events.append(said(2, "is stable"))
        release = ReleaseState("production-1", "1.0", Strategy(), "promoted")
        return SimpleNamespace(releases={"production-1": release}, stable="1.0")


async def test_the_last_words_are_told_when_they_come_between_two_looks() -> None:
    heard: list[str] = []
    ended = await Environment().wait("production", "production-1", heard.append)
    assert heard == ["starts", "is stable"]
    assert ended["status"] == "promoted"
