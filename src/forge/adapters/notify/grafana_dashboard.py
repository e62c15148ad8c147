"""A dashboard of releases, in the form that Grafana imports: what each version's users experience, and each step."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from forge.adapters.notify.grafana import MARK
from forge.adapters.notify.grafana_queries import Queries
from forge.model.plan import EnvironmentPlan

SCHEMA = 39
"""Of Grafana 10.4; newer ones migrate it by themselves."""
WIDE, HIGH = 12, 8
QUANTILES = (0.5, 0.95, 0.99)
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def dashboard(environments: tuple[EnvironmentPlan, ...], service: str = "") -> dict[str, Any]:
    """Return the dashboard of some environments; `service`: show only its releases. The same for the same plans."""
    name = service or "releases"
    seed = "/".join((service, *(environment.name for environment in environments)))
    panels: list[dict[str, Any]] = []
    for environment in environments:
        _add_environment(panels, environment)
    for number, panel in enumerate(panels, 1):
        panel["id"] = number
    return {
        "annotations": {"list": [_built_in(), _releases(service)]},
        "editable": True,
        "graphTooltip": 1,
        "id": None,
        "panels": panels,
        "refresh": "10s",
        "schemaVersion": SCHEMA,
        "tags": [MARK],
        "templating": {"list": [_source(environments), *(_versions(one) for one in environments)]},
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "title": f"Forge: {name}",
        "uid": "forge-" + hashlib.sha256(seed.encode()).hexdigest()[:16],
        "version": 1,
    }


def variable(environment: str) -> str:
    """Return the name of the variable that stands for an environment's versions."""
    return "version_" + re.sub(r"\W", "_", environment, flags=re.ASCII)


def _add_environment(panels: list[dict[str, Any]], environment: EnvironmentPlan) -> None:
    # no format: the source of metrics itself escapes what stands in a text of PromQL
    queries = Queries(environment, "${" + variable(environment.name) + "}", whole=True)
    top = _bottom(panels)
    row = {"collapsed": False, "gridPos": _place(0, top, 24, 1), "panels": [], "title": environment.name, "type": "row"}
    legend = "{{" + queries.label + "}}"
    graphs = [
        _graph("Traffic split", "percentunit", [(queries.split(), legend)], stacked=True),
        _graph("Requests", "reqps", [(queries.requests(), legend)]),
        _graph("Error rate", "percentunit", [(queries.error_rate(), legend)]),
    ]
    if queries.latency(0.5):
        times = [(queries.latency(one), f"{legend} p{one * 100:g}") for one in QUANTILES]
        graphs.append(_graph("Latency", "s", times))
    graphs += [_graph(f"Saturation: {one.name}", "short", [(one.query, "")]) for one in queries.gauges()]
    for number, graph in enumerate(graphs):
        graph["gridPos"] = _place(number % 2 * WIDE, top + 1 + number // 2 * HIGH, WIDE, HIGH)
    panels += [row, *graphs]


def _bottom(panels: list[dict[str, Any]]) -> int:
    return max((panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels), default=0)


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"h": height, "w": width, "x": x, "y": y}


def _graph(title: str, unit: str, queries: list[tuple[str, str]], *, stacked: bool = False) -> dict[str, Any]:
    custom: dict[str, Any] = {"fillOpacity": 40 if stacked else 5, "lineWidth": 1, "showPoints": "never"}
    if stacked:
        custom["stacking"] = {"group": "A", "mode": "normal"}
    defaults: dict[str, Any] = {"custom": custom, "min": 0, "unit": unit}
    if stacked:
        defaults["max"] = 1
    return {
        "datasource": SOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "legend": {"calcs": [], "displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"datasource": SOURCE, "expr": expression, "legendFormat": legend or "__auto", "refId": chr(65 + number)}
            for number, (expression, legend) in enumerate(queries)
        ],
        "title": title,
        "type": "timeseries",
    }


def _built_in() -> dict[str, Any]:
    return {
        "builtIn": 1, "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "hide": True,
        "iconColor": "rgba(0, 211, 255, 1)", "name": "Annotations & Alerts", "type": "dashboard",
    }  # fmt: skip


def _releases(service: str) -> dict[str, Any]:
    tags = [MARK, *([f"service:{service}"] if service else [])]
    return {
        "datasource": {"type": "grafana", "uid": "-- Grafana --"}, "enable": True, "iconColor": "blue",
        "name": "Releases", "target": {"limit": 500, "matchAny": False, "tags": tags, "type": "tags"},
    }  # fmt: skip


def _source(environments: tuple[EnvironmentPlan, ...]) -> dict[str, Any]:
    named = [plan.config.get("datasource", "") for one in environments for plan in one.notify if plan.kind == "grafana"]
    chosen = next((uid for uid in named if uid), "")
    made: dict[str, Any] = {"label": "Metrics", "name": "datasource", "query": "prometheus", "type": "datasource"}
    return {**made, "current": {"text": chosen, "value": chosen}} if chosen else made


def _versions(environment: EnvironmentPlan) -> dict[str, Any]:
    queries = Queries(environment, ".*")
    name = variable(environment.name)
    query = f"label_values({queries.counter}, {queries.label})"
    return {
        "allValue": ".*", "current": {"text": ["All"], "value": ["$__all"]}, "datasource": SOURCE,
        "includeAll": True, "label": f"{environment.name} versions", "multi": True, "name": name,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 4, "type": "query",
    }  # fmt: skip
