"""What Forge and an environment's agent say to each other: one JSON line each way, over a unix socket."""

from __future__ import annotations

from typing import Any

import msgspec

from forge.model.configs import EnvoyRouterConfig, LocalTargetConfig
from forge.model.errors import DependencyFailed, ForgeError, StaleLease, UsageError
from forge.model.traffic import TrafficTable, Version

PROTOCOL = 1
"""An agent of another protocol is asked to leave its post to a new one."""


class Request(msgspec.Struct, frozen=True):
    """One request. `token` is the fencing token of operations that change something."""

    operation: str
    protocol: int = PROTOCOL
    environment: str = ""
    router: EnvoyRouterConfig = EnvoyRouterConfig()
    token: int = 0
    version: Version | None = None
    version_id: str = ""
    config: LocalTargetConfig | None = None
    replicas: int = 0
    table: TrafficTable | None = None


class Answer(msgspec.Struct, frozen=True):
    """Either `result`, or the error's class (`error`) and message."""

    result: Any = None
    error: str = ""
    message: str = ""
    hint: str | None = None


_ERRORS: dict[str, type[ForgeError]] = {
    "StaleLease": StaleLease,
    "UsageError": UsageError,
    "DependencyFailed": DependencyFailed,
}


def answer_error(error: Exception) -> Answer:
    """Return an exception as an answer."""
    if isinstance(error, ForgeError):
        name = type(error).__name__ if type(error).__name__ in _ERRORS else "DependencyFailed"
        return Answer(error=name, message=error.message, hint=error.hint)
    return Answer(error="DependencyFailed", message=f"the environment's agent failed: {error!r}")


def raise_error(answer: Answer) -> None:
    """Raise the exception that an answer tells of, if it does."""
    if answer.error:
        raise _ERRORS.get(answer.error, DependencyFailed)(answer.message, hint=answer.hint)
