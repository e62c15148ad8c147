"""An adaptive canary under way: takes in what was counted, and says whether its weight may change.

The arithmetic is in `adaptive.py`; here is what it is applied to, and all that holds growth: no fresh reading of both
versions, doubt, a warm-up, a change that the router does not show yet, another release that takes stable's place.
The gates of the policy and missing data are asked before (`progress.py`).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

from msgspec.structs import replace

from forge.core.judge.history import calibration_of
from forge.core.judge.report import percent
from forge.core.release.adaptive import (
    Evidence,
    Growth,
    allowance,
    leans_bad,
    may_take_all,
    next_weight,
    start_weight,
    worst_case,
)
from forge.core.release.judging import in_doubt, needs_data, warm_at
from forge.core.release.observe import History, fresh_sample
from forge.core.release.saturating import refused
from forge.core.release.state import ReleaseState
from forge.core.release.tick import Tick, takes_over
from forge.model.strategy import Adaptive
from forge.model.units import WHOLE, format_duration, format_weight

ASSUMED_INTERVAL = 15.0
"""Seconds between two readings, where nothing was read yet."""
ASSUMED_ACTUATION = 5.0
"""Seconds that the router takes, before it was seen to follow."""
SHORTEST_INTERVAL = 1.0
LONGEST_INTERVAL = 60.0
"""What is longer was no interval between readings: nobody looked."""
ENOUGH_READINGS = 2
STALE_READINGS = 3
GIVE_UP = 120.0
"""Seconds without data after which the weight goes back to the first one."""
WINDOWS = (60.0, 300.0)
"""Traffic is the larger of what it was over these: what comes back in a minute must not be a surprise."""
SHORTEST_WINDOW = 0.5


class Growing(NamedTuple):
    """What an adaptive release does next. `all_of_it`: it may be promoted, because of `words`."""

    words: str
    all_of_it: bool = False
    pause: bool = False
    earliest: float | None = None


def grow(tick: Tick, release: ReleaseState, settings: Adaptive) -> Growing:
    """Bring the release's `growth` up to date, and say what it waits for or may do."""
    growth = release.growth or _begin(tick, release, settings)
    growth = _follow(tick, release, _take_in(tick, release, growth))
    room = _room(tick, release, settings)
    if growth.weight > room:
        growth = _shrunk(tick, release, growth, room, "other releases share the traffic with it")
    tick.put(replace(tick.state.releases[release.id], growth=growth))
    held = _held(tick, release, settings, growth)
    if held:
        return _in_time(tick, release, settings, growth, f"holds at {format_weight(growth.weight)}: {held}")
    per_second, reaction = traffic(tick), reaction_time(tick, settings, growth)
    if per_second is None:
        return _in_time(tick, release, settings, growth, "holds: the traffic of the environment is not known")
    told = _told(growth.evidence)
    if may_take_all(settings, growth.weight, growth.evidence, per_second, reaction, room):
        unclear = _unclear(tick, release)
        if unclear:
            return _in_time(tick, release, settings, growth, f"holds: {unclear}")
        return Growing(f"{told}: not more than is tolerated", all_of_it=True)
    weight = next_weight(settings, growth.weight, growth.evidence, per_second, reaction, room)
    if weight > growth.weight:
        full = refused(tick, release, weight)
        if full is not None:
            return _in_time(tick, release, settings, growth, f"holds at {format_weight(growth.weight)}: {full.words}")
        _change(tick, release, settings, replace(growth, per_second=per_second), weight, reaction)
        return Growing(f"the router to show {format_weight(weight)}")
    return _in_time(tick, release, settings, growth, f"more evidence at {format_weight(growth.weight)}: {told}")


def fall_back(tick: Tick, release: ReleaseState, after: float = GIVE_UP) -> None:
    """Go back to the first weight when nothing was read for long: what it costs now, nobody sees."""
    growth, since = release.growth, release.data_missing_since
    if growth is None or since is None or fresh_sample(tick, release.version) is not None:
        return
    if tick.now - since <= after or growth.weight <= growth.first:
        return
    words = f"nothing was read of it for {format_duration(tick.now - since)}; what is known of it is kept"
    tick.put(replace(release, growth=_shrunk(tick, release, growth, growth.first, words)))


def _shrunk(tick: Tick, release: ReleaseState, growth: Growth, weight: int, words: str) -> Growth:
    tick.say(
        "release_shrinks", f"{release.id}: {format_weight(growth.weight)} -> {format_weight(weight)}: {words}",
        release=release.id, version=release.version, weight=weight, before=growth.weight,
    )  # fmt: skip
    return _going_to(growth, weight)


def _going_to(growth: Growth, weight: int) -> Growth:
    return replace(growth, weight=weight, changed_at=None, asked_at=None, readings=0)


