"""Checks that a rule over a query of the user's own names one that the environment's sources answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forge.core.pipeline.assemble import Assembly
from forge.core.pipeline.draft import Place
from forge.core.pipeline.instances import Instance
from forge.model.diagnostics import Diagnostic, did_you_mean


def check_values(row: Instance, assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield each `value` of a deploy or verify step that no source of its environment answers."""
    for step, place in zip(row.plan.steps, row.draft.steps, strict=True):
        if step.kind not in {"deploy", "verify"} or step.config["environment"] not in assembly.environments:
            continue
        environment, _ = assembly.environments[step.config["environment"]]
        known = {
            name for source in environment.plan(step.config["environment"]).sources for name in _names(source.config)
        }
        for name in _asked(step.config):
            if name not in known and "${{" not in name:
                yield _unknown(name, step.config["environment"], tuple(sorted(known)), place / step.kind)


def _names(config: dict[str, Any]) -> list[str]:
    return [*config.get("values", {})]


def _asked(config: Any) -> Iterator[str]:
    """Yield the names of the values that rules anywhere in a step's configuration are about."""
    if isinstance(config, dict):
        if config.get("metric") == "value" and "above" in config:
            yield str(config["name"])
        config = [*config.values()]
    if isinstance(config, (list, tuple)):
        for item in config:
            yield from _asked(item)


def _unknown(name: str, environment: str, known: tuple[str, ...], place: Place) -> Diagnostic:
    hint = did_you_mean(name, known) or f"ask for it under `values:` of one of the signals of `{environment}`"
    return place.problem_at(name, "unknown-value", f"no source of `{environment}` answers `{name}`", hint=hint)
