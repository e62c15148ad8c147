"""Targets by name: `target: local` in an environment's YAML."""

from __future__ import annotations

import difflib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from forge.adapters.routers.base import Router
from forge.adapters.signals.base import Signals
from forge.adapters.targets.base import Target
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan


class OpenEnvironment(Protocol):
    """The adapters of one environment."""

    @property
    def target(self) -> Target:
        """Where its versions run."""

    @property
    def router(self) -> Router:
        """How its traffic is split."""

    @property
    def signals(self) -> Signals:
        """How its versions fare."""


@dataclass(frozen=True, slots=True)
class TargetKind:
    """How environments of one kind of target are opened, looked at and taken down."""

    open: Callable[[EnvironmentPlan, Path], OpenEnvironment]
    """From the plan and the environment's folder. Starts nothing."""
    shutdown: Callable[[Path], Awaitable[None]]
    """Drain and stop everything in a folder."""
    status: Callable[[Path], Awaitable[dict[str, Any]]]
    """For people: `address`, `agent`, `proxy`, `versions`. Starts nothing."""


def _local() -> TargetKind:
    from forge.adapters.targets.local import environment

    return TargetKind(environment.open_local, environment.shutdown, environment.status)


_KINDS: dict[str, Callable[[], TargetKind]] = {"local": _local}


def names() -> tuple[str, ...]:
    """Return the names of all targets."""
    return tuple(_KINDS)


def target_kind(name: str) -> TargetKind:
    """Return the target of that name. Raises UsageError, with a suggestion, when there is none."""
    if name in _KINDS:
        return _KINDS[name]()
    close = difflib.get_close_matches(name, _KINDS, 1, cutoff=0.5)
    known = ", ".join(_KINDS)
    msg = f"there is no target {name!r}"
    raise UsageError(msg, hint=f"did you mean {close[0]!r}?" if close else f"the targets are: {known}")


def open_environment(environment: EnvironmentPlan, folder: Path) -> OpenEnvironment:
    """Return the adapters of an environment whose files are in `folder`. Raises UsageError."""
    return target_kind(environment.target).open(environment, folder)
