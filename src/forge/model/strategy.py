"""How a version goes through an environment, and the classic rules that watch it."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

StrategyName = Literal["rolling", "canary", "blue_green"]


class Threshold(msgspec.Struct, frozen=True):
    """A classic rule: `metric` (`error_rate`, `latency`, `cpu`, `memory`, `value`) above `above` over `over` seconds.

    `above` is a fraction for error_rate and cpu (1.0: one whole core per replica), seconds for latency,
    bytes for memory; `quantile` is for latency only. `value` is the mean of what the user's own query `name` answered.
    """

    metric: Literal["error_rate", "latency", "cpu", "memory", "value"]
    above: float
    over: float = 300.0
    quantile: float = 0.99
    minimum_requests: int = 1
    name: str = ""


class StrategyStep(msgspec.Struct, frozen=True):
    """One step of a canary. Exactly one of the fields is set (`pause` 0 with `until_resumed`: a person)."""

    weight: int | None = None
    pause: float | None = None
    until_resumed: bool = False
    approval: dict[str, Any] | None = None


class Adaptive(msgspec.Struct, frozen=True):
    """A canary that sets its own weights: as much traffic as what is known of the version allows.

    `budget`: failed requests above normal that the time of one reaction may cost; `tolerance`: how many more
    errors than stable (a fraction) must be excluded before it takes all of the traffic; `start` and `most`: the
    largest first weight, and the largest before that. `reaction`: seconds from an error to the traffic being gone
    (None: measured); `every`: the least seconds between two changes; `decide_within`: seconds after which a person
    decides. `largest_step`: the most that a change may add, set by the environment's policy.
    """

    budget: float = 20.0
    tolerance: float = 0.001
    start: int = 500
    most: int = 5000
    reaction: float | None = None
    every: float = 10.0
    decide_within: float = 900.0
    largest_step: int | None = None


class HarmBudget(msgspec.Struct, frozen=True):
    """What a release may cost before it rolls back, whatever its judge says. A limit that is None is none.

    `failed_requests`: above what stable would have failed; `outage`: seconds in which everything fails for everybody
    that would be as bad.
    """

    failed_requests: float | None = None
    outage: float | None = None


class Strategy(msgspec.Struct, frozen=True):
    """How a version goes through an environment."""

    name: StrategyName = "rolling"
    steps: tuple[StrategyStep, ...] = ()
    max_surge: int = 1
    max_unavailable: int = 0
    thresholds: tuple[Threshold, ...] = (Threshold("error_rate", 0.05, 300.0),)
    progress_deadline: float = 300.0
    """Seconds for a version to become ready before the release rolls back."""
    bake: float = 0.0
    """Seconds that the release keeps watching at 100 % before the old version goes."""
    patience: float = 300.0
    """Seconds that missing or stale data may hold the release before it pauses for a person."""
    auto_promote: bool = True
    keep_previous: float = 30.0
    """Seconds that the version before stays warm after promotion, for a rollback in one step."""
    warm_up: float = 0.0
    """Seconds after its first traffic in which a version is not judged; what fails then is still counted as harm."""
    adaptive: Adaptive | None = None
    """Of a canary without steps: the weight grows with the evidence."""
    harm_budget: HarmBudget | None = None
    """A stop rule of its own, beside the judge; None: the judge alone."""
    fullest: float = 0.9
    """What part of anything that has an end (memory, connections, ...) may be used after the next step at most."""
