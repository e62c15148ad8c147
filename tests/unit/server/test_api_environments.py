"""Environments by the API: what is asked of those that nothing was released to, and who may ask.

Releases on real processes are in tests/conformance/test_service.py, which goes through this API too.
"""

from __future__ import annotations

import pytest

from forge.server.identity.permissions import Grant, Role
from serving.inside import asked
from serving.running import make_project

PIPELINE = """\
name: shop
jobs:
  staging: {steps: [{deploy: {environment: staging}}]}
environments:
  staging: {target: {local: {command: [sleep, "60"], ready: {command: ["true"]}}}}
  production: {target: {local: {command: [sleep, "60"], ready: {command: ["true"]}}}}
"""
WORDS = ("promote", "approve", "pause", "resume", "abort", "retry", "undo", "rollback")


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop", PIPELINE)) as opened:
        yield opened


async def test_they_are_listed_in_the_order_of_the_pipeline(site):
    page = (await site.get("/environments")).json()
    assert [(one["name"], one["state"]) for one in page["items"]] == [("staging", "empty"), ("production", "empty")]
    assert page["next"] == ""
    view = (await site.client.get("/api/v1/projects/shop")).json()
    assert [one["name"] for one in view["environments"]] == ["staging", "production"]
    rows = (await site.client.get("/api/v1/projects")).json()["items"]
    assert rows == [{"name": "shop", "environments": ["staging", "production"]}]


async def test_one_and_its_plan(site):
    assert (await site.get("/environments/staging")).json()["target"] == "local"
    assert (await site.get("/environments/staging", params={"closely": "true"})).json()["state"] == "empty"
    assert (await site.get("/environments/staging/plan")).json()["name"] == "staging"


@pytest.mark.parametrize("path", ["/environments/stagin", "/environments/stagin/plan"])
async def test_an_unknown_one_is_404_with_the_nearest(site, path):
    answer = await site.get(path)
    assert answer.status_code == 404
    assert "staging" in answer.json()["hint"]


@pytest.mark.parametrize("word", WORDS)
async def test_words_to_what_nothing_was_released_to_are_409_and_to_nobody_404(site, word):
    early = await site.post(f"/environments/staging/{word}", {})
    assert (early.status_code, early.json()["title"]) == (409, "Conflict")
    assert "nothing was released to staging" in early.json()["detail"]
    assert (await site.post(f"/environments/stagin/{word}")).status_code == 404


async def test_an_unknown_release_is_404(site):
    answer = await site.get("/releases/staging-1")
    assert answer.status_code == 404
    assert (await site.get("/releases/nonsense")).status_code == 404


async def test_records_of_what_has_none_are_empty(site):
    assert (await site.get("/events", params={"environment": "staging"})).json() == {"items": [], "next": ""}
    assert (await site.get("/events/last")).json() == {"seq": 0}
    assert (await site.get("/decisions")).json() == {"items": [], "next": ""}
    audit = (await site.get("/audit/verify")).json()
    assert audit == {
        "events": {"records": 0, "first_wrong": None},
        "decisions": {"records": 0, "first_wrong": None},
    }
    for path in ("/events", "/decisions"):
        assert (await site.get(path, params={"machine": "run-9"})).status_code == 404


async def test_events_are_paged_and_can_be_begun_anywhere(site):
    for _ in range(5):
        await site.post("/runs", {})
    first = (await site.get("/events", params={"limit": 2})).json()
    assert [one["seq"] for one in first["items"]] == [1, 2]
    second = (await site.get("/events", params={"limit": 2, "cursor": first["next"]})).json()
    assert [one["seq"] for one in second["items"]] == [3, 4]
    assert [one["seq"] for one in (await site.get("/events", params={"after": 4})).json()["items"]] == [5]
    assert (await site.get("/events", params={"cursor": "nonsense"})).status_code == 400


async def test_commands_that_wait_are_listed(site):
    await site.post("/runs", {})
    sent = (await site.post("/runs/run-1/cancel", {"comment": "why not"})).json()
    (waiting,) = (await site.get("/commands/run-1")).json()["items"]
    assert (waiting["id"], waiting["kind"], waiting["actor"]) == (sent["id"], "cancel", "ann")
    told = (await site.get(f"/commands/run-1/{sent['id']}", params={"after": sent["after"]})).json()
    assert told == {"state": "waiting", "reason": ""}


class TestRights:
    async def test_of_one_environment_are_not_those_of_another(self, site):
        site.site.identity.grants = (Grant(Role.RUNNER, "shop", "staging"),)
        assert (await site.post("/environments/staging/pause")).status_code == 409
        refused = await site.post("/environments/production/pause")
        assert refused.status_code == 403
        assert "production" in refused.json()["detail"]

    async def test_who_approves_does_not_steer_and_who_steers_does_not_approve(self, site):
        site.site.identity.grants = (Grant(Role.APPROVER, "shop"),)
        assert (await site.post("/environments/staging/approve")).status_code == 409
        assert (await site.post("/environments/staging/rollback")).status_code == 403
        site.site.identity.grants = (Grant(Role.RUNNER, "shop"),)
        assert (await site.post("/environments/staging/approve")).status_code == 403
        assert (await site.post("/environments/staging/rollback")).status_code == 409

    async def test_a_viewer_looks(self, site):
        site.site.identity.grants = (Grant(Role.VIEWER, "shop"),)
        for path in ("/environments", "/environments/staging", "/events", "/decisions", "/audit/verify"):
            assert (await site.get(path)).status_code == 200
        for word in WORDS:
            assert (await site.post(f"/environments/staging/{word}")).status_code == 403
