"""Which notifiers there are. An unknown name is an error, never another notifier."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import msgspec

from forge.adapters.notify.base import Notifier
from forge.adapters.signals.base import SecretReader
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import NotifierPlan

NotifierOpener = Callable[[NotifierPlan, SecretReader], Notifier]

_OPENERS = {"grafana": "forge.adapters.notify.grafana:open_grafana"}
"""Kind -> module:function; imported only when an environment names it."""


def open_notifier(plan: NotifierPlan, secrets: SecretReader) -> Notifier:
    """Return the notifier that a plan names. Raises UsageError for an unknown kind or a wrong configuration."""
    if plan.kind not in _OPENERS:
        raise UsageError(f"there is no notifier `{plan.kind}`", hint=did_you_mean(plan.kind, [*_OPENERS]))
    module, _, function = _OPENERS[plan.kind].partition(":")
    opener: NotifierOpener = getattr(import_module(module), function)
    try:
        return opener(plan, secrets)
    except msgspec.ValidationError as error:
        raise UsageError(f"notify `{plan.name}`: its configuration is wrong: {error}") from None
