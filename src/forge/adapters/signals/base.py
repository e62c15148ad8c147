"""Signals: what each version's users experience, read as cumulative counters."""

from __future__ import annotations

from typing import Protocol

from forge.model.traffic import Sample


class Signals(Protocol):
    """Reads every version of an environment at once.

    Called once a tick. A version that is missing from the answer has no data (not zero traffic).
    Counter resets are handled here: what is returned never falls while the reader lives, and `state`
    carries it over a restart. DependencyFailed: the source is away; the caller holds, it never guesses.
    """

    async def read(self, version_ids: list[str]) -> dict[str, Sample]:
        """Return one sample a version, taken now."""

    def state(self) -> dict[str, object]:
        """Return JSON data that `restore` needs to go on without a jump after a restart."""

    def restore(self, state: dict[str, object]) -> None:
        """Continue from `state`, which an earlier reader of the same environment returned."""
