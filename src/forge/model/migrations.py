"""Changes of what versions share, usually a database's schema: which add, and which take away."""

from __future__ import annotations

from typing import Literal

import msgspec


class Migration(msgspec.Struct, frozen=True):
    """What a step does to what an environment's versions share.

    `expand` only adds: every version goes on running. `contract` takes away: versions older than `since` cannot run
    any more, and from its beginning on no deploy and no rollback may go to one.
    """

    kind: Literal["expand", "contract"]
    environment: str
    since: str = ""
    """The oldest version that runs without what a `contract` takes away: a number (`1.4`) or a version's id."""


class Contract(msgspec.Struct, frozen=True):
    """A contract step that an environment remembers, from before it began."""

    key: str
    """The idempotency key of the step that ran."""
    step: str
    """How people call it."""
    since: str
    since_at: float
    """When the version `since` came into being, for versions whose ids are no numbers; else when the step began."""
    begun_at: float
    run: str = ""
    finished_at: float | None = None
    failed: str = ""
    """Why it failed. It may have taken something away all the same."""
