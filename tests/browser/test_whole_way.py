"""The whole way in a real browser: log in, start a run, follow its log, approve, watch the canary, roll back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from browser.shopping import WRONG, Person, end_shop, make_shop
from serving.running import Server

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


@pytest.fixture
def person(page: Page, tmp_path: Path) -> Iterator[Person]:
    folder = make_shop(tmp_path / "shop")
    server = Server(folder)
    try:
        yield Person(page, server)
    finally:
        server.stop()
        end_shop(folder)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_from_the_login_to_the_rollback(person: Person) -> None:
    page = person.page
    person.log_in()
    expect(page.get_by_text("Nothing ran yet.")).to_be_visible()

    person.start("1.0")
    expect(page.locator("#live-state")).to_have_text("● live")
    expect(page.locator(".log .line", has_text="the last part")).to_be_visible(timeout=20_000)
    person.approve("fine by me")
    expect(page.locator(".log .line", has_text="production-1: 1.0")).not_to_have_count(
        0
    )  # that of the step that runs now
    # A first version has nothing beside it, so its canary has nothing to wait for.
    person.expect_state("succeeded")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()

    run = person.start("1.1")
    person.approve("")
    person.go("/projects/shop/environments/production")
    person.expect_state("paused")
    row = page.get_by_role("row", name=re.compile(r"1\.1 arm"))
    expect(row).to_contain_text("20%")
    page.get_by_role("link", name="production-2").click()
    expect(page.get_by_text("Waits for a person to resume it").first).to_be_visible()
    expect(page.get_by_role("heading", name="Traffic")).to_be_visible()
    expect(page.locator(".chart canvas").first).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_be_disabled()
    person.press("Resume")
    person.expect_state("promoted")
    person.go(f"/projects/shop/runs/{run}")
    person.expect_state("succeeded")

    person.go("/projects/shop/environments/production")
    person.press("Roll back", type_=WRONG)
    expect(page.locator("dialog#confirm")).to_be_hidden()
    expect(page.get_by_role("row", name=re.compile(r"1\.1 stable"))).to_be_visible()
    person.press("Roll back", type_="production")
    expect(page.get_by_role("row", name=re.compile(r"1\.0 stable"))).to_be_visible(timeout=40_000)

    person.go("/velocity")
    expect(page.get_by_text("change failure rate: 1 rolled back or failed")).to_be_visible()
    person.go("/settings")
    expect(page.get_by_text("root of this machine").or_(page.get_by_text("logged in by link")).first).to_be_visible()
    for path in ("/", "/projects/shop", f"/projects/shop/runs/{run}", "/projects/shop/environments/production",
                 "/projects/shop/releases/production-2", "/velocity", "/settings"):  # fmt: skip
        check_accessible(person, path)


def check_accessible(person: Person, path: str) -> None:
    """Run axe on a page, in light, in dark and on a phone: nothing serious."""
    page = person.page
    for scheme, size in (("light", DESK), ("dark", DESK), ("light", PHONE)):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.set_viewport_size(size)
        person.go(path)
        page.wait_for_timeout(300)
        found = Axe().run(page).response["violations"]
        serious = [
            (one["id"], one["help"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in found if one["impact"] in {"serious", "critical"}
        ]  # fmt: skip
        assert serious == [], (path, scheme, size)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), f"{path} is too wide at {size}"
        assert len(page.content()) < 100_000


@pytest.mark.timeout(120)
def test_a_log_of_a_hundred_thousand_lines_stays_smooth(page: Page, tmp_path: Path) -> None:
    server = Server(make_shop(tmp_path / "shop", lines=100_000))
    try:
        person = Person(page, server)
        person.log_in()
        person.start("1.0")
        expect(page.locator(".log .line", has_text="the last part")).to_be_visible(timeout=60_000)
        assert page.locator(".log .line").count() < 200
        red = page.locator(".log .line", has_text="red alert")
        expect(red.locator(".c1")).to_have_text("red alert")
        assert "<b>not bold</b>" in red.inner_text()
        expect(page.locator(".log .line", has_text="after a title")).to_be_visible()
        expect(page.locator(".log .line", has_text="a hidden cursor")).to_be_visible()
        page.get_by_placeholder("Search").fill("part 54321 ")
        expect(page.get_by_text("1 lines")).to_be_visible()
        page.get_by_role("button", name="Next").click()
        expect(page.locator(".log mark")).to_have_text("part 54321 ")
        page.goto(f"{page.url.partition('#')[0]}#L99999")
        expect(page.locator(".log .line.here")).to_contain_text("part 99999 of", timeout=20_000)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.path().read_text().count("\n") == 100_004
    finally:
        server.stop()


def test_nobody_gets_in_without_a_link_or_a_token(page: Page, tmp_path: Path) -> None:
    server = Server(make_shop(tmp_path / "shop"))
    try:
        page.goto(f"{server.url}/projects/shop")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.get_by_label("Token").fill("forge_wrong")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("lets nobody in")
        page.goto(server.link)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("button", name="Log out").click()
        page.goto(server.link)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("was used already")
    finally:
        server.stop()
