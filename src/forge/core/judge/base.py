"""Judges: from what the users of one version experienced to a verdict on it."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from forge.core.release.state import ReleaseState, Verdict
from forge.model.traffic import Sample


class Series(msgspec.Struct, frozen=True):
    """The cumulative readings of one version, oldest first.

    `since` is from when they count (its first traffic plus the declared warm-up); `replicas` is how many of
    its replicas were ready at the last look.
    """

    version: str
    samples: tuple[Sample, ...] = ()
    since: float = 0.0
    replicas: int = 0


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
