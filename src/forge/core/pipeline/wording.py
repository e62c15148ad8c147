"""Sentences that a run says about itself, written once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

_SHOWN = 3


def name_list(names: Sequence[str]) -> str:
    """Return `a`, `b` and `c`; of many names the first three and how many more."""
    quoted = [f"`{name}`" for name in names]
    if len(quoted) > _SHOWN + 1:
        return f"{', '.join(quoted[:_SHOWN])} and {len(quoted) - _SHOWN} more"
    if len(quoted) > 1:
        return f"{', '.join(quoted[:-1])} and {quoted[-1]}"
    return "".join(quoted)


def clock(at: float) -> str:
    """Return a moment as `2026-11-22 20:51:34 UTC`."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
