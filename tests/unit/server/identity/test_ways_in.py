"""Ways in: links that work once, sessions that end, tokens that expire; and what is in nobody's way but a guesser's."""

from __future__ import annotations

import sqlite3

import pytest

from forge.model.errors import UsageError
from forge.server.identity.attempts import MOST, WINDOW
from forge.server.identity.identity import COOKIE, narrowed
from forge.server.identity.login import safe_target
from forge.server.identity.permissions import Grant, Role
from forge.server.identity.sessions import IDLE, LINK_SECONDS, LONGEST

ADMIN = Grant(Role.ADMIN)


def csrf(page: str) -> str:
    return page.partition('<meta name="csrf" content="')[2].partition('"')[0]


async def logged_in(house):
    browser = house.browser()
    link = (await house.site.identity.one_time_link()).partition("link=")[2]
    answer = await browser.post("/login", data={"link": link})
    assert answer.status_code == 303
    return browser


async def test_a_link_shows_a_page_first_and_works_once(house) -> None:
    link = await house.site.identity.one_time_link()
    browser = house.browser()
    for _ in range(2):  # whatever previews links only looks
        assert (await browser.get(link)).status_code == 200
        assert COOKIE not in browser.cookies
    secret = link.partition("link=")[2]
    answer = await browser.post("/login", data={"link": secret, "next": "/velocity"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/velocity")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert (await browser.get("/")).status_code == 200
    again = await house.browser().post("/login", data={"link": secret})
    assert again.status_code == 401
    assert "was used already" in again.text


async def test_a_link_expires(house) -> None:
    secret = (await house.site.identity.one_time_link()).partition("link=")[2]
    house.now += LINK_SECONDS + 1
    assert (await house.browser().post("/login", data={"link": secret})).status_code == 401


@pytest.mark.parametrize("seconds", [IDLE + 1, LONGEST + 1])
async def test_a_session_ends_by_itself(house, seconds: float) -> None:
    browser = await logged_in(house)
    assert (await browser.get("/api/v1/me")).status_code == 200
    house.now += seconds
    assert (await browser.get("/api/v1/me")).status_code == 401
    sent_on = await browser.get("/projects/shop?state=failed")
    assert sent_on.headers["location"] == "/login?next=/projects/shop%3Fstate%3Dfailed"


async def test_logging_out_ends_the_session_for_whoever_has_its_cookie(house) -> None:
    browser = await logged_in(house)
    cookie = browser.cookies[COOKIE]
    await browser.post("/logout")
    thief = house.browser(Cookie=f"{COOKIE}={cookie}")
    assert (await thief.get("/api/v1/me")).status_code == 401


async def test_a_write_of_a_browser_needs_a_page_of_ours(house) -> None:
    browser = await logged_in(house)
    token = csrf((await browser.get("/settings")).text)
    form = {"label": "laptop", "days": "30"}
    assert (await browser.post("/settings/tokens", data=form)).status_code == 403
    assert (await browser.post("/settings/tokens", data={**form, "csrf": "0" * 64})).status_code == 403
    elsewhere = {"Origin": "http://evil.test"}
    assert (await browser.post("/settings/tokens", data={**form, "csrf": token}, headers=elsewhere)).status_code == 403
    made = await browser.post("/settings/tokens", data={**form, "csrf": token}, headers={"Origin": "http://forge.test"})
    assert made.status_code == 200
    assert "forge_" in made.text
    by_header = await browser.post("/api/v1/tokens", json={"label": "x"}, headers={"X-Forge-CSRF": token})
    assert by_header.status_code == 201


async def test_nothing_that_lets_anybody_in_is_kept_in_the_clear(house) -> None:
    browser = await logged_in(house)
    link = (await house.site.identity.one_time_link()).partition("link=")[2]
    await house.person("ann", ADMIN)
    token = await house.token("ann")
    for file in house.site.settings.state.glob("*.db*"):
        kept = file.read_bytes()
        for secret in (browser.cookies[COOKIE], link, token):
            assert secret.encode() not in kept, file
    with sqlite3.connect(house.site.settings.state / "server.db") as database:
        assert database.execute("SELECT count(*) FROM tokens").fetchone() == (1,)


async def test_tokens_expire_are_revoked_and_die_with_their_owner(house) -> None:
    ann = await house.client("ann", ADMIN, expires_at=house.now + 60)
    assert (await ann.get("/api/v1/me")).json()["name"] == "ann"
    house.now += 61
    assert (await ann.get("/api/v1/me")).status_code == 401
    bob = await house.client("bob", ADMIN)
    (listed,) = [one for one in (await bob.get("/api/v1/tokens")).json()["items"] if one["owner"] == "bob"]
    assert "secret" not in listed
    assert (await bob.delete(f"/api/v1/tokens/{listed['id']}")).status_code == 204
    assert (await bob.get("/api/v1/me")).status_code == 401
    eve = await house.client("eve", ADMIN)
    await house.person("eve", disabled=True)
    assert (await eve.get("/api/v1/me")).status_code == 401


async def test_a_narrow_token_does_no_more_and_makes_no_wider_one(house) -> None:
    narrow = await house.client("ann", ADMIN, scopes=(Grant(Role.VIEWER, "shop"),))
    assert (await narrow.get("/api/v1/projects/shop/runs")).status_code == 200
    assert (await narrow.post("/api/v1/projects/shop/runs", json={})).status_code == 403
    assert (await narrow.get("/api/v1/users")).status_code == 403
    secret = (await narrow.post("/api/v1/tokens", json={"label": "wide?"})).json()["secret"]
    wide = house.browser(Authorization=f"Bearer {secret}")
    assert (await wide.post("/api/v1/projects/shop/runs", json={})).status_code == 403
    login = await house.browser().post("/login", data={"token": secret})
    assert login.status_code == 401, "a session would have all rights"


@pytest.mark.parametrize("asked", [{"role": "admin"}, {"role": "admin", "project": "shop"}, {"role": "runner"}])
async def test_a_narrow_token_that_asks_for_more_by_name_gets_no_more(house, asked) -> None:
    narrow = await house.client("ann", ADMIN, scopes=(Grant(Role.VIEWER, "shop"),))
    made = await narrow.post("/api/v1/tokens", json={"label": "wide?", "scopes": [asked]})
    assert made.status_code == 201
    assert made.json()["token"]["scopes"] == [{"role": "viewer", "project": "shop", "environment": "*"}]
    wide = house.browser(Authorization=f"Bearer {made.json()['secret']}")
    assert (await wide.post("/api/v1/projects/shop/runs", json={})).status_code == 403
    assert (await wide.get("/api/v1/users")).status_code == 403


async def test_the_settings_page_makes_a_narrow_token_no_wider(house) -> None:
    narrow = await house.client("ann", ADMIN, scopes=(Grant(Role.VIEWER, "shop"),))
    page = await narrow.post("/settings/tokens", data={"label": "wide?", "days": "1", "role": "admin"})
    assert page.status_code == 200
    made = [token for token in await house.site.identity.tokens.of("ann") if token.label == "wide?"]
    assert [token.scopes for token in made] == [(Grant(Role.VIEWER, "shop"),)]


async def test_a_token_that_may_nothing_makes_none_that_may_everything(house) -> None:
    elsewhere = await house.client("ann", ADMIN, scopes=(Grant(Role.VIEWER, "shop"),))
    body = {"label": "x", "scopes": [{"role": "admin", "project": "other"}]}
    assert (await elsewhere.post("/api/v1/tokens", json=body)).status_code == 403
    bob = await house.client("bob", Grant(Role.VIEWER, "a"), scopes=(Grant(Role.VIEWER, "b"),))
    assert (await bob.post("/api/v1/tokens", json={"label": "x"})).status_code == 403


async def test_two_tokens_of_one_person_are_one_person_on_record(house) -> None:
    starts = await house.client("ann", ADMIN)
    stops = house.browser(Authorization=f"Bearer {await house.token('ann')}")
    started = await starts.post("/api/v1/projects/shop/runs", json={})
    assert started.status_code in {201, 202}, started.text
    service = house.site.project("shop")
    (run,) = [row.id for row in (await service.runs.page()).items]
    assert (await service.runs.get(run)).actor == "ann"
    assert (await stops.post(f"/api/v1/projects/shop/runs/{run}/cancel", json={})).status_code == 202
    waiting = await service.records.waiting(run)
    assert [(one.kind, one.actor) for one in waiting if one.kind == "cancel"] == [("cancel", "ann")]


async def test_guessing_is_slowed_down_by_address(house) -> None:
    for _ in range(MOST):
        assert (await house.browser(Authorization="Bearer forge_wrong").get("/api/v1/me")).status_code == 401
    slowed = await house.browser(Authorization="Bearer forge_wrong").get("/api/v1/me")
    assert slowed.status_code == 429
    assert 0 < int(slowed.headers["retry-after"]) <= WINDOW + 1
    house.now += WINDOW + 1
    assert (await house.browser(Authorization="Bearer forge_wrong").get("/api/v1/me")).status_code == 401


async def test_every_act_is_in_a_chain_that_shows_one_flipped_byte(house) -> None:
    ann = await house.client("ann", ADMIN)
    await ann.post("/api/v1/users", json={"name": "bob"})
    await ann.post("/api/v1/grants", json={"subject": "bob", "role": "runner", "project": "shop"})
    await house.browser().post("/login", data={"token": "forge_wrong"})
    acts = (await ann.get("/api/v1/audit")).json()["items"]
    kinds = [act["event"]["kind"] for act in acts]
    assert {"user", "granted", "login_failed"} <= set(kinds)
    requests = [act["event"]["data"] for act in acts if act["event"]["kind"] == "request"]
    assert {(one["actor"], one["path"], one["address"]) for one in requests} >= {("ann", "/api/v1/users", "10.1.2.3")}
    assert (await ann.get("/api/v1/audit/verify")).json() == {"first_wrong": None}
    with sqlite3.connect(house.site.settings.state / "audit.db") as database:
        database.execute("UPDATE events SET event = replace(event, 'bob', 'eve') WHERE seq = 1")
    assert (await ann.get("/api/v1/audit/verify")).json()["first_wrong"] == 1


async def test_what_people_are_called_and_given_is_checked(house) -> None:
    ann = await house.client("ann", ADMIN)
    assert (await ann.post("/api/v1/users", json={"name": "../x"})).status_code == 422
    assert (await ann.post("/api/v1/grants", json={"subject": "nobody", "role": "viewer"})).status_code == 404
    assert (await ann.post("/api/v1/grants", json={"subject": "ann", "role": "king"})).status_code == 422
    assert (await ann.delete("/api/v1/grants/999")).status_code == 404
    with pytest.raises(UsageError):
        await house.site.identity.people.grant("robot", "ann", ADMIN)


@pytest.mark.parametrize(
    "target", ["//evil.test", "/\\evil.test", "https://evil.test", "", "/login?x", "javascript:1", "/a b"]
)
def test_a_login_leads_to_this_site_only(target: str) -> None:
    assert safe_target(target) == "/"


def test_what_two_grants_both_give() -> None:
    wide, narrow = Grant(Role.RUNNER, "shop"), Grant(Role.ADMIN, "*", "staging")
    assert narrowed((wide,), (narrow,)) == (Grant(Role.RUNNER, "shop", "staging"),)
    assert narrowed((Grant(Role.RUNNER, "a"),), (Grant(Role.RUNNER, "b"),)) == ()
    assert narrowed((Grant(Role.RUNNER),), (Grant(Role.APPROVER),)) == (Grant(Role.VIEWER),)
