"""Where else a release can be looked at: Grafana's Explore with its time and the errors of its version."""

from __future__ import annotations

import json
from urllib.parse import quote

import msgspec

from forge.core.release.state import EnvironmentState, ReleaseState

MARGIN = 300.0
"""Seconds that are shown before it began and after it ended."""


def grafana_links(state: EnvironmentState, release: ReleaseState) -> tuple[str, ...]:
    """Return the address of the right view in each Grafana that is told of the environment's releases."""
    told = [plan for plan in state.plan.notify if plan.kind == "grafana"]
    if not told:
        return ()
    from forge.adapters.notify.grafana_queries import of_version

    try:
        query = of_version(state.plan, release.version)
    except msgspec.ValidationError:  # a source that was configured by another Forge
        return ()
    return tuple(
        _explore(plan.config["http"]["url"], plan.config.get("datasource", ""), query, release) for plan in told
    )


def _explore(url: str, datasource: str, query: str, release: ReleaseState) -> str:
    """Without a uid Grafana takes its default source."""
    asked: dict[str, object] = {"refId": "A", "expr": query}
    pane: dict[str, object] = {"queries": [asked], "range": _range(release)}
    if datasource:
        asked["datasource"] = {"type": "prometheus", "uid": datasource}
        pane["datasource"] = datasource
    panes = quote(json.dumps({"forge": pane}, separators=(",", ":")), safe="")
    return f"{url.rstrip('/')}/explore?schemaVersion=1&panes={panes}"


def _range(release: ReleaseState) -> dict[str, str]:
    begun = release.started_at or release.created_at
    ended = release.finished_at
    last = "now" if ended is None else str(round((ended + MARGIN) * 1000))
    return {"from": str(round((begun - MARGIN) * 1000)), "to": last}
