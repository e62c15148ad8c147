"""A cluster's refusals in words: who must do what about them."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from forge.model.errors import DependencyFailed

PERMISSIONS = "docs/kubernetes/permissions.md has the Role for each feature"
_FORBIDDEN = re.compile(
    r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)")?'
)


class NotThere(DependencyFailed):
    """The object, or its whole kind, is not in the cluster."""


class Conflict(DependencyFailed):
    """Somebody else changed the object in between, or owns the fields, or it exists already.

    `managers` names who owns the fields that an apply wanted."""

    def __init__(self, message: str, *, hint: str | None = None, managers: tuple[str, ...] = ()) -> None:
        super().__init__(message, hint=hint)
        self.managers = managers


class Refused(DependencyFailed):
    """The cluster does not take the object: it is invalid, over a quota, or an admission webhook said no."""


class Gone(DependencyFailed):
    """A watch is too old to be continued; list again."""


class Status(msgspec.Struct, frozen=True):
    """The apiserver's own words about a request that failed (meta/v1 Status)."""

    message: str = ""
    reason: str = ""
    code: int = 0
    details: dict[str, Any] = {}


def failure(status: int, body: bytes, asked: str, where: str) -> DependencyFailed:
    """Return the error for an answer that is no success. `asked`: `get Deployment shop`; `where`: the cluster."""
    told = _status(body)
    words = told.message or f"HTTP {status}"
    if status in {401, 403}:
        return _not_allowed(status, words, asked, where)
    if status == 404:
        return NotThere(f"{where}: {asked}: {words}")
    if status == 409:
        return _conflict(told, asked, where)
    if status == 410:
        return Gone(f"{where}: {asked}: {words}")
    if status in {400, 405, 413, 415, 422}:
        return Refused(f"{where} does not take {_object_of(asked)}: {words}")
    return DependencyFailed(f"{where}: {asked}: {words}", hint="it is tried again")


def _not_allowed(status: int, words: str, asked: str, where: str) -> DependencyFailed:
    if status == 401:
        return DependencyFailed(f"{where} does not know who asks ({words})", hint="log in to the cluster again")
    found = _FORBIDDEN.search(words)
    if found:
        group = f".{found['group']}" if found["group"] else ""
        namespace = f" in namespace {found['namespace']}" if found["namespace"] else " in the cluster"
        return DependencyFailed(
            f"{where}: not allowed to {found['verb']} {found['resource']}{group}{namespace}", hint=PERMISSIONS
        )
    if "exceeded quota" in words:
        return Refused(f"{where} does not take {_object_of(asked)}: {words}", hint="free or raise the ResourceQuota")
    if "being terminated" in words:
        return Refused(f"{where} does not take {_object_of(asked)}: {words}", hint="the namespace is being deleted")
    return Refused(f"{where} does not take {_object_of(asked)}: {words}")


def _conflict(told: Status, asked: str, where: str) -> Conflict:
    causes = told.details.get("causes") or ()
    managers = tuple(
        dict.fromkeys(
            found[1]
            for cause in causes
            if (found := re.search(r'conflict with "([^"]+)"', str(cause.get("message", "")))) is not None
        )
    )
    if managers:
        fields = ", ".join(str(cause.get("field", "")) for cause in causes)
        return Conflict(
            f"{where}: {asked}: {', '.join(managers)} manages {fields}",
            hint="let one of both go: remove these fields from the manifest, or from the other manager's",
            managers=managers,
        )
    return Conflict(f"{where}: {asked}: {told.message or 'it was changed in between'}")


def _object_of(asked: str) -> str:
    return asked.partition(" ")[2] or asked


def _status(body: bytes) -> Status:
    try:
        return msgspec.json.decode(body, type=Status)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return Status(message=body[:200].decode("utf-8", "replace").strip())
