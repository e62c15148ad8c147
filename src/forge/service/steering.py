"""What a release can be told now: a command that cannot have any effect is an error before it is sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

if TYPE_CHECKING:
    from forge.views.environment import EnvironmentView


def check_released(view: EnvironmentView) -> None:
    """Raise UsageError when nothing was released to an environment yet, so that there is nothing to look at."""
    if view.state == "empty":
        raise UsageError(f"nothing was released to {view.name} yet", hint="a `deploy` step of a run does that")


def check_possible(view: EnvironmentView, kind: str, payload: Mapping[str, Any]) -> None:
    """Raise UsageError, with what can be done instead, when a command cannot have any effect now."""
    named = payload.get("release")
    if named:
        _known(str(named), [release.id for release in view.releases], f"release in {view.name}:")
    if kind in {"promote", "approve", "pause", "resume", "abort"} and not view.under_way:
        state = f"the last one is {view.current.state}" if view.current else "there was none yet"
        raise UsageError(
            f"no release is under way in {view.name}", hint=f"{state}; see `forge release get {view.name}`"
        )
    if kind in {"retry", "undo"} and not view.releases:
        raise UsageError(f"nothing was ever released to {view.name}")
    if kind == "rollback":
        known = [*view.previous, *(arm.version for arm in view.arms)]
        target = payload.get("to")
        if target:
            _known(str(target), known, f"version of {view.name} to go back to:")
        if not target and not view.previous and not view.under_way:
            raise UsageError(f"{view.name} has no version before {view.stable or 'the first'}")


def _known(name: str, known: list[str], what: str) -> None:
    if name not in known:
        raise UsageError(f"there is no {what} `{name}`", hint=did_you_mean(name, known) or f"there is no {what} yet")
