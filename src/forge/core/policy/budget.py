"""The error budget: what an environment answered, in a bounded ledger, held against its objective.

Only what was observed counts. The counters of the proxy go on while nobody looks, so what was answered between two
looks is not lost, but spread evenly over the time between them.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from forge.model.policy import Slo

MINUTE, TEN_MINUTES, HOUR = 60, 600, 3600
MINUTES_KEPT = 3600
TENS_KEPT = 6 * 3600
VERSIONS_KEPT = 64
LEAST_ALLOWED = 10.0
"""Fewer failures than that allowed by the observed requests: too little is known to call the budget spent."""

Bucket = tuple[int, int, int]
"""(start in seconds since the epoch, requests, errors)."""
Buckets = tuple[Bucket, ...]


class Ledger(msgspec.Struct, frozen=True):
    """Requests and errors of a whole environment. Each tier holds the same counts, in buckets of its own size.

    `hours` holds the finished hours and changes once an hour; `hour` is the one under way.
    """

    at: float = 0.0
    """When it was last written; 0: never."""
    since: float = 0.0
    """When counting began."""
    seen: dict[str, tuple[int, int]] = {}
    """The counters (requests, errors) of each version when they were last read."""
    minutes: Buckets = ()
    tens: Buckets = ()
    hour: Bucket = (0, 0, 0)
    hours: Buckets = ()


class Budget(msgspec.Struct, frozen=True):
    """What is left at a moment. `remaining` is a share of the whole budget: 1 is untouched, below 0 is overspent."""

    requests: int
    errors: int
    allowed: float
    remaining: float
    enough: bool
    """Whether enough was observed to say so."""


def record(ledger: Ledger, counters: Mapping[str, tuple[int, int]], now: float, window: float) -> Ledger:
    """Return the ledger with what the counters of all versions grew by since they were last read.

    The first reading ever only sets the starting point: when those requests came is not known. A counter that
    fell began anew.
    """
    seen = {**ledger.seen, **{name: (max(0, r), max(0, e)) for name, (r, e) in counters.items()}}
    seen = dict(list(seen.items())[-VERSIONS_KEPT:])
    if ledger.at == 0.0:
        return Ledger(now, now, seen)
    requests = errors = 0
    for name, (total, failed) in counters.items():
        before_total, before_failed = ledger.seen.get(name, (0, 0))
        requests += total - before_total if total >= before_total else total
        errors += failed - before_failed if failed >= before_failed else failed
    errors = min(errors, requests)
    end = max(now, ledger.at)
    if requests == 0:
        return replace(ledger, at=end, seen=seen)
    span = (ledger.at, end, requests, errors)
    hours = _pour((*ledger.hours, ledger.hour) if ledger.hour[0] else ledger.hours, HOUR, window, span)
    return replace(
        ledger, at=end, seen=seen, minutes=_pour(ledger.minutes, MINUTE, MINUTES_KEPT, span),
        tens=_pour(ledger.tens, TEN_MINUTES, TENS_KEPT, span), hour=hours[-1], hours=hours[:-1],
    )  # fmt: skip


def buckets_for(ledger: Ledger, seconds: float) -> tuple[Buckets, int]:
    """Return the finest buckets that reach back so far, oldest first, and their size in seconds."""
    if seconds <= MINUTES_KEPT:
        return ledger.minutes, MINUTE
    if seconds <= TENS_KEPT:
        return ledger.tens, TEN_MINUTES
    return ((*ledger.hours, ledger.hour) if ledger.hour[0] else ledger.hours), HOUR


def counts(ledger: Ledger, seconds: float, now: float) -> tuple[int, int]:
    """Return (requests, errors) of the last `seconds`; a bucket that reaches into them counts whole."""
    buckets, size = buckets_for(ledger, seconds)
    inside = [bucket for bucket in buckets if bucket[0] + size > now - seconds]
    return sum(bucket[1] for bucket in inside), sum(bucket[2] for bucket in inside)


def remaining(ledger: Ledger, slo: Slo, now: float) -> Budget:
    """Return what is left of the budget: (1 - objective) of the requests of the window may fail."""
    requests, errors = counts(ledger, slo.window, now)
    allowed = requests * (1.0 - slo.objective)
    left = 1.0 - errors / allowed if allowed > 0 else (1.0 if errors == 0 else 0.0)
    return Budget(requests, errors, allowed, left, allowed >= LEAST_ALLOWED)


def burn_rate(requests: int, errors: int, objective: float) -> float:
    """Return how many times faster than the objective allows the budget is being spent; 1 uses it up exactly."""
    if requests == 0 or objective >= 1.0:
        return 0.0
    return errors / requests / (1.0 - objective)


def recovers_at(ledger: Ledger, seconds: float, rate: float, now: float) -> float | None:
    """Return when at most `rate` of the last `seconds` failed, if nothing fails from now on and traffic goes on.

    None: not by then, or there is no traffic. `rate` is a fraction of requests.
    """
    buckets, size = buckets_for(ledger, seconds)
    requests, _ = counts(ledger, seconds, now)
    span = min(seconds, max(size, now - max(ledger.since, now - seconds)))
    pace = requests / span
    # The least changes that can be told apart: a bucket leaves, or as many requests come as a bucket holds.
    for step in range(1, int(seconds // size) + 3):
        then = now + step * size
        inside = [bucket for bucket in buckets if bucket[0] + size > then - seconds]
        total = sum(bucket[1] for bucket in inside) + pace * (then - now)
        if sum(bucket[2] for bucket in inside) <= rate * total:
            return float(then - then % size)
    return None


def _pour(buckets: Buckets, size: int, kept: float, span: tuple[float, float, int, int]) -> Buckets:
    """Spread counts evenly over the span, in whole numbers that sum exactly, and drop what is older than kept."""
    start, end, requests, errors = span
    oldest = int(end - kept) // size * size
    slot, last = max(oldest, int(start) // size * size), int(end) // size * size
    poured = {bucket[0]: bucket for bucket in buckets if bucket[0] >= oldest}
    while slot <= last:
        before, after = _share(slot, start, end), (1.0 if slot == last else _share(slot + size, start, end))
        _, had, failed = poured.get(slot, (slot, 0, 0))
        more = round(requests * after) - round(requests * before)
        bad = round(errors * after) - round(errors * before)
        if more or bad:
            poured[slot] = (slot, had + more, failed + bad)
        slot += size
    if last not in poured:
        poured[last] = (last, 0, 0)
    return tuple(sorted(poured.values()))


def _share(moment: float, start: float, end: float) -> float:
    if end <= start:
        return float(moment > start)
    return min(1.0, max(0.0, (moment - start) / (end - start)))
