"""The weight of an adaptive canary: as much traffic as what is known of it allows, and no more.

What a bad version can cost before it is stopped is its excess of errors times what it is sent until Forge has
reacted. Of the excess, only an upper bound is known, which falls with every good answer; so the weight may rise as it
falls. With 95 % confidence, at every time at once, the extra failures within one reaction never exceed the budget, or
a quarter of the errors that are normal in that time (docs/pipeline.md). Pure arithmetic on counts.
"""

from __future__ import annotations

import math

import msgspec

from forge.core.judge.interval import upper_rate
from forge.model.strategy import Adaptive
from forge.model.units import WHOLE

LEAST = 5
"""Basis points: nothing is learned below, so the start is never smaller, whatever the budget says."""
LEVEL = 0.95
GROWTH = 3
"""A change multiplies the weight by this at most."""
WORTH = 1.2
"""A change that is smaller than this factor is not worth one."""
NORMAL = 0.25
"""The part of the normal errors that may come on top, where that is more than the budget."""
RATIO = 1.5
"""How many times as often as stable it may fail at most, to be as good as stable."""
LEAST_EXCESS, LEAST_EXPOSED = 1e-6, 1e-6
FINE_RATIO, FINE_RATE = 1.1, 0.0002
"""So much more often than stable, or so often at all, is no reason to wait: as the judge has it."""
CHANCE = 2.0
"""What is above that by more than so many standard deviations is more than chance explains."""


class Evidence(msgspec.Struct, frozen=True, array_like=True):
    """What an arm answered, and stable beside it at the same time.

    `expected` is what would have failed of the arm's requests at stable's error rate of the same moments. So a burst
    that both share cancels, also while the weight changes, where sums over the whole time do not compare.
    """

    requests: int = 0
    errors: int = 0
    stable_requests: int = 0
    stable_errors: int = 0
    expected: float = 0.0

    def and_then(self, own: tuple[int, int], stable: tuple[int, int]) -> Evidence:
        """Return the evidence with one more interval: (requests, errors) of the arm and of stable."""
        expected = own[0] * stable[1] / stable[0] if stable[0] else own[0] * self.stable_rate if own[0] else 0.0
        return Evidence(
            self.requests + own[0], self.errors + own[1], self.stable_requests + stable[0],
            self.stable_errors + stable[1], self.expected + expected,
        )  # fmt: skip

    @property
    def upper(self) -> float:
        """The largest error rate of the arm that is not excluded (95 %, at every time at once)."""
        return upper_rate(self.errors, self.requests, LEVEL)

    @property
    def stable_rate(self) -> float:
        """Stable's error rate at the times when the arm was asked, never quite 0."""
        seen = self.stable_requests
        errors = self.expected / self.requests * seen if self.requests else float(self.stable_errors)
        return min(1.0, (errors + 0.5) / (seen + 1))

    @property
    def excess(self) -> float:
        """How much more often than stable the arm may fail."""
        return max(self.upper - self.stable_rate, LEAST_EXCESS)


class Growth(msgspec.Struct, frozen=True):
    """Where an adaptive canary stands. Times are seconds since the epoch, weights basis points.

    `weight` is what it may have now, `first` what it began with; `changed_at`: since when the router has shown
    `weight` (None: not yet), `readings`: how many both versions gave since then. `own` and `beside` are the counters
    (requests, errors) of the arm and of `stable` at the newest reading, which is of `read_at`. `asked_at`: when the
    router was asked for `weight`; `actuation` is how long it takes to follow, `per_second` the environment's traffic
    at the last change.
    """

    weight: int
    first: int
    began_at: float
    changed_at: float | None = None
    readings: int = 0
    evidence: Evidence = Evidence()
    stable: str = ""
    own: tuple[int, int] | None = None
    beside: tuple[int, int] | None = None
    read_at: float = 0.0
    asked_at: float | None = None
    actuation: float = 5.0
    per_second: float | None = None


def start_weight(settings: Adaptive, per_second: float | None, reaction: float) -> int:
    """Return the first weight: if everything fails, one reaction costs the budget.

    `per_second` is the traffic of the whole environment; None: not known, so as little as possible.
    """
    largest = _within(settings, min(settings.start, settings.most))
    if per_second is None:
        return max(1, min(LEAST, largest))
    exposed = per_second * reaction
    fits = math.floor(WHOLE * min(1.0, settings.budget / exposed)) if exposed > 0 else WHOLE
    return max(1, min(max(fits, LEAST), largest))


