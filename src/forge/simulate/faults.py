"""What goes wrong in the world around Forge, and when: a list of faults that were drawn before the story begins."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Literal, get_args

import msgspec

FaultKind = Literal[
    "metrics_away", "metrics_lost", "metrics_late", "metrics_duplicated", "metrics_reset",
    "router_away", "router_lags", "router_frozen",
    "target_away", "replicas_lost", "autoscaled", "slow_start",
    "actions_refused", "actions_lost", "outcomes_lost", "actions_repeated", "stale_reads", "forgets",
]  # fmt: skip
KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
MEANING: dict[str, str] = {
    "metrics_away": "the source of metrics does not answer",
    "metrics_lost": "one version has no data",
    "metrics_late": "data is `amount` seconds old",
    "metrics_duplicated": "the last reading is delivered again and again",
    "metrics_reset": "the source is restarted: its counters begin at nothing",
    "router_away": "the router does not answer",
    "router_lags": "a split takes `amount` seconds to come into effect",
    "router_frozen": "the router accepts splits that never come into effect",
    "target_away": "the target does not answer",
    "replicas_lost": "`amount` (a fraction) of the replicas die and come up again",
    "autoscaled": "somebody else changes the number of replicas by the factor `amount`",
    "slow_start": "replicas need `amount` seconds longer to get ready",
    "actions_refused": "target and router refuse what they are asked",
    "actions_lost": "what is asked never arrives, though it is said to have",
    "outcomes_lost": "what was done is never told to Forge",
    "actions_repeated": "what was done is done a second time, as after a crash",
    "stale_reads": "Forge decides on what it saw `amount` seconds ago",
    "forgets": "Forge loses what it did not write: it starts anew from what is on disk",
}
AT_ONCE = frozenset({"metrics_reset", "replicas_lost", "autoscaled", "forgets"})
"""Faults that happen at a moment instead of lasting."""


class Fault(msgspec.Struct, frozen=True):
    """One fault: from `at` (seconds since the epoch) for `lasts` seconds; `version` empty: whichever, or all."""

    kind: FaultKind
    at: float
    lasts: float = 60.0
    amount: float = 0.0
    version: str = ""


class Weather:
    """Tells which faults are there now."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self._coming = sorted(faults, key=lambda fault: -fault.at)
        self._live: list[Fault] = []

    def step(self, now: float) -> list[Fault]:
        """Go on to `now`; return the faults that began since the last step."""
        if self._live:
            self._live = [fault for fault in self._live if fault.at + fault.lasts > now]
        begun: list[Fault] = []
        while self._coming and self._coming[-1].at <= now:
            begun.append(self._coming.pop())
        self._live += [fault for fault in begun if fault.kind not in AT_ONCE and fault.at + fault.lasts > now]
        return begun

    def next_at(self) -> float:
        """Return when the next fault begins; infinity when none does."""
        return self._coming[-1].at if self._coming else float("inf")

    def on(self, kind: FaultKind, version: str = "") -> Fault | None:
        """Return the fault of that kind that concerns the version now."""
        for fault in self._live:
            if fault.kind == kind and (not version or fault.version in {"", version}):
                return fault
        return None

    @property
    def quiet(self) -> bool:
        """Whether nothing goes wrong any more, now or later."""
        return not self._live and not self._coming

    def add(self, fault: Fault) -> None:
        """Let another fault come."""
        self._coming.append(fault)
        self._coming.sort(key=lambda fault: -fault.at)


def random_faults(rng: Random, start: float, seconds: float, *, every: float) -> list[Fault]:
    """Return faults of every kind, one each `every` seconds in the mean; for hunting."""
    faults, at = [], start
    while (at := at + rng.expovariate(1 / every)) < start + seconds:
        kind = rng.choice(KINDS)
        faults.append(Fault(kind, at, rng.choice((1.0, 5.0, 20.0, 90.0)), _amount(rng, kind)))
    return faults


def _amount(rng: Random, kind: str) -> float:
    if kind == "autoscaled":
        return rng.choice((0.25, 0.5, 0.75, 1.5, 2.0))
    if kind == "replicas_lost":
        return rng.choice((0.2, 0.5, 1.0))
    return rng.choice((1.0, 5.0, 12.0, 40.0))
