"""Runs by the API: start, look, logs, artifacts, gates, and every way to ask for what cannot be."""

from __future__ import annotations

import asyncio
import time

import pytest

from forge.server.identity.permissions import Grant, Role
from serving.inside import asked
from serving.running import make_project


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop")) as opened:
        yield opened


async def until(site, run: str, *states: str) -> dict:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        view = (await site.get(f"/runs/{run}")).json()
        if view["state"] in states:
            return view
        await asyncio.sleep(0.05)
    raise AssertionError(view)


async def start(site, **options) -> str:
    answer = await site.post("/runs", {}, **options)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


class TestStarting:
    async def test_a_run_is_there_at_once_and_by_whom(self, site):
        answer = await site.post("/runs", {"parameters": {}}, headers={"x-test-name": "bea"})
        assert answer.status_code == 201
        assert answer.headers["location"] == "/api/v1/projects/shop/runs/run-1"
        view = answer.json()
        assert (view["id"], view["state"], view["actor"]) == ("run-1", "queued", "bea")
        assert [job["name"] for job in view["jobs"]] == ["build", "check"]

    async def test_no_body_is_an_empty_one(self, site):
        assert (await site.client.post("/api/v1/projects/shop/runs")).status_code == 201

    async def test_unknown_parameters_are_told_with_their_diagnostics(self, site):
        answer = await site.post("/runs", {"parameters": {"versoin": "1"}})
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        assert "versoin" in str(answer.json()["diagnostics"])

    @pytest.mark.parametrize("body", [{"nothing": 1}, {"parameters": []}, {"parameters": {"a": [1]}}, [], "text"])
    async def test_a_body_that_does_not_fit_is_refused(self, site, body):
        answer = await site.post("/runs", body)
        assert answer.status_code == 422
        assert answer.json()["errors"]

    async def test_a_folder_has_no_refs(self, site):
        answer = await site.post("/runs", {"ref": "main"})
        assert answer.status_code == 400
        assert "Git" in answer.json()["detail"]

    async def test_an_unknown_project_is_told_with_the_nearest(self, site):
        answer = await site.client.get("/api/v1/projects/shpo/runs")
        assert answer.status_code == 404
        assert "shop" in answer.json()["hint"]


