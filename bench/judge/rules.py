"""The rules of others on the same readings, each second or at their own interval, on one page.

Those that Forge ships too (`threshold`, `failure_limit`, `mann_whitney`) say the same here: tests hold them together.
These read cumulative counts directly, which makes thousands of releases affordable.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.judge.worlds import COMPARED, Release, Total
from forge.core.judge.canary_analysis import METRICS
from forge.core.judge.scoring import classify, score

Rule = Callable[[Release], int | None]
"""Returns the second of the rollback, None when there is none."""


def window(total: Total, limit: float, over: int, *, full: bool = False) -> int | None:
    """Return when more than `limit` of the last `over` seconds failed; `full`: not before so many have passed."""
    return next(
        (t for t in range(over if full else 1, len(total.requests)) if total.rate(t - over, t) > limit), None
    )  # fmt: skip


def burn_rate(total: Total, budget: float = 0.001, times: float = 14.4) -> int | None:
    """Return when the budget burns so many times too fast, over 5 min and over an hour (here: since the start)."""
    limit = budget * times
    seconds = range(1, len(total.requests))
    return next((t for t in seconds if total.rate(t - 300, t) > limit and total.rate(t - 3600, t) > limit), None)


def failures(total: Total, limit: float, forgiven: int, interval: int = 60) -> int | None:
    """Return when, looked at once an interval, more than `forgiven` of them had more than `limit` failed."""
    failed = 0
    for t in range(interval, len(total.requests), interval):
        failed += total.rate(t - interval, t) > limit
        if failed > forgiven:
            return t
    return None


def canary_analysis(release: Release) -> int | None:
    """Return when Kayenta's judge fails the error rates of each minute, at 5, 10 and 15 minutes."""
    metric = METRICS[:1]
    for until in range(300, COMPARED + 1, 300):
        minutes = range(60, until + 1, 60)
        own = [release.arm.rate(t - 60, t) for t in minutes]
        other = [release.stable.rate(t - 60, t) for t in minutes]
        if score(metric, [classify(metric[0], own, other)], {}).summary == "Fail":
            return until
    return None


RULES: dict[str, Rule] = {
    "seed: whole service > 5 % over 5 min": lambda release: window(release.whole, 0.05, 300),
    "seed: the version alone, young window": lambda release: window(release.arm, 0.05, 300),
    "seed: the version alone, full window": lambda release: window(release.arm, 0.05, 300, full=True),
    "burn rate 14.4x of 99.9 %": lambda release: burn_rate(release.arm),
    "Argo: 1 min > 1 %, failureLimit 1": lambda release: failures(release.arm, 0.01, 1),
    "Argo: failureLimit 3": lambda release: failures(release.arm, 0.01, 3),
    "Argo: failureLimit 5": lambda release: failures(release.arm, 0.01, 5),
    "Flagger: 1 min < 99 %, threshold 1": lambda release: failures(release.arm, 0.01, 0),
    "Flagger: threshold 5": lambda release: failures(release.arm, 0.01, 4),
    "Flagger: threshold 10": lambda release: failures(release.arm, 0.01, 9),
    "Kayenta: Mann-Whitney at 5/10/15 min": canary_analysis,
}
