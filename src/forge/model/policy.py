"""What must be true before a release may start in an environment, and how carefully it then has to go.

This is the part of `EnvironmentPlan.policy` that `core/policy` reads. Durations are seconds, weights basis points,
fractions of 1. Times of day are minutes since midnight of the zone's wall clock.
"""

from __future__ import annotations

from typing import Literal

import msgspec


class Slo(msgspec.Struct, frozen=True):
    """The share of requests that must succeed over the last `window` seconds; what may fail is the error budget."""

    objective: float
    window: float = 30 * 86400.0


class LowBudget(msgspec.Struct, frozen=True):
    """While less than `below` of the budget is left: no larger step, and no shorter watch at 100 %."""

    below: float = 0.25
    largest_step: int | None = None
    bake: float | None = None


class Window(msgspec.Struct, frozen=True):
    """A time in which releases may start: weekly by the wall clock (`days` 0 is Monday), or by `cron` for `lasts`.

    A weekly one closes on the next day when `closes` is not after `opens`.
    """

    text: str
    zone: str = "UTC"
    days: tuple[int, ...] = ()
    opens: int = 0
    closes: int = 0
    cron: str = ""
    lasts: float = 0.0


class Freeze(msgspec.Struct, frozen=True):
    """No release may start or grow from `begins` until `ends` (local time of `zone`, ISO 8601, end not included)."""

    begins: str
    ends: str
    zone: str = "UTC"
    reason: str = ""


class MaxReleases(msgspec.Struct, frozen=True):
    """At most `count` releases may start within any `per` seconds."""

    count: int
    per: float


class Approvals(msgspec.Struct, frozen=True):
    """People who must say yes before a release starts; no `approvers`: anyone."""

    required: int = 1
    approvers: tuple[str, ...] = ()
    allow_self: bool = True


class ReleasePolicy(msgspec.Struct, frozen=True):
    """All gates of an environment. One that is None or empty always passes."""

    slo: Slo | None = None
    when_budget_low: LowBudget | None = None
    when_budget_empty: Literal["fixes_only", "go_on"] = "fixes_only"
    windows: tuple[Window, ...] = ()
    freezes: tuple[Freeze, ...] = ()
    max_releases: MaxReleases | None = None
    approvals: Approvals | None = None


GATE_KEYS = frozenset(ReleasePolicy.__struct_fields__)
"""The keys of an environment's policy that are gates; the others say how releases overlap."""
