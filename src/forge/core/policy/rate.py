"""At most so many releases in a while."""

from __future__ import annotations

from collections.abc import Sequence

from forge.model.policy import MaxReleases


def free_at(starts: Sequence[float], rule: MaxReleases, now: float) -> float:
    """Return the earliest time, not before `now`, at which one more release may start.

    `starts` are the times at which releases started, oldest first. A release counts for `per` seconds.
    """
    recent = [start for start in starts if start > now - rule.per]
    if len(recent) < rule.count:
        return now
    return max(now, recent[-rule.count] + rule.per)


def remember(starts: Sequence[float], rule: MaxReleases | None, now: float) -> tuple[float, ...]:
    """Return the starts with one now; no more than the rule can ever need (none without a rule)."""
    if rule is None:
        return ()
    return tuple([start for start in starts if start > now - rule.per] + [now])[-rule.count :]
