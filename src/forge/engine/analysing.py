"""Judge recorded releases: the sequential judge, or one of the classic rules on the same data."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec

from forge.core.judge.analysis import AnalysisSettings, Point, VerdictKind, analyse_release
from forge.core.judge.base import Judge
from forge.core.judge.classic import ThresholdJudge
from forge.core.judge.failure_limit import FailureLimitJudge, argo
from forge.core.judge.recorded import judge_recorded
from forge.core.judge.registry import judge_named, judge_of
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.engine.recorded import Recorded
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Sample


class Analysis(msgspec.Struct, frozen=True):
    """What a judge says of one recorded release, in the words of `forge analyse -o json`.

    `evidence` is the largest e-value of the `arm` (None with a classic rule, which has none), `failed_requests` are
    the arm's from its start to the verdict. The bounds of `ratio_interval` are None where there is none.
    """

    release: str
    verdict: VerdictKind
    t_verdict: float
    arm: str
    evidence: float | None
    p_value: float | None
    ratio_interval: tuple[float, float | None] | None
    failed_requests: int
    excess_failed_requests: float


class Judged(msgspec.Struct, frozen=True):
    """An analysis with what people want to see beside it."""

    analysis: Analysis
    why: str
    requests: int
    trace: tuple[Point, ...] = ()
    alpha: float = 0.01
    calibration: str = ""
    duration: float = 0.0
    """Seconds from the release's start to its last reading."""
    all_failed: int = 0
    """Failed requests of all arms: of the one that is told until its rollback, of others to the last reading."""
    all_excess: float = 0.0


def judge_release(
    recorded: Recorded,
    *,
    judge: str = "sequential",
    settings: AnalysisSettings = AnalysisSettings(),  # noqa: B008  # it is frozen
    strategy: Strategy | None = None,
    traced: bool = False,
    plan: EnvironmentPlan | None = None,
) -> Judged:
    """Judge one release with the judge of that name; `strategy` has the thresholds of the classic rules.

    `plan`: the environment whose `judge_config` holds where its judge is the one that is asked.
    """
    duration = max(
        [sample.at for one in (recorded.stable, *recorded.arms.values()) for sample in one[-1:]], default=0.0
    )
    if not recorded.arms:
        nothing = Analysis(recorded.release, "hold", duration, "", None, None, None, 0, 0.0)
        return Judged(nothing, "the release has no arm beside stable", 0, duration=duration)
    told = (
        _sequential(recorded, settings, duration, traced=traced)
        if judge == "sequential"
        else _classic(recorded, judge, strategy or Strategy(), duration, plan)
    )
    failed, excess = 0, 0.0
    for arm, readings in recorded.arms.items():
        gone = told.analysis.verdict == "rollback" and arm == told.analysis.arm
        cost = _cost(readings, recorded.stable, told.analysis.t_verdict if gone else duration)
        failed, excess = failed + cost[0], excess + cost[2]
    return msgspec.structs.replace(told, all_failed=failed, all_excess=excess)


def configured(plan: EnvironmentPlan | None) -> SequentialSettings:
    """Return the settings of an environment's sequential judge; the defaults where it has another one, or none.

    Raises UsageError for settings that make no sense.
    """
    if plan is None or plan.judge != "sequential":
        return SequentialSettings()
    judge = judge_of(plan)
    return judge.settings if isinstance(judge, SequentialJudge) else SequentialSettings()


def rule_named(name: str, plan: EnvironmentPlan | None = None) -> Judge:
    """Return a classic rule. Besides the judges of an environment there are rules of others, with their defaults.

    Where `plan` sets the same judge up, it is as the plan says. Raises UsageError for settings that make no sense.
    """
    if plan is not None and plan.judge == name and plan.judge_config:
        return judge_of(plan)
    rules: dict[str, Judge] = {
        "threshold": ThresholdJudge(),
        "failure_limit": FailureLimitJudge(argo(60.0, None, 3)),
    }
    return rules.get(name) or judge_named(name)


def limits(limit: float | None) -> Strategy:
    """Return a strategy that has only this limit of the error rate, over five minutes."""
    return Strategy(thresholds=(Threshold("error_rate", limit, 300.0),) if limit is not None else ())


def _sequential(recorded: Recorded, settings: AnalysisSettings, duration: float, *, traced: bool) -> Judged:
    found = analyse_release(
        recorded.stable, recorded.arms, recorded.calibration, settings, step=recorded.step, traced=traced,
        slow=recorded.latency,
    )[0]  # fmt: skip
    low, high = found.interval
    analysis = Analysis(
        recorded.release, found.verdict, _short(found.t), found.arm, _digits(math.exp(min(found.largest, 690.0))),
        _digits(min(1.0, math.exp(-found.largest))), (_digits(low), None if math.isinf(high) else _digits(high)),
        found.failed, round(found.excess, 3),
    )  # fmt: skip
    known = settings.judge.calibrated(recorded.calibration)
    history = f"{known.seconds:g} s of history" if known.seconds else "no history"
    words = f"{history}: {known.clump:.3g} errors come as one, blocks of {known.block:g} s"
    return Judged(analysis, found.why, found.requests, found.trace, settings.judge.alpha, words, duration)


def _classic(
    recorded: Recorded, judge: str, strategy: Strategy, duration: float, plan: EnvironmentPlan | None
) -> Judged:
    rule = rule_named(judge, plan)
    told = {
        arm: judge_recorded(rule, readings, recorded.stable, version=arm, strategy=strategy)
        for arm, readings in recorded.arms.items()
    }
    order = {"rollback": 0, "inconclusive": 1, "hold": 2, "promote": 3}
    arm = min(told, key=lambda name: (order[told[name].kind], told[name].at))
    said = told[arm]
    # What has not been said for good has been waited for to the end.
    at = said.at if said.kind in {"rollback", "promote"} else recorded.arms[arm][-1].at
    failed, requests, excess = _cost(recorded.arms[arm], recorded.stable, at)
    analysis = Analysis(
        recorded.release, said.kind, _short(at), arm, None, None, None, failed, round(excess, 3)
    )  # fmt: skip
    return Judged(analysis, said.why, requests, duration=duration)


def _cost(arm: Sequence[Sample], stable: Sequence[Sample], until: float) -> tuple[int, int, float]:
    """Return failed requests, requests, and how many failed more than stable's rate at the same time makes."""
    beside = {round(sample.at, 3): sample for sample in stable}
    expected, before = 0.0, None
    for sample in arm:
        if sample.at > until:
            break
        other = beside.get(round(sample.at, 3))
        if other is None:
            continue
        if before is not None and other.requests > before[1].requests:
            rate = (other.errors - before[1].errors) / (other.requests - before[1].requests)
            expected += rate * (sample.requests - before[0].requests)
        before = (sample, other)
    last = [sample for sample in arm if sample.at <= until][-1]
    failed, requests = last.errors - arm[0].errors, last.requests - arm[0].requests
    return failed, requests, failed - expected


def _digits(value: float) -> float:
    return float(f"{value:.9g}")


def _short(t: float) -> float:
    return round(t, 3)
