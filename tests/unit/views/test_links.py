"""Links to Grafana's Explore: the release's time, its version's errors, in the Grafana that is told of it."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from msgspec.structs import replace

from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.plan import EnvironmentPlan, NotifierPlan, SourcePlan
from forge.model.strategy import Strategy
from forge.views.explanation import explain
from forge.views.links import grafana_links
from forge.views.release import release_view

GRAFANA = NotifierPlan("grafana", "grafana", {"http": {"url": "https://g.example/sub"}, "datasource": "prom-1"})
PLAN = EnvironmentPlan("production", notify=(GRAFANA,))
STATE = EnvironmentState("production", PLAN)
RELEASE = ReleaseState(
    "production-2", "1.4.0", Strategy("rolling"), status="promoted", created_at=900.0, started_at=1000.0,
    finished_at=2000.0,
)  # fmt: skip


def pane(link: str) -> dict:
    parts = urlsplit(link)
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "g.example", "/sub/explore")
    query = parse_qs(parts.query, strict_parsing=True)
    assert query["schemaVersion"] == ["1"]
    return json.loads(query["panes"][0])["forge"]


def test_the_view_of_a_release_that_is_over() -> None:
    (link,) = grafana_links(STATE, RELEASE)
    shown = pane(link)
    assert shown["range"] == {"from": "700000", "to": "2300000"}
    assert shown["datasource"] == "prom-1"
    assert shown["queries"][0]["datasource"] == {"type": "prometheus", "uid": "prom-1"}
    assert "1\\\\.4\\\\.0" in shown["queries"][0]["expr"]


def test_one_that_goes_on_ends_now() -> None:
    (link,) = grafana_links(STATE, replace(RELEASE, status="progressing", finished_at=None))
    assert pane(link)["range"]["to"] == "now"
    (link,) = grafana_links(STATE, replace(RELEASE, status="queued", started_at=None, finished_at=None))
    assert pane(link)["range"]["from"] == "600000"


def test_it_is_in_the_views() -> None:
    links = grafana_links(STATE, RELEASE)
    assert release_view(STATE, RELEASE, 3000.0).links == links
    assert explain(STATE, RELEASE, 3000.0).links == links


def test_nobody_told_is_no_link() -> None:
    assert grafana_links(EnvironmentState("production", EnvironmentPlan("production")), RELEASE) == ()


def test_a_source_that_cannot_be_read_is_no_link() -> None:
    odd = replace(PLAN, sources=(SourcePlan("prometheus", "prometheus", {"unknown": 1}),))
    assert grafana_links(replace(STATE, plan=odd), RELEASE) == ()


def test_without_a_uid_it_is_the_default_source() -> None:
    plain = NotifierPlan("grafana", "grafana", {"http": {"url": "https://g.example/sub"}})
    (link,) = grafana_links(replace(STATE, plan=replace(PLAN, notify=(plain,))), RELEASE)
    assert "datasource" not in pane(link)
