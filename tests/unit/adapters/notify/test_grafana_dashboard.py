"""The dashboard: the same for the same plan, in the form that Grafana imports, asking what releases are judged by."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.adapters.notify.grafana_dashboard import dashboard, variable
from forge.adapters.notify.grafana_queries import of_version
from forge.core.pipeline.schema_signals_prometheus import PRESETS
from forge.model.plan import EnvironmentPlan, NotifierPlan, SourcePlan

GOLDEN = Path(__file__).parents[3] / "golden" / "grafana" / "dashboard.json"
HTTP = {"url": "http://prometheus:9090"}


def environment(name: str = "production", gauges: int = 0, **config: object) -> EnvironmentPlan:
    made = {f"queue {number}": {"query": 'depth{pod=~"$pods"}', "limit": 100} for number in range(gauges)}
    source = SourcePlan("prometheus", "prometheus", {"http": HTTP, "gauges": made, **config})
    told = NotifierPlan("grafana", "grafana", {"http": HTTP, "datasource": "prom-1"})
    return EnvironmentPlan(name, sources=(source,), notify=(told,))


def test_golden() -> None:
    plans = (
        environment(preset="istio", match='namespace="shop-$environment"', saturation="kubernetes"),
        EnvironmentPlan("staging"),
    )
    text = json.dumps(dashboard(plans, "shop"), indent=2) + "\n"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


@given(
    st.lists(
        st.tuples(st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True), st.sampled_from(PRESETS), st.integers(0, 6)),
        min_size=1, max_size=4, unique_by=lambda one: variable(one[0]),
    ),
    st.text(max_size=20),
)  # fmt: skip
@settings(deadline=None, max_examples=60)
def test_any_dashboard_can_be_imported(chosen: list[tuple[str, str, int]], service: str) -> None:
    plans = tuple(environment(name, gauges, preset=preset) for name, preset, gauges in chosen)
    made = dashboard(plans, service)
    assert made == dashboard(plans, service)
    assert re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", made["uid"])
    assert made["title"]
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not own & cells, "panels overlap"
        cells |= own
        references = [target["refId"] for target in panel.get("targets", ())]
        assert len(set(references)) == len(references)
    names = {one["name"] for one in made["templating"]["list"]}
    assert len(names) == len(made["templating"]["list"])
    assert set(re.findall(r"\$\{(\w+)", json.dumps(panels))) <= names
    assert "$version" not in re.sub(r"\$\{version_", "", json.dumps(made)).replace("$__", "")
    releases = made["annotations"]["list"][1]["target"]
    assert releases["tags"][0] == "forge"
    assert not releases["matchAny"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_query_is_balanced(preset: str) -> None:
    for panel in dashboard((environment(preset=preset, gauges=1),))["panels"]:
        for target in panel.get("targets", ()):
            bare = re.sub(r'"(\\.|[^"\\])*"', '""', target["expr"])
            for begin, end in ("()", "{}", "[]"):
                assert bare.count(begin) == bare.count(end), target["expr"]


def test_a_version_is_asked_for_literally() -> None:
    asked = of_version(environment(preset="plain"), "1.4.0")
    assert 'version=~"(1\\\\.4\\\\.0|1\\\\-4\\\\-0)"' in asked
    assert "${" not in asked


def test_without_a_prometheus_it_is_envoy() -> None:
    assert "envoy_cluster_upstream_rq_xx" in of_version(EnvironmentPlan("production"), "2")
