"""Which sources of signals there are. An unknown name is an error, never another source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import msgspec

from forge.adapters.signals.base import SecretReader, Source
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan, SourcePlan


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a source may need of the environment that it is opened for."""

    environment: EnvironmentPlan
    folder: Path
    """The environment's own folder, where a target of this machine keeps its files."""
    secrets: SecretReader


SourceOpener = Callable[[SourcePlan, SourceContext], Source]
"""Starts nothing yet. Raises msgspec.ValidationError for a configuration that does not fit."""

_OPENERS = {
    "cloudwatch": "forge.adapters.signals.cloudwatch:open_cloudwatch",
    "datadog": "forge.adapters.signals.datadog:open_datadog",
    "elasticsearch": "forge.adapters.signals.elasticsearch:open_elasticsearch",
    "graphite": "forge.adapters.signals.graphite:open_graphite",
    "influxdb": "forge.adapters.signals.influxdb:open_influxdb",
    "json": "forge.adapters.signals.json_endpoint:open_json",
    "logs": "forge.adapters.signals.logs:open_logs",
    "loki": "forge.adapters.signals.loki:open_loki",
    "newrelic": "forge.adapters.signals.newrelic:open_newrelic",
    "otlp": "forge.adapters.signals.otlp:open_otlp",
    "prometheus": "forge.adapters.signals.prometheus:open_prometheus",
}
"""Kind -> module:function; imported only when an environment names it."""


def open_source(plan: SourcePlan, context: SourceContext) -> Source:
    """Return the source that a plan names. Raises UsageError for an unknown kind or a wrong configuration."""
    place = f"environment {context.environment.name}, signals `{plan.name}`"
    if plan.kind not in _OPENERS:
        hint = did_you_mean(plan.kind, [*_OPENERS])
        raise UsageError(f"{place}: there is no source `{plan.kind}`", hint=hint)
    module, _, function = _OPENERS[plan.kind].partition(":")
    opener: SourceOpener = getattr(import_module(module), function)
    try:
        return opener(plan, context)
    except msgspec.ValidationError as error:
        raise UsageError(f"{place}: its configuration is wrong: {error}") from None
    except ImportError as error:
        raise UsageError(
            f"{place}: needs a package that is not installed: {error.name or error}",
            hint=f"install it with `pip install 'forge[{plan.kind}]'`",
        ) from None


def known_sources() -> tuple[str, ...]:
    """Return the kinds of sources, sorted."""
    return tuple(sorted(_OPENERS))
