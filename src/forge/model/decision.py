"""What a pure core returns: the next state, what to do about it, and why."""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar

import msgspec

S = TypeVar("S")


class Action(msgspec.Struct, frozen=True):
    """Something to do in the world, once. Performed again after a crash, so it is idempotent under `key`.

    `key` is unique within its machine; `kind` names who performs it; `payload` is plain JSON data.
    `rerun` False: when a worker died while it was under way, its outcome is reported as `lost`
    instead of it being performed again.
    """

    key: str
    kind: str
    payload: dict[str, Any] = {}
    rerun: bool = True


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for people and programs; goes into the hash-chained log."""

    kind: str
    message: str
    data: dict[str, Any] = {}


class Command(msgspec.Struct, frozen=True):
    """A request by a person or a step, on disk before it takes effect. `at` is seconds since the epoch."""

    id: int
    kind: str
    actor: str
    at: float
    payload: dict[str, Any] = {}


class Outcome(msgspec.Struct, frozen=True):
    """What became of an action: `result` is `succeeded`, `failed` (the work failed), `error` (Forge or a
    dependency failed), `cancelled`, `timed_out`, or `lost` (the worker died and the action is not to be rerun)."""

    key: str
    result: str
    at: float
    message: str = ""
    data: dict[str, Any] = {}


class Decision(msgspec.Struct, Generic[S], frozen=True):
    """The whole effect of one tick. `wake_at` is when to look again by itself (None: only when told)."""

    state: S
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    wake_at: float | None = None
    cancel: tuple[str, ...] = ()
    """Keys of actions under way that are to be stopped; their outcome comes back as `cancelled`."""
    why: str = ""


def canonical_json(value: object) -> bytes:
    """Return the one JSON spelling of a value (sorted keys, no blanks), so that equal values hash equal."""
    return msgspec.json.encode(value, order="deterministic")


def digest(value: object) -> str:
    """Return the sha256 of the canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
