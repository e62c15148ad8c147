"""What a release can see, said before its first step: which increase of errors each step finds, if any."""

from __future__ import annotations

from forge.core.judge.history import calibration_of
from forge.core.judge.registry import judge_of
from forge.core.judge.report import percent
from forge.core.judge.sensitivity import detectable, sentence
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.windows import Window, window
from forge.core.release.adaptive import expected_seconds, start_weight
from forge.core.release.growing import reaction_time, reading_interval
from forge.core.release.observe import SHORTEST_HISTORY
from forge.core.release.state import ReleaseState
from forge.core.release.tick import Tick
from forge.model.strategy import Adaptive, Strategy
from forge.model.units import WHOLE, format_duration, format_weight


def tell_sensitivity(tick: Tick, release: ReleaseState) -> None:
    """Say for each step of a canary what it finds at the traffic that stable had until now; how soon one that sets
    its own weights can be through."""
    judge = judge_of(tick.state.plan)
    judged = isinstance(judge, SequentialJudge) or release.strategy.adaptive is not None
    if release.strategy.name != "canary" or not judged or not tick.state.stable:
        return
    seen, share = _recent(tick), tick.asked.get(tick.state.stable, WHOLE) / WHOLE
    if seen is None or not seen.requests or share <= 0:
        words = f"what this release can find is not known: no recent traffic of {tick.state.stable}"
        tick.say("release_sensitivity", f"{release.id}: {words}", release=release.id)
        return
    per_second = seen.requests / seen.seconds / share
    if release.strategy.adaptive is not None:
        _tell_growth(tick, release, release.strategy.adaptive, per_second, seen.error_rate)
        return
    if not isinstance(judge, SequentialJudge):
        return
    settings = judge.settings.counts(judge.settings.calibrated(calibration_of(tick.state.own_history)))
    part = judge.settings.weights.get("errors", 0.0) / sum(judge.settings.weights.values())
    for weight, seconds in timed_steps(release.strategy):
        increase = 1.0
        if part > 0 and weight < WHOLE:
            increase = detectable(
                seen.error_rate, per_second, weight / WHOLE, seconds, settings, share=part, alpha=judge.settings.alpha
            )
        words = sentence(weight, seconds, increase) if seconds else _no_time(weight)
        tick.say(
            "release_sensitivity", f"{release.id}: {'warning: ' if increase >= 1 else ''}{words}",
            release=release.id, weight=weight, seconds=seconds, increase=increase, warning=increase >= 1,
            requests_per_second=per_second, stable_rate=seen.error_rate,
        )  # fmt: skip


def _tell_growth(tick: Tick, release: ReleaseState, settings: Adaptive, per_second: float, rate: float) -> None:
    """Say where an adaptive canary begins, and how long one takes that fails as often as stable."""
    interval, reaction = reading_interval(tick.state.history), reaction_time(tick, settings, None)
    first = start_weight(settings, per_second, reaction)
    takes = expected_seconds(settings, per_second, rate, reaction, interval)
    limit = format_duration(settings.decide_within)
    if takes is None:
        words = (
            f"warning: the traffic is too little to exclude {percent(settings.tolerance)} more errors within {limit}"
        )
        words += ": a person will have to decide"
    else:
        words = f"as good as stable, it takes all of the traffic after about {format_duration(takes)}"
    tick.say(
        "release_sensitivity", f"{release.id}: begins at {format_weight(first)}; {words}", release=release.id,
        weight=first, seconds=takes, tolerance=settings.tolerance, warning=takes is None,
        requests_per_second=per_second, stable_rate=rate,
    )  # fmt: skip


def timed_steps(strategy: Strategy) -> list[tuple[int, float]]:
    """Return (basis points, seconds) of each weight that lasts a known time; a person's gate has no known end."""
    found: list[tuple[int, float]] = []
    open_ended: set[int] = set()
    for step in strategy.steps:
        if step.weight is not None:
            found.append((step.weight, 0.0))
        elif found and (step.until_resumed or step.approval is not None):
            open_ended.add(len(found) - 1)
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + (step.pause or 0.0))
    return [each for index, each in enumerate(found) if index not in open_ended]


def _recent(tick: Tick) -> Window | None:
    stable = tick.state.stable
    samples = tuple(samples[stable] for _, samples in tick.state.history if stable in samples)
    return window(samples, tick.now - SHORTEST_HISTORY)


def _no_time(weight: int) -> str:
    return f"at {format_weight(weight)} this step proves nothing: it ends as soon as it is reached"
