"""Why a release went as it did, from the decisions on record: who, when, what was seen, what followed, what it cost."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from forge.core.release.adaptive import GROWTH
from forge.core.release.replay import Moment
from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.strategy import StrategyStep
from forge.model.units import WHOLE, format_duration, format_weight
from forge.views.harm import harm_view, harm_words
from forge.views.links import grafana_links
from forge.views.release import describe_step, describe_strategy

WAITED = 1.0
"""Seconds from which a wait is worth telling."""
BASIS = "the rate seen so far, as if nothing else changed"


class AskedStep(msgspec.Struct, frozen=True):
    """A share of the traffic that was asked for, and when the router was seen to give it (None: it never was)."""

    at: float
    weight: int
    observed_at: float | None = None


class WordOfJudge(msgspec.Struct, frozen=True):
    """A verdict, from when it was first given until another one; `why` and `data` are its first reading's."""

    at: float
    kind: str
    why: str
    data: dict[str, Any] = {}
    readings: int = 1


class Waited(msgspec.Struct, frozen=True):
    """What it waited for, and for how many seconds."""

    at: float
    what: str
    seconds: float


class Told(msgspec.Struct, frozen=True):
    """What a person or a step asked for."""

    at: float
    actor: str
    command: str
    comment: str = ""


class Harm(msgspec.Struct, frozen=True):
    """What it cost: `excess` is the failed requests above what stable would have failed on as many."""

    requests: int
    failed: int
    excess: float
    seconds: float
    interval: tuple[float, float] | None = None
    """95 % bounds on `excess` that hold at every time at once."""
    outage_seconds: float = 0.0
    user_minutes: float | None = None
    words: tuple[str, ...] = ()


class Counterfactual(msgspec.Struct, frozen=True):
    """What the next step would have cost. An estimate: `rate` is what was seen above stable's rate."""

    weight: int
    seconds: float
    rate: float
    requests: int
    failed: int
    words: str


class Explanation(msgspec.Struct, frozen=True):
    """The whole story of a release. Times are seconds since the epoch, weights basis points."""

    id: str
    environment: str
    version: str
    status: str
    reason: str
    actor: str
    run: str
    strategy: str
    previous: str
    created_at: float
    started_at: float | None
    finished_at: float | None
    kind: str = "deploy"
    judge: str = ""
    note: str = ""
    waits_for: str = ""
    told: tuple[Told, ...] = ()
    steps: tuple[AskedStep, ...] = ()
    verdicts: tuple[WordOfJudge, ...] = ()
    waits: tuple[Waited, ...] = ()
    decisive: WordOfJudge | None = None
    """The reading that ended it, or the last one."""
    rolled_back_to: str = ""
    rolled_back_why: str = ""
    harm: Harm | None = None
    counterfactual: Counterfactual | None = None
    decisions: int = 0
    """How many decisions on record this rests on; 0: only the state and the log of events are left."""
    links: tuple[str, ...] = ()
    """Where it can be looked at in Grafana."""


