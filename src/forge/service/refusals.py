"""What became of a command: not taken in yet, refused, or done."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.service.base import Accepted, Records

REFUSALS = frozenset({"command_without_effect", "command_refused"})
"""Kinds of events by which a machine says that a command changed nothing."""


async def refusal_of(records: Records, accepted: Accepted) -> str | None:
    """Return why a command had no effect, in the machine's words; empty: it had; None: it is not taken in yet.

    The machine says so in the very transaction that takes the command in, so that a look at the log afterwards
    misses nothing.
    """
    if any(command.id == accepted.id for command in await records.waiting(accepted.machine)):
        return None
    after = accepted.after
    while page := await records.events(accepted.machine, after=after):
        for stored in page:
            event = stored.event
            if event.kind in REFUSALS and event.data.get("id") == accepted.id:
                return str(event.data.get("reason") or event.message)
        after = page[-1].seq
    return ""