class TestListing:
    async def test_pages_follow_one_another_newest_first(self, site):
        for _ in range(5):
            await start(site)
        seen, cursor = [], ""
        for _ in range(10):
            page = (await site.get("/runs", params={"limit": 2, "cursor": cursor})).json()
            seen += [row["id"] for row in page["items"]]
            cursor = page["next"]
            if not cursor:
                break
        assert seen == ["run-5", "run-4", "run-3", "run-2", "run-1"]

    async def test_by_state(self, site):
        await start(site)
        assert (await site.get("/runs", params={"state": "failed"})).json() == {"items": [], "next": ""}
        both = await site.get("/runs", params={"state": ["failed", "queued"]})
        assert len(both.json()["items"]) == 1

    @pytest.mark.parametrize(
        ("query", "status"),
        [({"cursor": "x"}, 400), ({"cursor": "MTpydW4tOTk"}, 400), ({"limit": 0}, 422), ({"state": "odd"}, 422)],
    )
    async def test_what_makes_no_sense_is_refused(self, site, query, status):
        answer = await site.get("/runs", params=query)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"

    async def test_the_same_view_is_not_sent_twice(self, site):
        run = await start(site)
        first = await site.get(f"/runs/{run}/plan")
        again = await site.get(f"/runs/{run}/plan", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert first.json()["name"] == "shop"


class TestWholeWay:
    async def test_start_logs_artifacts_gate_and_end(self, site):
        await site.site.workers.start()
        run = await start(site)
        waiting = await until(site, run, "waiting")
        assert waiting["jobs"][1]["gate"]["message"] == "Does it look good?"

        log = await site.get(f"/runs/{run}/jobs/build/attempts/1/steps/compile/log")
        assert log.text.count("compiling part") == 3
        assert log.headers["x-forge-log-ended"] == "true"
        assert int(log.headers["x-forge-log-size"]) == len(log.content)
        piece = await site.get(
            f"/runs/{run}/jobs/build/attempts/1/steps/compile/log", params={"offset": -7, "limit": 3}
        )
        assert piece.content == log.content[-7:-4]

        rows = (await site.get(f"/runs/{run}/artifacts")).json()["items"]
        assert [row["name"] for row in rows] == ["shop.txt"]
        content = await site.get(f"/runs/{run}/artifacts/shop.txt")
        assert content.content == b"made\n"
        assert content.headers["etag"] == f'"{rows[0]["digest"]}"'
        assert list((site.site.settings.state / "downloads").iterdir()) == []

        word = await site.post(f"/runs/{run}/approve", {"comment": "yes"}, headers={"x-test-name": "cleo"})
        assert word.status_code == 202
        accepted = word.json()
        ended = await until(site, run, "succeeded")
        assert ended["jobs"][1]["gate"]["given"] == ["cleo"]
        told = await site.get(f"/commands/{run}/{accepted['id']}", params={"after": accepted["after"]})
        assert told.json() == {"state": "taken", "reason": ""}

        again = await site.post(f"/runs/{run}/retry")
        assert again.status_code == 409
        assert "nothing to do again" in again.json()["detail"]

    async def test_cancel(self, site):
        await site.site.workers.start()
        run = await start(site)
        await until(site, run, "waiting")
        assert (await site.post(f"/runs/{run}/cancel", {"comment": "no need"})).status_code == 202
        assert (await until(site, run, "cancelled"))["state"] == "cancelled"
        assert (await site.post(f"/runs/{run}/cancel")).status_code == 409

    async def test_reject(self, site):
        await site.site.workers.start()
        run = await start(site)
        await until(site, run, "waiting")
        assert (await site.post(f"/runs/{run}/reject", {"job": "check"})).status_code == 202
        await until(site, run, "rejected")


class TestUnknown:
    @pytest.mark.parametrize(
        "path",
        [
            "/runs/run-9",
            "/runs/run-9/plan",
            "/runs/run-9/artifacts",
            "/runs/run-1/artifacts/nothing.txt",
            "/runs/run-9/jobs/build/attempts/1/steps/compile/log",
            "/runs/run-1/jobs/bild/attempts/1/steps/compile/log",
            "/runs/run-1/jobs/build/attempts/7/steps/compile/log",
            "/runs/run-1/jobs/build/attempts/1/steps/compil/log",
        ],
    )
    async def test_what_is_not_there_is_404(self, site, path):
        await start(site)
        answer = await site.get(path)
        assert answer.status_code == 404, answer.text
        assert answer.json()["status"] == 404

    @pytest.mark.parametrize("word", ["approve", "reject", "cancel", "retry"])
    async def test_words_to_no_run_are_404(self, site, word):
        assert (await site.post(f"/runs/run-9/{word}")).status_code == 404

    @pytest.mark.parametrize("word", ["approve", "reject", "retry"])
    async def test_words_that_come_too_early_are_409(self, site, word):
        run = await start(site)
        answer = await site.post(f"/runs/{run}/{word}")
        assert answer.status_code == 409, answer.text


class TestRights:
    async def test_who_may_only_look_may_not_run(self, site):
        run = await start(site)
        site.site.identity.grants = (Grant(Role.VIEWER),)
        assert (await site.get(f"/runs/{run}")).status_code == 200
        for path in ("/runs", f"/runs/{run}/cancel", f"/runs/{run}/retry", f"/runs/{run}/approve"):
            assert (await site.post(path, {})).status_code == 403

    async def test_who_may_nothing_here_sees_nothing(self, site):
        site.site.identity.grants = (Grant(Role.ADMIN, "other"),)
        assert (await site.get("/runs")).status_code == 403
        assert (await site.client.get("/api/v1/projects")).json()["items"] == []

    async def test_nobody_is_asked_who_he_is(self, site):
        answer = await site.get("/runs", headers={"x-test-name": ""})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


DEPLOYS = """\
name: shop
jobs:
  build: {steps: [{run: "true"}]}
  staging: {depends_on: build, steps: [{deploy: {environment: staging}}]}
  production: {depends_on: staging, trigger: {manual: Release?}, steps: [{deploy: {environment: production}}]}
environments:
  staging: {target: {local: {command: [sleep, "60"], ready: {command: ["true"]}}}}
  production: {target: {local: {command: [sleep, "60"], ready: {command: ["true"]}}}}
"""


class TestRightsOfEnvironments:
    @pytest.fixture
    async def site(self, tmp_path):
        async with asked(make_project(tmp_path / "shop", DEPLOYS)) as opened:
            yield opened

    async def test_a_run_needs_all_environments_that_it_deploys_to(self, site):
        site.site.identity.grants = (Grant(Role.RUNNER, "shop", "staging"),)
        answer = await site.post("/runs", {})
        assert answer.status_code == 403
        assert "production" in answer.json()["detail"]
        site.site.identity.grants = (Grant(Role.RUNNER, "shop", "staging"), Grant(Role.RUNNER, "shop", "production"))
        assert (await site.post("/runs", {})).status_code == 201

    async def test_a_gate_needs_what_is_behind_it(self, site):
        run = await start(site)
        site.site.identity.grants = (Grant(Role.APPROVER, "shop", "staging"),)
        assert (await site.post(f"/runs/{run}/approve", {"job": "production"})).status_code == 403
        site.site.identity.grants = (Grant(Role.APPROVER, "shop", "production"),)
        assert (await site.post(f"/runs/{run}/approve", {"job": "production"})).status_code == 409  # it does not wait

    async def test_cancelling_needs_them_too(self, site):
        run = await start(site)
        site.site.identity.grants = (Grant(Role.RUNNER, "shop", "staging"),)
        assert (await site.post(f"/runs/{run}/cancel")).status_code == 403