class Narrator:
    """Reads decisions in order and remembers what they meant for one release."""

    def __init__(self, release: str) -> None:
        self.release = release
        self.last: tuple[EnvironmentState, ReleaseState] | None = None
        self._told: list[Told] = []
        self._steps: list[AskedStep] = []
        self._verdicts: list[WordOfJudge] = []
        self._waits: list[tuple[float, str, float]] = []
        self._decisive: WordOfJudge | None = None
        self._target = ("", "")
        self._decisions = 0
        self._standing = ""

    def read(self, moment: Moment) -> None:
        """Take in one decision."""
        before = moment.before.releases.get(self.release)
        after = moment.decision.state.releases.get(self.release)
        if after is None:
            return
        now = moment.recorded.now
        if before is None or before.status not in RELEASE_FINAL or before != after:
            self._decisions += 1
        self.last = (moment.decision.state, after)
        self._hear(moment, before)
        self._see_weights(moment, after, now)
        self._see_verdict(after, before, now)
        self._see_wait(after, now)
        if after.status == "rolling_back" and (before is None or before.status != "rolling_back"):
            self._choose_target(moment.decision.state)

    def _hear(self, moment: Moment, before: ReleaseState | None) -> None:
        for command in moment.recorded.commands:
            named = command.payload.get("release", "")
            first = command.kind == "deploy" and before is None
            if first or (before is not None and command.kind != "deploy" and named in {"", self.release}):
                if before is not None and before.status in RELEASE_FINAL and not named:
                    continue
                comment = str(command.payload.get("comment", ""))
                self._told.append(Told(command.at, command.actor, command.kind, comment))

    def _see_weights(self, moment: Moment, release: ReleaseState, now: float) -> None:
        state = moment.decision.state
        asked = state.traffic.weights.get(release.version, 0) if state.traffic else 0
        known = self._steps[-1].weight if self._steps else 0
        live = release.status not in RELEASE_FINAL or release.finished_at == now
        if live and asked != known:
            self._steps.append(AskedStep(now, asked))
        if self._steps and self._steps[-1].observed_at is None and now > self._steps[-1].at:
            seen = (state.observed or {}).get(release.version, 0) if state.observed is not None else None
            if seen == self._steps[-1].weight and live:
                self._steps[-1] = msgspec.structs.replace(self._steps[-1], observed_at=now)

    def _see_verdict(self, release: ReleaseState, before: ReleaseState | None, now: float) -> None:
        verdict = release.verdict
        if verdict is None or (before is not None and before.verdict is verdict):
            return
        word = WordOfJudge(now, verdict.kind, verdict.why, verdict.data)
        if release.status not in RELEASE_FINAL or self._decisive is None or verdict.kind == "rollback":
            self._decisive = word
        last = self._verdicts[-1] if self._verdicts else None
        if last is not None and last.kind == verdict.kind:
            self._verdicts[-1] = msgspec.structs.replace(last, readings=last.readings + 1)
        else:
            self._verdicts.append(word)

    def _see_wait(self, release: ReleaseState, now: float) -> None:
        """Words that differ in numbers only, at the same step, are one wait that counts down."""
        words = release.waits_for if release.status not in RELEASE_FINAL else ""
        standing = f"{release.status} {release.step} {_without_numbers(words)}"
        if self._waits:
            begun, said, _ = self._waits[-1]
            self._waits[-1] = (begun, said, now)
        if not self._waits or standing != self._standing:
            self._waits.append((now, words, now))
        self._standing = standing

    def _choose_target(self, state: EnvironmentState) -> None:
        seen = state.versions[state.stable].seen if state.stable in state.versions else None
        warm = f" with {seen.ready} of {seen.desired} replicas ready" if seen is not None else ""
        self._target = (state.stable, f"{state.stable} is stable beside it and still serves{warm}")

    def explanation(self, now: float) -> Explanation | None:
        """Return the story so far; None when no decision knew the release."""
        if self.last is None:
            return None
        state, release = self.last
        return explain(
            state, release, now, told=tuple(self._told), steps=tuple(self._steps), verdicts=tuple(self._verdicts),
            waits=self._told_waits(), decisive=self._decisive, target=self._target, decisions=self._decisions,
        )  # fmt: skip

    def _told_waits(self) -> tuple[Waited, ...]:
        """Return what it waited for longer than a moment; the same words are told once, with all their seconds."""
        totals: dict[str, Waited] = {}
        for begun, words, ended in self._waits:
            if not words:
                continue
            known = totals.get(words)
            totals[words] = Waited(
                known.at if known else begun, words, (known.seconds if known else 0.0) + ended - begun
            )
        return tuple(waited for waited in totals.values() if waited.seconds >= WAITED)


def narrate(release: str, moments: Iterable[Moment], now: float) -> Explanation | None:
    """Return the story of a release from decisions on record; None when none of them knew it."""
    narrator = Narrator(release)
    for moment in moments:
        narrator.read(moment)
    return narrator.explanation(now)


