"""The classic judge: fixed thresholds on the arm's own readings, such as "more than 5 % of requests answered
5xx in the last 5 minutes". A young window counts as soon as it has `minimum_requests`."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.core.judge.base import Series
from forge.core.judge.windows import Window, quantile, window
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Threshold
from forge.model.units import format_duration, format_size


class Finding(msgspec.Struct, frozen=True):
    """What one threshold says. `exceeded` None: it cannot know yet, and `why` tells what is missing.

    `few`: there were requests, but fewer than it takes.
    """

    exceeded: bool | None
    why: str
    data: dict[str, Any] = {}
    few: bool = False


class ThresholdJudge:
    """Rolls back when any threshold is exceeded; holds while one cannot know; else lets the release go on."""

    def needs_data(self, release: ReleaseState) -> bool:
        """Whether the strategy has thresholds."""
        return bool(release.strategy.thresholds)

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Look at every threshold; the first that is exceeded decides."""
        del stable
        findings = [examine(threshold, arm, now) for threshold in release.strategy.thresholds]
        for finding in findings:
            if finding.exceeded:
                return Verdict("rollback", f"{arm.version}: {finding.why}", finding.data), state
        for finding in findings:
            if finding.exceeded is None:
                return Verdict("hold", f"{arm.version}: {finding.why}", finding.data), state
        words = "; ".join(finding.why for finding in findings) or "no threshold is set"
        return Verdict("promote", f"{arm.version}: {words}", findings[0].data if findings else {}), state


class NoJudge:
    """Lets every release go on: for environments where nobody measures."""

    def needs_data(self, release: ReleaseState) -> bool:
        """Never."""
        del release
        return False

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Say that nothing is judged."""
        del release, stable, now
        return Verdict("promote", f"{arm.version} is not judged (judge `none`)"), state


def examine(threshold: Threshold, arm: Series, now: float) -> Finding:
    """Return what `threshold` says of the readings in its window, which begins no earlier than `arm.since`."""
    seen = window(arm.samples, max(now - threshold.over, arm.since))
    requests = seen.requests if seen else 0
    data = {"metric": threshold.metric, "above": threshold.above, "requests": requests}
    if threshold.metric in {"error_rate", "latency"} and requests < max(1, threshold.minimum_requests):
        needed = max(1, threshold.minimum_requests)
        return Finding(None, f"cannot know yet: {requests} of at least {needed} requests", data, few=requests > 0)
    if seen is None:
        return Finding(None, "cannot know yet: fewer than two readings", data)
    return _METRICS[threshold.metric](threshold, seen, arm, data)


def _error_rate(threshold: Threshold, seen: Window, arm: Series, data: dict[str, Any]) -> Finding:
    del arm
    rate = seen.error_rate
    data |= {"errors": seen.errors, "rate": rate, "seconds": seen.seconds}
    exceeded = rate > threshold.above
    sign = "above" if exceeded else "within"
    words = (
        f"{seen.errors} of {seen.requests} requests failed ({_percent(rate)}) in the last "
        f"{format_duration(seen.seconds)}, {sign} the limit of {_percent(threshold.above)}"
    )
    return Finding(exceeded, words, data)


def _latency(threshold: Threshold, seen: Window, arm: Series, data: dict[str, Any]) -> Finding:
    del arm
    measured = quantile(seen.latency, threshold.quantile)
    name = f"p{threshold.quantile * 100:g}"
    if measured is None:
        return Finding(None, f"cannot know yet: no latency was measured for {name}", data)
    value, beyond = measured
    # Beyond the last bucket only "more than its bound" is known, which is enough when the limit is not higher.
    exceeded = value > threshold.above or (beyond and threshold.above <= value)
    data |= {"quantile": threshold.quantile, "seconds": seen.seconds, "value": value}
    more = "more than " if beyond else ""
    words = (
        f"{name} latency is {more}{_milliseconds(value)} over {format_duration(seen.seconds)} "
        f"({seen.requests} requests), {'above' if exceeded else 'within'} the limit of {_milliseconds(threshold.above)}"
    )
    return Finding(exceeded, words, data)


def _cpu(threshold: Threshold, seen: Window, arm: Series, data: dict[str, Any]) -> Finding:
    if seen.cores is None or arm.replicas < 1:
        return Finding(None, "cannot know yet: no CPU time was measured", data)
    cores = seen.cores / arm.replicas
    exceeded = cores > threshold.above
    data |= {"value": cores, "seconds": seen.seconds, "replicas": arm.replicas}
    words = (
        f"each replica used {cores:.2f} cores over {format_duration(seen.seconds)}, "
        f"{'above' if exceeded else 'within'} the limit of {threshold.above:g}"
    )
    return Finding(exceeded, words, data)


def _memory(threshold: Threshold, seen: Window, arm: Series, data: dict[str, Any]) -> Finding:
    del arm
    if seen.memory is None:
        return Finding(None, "cannot know yet: no memory was measured", data)
    exceeded = seen.memory > threshold.above
    data |= {"value": seen.memory, "seconds": seen.seconds}
    words = (
        f"the largest replica uses {format_size(seen.memory)}, "
        f"{'above' if exceeded else 'within'} the limit of {format_size(threshold.above)}"
    )
    return Finding(exceeded, words, data)


def _value(threshold: Threshold, seen: Window, arm: Series, data: dict[str, Any]) -> Finding:
    del arm
    measured = next((row for row in seen.values if row[0] == threshold.name), None)
    data |= {"name": threshold.name}
    if measured is None:
        return Finding(None, f"cannot know yet: nothing was answered for {threshold.name}", data)
    _, mean, readings = measured
    exceeded = mean > threshold.above
    data |= {"value": mean, "readings": readings, "seconds": seen.seconds}
    words = (
        f"{threshold.name} is {mean:.4g} over {format_duration(seen.seconds)}, "
        f"{'above' if exceeded else 'within'} the limit of {threshold.above:g}"
    )
    return Finding(exceeded, words, data)


_METRICS = {"error_rate": _error_rate, "latency": _latency, "cpu": _cpu, "memory": _memory, "value": _value}


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.3g} %"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"
