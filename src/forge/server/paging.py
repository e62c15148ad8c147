"""Pages of long lists: `{"items": […], "next": "cursor"}`, where the cursor is empty at the end."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Query

from forge.server.problems import Problem

MOST = 200
Limit = Annotated[int, Query(ge=1, le=MOST, description="How many items at most.")]
Cursor = Annotated[
    str, Query(max_length=200, description="The `next` of the page before; empty: from the beginning.", examples=[""])
]


def cursor_after(place: str) -> str:
    """Return the cursor of a place in a list. It is opaque, so that nobody builds his own."""
    return base64.urlsafe_b64encode(f"1:{place}".encode()).decode().rstrip("=") if place else ""


def place_of(cursor: str) -> str:
    """Return the place that a cursor stands for, empty for the beginning. Raises Problem for one nobody gave."""
    if not cursor:
        return ""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        version, _, place = base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition(":")
    except ValueError:
        version = place = ""
    if version != "1" or not place:
        raise _unknown(cursor)
    return place


def number_of(cursor: str) -> int:
    """Return the number that a cursor stands for, 0 for the beginning. Raises Problem for one nobody gave."""
    place = place_of(cursor)
    if not place:
        return 0
    if not (place.isascii() and place.isdigit() and len(place) <= 18):
        raise _unknown(cursor)
    return int(place)


def page(items: Sequence[Any], next_place: str) -> dict[str, Any]:
    """Return the body of a page."""
    return {"items": items, "next": cursor_after(next_place)}


def _unknown(cursor: str) -> Problem:
    return Problem(400, f"no page begins at `{cursor[:80]}`", hint="leave `cursor` out to begin anew")
