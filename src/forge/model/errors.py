"""The exceptions that cross floors, and the exit codes that they stand for.

ForgeError
├── UsageError                 2  the caller's words are off
├── InvalidConfiguration       2  a file is wrong; carries every diagnostic at once
├── Rejected                   3  a person or a policy said no
├── NotAllowed                 4  not logged in, or not allowed
├── DependencyFailed           5  Forge or what it depends on failed; nothing could be judged
│   ├── StaleLease                a newer worker holds the work; this one may change nothing
│   └── CorruptData               stored bytes do not match their hash
└── StillRunning               6  timed out waiting; the work goes on

A job that fails or a release that rolls back is a *result*, never an exception.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forge.model.diagnostics import Diagnostic


class ExitCode(IntEnum):
    """What a `forge` command exits with; scripts rely on these numbers."""

    SUCCEEDED = 0
    DID_NOT_SUCCEED = 1
    USAGE = 2
    REJECTED = 3
    NOT_ALLOWED = 4
    FORGE_FAILED = 5
    STILL_RUNNING = 6
    WAITING_FOR_APPROVAL = 8
    INTERRUPTED = 130


class ForgeError(Exception):
    """Base of every error that Forge raises on purpose: a message, and what to do about it."""

    exit_code = ExitCode.FORGE_FAILED

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ForgeError):
    """The command line or an API call does not fit what the command takes."""

    exit_code = ExitCode.USAGE


class InvalidConfiguration(ForgeError):
    """A configuration file is wrong; `diagnostics` holds everything that is wrong with it."""

    exit_code = ExitCode.USAGE

    def __init__(self, diagnostics: tuple[Diagnostic, ...]) -> None:
        count = len(diagnostics)
        super().__init__(f"{count} problem{'s' if count != 1 else ''} in the configuration")
        self.diagnostics = diagnostics


class Rejected(ForgeError):
    """A person or a policy refused."""

    exit_code = ExitCode.REJECTED


class NotAllowed(ForgeError):
    """The actor is not known or has not the right."""

    exit_code = ExitCode.NOT_ALLOWED


class DependencyFailed(ForgeError):
    """Forge itself, or a database, proxy or tool that it needs, failed."""


class StaleLease(DependencyFailed):
    """The lease was lost to another worker; nothing was written or done."""


class CorruptData(DependencyFailed):
    """Stored bytes do not match the hash that they were stored under."""


class StillRunning(ForgeError):
    """The wait timed out; the work goes on without the waiter."""

    exit_code = ExitCode.STILL_RUNNING
