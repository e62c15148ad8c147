"""Writes that are sent twice."""

from __future__ import annotations

import asyncio

import pytest

from forge.server.idempotency import ABANDONED_SECONDS, KEPT_SECONDS
from forge.server.settings import read_settings
from forge.server.site import open_site
from serving.inside import asked
from serving.running import make_project


@pytest.fixture
async def site(tmp_path):
    async with asked(make_project(tmp_path / "shop")) as opened:
        yield opened


async def runs(site) -> list[str]:
    return [row["id"] for row in (await site.get("/runs")).json()["items"]]


def keyed(key: str, who: str = "ann") -> dict[str, dict[str, str]]:
    return {"headers": {"idempotency-key": key, "authorization": who}}


async def test_the_same_write_is_done_once_and_answered_the_same(site):
    first = await site.post("/runs", {"parameters": {}}, **keyed("k"))
    again = await site.post("/runs", {"parameters": {}}, **keyed("k"))
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert await runs(site) == ["run-1"]


async def test_another_body_under_the_same_key_is_refused(site):
    await site.post("/runs", {}, **keyed("k"))
    answer = await site.post("/runs", {"ref": ""}, **keyed("k"))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert await runs(site) == ["run-1"]


async def test_keys_are_of_one_client_and_one_path(site):
    for who, key in (("ann", "k"), ("bea", "k"), ("ann", "l")):
        assert (await site.post("/runs", {}, **keyed(key, who))).status_code == 201
    assert len(await runs(site)) == 3
    assert (await site.post("/runs/run-1/cancel", {}, **keyed("k"))).status_code == 202


async def test_without_a_key_each_write_counts(site):
    for _ in range(2):
        await site.post("/runs", {})
    assert len(await runs(site)) == 2


async def test_what_was_refused_may_be_tried_again(site):
    assert (await site.post("/runs/run-1/cancel", {}, **keyed("k"))).status_code == 404
    await site.post("/runs", {})
    assert (await site.post("/runs/run-1/cancel", {}, **keyed("k"))).status_code == 202


async def test_at_the_same_time_it_is_done_once(site):
    answers = await asyncio.gather(*(site.post("/runs", {}, **keyed("k")) for _ in range(8)))
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert 201 in {answer.status_code for answer in answers}
    assert await runs(site) == ["run-1"]


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\xe9", "a\tb"])
async def test_a_key_that_is_none_is_refused(site, key):
    headers = [("idempotency-key", key.encode("latin-1"))]
    answer = await site.client.post("/api/v1/projects/shop/runs", headers=headers)
    assert answer.status_code == 400


async def test_a_key_is_forgotten_after_a_day(tmp_path):
    now = [1000.0]
    settings = read_settings(None, make_project(tmp_path / "shop"), environ={})
    async with asked(tmp_path / "shop", settings) as site:
        site.site.clock = lambda: now[0]
        await site.post("/runs/run-1/cancel", {}, **keyed("k"))
        await site.post("/runs", {}, **keyed("k"))
        now[0] += KEPT_SECONDS + 1
        assert (await site.post("/runs", {"ref": ""}, **keyed("k"))).status_code == 201
        # The project's own database still knows that this very write was done: no second run.
        assert await runs(site) == ["run-1"]


async def test_a_write_whose_server_died_may_be_tried_again_and_is_one_run(tmp_path):
    now = [1000.0]
    settings = read_settings(None, make_project(tmp_path / "shop"), environ={})
    async with asked(tmp_path / "shop", settings) as site:
        site.site.clock = lambda: now[0]
        forgotten = site.site.database.begin
        begun = 0

        def begin():
            nonlocal begun
            begun += 1
            if begun == 2:  # the answer is never remembered
                raise asyncio.CancelledError
            return forgotten()

        site.site.database.begin = begin
        with pytest.raises(asyncio.CancelledError):
            await site.post("/runs", {}, **keyed("k"))
        site.site.database.begin = forgotten
        waits = await site.post("/runs", {}, **keyed("k"))
        assert (waits.status_code, waits.headers["retry-after"]) == (409, "1")
        now[0] += ABANDONED_SECONDS + 1
        assert (await site.post("/runs", {}, **keyed("k"))).json()["id"] == "run-1"
        assert await runs(site) == ["run-1"]


async def test_it_is_remembered_by_the_next_server(tmp_path):
    folder = make_project(tmp_path / "shop")
    async with asked(folder) as site:
        first = await site.post("/runs", {}, **keyed("k"))
    async with asked(folder) as site:
        again = await site.post("/runs", {}, **keyed("k"))
        assert again.json() == first.json()
        assert again.headers["idempotent-replay"] == "true"


async def test_opening_a_site_twice_at_once_works(tmp_path):
    settings = read_settings(None, make_project(tmp_path / "shop"), environ={})
    async with open_site(settings) as one, open_site(settings) as other:
        assert list(one.projects) == list(other.projects) == ["shop"]


async def test_who_is_not_let_in_any_more_gets_no_answer_from_before(site):
    await site.post("/runs", {}, **keyed("k"))
    again = await site.client.post(
        "/api/v1/projects/shop/runs", json={}, headers={**keyed("k")["headers"], "x-test-name": ""}
    )
    assert again.status_code == 401
