"""What people tell runs and environments, by the words that are sent."""

from __future__ import annotations

RUN_COMMANDS = ("approve", "reject", "cancel", "retry")
RELEASE_COMMANDS = ("promote", "approve", "pause", "resume", "abort", "retry", "undo", "rollback")
"""What people tell an environment about its releases."""
