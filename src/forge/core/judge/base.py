"""Judges: from what the users of one version experienced to a verdict on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import msgspec

from forge.core.judge.calibrate import FALLBACK, Calibration
from forge.core.release.state import ReleaseState, Verdict
from forge.model.traffic import Sample


class Series(msgspec.Struct, frozen=True):
    """The cumulative readings of one version, oldest first.

    `since` is from when they count (its first traffic plus the declared warm-up); `replicas` is how many of
    its replicas were ready at the last look. `weights` are the basis points asked for and observed now (a change
    closes blocks of evidence); `calibration` is what the service's own history says of its errors.
    """

    version: str
    samples: tuple[Sample, ...] = ()
    since: float = 0.0
    replicas: int = 0
    weights: tuple[int, ...] = ()
    calibration: Calibration = FALLBACK


class Judge(Protocol):
    """Judges one arm at a time. Pure: everything it remembers is in the state that it returns (plain JSON data).

    Called once a tick for every arm that has traffic and fresh data, whatever the release waits for.
    `rollback` is acted on in the same tick. `promote` means that nothing speaks against going on, `hold`
    that it cannot know yet (the release waits, with patience), `inconclusive` that waiting will not help.
    It is not called when data is missing: missing data is no evidence for anything.
    """

    def needs_data(self, release: ReleaseState) -> bool:
        """Whether missing data has to hold this release."""

    def judge(
        self, state: dict[str, Any], release: ReleaseState, arm: Series, stable: Series, now: float
    ) -> tuple[Verdict, dict[str, Any]]:
        """Return the verdict on `arm` and the judge's next state."""


@runtime_checkable
class JudgesTogether(Protocol):
    """A judge that also looks at all arms of an environment at once, after each has its own verdict."""

    def finish(self, verdicts: Mapping[str, Verdict]) -> dict[str, Verdict]:
        """Return the verdicts, by release, as they are when every other arm is thought of too."""
