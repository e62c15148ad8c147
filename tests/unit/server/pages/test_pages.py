"""Pages: what they say to a newcomer, what they never let through, and why a button is off."""

from __future__ import annotations

import asyncio
import re

import pytest

from forge.core.pipeline.state import RUN_FINAL
from forge.server.identity.permissions import Grant, Role
from forge.server.pages.rendering import ago, duration, iso, moment, templates
from forge.server.pages.static import asset, static_address

EVIL = "<script>alert('x')</script>\"'&"
HELLO = "name: shop\nparameters:\n  version: '1.0'\njobs:\n  hello: {steps: [{run: echo hello}]}\n"
GATED = "name: shop\njobs:\n  ask:\n    trigger: {manual: Really?}\n    steps: [{run: echo yes}]\n"


async def until(visitor, run: str, states: set[str]) -> None:
    for _ in range(400):
        if (await visitor.site.project("shop").runs.get(run)).state in states:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(states)


async def test_a_newcomer_is_told_what_to_do_next(visit) -> None:
    visitor = await visit(HELLO)
    home = await visitor.see("/")
    assert "The pipeline has no environments." in home
    assert "forge run" in home
    project = await visitor.see("/projects/shop")
    assert "Nothing ran yet." in project
    assert 'name="p.version" value="1.0"' in project
    assert "Nothing was released yet." in await visitor.see("/velocity")


async def test_a_run_is_started_once_however_often_the_form_is_sent(visit) -> None:
    visitor = await visit(HELLO, work=True)
    key = re.search(r'name="key" value="(\w+)"', await visitor.see("/projects/shop"))[1]
    first = await visitor.send("/projects/shop/runs", key=key, **{"p.version": "2.0"})
    again = await visitor.send("/projects/shop/runs", key=key, **{"p.version": "2.0"})
    assert first.headers["location"] == again.headers["location"] == "/projects/shop/runs/run-1"
    await until(visitor, "run-1", {"succeeded"})
    page = await visitor.see("/projects/shop/runs/run-1")
    assert "it is over: succeeded" in page
    assert "every job succeeded" in page
    assert (await visitor.site.project("shop").runs.get("run-1")).actor == "ann"


async def test_what_people_and_programs_write_is_text_and_never_markup(visit) -> None:
    pipeline = HELLO.replace("echo hello", "printf '<script>alert(1)</script>'; exit 3")
    visitor = await visit(pipeline, work=True)
    refused = await visitor.send("/projects/shop/runs", **{f"p.{EVIL}": EVIL})
    assert refused.status_code == 422
    assert "<script>alert" not in refused.text
    started = await visitor.send("/projects/shop/runs")
    run = started.headers["location"].rpartition("/")[2]
    await until(visitor, run, set(RUN_FINAL))
    page = await visitor.see(f"/projects/shop/runs/{run}")
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    for path in (f"/projects/{EVIL}", f"/projects/shop/runs/{EVIL}", f"/projects/shop?state={EVIL}",
                 f"/projects/shop/environments/{EVIL}", f"/login?next={EVIL}&link={EVIL}"):  # fmt: skip
        answer = await visitor.browser.get(path)
        assert answer.status_code < 500
        assert "<script>alert" not in answer.text or answer.headers["content-type"] == "application/problem+json"


async def test_a_pipeline_that_is_wrong_is_shown_with_the_place(visit) -> None:
    visitor = await visit("jobs:\n  hello:\n    stepz: []\n")
    page = await visitor.see("/projects/shop")
    assert "forge/pipeline.yaml:3:" in page
    assert "stepz" in page
    assert "disabled" in page
    answer = await visitor.send("/projects/shop/runs")
    assert answer.status_code == 422
    assert "stepz" in answer.text


