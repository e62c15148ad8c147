"""Multi-window burn alerts, as in the table of the SRE workbook (chapter 5, "Alerting on SLOs").

An alert needs both windows: the long one says that it matters, the short one that it still goes on.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from forge.core.policy.budget import Ledger, burn_rate, counts, recovers_at
from forge.model.policy import Slo
from forge.model.units import format_duration

LEAST_ERRORS = 10
"""Fewer failures in the long window are no alert, however few the requests were."""


class BurnRule(msgspec.Struct, frozen=True):
    """A row of the table: burning `factor` times too fast over `long` and over `short` seconds."""

    factor: float
    long: float
    short: float
    severity: Literal["page", "ticket"]


RULES = (
    BurnRule(14.4, 3600.0, 300.0, "page"),
    BurnRule(6.0, 6 * 3600.0, 1800.0, "page"),
    BurnRule(1.0, 3 * 86400.0, 6 * 3600.0, "ticket"),
)
"""2 % of a budget of 30 days gone in an hour, 5 % in six hours, 10 % in three days."""


class BurnAlert(msgspec.Struct, frozen=True):
    """A rule that holds now, with the rates that it holds for and when it ends if nothing else fails."""

    rule: BurnRule
    long_rate: float
    short_rate: float
    ends: float | None = None

    @property
    def words(self) -> str:
        """What is measured, against what."""
        long, short = _brief(self.rule.long), _brief(self.rule.short)
        rates = f"{self.long_rate:.1f}x as fast as allowed over {long}, {self.short_rate:.1f}x over {short}"
        return f"the error budget burns {rates} (alert at {self.rule.factor:g}x)"


def alerts(ledger: Ledger, slo: Slo, now: float) -> tuple[BurnAlert, ...]:
    """Return the alerts that fire now, the most severe first. Rules longer than the objective's window are left out."""
    firing = []
    for rule in RULES:
        if rule.long > slo.window:
            continue
        requests, errors = counts(ledger, rule.long, now)
        long_rate = burn_rate(requests, errors, slo.objective)
        short_rate = burn_rate(*counts(ledger, rule.short, now), slo.objective)
        if errors >= LEAST_ERRORS and long_rate >= rule.factor and short_rate >= rule.factor:
            ends = recovers_at(ledger, rule.short, rule.factor * (1.0 - slo.objective), now)
            firing.append(BurnAlert(rule, long_rate, short_rate, ends))
    return tuple(firing)


def _brief(seconds: float) -> str:
    return format_duration(seconds).removesuffix(" 0s").removesuffix(" 0m").removesuffix(" 0h")