def allowance(settings: Adaptive, evidence: Evidence, per_second: float, reaction: float) -> float:
    """Return the fraction of the traffic that the arm may have; above 1: all of it.

    While nobody asks, nothing is known of what it will cost when they come back: then it is 0.
    """
    exposed = per_second * reaction
    if exposed < LEAST_EXPOSED:
        return 0.0
    allowed = max(settings.budget, NORMAL * evidence.stable_rate * exposed)
    return allowed / (exposed * evidence.excess)


def next_weight(
    settings: Adaptive, weight: int, evidence: Evidence, per_second: float, reaction: float, most: int | None = None
) -> int:
    """Return the weight to go to from `weight`: a larger one that is worth the change, or the same.

    `most` is the largest weight that is left for this arm (None: the strategy's own).
    """
    most = settings.most if most is None else min(most, settings.most)
    limit = min(GROWTH * weight, most, weight + _within(settings, WHOLE))
    allowed = allowance(settings, evidence, per_second, reaction)
    reach = limit if allowed >= 1 else min(limit, math.floor(WHOLE * allowed))
    worth = reach >= WORTH * weight or reach == limit
    return reach if worth and reach > weight else weight


def leans_bad(evidence: Evidence, clump: float = 1.0) -> bool:
    """Whether more failed than chance explains in a version as good as stable, where errors come in clumps of `clump`.

    It proves nothing, and promises nothing: but what grows now grows towards more harm than it need be.
    """
    fine = max(FINE_RATIO * evidence.expected, FINE_RATE * evidence.requests)
    return evidence.errors > fine + CHANCE * math.sqrt((fine + 1) * max(1.0, clump))


def proven(settings: Adaptive, evidence: Evidence) -> bool:
    """Whether it is excluded that the arm is worse than is tolerated.

    Here stable's rate is the smaller of both that are known, over the whole time and at the arm's own times: neither
    a burst before the arm had traffic nor the luck of a few moments makes it look as if more were normal.
    """
    stable = min(evidence.stable_rate, (evidence.stable_errors + 0.5) / (evidence.stable_requests + 1))
    return evidence.upper <= max(RATIO * stable, stable + settings.tolerance)


def may_take_all(
    settings: Adaptive, weight: int, evidence: Evidence, per_second: float, reaction: float, most: int | None = None
) -> bool:
    """Whether the arm may take all of the traffic from `weight`."""
    most = settings.most if most is None else min(most, settings.most)
    if not proven(settings, evidence) or WHOLE - weight > _within(settings, WHOLE):
        return False
    return weight >= most or allowance(settings, evidence, per_second, reaction) >= 1


def worst_case(weight: int, evidence: Evidence, per_second: float, reaction: float) -> float:
    """Return how many requests above normal may fail at `weight` until Forge has reacted, with 95 % confidence."""
    return weight / WHOLE * per_second * reaction * evidence.excess


def expected_seconds(
    settings: Adaptive, per_second: float, rate: float, reaction: float, interval: float
) -> float | None:
    """Return how long a version that fails as often as stable (`rate`) takes to get all of the traffic.

    With counts as they are expected, so it is an estimate; None: longer than a person is to be kept waiting.
    """
    weight = start_weight(settings, per_second, reaction)
    pause = max(settings.every, 2 * interval)
    requests = stable = 0.0
    for number in range(1, math.floor(settings.decide_within / pause) + 1):
        requests += per_second * weight / WHOLE * pause
        stable += per_second * (1 - weight / WHOLE) * pause
        seen = Evidence(
            round(requests), round(requests * rate), round(stable), round(stable * rate), round(requests) * rate
        )
        if may_take_all(settings, weight, seen, per_second, reaction):
            return number * pause
        weight = next_weight(settings, weight, seen, per_second, reaction)
    return None


def _within(settings: Adaptive, change: int) -> int:
    """Bound a change of weight by what the policy lets it be."""
    return change if settings.largest_step is None else max(1, min(change, settings.largest_step))
