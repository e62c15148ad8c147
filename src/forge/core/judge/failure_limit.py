"""The classic rule with a failure limit, in Argo Rollouts' and Flagger's words: look at fixed intervals, count
how often a threshold was exceeded, and roll back when that is more often than allowed.

It compares with no other version and makes no promise about false alarms; docs/judge.md 2.1 has what it costs.
Deviations: where both roll back when the metrics are away, this rule says `inconclusive` (or, with `missing` set
to `failed`, does as Flagger does; for comparisons on recorded data only). A look at too few requests to know is what
Argo calls an inconclusive measurement; it is none of `count`, so that nothing is promoted unseen.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forge.core.judge.base import Series
from forge.core.judge.classic import Finding, examine
from forge.core.release.state import ReleaseState, Verdict
from forge.model.strategy import Threshold
from forge.model.units import format_duration


class FailureLimit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When to look, and how much to forgive.

    `interval`: seconds between looks; `initial_delay` seconds before the first (None: one interval, so that a
    window has filled). `failure_limit`: how many failures are forgiven (-1: all). `consecutive_error_limit`: how
    many looks in a row may find nothing to measure; `inconclusive_limit`: how many, in a row or not, may find fewer
    requests than the check needs. `count`: looks that it takes before anything goes
    on, and after which it stops looking (None: it never stops); `iterations`: successful looks that it takes
    instead, without `count`.
    """

    interval: float = 60.0
    initial_delay: float | None = None
    count: int | None = None
    failure_limit: int = 0
    consecutive_error_limit: int = 4
    iterations: int = 1
    missing: Literal["error", "failed"] = "error"
    inconclusive_limit: int = 4

    def __post_init__(self) -> None:
        if self.interval <= 0:
            raise ValueError(f"`interval` is more than 0 seconds, not {self.interval:g}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"`count` is at least 1, not {self.count}")
        if self.initial_delay is not None and self.initial_delay < 0:
            raise ValueError(f"`initial_delay` is at least 0 seconds, not {self.initial_delay:g}")
        if self.iterations < 1:
            raise ValueError(f"`iterations` is at least 1, not {self.iterations}")
        if min(self.failure_limit, self.consecutive_error_limit, self.inconclusive_limit) < -1:
            raise ValueError(
                "`failure_limit`, `consecutive_error_limit` and `inconclusive_limit` are at least 0, or -1 to forgive all"
            )


def argo(
    interval: float = 60.0, count: int | None = None, failure_limit: int = 0, consecutive_error_limit: int = 4,
    inconclusive_limit: int = 4,
) -> FailureLimit:  # fmt: skip
    """Return the rule of an Argo Rollouts analysis: it fails when more than `failure_limit` measurements failed."""
    return FailureLimit(
        interval, None, count, failure_limit, consecutive_error_limit, inconclusive_limit=inconclusive_limit
    )


def flagger(interval: float = 60.0, threshold: int = 1, iterations: int = 1) -> FailureLimit:
    """Return the rule of a Flagger canary: it rolls back at the `threshold`-th failed check; no value is one too."""
    return FailureLimit(interval, None, None, threshold - 1, 4, iterations, "failed")


class Tally(msgspec.Struct, frozen=True):
    """What the looks at one threshold found."""

    successful: int = 0
    failed: int = 0
    error: int = 0
    consecutive_error: int = 0
    inconclusive: int = 0
    """Of fewer requests than it takes to know."""

    def after(self, exceeded: bool | None, *, few: bool = False) -> Tally:
        """Return the tally with one more look; None: nothing could be measured, or `few` requests."""
        if exceeded is not None:
            return Tally(self.successful + (not exceeded), self.failed + exceeded, self.error, 0, self.inconclusive)
        if few:
            return Tally(self.successful, self.failed, self.error, 0, self.inconclusive + 1)
        return Tally(self.successful, self.failed, self.error + 1, self.consecutive_error + 1, self.inconclusive)


class Progress(msgspec.Struct, frozen=True):
    """The judge's state, plain JSON: one tally a threshold, and when it last looked."""

    tallies: tuple[Tally, ...] = ()
    looked_at: float | None = None
    words: tuple[str, ...] = ()
    """What each look said last."""

    @property
    def looks(self) -> int:
        """How often it looked and could measure every threshold."""
        return min((tally.successful + tally.failed for tally in self.tallies), default=0)


class FailureLimitJudge:
    """Rolls back when a threshold was exceeded at more looks than the limit forgives."""

    def __init__(self, settings: FailureLimit = FailureLimit()) -> None:  # noqa: B008  # it is frozen
        self.settings = settings

    def needs_data(self, release: ReleaseState) -> bool:
        """Whether the strategy has thresholds."""
        return bool(release.strategy.thresholds)

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Look when it is time to; say what the looks so far mean."""
        del stable
        progress = msgspec.convert(state, Progress) if state else Progress()
        progress = look(progress, self.settings, release.strategy.thresholds, arm, now)
        # As JSON gives it back: the state is then the same before and after it was stored.
        memory = msgspec.json.decode(msgspec.json.encode(progress))
        return conclude(progress, self.settings, release.strategy.thresholds, arm.version), memory


def look(
    progress: Progress, settings: FailureLimit, thresholds: tuple[Threshold, ...], arm: Series, now: float
) -> Progress:
    """Return the progress after `now`, which is unchanged between looks and after the last."""
    tallies = progress.tallies or (Tally(),) * len(thresholds)
    delay = settings.interval if settings.initial_delay is None else settings.initial_delay
    due = arm.since + delay if progress.looked_at is None else progress.looked_at + settings.interval
    done = settings.count is not None and progress.looks >= settings.count
    # A millisecond of tolerance: ticks a minute apart are never exactly a minute apart.
    if now < due - 0.001 or done or any(_failed(tally, settings) for tally in tallies):
        return progress
    findings = [examine(threshold, arm, now) for threshold in thresholds]
    grown = tuple(
        tally.after(_exceeded(finding, settings), few=finding.few)
        for tally, finding in zip(tallies, findings, strict=True)
    )
    return Progress(grown, now, tuple(finding.why for finding in findings))


def conclude(progress: Progress, settings: FailureLimit, thresholds: tuple[Threshold, ...], version: str) -> Verdict:
    """Return what the looks so far mean."""
    if not thresholds:
        return Verdict("promote", f"{version}: no threshold is set")
    for threshold, tally, words in zip(thresholds, progress.tallies, progress.words, strict=False):
        data = {"metric": threshold.metric, **msgspec.to_builtins(tally), "failure_limit": settings.failure_limit}
        if _failed(tally, settings):
            forgiven = f"{tally.failed} looks found it exceeded, and {settings.failure_limit} are forgiven"
            return Verdict("rollback", f"{version}: {words} ({forgiven})", data)
    for threshold, tally, words in zip(thresholds, progress.tallies, progress.words, strict=False):
        data = {"metric": threshold.metric, **msgspec.to_builtins(tally)}
        if 0 <= settings.consecutive_error_limit < tally.consecutive_error:
            return Verdict("inconclusive", f"{version}: {words} ({tally.consecutive_error} looks in a row)", data)
        if 0 <= settings.inconclusive_limit < tally.inconclusive:
            forgiven = (
                f"{tally.inconclusive} looks found too few requests, and {settings.inconclusive_limit} are forgiven"
            )
            return Verdict("inconclusive", f"{version}: {words} ({forgiven})", data)
    fewest = min((tally.successful for tally in progress.tallies), default=0)
    seen, needed, kind = fewest, settings.iterations, "successful looks"
    if settings.count is not None:
        seen, needed, kind = progress.looks, settings.count, "looks"
    if seen < needed:
        why = f"{version}: {seen} of {needed} {kind}, one every {format_duration(settings.interval)}"
        return Verdict("hold", why, {"successful": fewest, "looks": progress.looks, "needed": needed})
    return Verdict("promote", f"{version}: {'; '.join(progress.words)}", {"successful": fewest})


def _exceeded(finding: Finding, settings: FailureLimit) -> bool | None:
    return True if finding.exceeded is None and settings.missing == "failed" else finding.exceeded


def _failed(tally: Tally, settings: FailureLimit) -> bool:
    return 0 <= settings.failure_limit < tally.failed
