"""The people of a story: who asks for releases, and the one on duty who answers when Forge asks for a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.configs import DeployConfig
from forge.model.decision import Command
from forge.model.traffic import Version
from forge.simulate.story import People, Story


class Desk:
    """Gives commands in order of time."""

    def __init__(self, story: Story, start: float, planned: Iterable[tuple[float, str]]) -> None:
        """`planned`: (seconds of the story, version) of every release that is asked for."""
        self._story, self._start = story, start
        self._waiting: list[tuple[float, str, dict[str, Any]]] = [
            (start + at, "deploy", self.deploy(version)) for at, version in planned
        ]
        self._waiting += [(start + deed.at, deed.kind, {}) for deed in story.deeds]
        self._waiting.sort(key=lambda each: -each[0])
        self._asked: dict[str, tuple[str, float, int]] = {}
        self._number = 0

    def next_at(self) -> float:
        """Return when the next command is given; infinity when none is."""
        return self._waiting[-1][0] if self._waiting else float("inf")

    def take(self, now: float) -> tuple[Command, ...]:
        """Return the commands that are given by now."""
        commands = []
        while self._waiting and self._waiting[-1][0] <= now:
            at, kind, payload = self._waiting.pop()
            commands.append(self.command(kind, at, payload))
        return tuple(commands)

    def command(self, kind: str, at: float, payload: dict[str, Any]) -> Command:
        """Return a command with a number of its own; `by` in the payload is who gives it."""
        self._number += 1
        actor = str(payload.get("by", "ann"))
        return Command(self._number, kind, actor, at, {key: each for key, each in payload.items() if key != "by"})

    def deploy(self, version: str) -> dict[str, Any]:
        """Return the payload that asks for a release of a version."""
        built = Version(version, config={"replicas": self._story.replicas})
        request = DeployConfig(self._story.plan.name, version=version, strategy=self._story.strategy)
        return {
            "request": msgspec.to_builtins(request),
            "version": msgspec.to_builtins(built),
            "plan": msgspec.to_builtins(self._story.plan),
            "key": f"deploy {version}",
        }

    def answer(self, state: EnvironmentState, now: float) -> tuple[Command, ...]:
        """Return what the person on duty says to releases that have waited for a person long enough."""
        waiting = {name: each for name, each in state.releases.items() if each.status in _ASKING}
        for name in self._asked.keys() - waiting.keys():
            if state.releases.get(name) is None or state.releases[name].finished_at is not None:
                del self._asked[name]
        commands = []
        for name, release in waiting.items():
            kind, since, tries = self._asked.get(name, ("", now, 0))
            if kind != release.status:
                self._asked[name] = (release.status, now, tries)
            elif now - since >= self._story.people.after and (said := _say(self._story.people, release, tries)):
                self._asked[name] = ("", now, tries + 1)
                commands.append(self.command(said, now, {"release": name}))
        return tuple(commands)


_ASKING = frozenset({"paused", "waiting_approval"})


def _say(people: People, release: ReleaseState, tries: int) -> str:
    if release.status == "waiting_approval":
        return "approve" if people.approves else "abort"
    if people.paused == "nothing":
        return ""
    if tries >= people.tries:
        return "abort"
    return people.paused
