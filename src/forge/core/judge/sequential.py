"""The sequential judge: looks after every reading, and rolls a good release back with probability at most alpha.

Errors, latency and saturation of an arm are compared with the stable version beside it, at the same time; the
evidence of all of them is one number that reaches 1/alpha with probability at most alpha when the arm is no worse,
however often one looks (docs/judge.md 3). A hard limit on the error rate is held by evidence of its own, and the
other `checks:` of the strategy stay what they are: rules.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from forge.core.judge.base import Series
from forge.core.judge.classic import Finding, examine
from forge.core.judge.combine import closed_log_e, combine_metrics, log_mean
from forge.core.judge.evidence import log_e
from forge.core.judge.gauges import gauge_log_e
from forge.core.judge.latency import latency_log_e
from forge.core.judge.memory import Memory, recall, remembered, shared_outage, take_all
from forge.core.judge.quality import quality_of
from forge.core.judge.report import Picture, against, comparison, odds, passing, percent, picture
from forge.core.judge.settings import SequentialSettings
from forge.core.judge.slo import slo_log_e
from forge.core.judge.windows import window
from forge.core.judge.written import new_kinds, written_log_e
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Threshold
from forge.model.units import format_duration


class SequentialJudge:
    """Judges by accumulated evidence. One object for each configuration; it keeps nothing between calls."""

    def __init__(self, settings: SequentialSettings | None = None) -> None:
        self.settings = settings or SequentialSettings()

    def needs_data(self, release: ReleaseState) -> bool:
        """Always, unless it is the first version and has no checks: there is nothing to hold it against."""
        return bool(release.previous or release.strategy.thresholds)

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Take in what is new, and say what it means."""
        limits = [rule for rule in release.strategy.thresholds if rule.metric == "error_rate"]
        strictest = min(limits, key=lambda rule: rule.above, default=None)
        limit = strictest.above if strictest is not None and 0 < strictest.above < 1 else None
        memory = take_all(recall(state, self.settings, stable), self.settings, arm, stable, limit)
        shown = self._picture(memory)
        shown.data["quality"] = quality_of(arm, now)
        shown.data["alone"] = stable.version in {"", arm.version}
        lacks = arm.samples[-1].lacks if arm.samples else ()
        if memory.written is not None:
            shown.data["templates"] = new_kinds(memory.written, arm.samples[-1] if arm.samples else None)
        if lacks:
            shown.data["lacks"] = list(lacks)
        rules = [examine(rule, arm, now) for rule in release.strategy.thresholds if rule.metric != "error_rate"]
        verdict = self._bad(memory, shown, rules, stable)
        if verdict is None:
            verdict = self._unclear(memory, shown, rules, limits, arm, stable, now)
            since = None if verdict is None else (memory.unclear_since if memory.unclear_since is not None else now)
            memory = replace(memory, unclear_since=since)
            if verdict is not None and since is not None and now - since >= self.settings.decide_within:
                waited = format_duration(now - since)
                verdict = Verdict("inconclusive", f"{verdict.why}, and that for {waited}", verdict.data)
        if verdict is None:
            words = "; ".join([passing(shown), *(finding.why for finding in rules)])
            verdict = Verdict("promote", words, shown.data)
        return Verdict(verdict.kind, f"{arm.version}: {verdict.why}", verdict.data), remembered(memory)

    def finish(self, verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
        """Return the verdicts with the bound kept over all arms together (closed averages of their evidence)."""
        told = {name: float(verdict.data.get("log_evidence", 0.0)) for name, verdict in verdicts.items()}
        closed = closed_log_e(told) if len(told) > 1 else told
        return {name: self._finished(verdict, closed[name], len(told)) for name, verdict in verdicts.items()}

    def _finished(self, verdict: Verdict, closed: float, arms: int) -> Verdict:
        if arms < 2 or verdict.data.get("by") != "evidence" or closed >= self._needed:
            return verdict
        words = f"{verdict.why}; with {arms} arms judged at once that is {odds(closed)}, which is not enough yet"
        return Verdict("hold", words, {**verdict.data, "closed_log_evidence": round(closed, 6)})

    @property
    def _needed(self) -> float:
        return math.log(1 / self.settings.alpha)

    def _picture(self, memory: Memory) -> Picture:
        metrics = {"errors": log_e(memory.errors)}
        if memory.latency is not None:
            metrics["latency"] = latency_log_e(memory.latency)
        gauges = [gauge_log_e(gauge) for gauge in (memory.cpu, memory.memory) if gauge is not None]
        # A gauge that cannot be read counts as 1: its half of the stake is not given to the other.
        gauges += [0.0] * (2 - len(gauges))
        metrics["saturation"] = log_mean([(0.5, gauge) for gauge in gauges])
        if memory.written is not None:
            metrics["logs"] = written_log_e(memory.written)
        weights = self._weights(memory)
        metrics = {name: value for name, value in metrics.items() if weights.get(name, 0.0) > 0}
        slo = slo_log_e(memory.slo) if memory.slo is not None else None
        return picture(memory, metrics, combine_metrics(weights, metrics), slo, self.settings.alpha)

    def _weights(self, memory: Memory) -> dict[str, float]:
        """Return the weights of what is measured; of a state of before, those that it was judged by."""
        measured = memory.measured or ("errors", "latency", "saturation")
        weights = {name: weight for name, weight in self.settings.weights.items() if name in measured}
        return weights if any(weights.values()) else {"errors": 1.0}

    def _bad(self, memory: Memory, shown: Picture, rules: list[Finding], stable: Series) -> Verdict | None:
        for finding in rules:
            if finding.exceeded:
                return Verdict("rollback", finding.why, {**shown.data, **finding.data, "by": "rule"})
        if shown.log_e >= self._needed:
            return Verdict("rollback", against(shown), {**shown.data, "by": "evidence"})
        fired = memory.slo is not None and slo_log_e(memory.slo) >= math.log(1 / self.settings.slo_alpha)
        worse = shown.interval[0] > self.settings.ratio
        shared = not shown.data["alone"] and shared_outage(stable, memory.limit)
        if not fired or memory.slo is None or (shared and not worse):
            return None
        words = (
            f"{shown.data['errors']} of {shown.data['requests']} requests failed ({percent(shown.data['rate'])}), "
            f"above the limit of {percent(memory.limit)}: evidence {odds(slo_log_e(memory.slo))}, bound on false "
            f"alarms {self.settings.slo_alpha * 100:g} %; {comparison(shown)}"
        )
        return Verdict("rollback", words, {**shown.data, "by": "limit"})

    def _unclear(
        self, memory: Memory, shown: Picture, rules: list[Finding], limits: list[Threshold], arm: Series,
        stable: Series, now: float,
    ) -> Verdict | None:  # fmt: skip
        """Return why the release has to wait; None when nothing speaks against going on."""
        bad = self._limit_words(limits, arm, stable, now) or self._doubt_words(shown)
        if bad:
            return Verdict("hold", bad, {**shown.data, "doubt": True})
        unknown = next((finding.why for finding in rules if finding.exceeded is None), "")
        lacks = "; ".join(shown.data.get("lacks", ()))
        words = (
            (lacks and f"cannot know: {lacks}") or unknown or _missing_words(memory, limits) or self._proof_words(shown)
        )
        return Verdict("hold", words, shown.data) if words else None

    @staticmethod
    def _limit_words(limits: list[Threshold], arm: Series, stable: Series, now: float) -> str:
        """Above the limit by the letter, which alone proves nothing: young windows are above it by chance."""
        for rule in limits:
            seen = window(arm.samples, max(now - rule.over, arm.since))
            if seen is None or seen.error_rate <= rule.above:
                continue
            told = f"{seen.errors} of {seen.requests} requests failed in the last {format_duration(seen.seconds)}"
            limit = percent(rule.above)
            if stable.version != arm.version and shared_outage(stable, rule.above):
                return f"{told}, but stable is above the limit of {limit} too: an outage that both share"
            return f"{told}, above the limit of {limit}, which may still be chance"
        return ""

    def _doubt_words(self, shown: Picture) -> str:
        if shown.log_e < math.log(self.settings.doubt):
            return ""
        return f"in doubt: {against(shown)}"

    def _proof_words(self, shown: Picture) -> str:
        """What `prove` still needs: the additional error rate excluded with 95 % confidence."""
        data = shown.data
        if self.settings.prove is None or not data["stable_requests"]:
            return ""
        stable = (data["stable_errors"] + 0.5) / (data["stable_requests"] + 1)
        excess = data["upper_rate"] - stable
        if excess <= self.settings.prove:
            return ""
        return (
            f"cannot exclude {percent(self.settings.prove)} more errors than stable yet: after {data['requests']} "
            f"requests up to {percent(excess)} more are possible"
        )


def _missing_words(memory: Memory, limits: list[Threshold]) -> str:
    needed = max((max(1, rule.minimum_requests) for rule in limits), default=0)
    if memory.arm_counts.requests >= needed:
        return ""
    return f"cannot know yet: {memory.arm_counts.requests} of at least {needed} requests"
