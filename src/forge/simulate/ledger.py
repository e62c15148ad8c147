"""Keeps account of what the releases of a story came to, and traces one of them for the plot."""

from __future__ import annotations

from forge.core.release.state import RELEASE_FINAL, EnvironmentState, ReleaseState
from forge.model.decision import Decision
from forge.simulate.report import Point, Report, Told, outcome_of, total
from forge.simulate.story import Story
from forge.simulate.versions import Behaviour
from forge.simulate.world import World

MOST_POINTS = 800
EVIDENCE = ("log_e", "log_evidence")


class Trace:
    """The points of one release; when there are too many, every second one goes."""

    def __init__(self) -> None:
        self.points: list[Point] = []
        self.every = 1
        self._skipped = 0
        self._last: dict[str, tuple[int, int]] = {}

    def add(self, now: float, state: EnvironmentState, release: ReleaseState, world: World) -> None:
        """Note a moment."""
        self._skipped += 1
        if self._skipped < self.every:
            return
        self._skipped = 0
        counts = {name: (world.truth(name).requests, world.truth(name).errors) for name in (state.observed or {})}
        grown = {name: _grown(self._last.get(name), now) for name, now in counts.items()}
        self._last = counts
        self.points.append(
            Point(
                now, dict(state.observed or {}),
                {name: each[0] for name, each in grown.items()}, {name: each[1] for name, each in grown.items()},
                _evidence(release), release.failed_requests,
            )
        )  # fmt: skip
        if len(self.points) > MOST_POINTS:
            self.points = _merged(self.points)
            self.every *= 2


class Ledger:
    """Notes every release when it ends, with what its users really experienced."""

    def __init__(self, story: Story, start: float, world: World, *, traced: bool) -> None:
        self._story, self._start, self._world, self._traced = story, start, world, traced
        self.told: dict[str, Told] = {}
        self._begun: dict[str, tuple[int, int, float]] = {}
        self._traces: dict[str, Trace] = {}
        self._best: tuple[float, str, tuple[Point, ...]] = (-1.0, "", ())

    def note(self, now: float, before: EnvironmentState, decision: Decision[EnvironmentState]) -> None:
        """Take a decision into account."""
        state = decision.state
        if self._traced:
            self._trace(now, state)
        if not decision.events:
            return
        for name, release in state.releases.items():
            old = before.releases.get(name)
            if release.traffic_since is not None and name not in self._begun and name not in self.told:
                meter = self._world.truth(release.version)
                self._begun[name] = (meter.requests, meter.errors, meter.excess)
            if release.status in RELEASE_FINAL and (old is None or old.status != release.status):
                self._end(release)
        self._forget(state)

    def report(self, state: EnvironmentState, seed: int, decisions: int, *, checked: bool) -> Report:
        """Return everything so far; what is under way is told as unfinished."""
        told = dict(self.told)
        for name, release in state.releases.items():
            if name not in told and release.kind == "deploy" and not self._is_first(release):
                told[name] = self._entry(release)
        releases = tuple(sorted(told.values(), key=lambda one: one.asked))
        return Report(
            name=self._story.name, seed=seed, days=round(self._story.seconds / 86400, 3),
            policy=self._story.strategy.name, judge=self._story.plan.judge, totals=total(releases),
            releases=releases, decisions=decisions, checked=checked, traced=self._best[1], trace=self._best[2],
        )  # fmt: skip

    def _end(self, release: ReleaseState) -> None:
        if release.kind != "deploy" or self._is_first(release):
            return
        entry = self._entry(release)
        known = self.told.get(release.id)
        if known is not None:  # rolled back after its promotion
            verdict = entry.to_verdict if known.to_verdict is None else known.to_verdict
            self.told[release.id] = _with(known, entry, verdict)
        else:
            self.told[release.id] = entry
        trace = self._traces.pop(release.id, None)
        if trace is not None:
            worth = entry.excess + (1e9 if entry.bad and entry.outcome == "caught" else 0.0)
            if worth >= self._best[0]:
                self._best = (worth, release.id, tuple(trace.points))

    def _entry(self, release: ReleaseState) -> Told:
        how: Behaviour = self._world.behaviour(release.version)
        meter = self._world.truth(release.version)
        begun = self._begun.get(release.id, (meter.requests, meter.errors, meter.excess))
        end, since = release.finished_at, release.traffic_since
        return Told(
            id=release.id, version=release.version, kind=how.name, bad=how.bad, status=release.status,
            outcome=outcome_of(release, bad=how.bad), reason=release.reason or release.waits_for,
            asked=round(release.created_at - self._start, 3),
            seconds=None if end is None or release.started_at is None else round(end - release.started_at, 3),
            to_verdict=None if end is None or since is None else round(end - since, 3),
            requests=meter.requests - begun[0], failed=meter.errors - begun[1],
            excess=round(meter.excess - begun[2], 2), counted_failed=release.failed_requests,
        )  # fmt: skip

    def _is_first(self, release: ReleaseState) -> bool:
        return release.version == "v0"

    def _trace(self, now: float, state: EnvironmentState) -> None:
        for name, release in state.releases.items():
            if release.traffic_since is not None and release.status not in RELEASE_FINAL:
                self._traces.setdefault(name, Trace()).add(now, state, release, self._world)

    def _forget(self, state: EnvironmentState) -> None:
        """Drop what belongs to releases and versions that are gone, so that long stories need no more memory."""
        for name in [name for name in self._begun if name in self.told and name not in state.releases]:
            del self._begun[name]
        ended = {one.version for one in self.told.values()} if len(self._world.meters.of) > _MANY else set()
        for version in [name for name in self._world.meters.of if name in ended and name not in state.versions]:
            if version not in self._world.router.split:
                self._world.forget(version)


_MANY = 40


def _with(known: Told, entry: Told, verdict: float | None) -> Told:
    """The same release after it was rolled back in the end; its harm was counted until then."""
    from msgspec.structs import replace

    return replace(entry, asked=known.asked, seconds=known.seconds, to_verdict=verdict)


def _grown(last: tuple[int, int] | None, now: tuple[int, int]) -> tuple[int, int]:
    return (now[0] - last[0], now[1] - last[1]) if last is not None else (0, 0)


def _evidence(release: ReleaseState) -> float | None:
    data = release.verdict.data if release.verdict else {}
    return next((float(data[name]) for name in EVIDENCE if isinstance(data.get(name), (int, float))), None)


def _merged(points: list[Point]) -> list[Point]:
    """Join neighbours: counts add up, all else is that of the later one."""
    merged = []
    for first, second in zip(points[::2], points[1::2], strict=False):
        requests = {name: count + first.requests.get(name, 0) for name, count in second.requests.items()}
        errors = {name: count + first.errors.get(name, 0) for name, count in second.errors.items()}
        merged.append(Point(second.at, second.weights, requests, errors, second.evidence, second.failed))
    return merged