def explain(
    state: EnvironmentState,
    release: ReleaseState,
    now: float,
    *,
    told: tuple[Told, ...] = (),
    steps: tuple[AskedStep, ...] = (),
    verdicts: tuple[WordOfJudge, ...] = (),
    waits: tuple[Waited, ...] = (),
    decisive: WordOfJudge | None = None,
    target: tuple[str, str] = ("", ""),
    decisions: int = 0,
) -> Explanation:
    """Return the story of a release; with nothing but its state, what that alone tells."""
    if decisive is None and release.verdict is not None:
        at = release.finished_at or now
        decisive = WordOfJudge(at, release.verdict.kind, release.verdict.why, release.verdict.data)
    went_back = release.status in {"rolling_back", "rolled_back"} or bool(target[0])
    return Explanation(
        id=release.id, environment=state.name, version=release.version, status=release.status,
        reason=release.reason, actor=release.actor, run=release.run, strategy=describe_strategy(release.strategy),
        previous=release.previous, created_at=release.created_at, started_at=release.started_at,
        finished_at=release.finished_at, kind=release.kind, judge=state.plan.judge, note=release.note,
        waits_for="" if release.status in RELEASE_FINAL else release.waits_for, told=told, steps=steps,
        verdicts=verdicts, waits=waits, decisive=decisive,
        rolled_back_to=(target[0] or release.previous) if went_back else "", rolled_back_why=target[1],
        harm=_harm(state, release, now), counterfactual=_counterfactual(release, steps, now), decisions=decisions,
        links=grafana_links(state, release),
    )  # fmt: skip


def _harm(state: EnvironmentState, release: ReleaseState, now: float) -> Harm | None:
    view = harm_view(state, release)
    if view is None or release.traffic_since is None:
        return None
    seconds = max(0.0, (release.finished_at or now) - release.traffic_since)
    return Harm(
        release.requests, release.failed_requests, release.excess_failed, seconds, view.interval, view.outage_seconds,
        view.user_minutes, harm_words(view),
    )  # fmt: skip


def _counterfactual(release: ReleaseState, steps: tuple[AskedStep, ...], now: float) -> Counterfactual | None:
    """Estimate what the next step would have cost, had the release not gone back."""
    if release.status not in {"rolling_back", "rolled_back", "aborted"} or release.traffic_since is None:
        return None
    carried = [step for step in steps if step.weight]
    if not carried or release.requests < 1 or release.excess_failed <= 0:
        return None
    ended = next((step.at for step in steps if step.at > carried[-1].at), release.finished_at or now)
    served = _weight_seconds(carried, ended)
    weight, seconds, named = _next_step(release, carried[-1].weight)
    if served <= 0 or not weight:
        return None
    rate = release.excess_failed / release.requests
    requests = release.requests / served * weight * seconds
    words = (
        f"at the next step, {format_weight(weight)} for {named}, about {rate * requests:,.0f} more requests would have "
        f"failed (an estimate from {BASIS}: {rate:.2%} of requests above stable)"
    )
    return Counterfactual(weight, seconds, rate, round(requests), round(rate * requests), words)


def _weight_seconds(carried: list[AskedStep], ended: float) -> float:
    """Return the sum of weight times seconds over the steps."""
    ends = [step.at for step in carried[1:]] + [ended]
    return sum(step.weight * max(0.0, end - step.at) for step, end in zip(carried, ends, strict=True))


def _next_step(release: ReleaseState, weight: int) -> tuple[int, float, str]:
    """Return the next larger weight of the strategy, how many seconds it would have lasted, and that in words."""
    adaptive = release.strategy.adaptive
    if adaptive is not None and weight < adaptive.most:
        return min(GROWTH * weight, adaptive.most), adaptive.every, format_duration(adaptive.every)
    left = list(release.strategy.steps[release.step :])
    while left and (left[0].weight is None or left[0].weight <= weight):
        left.pop(0)
    following = left[0].weight if left and left[0].weight is not None else WHOLE
    pause: StrategyStep | None = next((step for step in left[1:2] if step.pause), None)
    if following <= weight:
        return 0, 0.0, ""
    if pause is None or not pause.pause:
        return following, 60.0, "a minute"
    return following, pause.pause, describe_step(pause).removeprefix("pause ")


def _without_numbers(words: str) -> str:
    """Return what is the same in words that only count down."""
    return "".join(character for character in words if not character.isdigit() and character not in ".,")
