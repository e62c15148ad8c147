"""Plays a story: the world's time passes, the real core decides, the world does what it was asked to do.

Time jumps from one look to the next, and over all of it while nothing is under way. Faults of Forge itself that
need its worker and its database are played by `engine_run.py`, with the same world.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random

import msgspec

from forge.core.release.decide import decide
from forge.core.release.state import RELEASE_FINAL, EnvironmentState
from forge.model.decision import Action, Command, Decision, Outcome
from forge.model.traffic import Observation
from forge.simulate.gated import check_gates
from forge.simulate.invariants import check, check_durable, check_replay
from forge.simulate.ledger import Ledger
from forge.simulate.people import Desk
from forge.simulate.report import Report
from forge.simulate.story import MONDAY, SETTLING, Story
from forge.simulate.world import World

ACTS_AFTER = 0.05
"""Seconds until Forge has done what it decided and looks at what became of it."""
THOROUGH_EVERY = 50
"""Each so manieth decision is also replayed, and its state written and read."""
REPEATABLE = 8

Watch = Callable[[float, EnvironmentState, Decision[EnvironmentState]], None]


class Simulation:
    """One environment and its story. `step` is one tick of Forge; `play` goes on to the end."""

    def __init__(
        self, story: Story, seed: int | None = None, *, checked: bool = False, traced: bool = False,
        start: float = MONDAY,
    ) -> None:  # fmt: skip
        self.story = story
        self.seed = story.seed if seed is None else seed
        rng = Random(self.seed)  # noqa: S311  a story, no secret
        self.start = start + SETTLING
        self.world = World(
            story.shape, rng, start, story.faults_in(rng, self.start), headroom=story.headroom,
            stride=story.look,
        )  # fmt: skip
        self.state = EnvironmentState(story.plan.name, story.plan)
        self.decisions = 0
        self.ledger = Ledger(story, self.start, self.world, traced=traced)
        planned = [(-SETTLING, self._made("v0", story.first))]
        for number, (at, kind) in enumerate(story.releases_in(rng), 1):
            planned.append((at, self._made(f"v{number}", story.kinds[kind].behaviour)))
        self.desk = Desk(story, self.start, planned)
        self.extra: list[tuple[str, dict[str, object]]] = []
        """Commands that somebody gives at the next look."""
        self._checked = checked
        self._outcomes: list[Outcome] = []
        self._done: deque[Action] = deque(maxlen=REPEATABLE)
        self._seen: deque[tuple[float, Observation]] = deque(maxlen=64)
        self._wake: float | None = start

    @property
    def end(self) -> float:
        """When the story is over."""
        return self.start + self.story.seconds

    def play(self) -> Report:
        """Go on to the end, and tell."""
        while self.world.now < self.end:
            self.step()
        return self.report()

    def step(self, until: float | None = None) -> Decision[EnvironmentState] | None:
        """Let time pass to the next look, at the latest to `until`, and look. None: the story ended before."""
        at = min(self._next_look(), self.end if until is None else until)
        self.world.advance(at)
        if at >= self.end:
            return None
        return self.look()

    def look(self) -> Decision[EnvironmentState]:
        """One tick at the present moment: observe, decide, act."""
        self._forget_if_told()
        observation = self._observe()
        now = self.world.now
        extra = tuple(self.desk.command(kind, now, payload) for kind, payload in self.extra)
        self.extra = []
        commands = (*self.desk.take(now), *extra, *self.desk.answer(self.state, now))
        outcomes, self._outcomes = tuple(self._outcomes), []
        before = self.state
        decision = decide(before, observation, commands, outcomes, now)
        self.decisions += 1
        if self._checked:
            self._check(before, decision, observation, commands, outcomes)
        self.state = decision.state
        self._act(decision)
        self._wake = decision.wake_at
        if self._outcomes:
            self._wake = min(now + ACTS_AFTER, self._wake if self._wake is not None else now + ACTS_AFTER)
        self.ledger.note(now, before, decision)
        return decision

    def report(self) -> Report:
        """Tell what has happened so far."""
        return self.ledger.report(self.state, self.seed, self.decisions, checked=self._checked)

    @property
    def at_rest(self) -> bool:
        """Whether no release is under way."""
        return all(release.status in RELEASE_FINAL for release in self.state.releases.values())

    def _made(self, version: str, behaviour: msgspec.Struct) -> str:
        self.world.behaviours[version] = behaviour  # type: ignore[assignment]
        return version

    def _next_look(self) -> float:
        now = self.world.now
        wake = self._wake if self._wake is not None else float("inf")
        if self.story.look and not self._outcomes:
            wake = max(wake, now + self.story.look)
        if self.extra:
            wake = min(wake, now)
        return max(now, min(wake, self.desk.next_at()))

    def _observe(self) -> Observation:
        """Look; when reads are stale, what is seen is what was seen some time ago."""
        seen = self.world.observe([*self.state.versions])
        if self.world.weather.quiet:
            return seen
        self._seen.append((self.world.now, seen))
        stale = self.world.weather.on("stale_reads")
        if stale is not None:
            old = [each for at, each in self._seen if at <= self.world.now - stale.amount]
            if old:
                return old[-1]
        return seen

    def _act(self, decision: Decision[EnvironmentState]) -> None:
        """Do what was decided; faults of Forge lose outcomes and do things twice."""
        for action in decision.actions:
            self._done.append(action)
            outcome = self._perform(action)
            if not self.world.weather.on("outcomes_lost"):
                self._outcomes.append(outcome)
        if self.world.weather.on("actions_repeated") and self._done:
            self._perform(self._done[0])
            self._done.rotate(-1)

    def _perform(self, action: Action) -> Outcome:
        known = self.state.versions.get(str(action.payload.get("version", "")))
        return self.world.perform(action, known.version if known else None)

    def _forget_if_told(self) -> None:
        """A new process has what is on disk, and no outcome that was not recorded."""
        if not self.world.forgot:
            return
        self.world.forgot = False
        self.state = msgspec.json.decode(msgspec.json.encode(self.state), type=EnvironmentState)
        self.world.meters.restore(self.world.meters.state())
        self._outcomes = []

    def _check(
        self, before: EnvironmentState, decision: Decision[EnvironmentState], seen: Observation,
        commands: tuple[Command, ...], outcomes: tuple[Outcome, ...],
    ) -> None:  # fmt: skip
        check(before, decision, seen, commands)
        check_gates(before, decision, commands, self.world.now)
        if self.decisions % THOROUGH_EVERY == 0:
            check_durable(decision)
            check_replay(decision, decide(before, seen, commands, outcomes, self.world.now))


def simulate(story: Story, seed: int | None = None, *, checked: bool = False, traced: bool = False) -> Report:
    """Play a whole story. The same story and seed give the same report."""
    return Simulation(story, seed, checked=checked, traced=traced).play()