def reading_interval(history: History) -> float:
    """Return the usual seconds between the newest readings."""
    times = [at for at, _ in history[-8:]]
    gaps = sorted(b - a for a, b in pairwise(times) if b - a <= LONGEST_INTERVAL)
    return max(SHORTEST_INTERVAL, gaps[len(gaps) // 2]) if gaps else ASSUMED_INTERVAL


def reaction_time(tick: Tick, settings: Adaptive, growth: Growth | None) -> float:
    """Return how many seconds there are between an error and the traffic being gone: one reading, and the router."""
    if settings.reaction is not None:
        return settings.reaction
    return reading_interval(tick.state.history) + (growth.actuation if growth else ASSUMED_ACTUATION)


def traffic(tick: Tick) -> float | None:
    """Return the requests a second of all versions together; None: not known."""
    rates = [rate for over in WINDOWS if (rate := _rate(tick.state.history, over)) is not None]
    return max(rates, default=None)


def _rate(history: History, over: float) -> float | None:
    if not history:
        return None
    newest = history[-1][0]
    window = [entry for entry in history if entry[0] >= newest - over]
    seconds = newest - window[0][0]
    if seconds < SHORTEST_WINDOW:
        return None
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    for _, samples in window:
        for version, sample in samples.items():
            first.setdefault(version, sample.requests)
            last[version] = sample.requests
    return sum(max(0, last[version] - first[version]) for version in last) / seconds


def _begin(tick: Tick, release: ReleaseState, settings: Adaptive) -> Growth:
    per_second, reaction = traffic(tick), reaction_time(tick, settings, None)
    weight = start_weight(settings, per_second, reaction)
    seen = "traffic not known" if per_second is None else f"{per_second:.3g} requests a second"
    tick.say(
        "release_grows", f"{release.id}: begins at {format_weight(weight)} ({seen}, {format_duration(reaction)} to "
        f"react): should every request fail, that costs {settings.budget:g} until it is stopped",
        release=release.id, version=release.version, weight=weight, before=0, requests_per_second=per_second,
        reaction=reaction, budget=settings.budget,
    )  # fmt: skip
    return Growth(
        weight, weight, tick.now, stable=tick.state.stable, actuation=ASSUMED_ACTUATION, per_second=per_second
    )


def _take_in(tick: Tick, release: ReleaseState, growth: Growth) -> Growth:
    """Add what both versions answered since the last reading of both. A warm-up does not count."""
    own, stable = fresh_sample(tick, release.version), fresh_sample(tick, tick.state.stable)
    if own is None or stable is None or release.traffic_since is None or tick.now < warm_at(release):
        return growth
    if min(own.at, stable.at) <= growth.read_at:
        return growth
    arm, beside = (own.requests, own.errors), (stable.requests, stable.errors)
    base, other = growth.own, growth.beside
    if base is None and release.baseline is not None and release.strategy.warm_up == 0:
        # From the first request on: the release keeps what both had counted then.
        before = release.stable_baseline
        base = (release.baseline.requests, release.baseline.errors)
        other = (before.requests, before.errors) if before is not None else None
    same = growth.stable == tick.state.stable
    evidence = growth.evidence
    if same and base is not None and other is not None and _rose(base, arm) and _rose(other, beside):
        evidence = evidence.and_then(_since(base, arm), _since(other, beside))
    return replace(
        growth, evidence=evidence, stable=tick.state.stable, own=arm, beside=beside,
        read_at=min(own.at, stable.at), readings=growth.readings + 1,
    )  # fmt: skip


def _rose(before: tuple[int, int], after: tuple[int, int]) -> bool:
    """Whether a counter went on; one that fell was reset, which says nothing."""
    return after[0] >= before[0] and after[1] >= before[1]


def _since(before: tuple[int, int], after: tuple[int, int]) -> tuple[int, int]:
    requests = after[0] - before[0]
    return requests, min(requests, after[1] - before[1])


def _follow(tick: Tick, release: ReleaseState, growth: Growth) -> Growth:
    """Note when the router shows the weight, and how long it took."""
    asked, observed = tick.asked.get(release.version, 0), tick.observed(release.version)
    if asked == growth.weight and growth.asked_at is None:
        growth = replace(growth, asked_at=tick.state.asked_at)
    if growth.changed_at is not None:
        return growth if asked == growth.weight == observed else replace(growth, changed_at=None, readings=0)
    if growth.asked_at is None or not asked == growth.weight == observed or not tick.confirmed:
        return growth
    took = max(0.0, tick.now - growth.asked_at)
    tick.say("release_weight", f"{release.id}: {release.version} carries {format_weight(growth.weight)}",
             release=release.id, version=release.version, weight=growth.weight)  # fmt: skip
    actuation = max(took, (took + growth.actuation) / 2)
    return replace(growth, changed_at=tick.now, readings=0, actuation=actuation)


def _held(tick: Tick, release: ReleaseState, settings: Adaptive, growth: Growth) -> str:
    """Return what keeps the weight from changing now; empty: nothing does."""
    verdict = release.verdict
    others = [other.id for other in tick.active if other.id != release.id and takes_over(other)]
    interval = reading_interval(tick.state.history)
    if growth.changed_at is None:
        return _not_shown(tick, release, growth)
    if others:
        return f"{', '.join(others)} takes stable's place"
    if tick.now < warm_at(release):
        return f"warming up for {format_duration(warm_at(release) - tick.now)} more"
    if verdict is not None and (in_doubt(release) or verdict.kind == "inconclusive"):
        return verdict.why
    if tick.now - growth.read_at > STALE_READINGS * interval and growth.read_at:
        return f"the newest reading of both versions is {format_duration(tick.now - growth.read_at)} old"
    if leans_bad(growth.evidence, calibration_of(tick.state.own_history).clump):
        return f"more fails than chance explains: {_told(growth.evidence)}"
    if growth.readings < ENOUGH_READINGS or tick.now - growth.changed_at < max(settings.every, 2 * interval):
        return f"{growth.readings} readings so far, {_told(growth.evidence)}"
    return ""


def _unclear(tick: Tick, release: ReleaseState) -> str:
    """Return why the judge does not let it have all of the traffic yet; empty: it does."""
    verdict = release.verdict
    if verdict is None:
        return f"a first reading of {release.version}" if needs_data(tick, release) else ""
    return "" if verdict.kind == "promote" else verdict.why


def _not_shown(tick: Tick, release: ReleaseState, growth: Growth) -> str:
    asked, can = tick.asked.get(release.version, 0), tick.capacity(release.version)
    if asked < growth.weight and can < growth.weight:
        return f"replicas for it: the ready ones carry {format_weight(can)}"
    if asked != growth.weight:
        return f"other versions leave it {format_weight(asked)}"
    return f"the router to show it (now {format_weight(tick.observed(release.version) or 0)})"


def _room(tick: Tick, release: ReleaseState, settings: Adaptive) -> int:
    """Return the largest weight that is left for this arm: those that grow share alike, and stable keeps as much."""
    arms = [other for other in tick.active if other.id != release.id and other.status != "rolling_back"]
    if not arms:
        return settings.most
    grow = {other.id for other in arms if other.strategy.adaptive is not None and other.status != "paused"}
    fixed = sum(tick.asked.get(other.version, 0) for other in arms if other.id not in grow and not takes_over(other))
    sharing = 1 + len(grow)
    return max(1, min(settings.most // sharing, (WHOLE - fixed) // (sharing + 1)))


def _change(
    tick: Tick, release: ReleaseState, settings: Adaptive, growth: Growth, weight: int, reaction: float
) -> None:
    per_second = growth.per_second or 0.0
    cost = worst_case(weight, growth.evidence, per_second, reaction)
    normal = growth.evidence.stable_rate * per_second * reaction
    tick.put(replace(tick.state.releases[release.id], growth=_going_to(growth, weight)))
    tick.say(
        "release_grows", f"{release.id}: {format_weight(growth.weight)} -> {format_weight(weight)}: "
        f"{_told(growth.evidence)}, so at {per_second:.3g} requests a second and {format_duration(reaction)} to react "
        f"at most {cost:.3g} more than normal would fail (budget {settings.budget:g})",
        release=release.id, version=release.version, weight=weight, before=growth.weight,
        requests_per_second=per_second, reaction=reaction, budget=settings.budget, worst_case=round(cost, 3),
        normal=round(normal, 3), upper_rate=growth.evidence.upper, stable_rate=growth.evidence.stable_rate,
        allowance=min(1.0, allowance(settings, growth.evidence, per_second, reaction)),
    )  # fmt: skip


def _in_time(tick: Tick, release: ReleaseState, settings: Adaptive, growth: Growth, words: str) -> Growing:
    """Wait, but not for ever: then a person decides."""
    verdict = release.verdict
    since = max(growth.began_at, release.patience_from or 0.0, warm_at(release))
    until = since + settings.decide_within
    if verdict is not None and verdict.kind == "inconclusive" and (release.patience_from or 0.0) < growth.began_at:
        return Growing(f"inconclusive: {verdict.why}; a person decides: resume, promote or abort", pause=True)
    if tick.now >= until:
        waited = format_duration(tick.now - since)
        return Growing(f"inconclusive after {waited}: {words}; a person decides: resume, promote or abort", pause=True)
    return Growing(f"{words}; pauses in {format_duration(until - tick.now)}", earliest=None)


def _told(evidence: Evidence) -> str:
    if not evidence.requests:
        return "no request yet"
    return (
        f"{evidence.errors} of {evidence.requests} requests failed, at most {percent(evidence.upper)} do, of stable "
        f"{percent(evidence.stable_rate)}"
    )