async def test_a_gate_is_opened_by_whom_it_may_be(visit) -> None:
    visitor = await visit(GATED, Grant(Role.RUNNER, "shop"), work=True)
    await visitor.send("/projects/shop/runs")
    await until(visitor, "run-1", {"waiting"})
    page = await visitor.see("/projects/shop/runs/run-1")
    assert "Really?" in page
    assert "needs the permission to approve" in page
    refused = await visitor.send("/projects/shop/runs/run-1/approve", job="ask")
    assert refused.status_code == 403
    await visitor.site.identity.people.grant("user", "ann", Grant(Role.APPROVER, "shop"))
    assert "run-1" in await visitor.see("/")
    done = await visitor.send("/projects/shop/runs/run-1/approve", job="ask", comment="yes <b>sure</b>")
    assert done.status_code == 303
    await until(visitor, "run-1", {"succeeded"})
    again = await visitor.send("/projects/shop/runs/run-1/approve", job="ask")
    assert again.status_code == 409
    assert "does not wait for approval" in again.text


async def test_a_gate_says_who_it_waits_for_before_one_clicks(visit) -> None:
    gate = "{manual: {message: Sure?, allow_self: false}}"
    pipeline = f"name: shop\njobs:\n  a: {{trigger: {gate}, steps: [{{run: echo a}}]}}\n"
    visitor = await visit(pipeline, work=True)
    await visitor.send("/projects/shop/runs")
    await until(visitor, "run-1", {"waiting"})
    page = await visitor.see("/projects/shop/runs/run-1")
    assert "you started it: somebody else has to say yes" in page
    assert (await visitor.send("/projects/shop/runs/run-1/approve", job="a")).status_code == 403


async def test_whoever_may_only_look_sees_why_the_buttons_are_off(visit) -> None:
    visitor = await visit(HELLO, Grant(Role.VIEWER, "shop"))
    page = await visitor.see("/projects/shop")
    assert "you have no role here that may run anything" in page
    assert (await visitor.send("/projects/shop/runs")).status_code == 403


async def test_what_one_may_not_look_at_is_not_even_named(visit) -> None:
    visitor = await visit(HELLO, Grant(Role.VIEWER, "another"))
    assert "/projects/shop" not in await visitor.see("/")
    await visitor.see("/projects/shop", 403)


@pytest.mark.parametrize("path", ["/projects/none", "/projects/shop/runs/run-9", "/projects/shop/environments/none",
                                  "/projects/shop/releases/none-1"])  # fmt: skip
async def test_what_is_not_there_is_said_on_a_page(visit, path: str) -> None:
    visitor = await visit(HELLO)
    page = await visitor.see(path, 404)
    assert "<h1>" in page
    assert "there is no" in page


async def test_ten_thousand_runs_are_shown_a_page_at_a_time(visit) -> None:
    visitor = await visit(HELLO)
    for _ in range(35):
        await visitor.send("/projects/shop/runs")
    first = await visitor.see("/projects/shop")
    assert first.count("data-row") == 30
    older = re.search(r'rel="next" href="(\?[^"]+)"', first)[1].replace("&amp;", "&")
    assert (await visitor.see(f"/projects/shop{older}")).count("data-row") == 5


def test_static_files_are_known_by_their_content_and_nothing_else_is_served() -> None:
    address = static_address("forge.css")
    assert re.fullmatch(r"/static/[0-9a-f]{12}/forge\.css", address)
    for name in ("../rendering.py", "..", "", "a//b", "vendor", "./forge.css", "nothing.css"):
        assert asset(name) is None
    with pytest.raises(FileNotFoundError):
        static_address("nothing.css")


@pytest.mark.parametrize(("past", "words"), [(0, "just now"), (9, "just now"), (59, "59 s ago"), (61, "1 min ago"),
                                             (7300, "2 h ago"), (86400, "1 day ago"), (200000, "2 days ago")])  # fmt: skip
def test_how_long_ago_is_said_shortly(past: float, words: str) -> None:
    assert ago(1000.0, 1000.0 + past) == words


def test_times_that_are_not_known_are_nothing() -> None:
    assert (ago(None, 1.0), moment(None), iso(None), duration(None)) == ("", "", "", "")


def test_every_template_can_be_read() -> None:
    for name in templates().list_templates():
        templates().get_template(name)
