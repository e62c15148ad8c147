"""Every error is a problem document, and none says more than it should."""

from __future__ import annotations

import pytest

from forge.model.diagnostics import Diagnostic
from forge.model.errors import (
    DependencyFailed,
    InvalidConfiguration,
    NotAllowed,
    Rejected,
    StillRunning,
    UsageError,
)
from forge.server.problems import NotThere, Problem, answered_with, problem_of
from serving.inside import asked
from serving.running import make_project


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("odd"), 400),
        (NotThere("nothing"), 404),
        (InvalidConfiguration((Diagnostic("value", "wrong"),)), 422),
        (Rejected("no"), 403),
        (NotAllowed("no"), 403),
        (DependencyFailed("away"), 503),
        (StillRunning("not yet"), 504),
        (Problem(418, "tea"), 418),
        (ZeroDivisionError("secret words"), 500),
    ],
)
def test_each_error_has_its_status(error, status):
    assert problem_of(error).status == status


def test_what_nobody_raised_on_purpose_keeps_its_words_for_the_log():
    assert "secret words" not in problem_of(ZeroDivisionError("secret words")).detail


def test_what_is_named_and_what_cannot_be_now():
    with pytest.raises(Problem) as caught, answered_with(409):
        raise UsageError("not now", hint="later")
    assert (caught.value.status, caught.value.detail, caught.value.hint) == (409, "not now", "later")
    with pytest.raises(NotThere), answered_with(409):
        raise NotThere("nothing")
    with pytest.raises(InvalidConfiguration), answered_with(404):
        raise InvalidConfiguration(())


class TestAnswers:
    @pytest.fixture
    async def site(self, tmp_path):
        async with asked(make_project(tmp_path / "shop")) as opened:
            yield opened

    async def test_a_document_names_its_request(self, site):
        answer = await site.get("/runs/run-9", headers={"x-request-id": "my-own-request-1"})
        document = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert document["type"] == "about:blank"
        assert (document["title"], document["status"]) == ("Not Found", 404)
        assert document["instance"] == "/api/v1/projects/shop/runs/run-9"
        assert document["request_id"] == answer.headers["x-request-id"] == "my-own-request-1"

    @pytest.mark.parametrize("given", ["short", "x" * 65, "with space in it", "new\\nline-and-more"])
    async def test_an_id_that_could_forge_a_log_is_not_taken(self, site, given):
        answer = await site.client.get("/healthz", headers={"x-request-id": given})
        assert answer.headers["x-request-id"] != given

    async def test_a_method_that_is_not_known_and_a_path_that_is_not(self, site):
        wrong = await site.client.delete("/api/v1/projects/shop/runs")
        assert wrong.status_code == 405
        assert wrong.headers["allow"] == "GET, POST"
        nowhere = await site.client.get("/api/v1/nothing")
        assert nowhere.status_code == 404
        for answer in (wrong, nowhere):
            assert answer.headers["content-type"] == "application/problem+json"

    async def test_values_that_do_not_fit_are_not_repeated(self, site):
        answer = await site.post("/runs", {"ref": ["hunter2-secret"]})
        assert answer.status_code == 422
        assert "hunter2" not in answer.text
        assert answer.json()["errors"][0]["at"] == "body.ref"

    async def test_broken_json_is_told(self, site):
        headers = {"content-type": "application/json"}
        answer = await site.client.post("/api/v1/projects/shop/runs", content=b'{"ref": ', headers=headers)
        assert answer.status_code == 422

    async def test_a_database_that_is_away_is_503_and_may_be_tried_again(self, site):
        async def away(*_words, **_more):
            raise DependencyFailed("the database cannot be reached", hint="is the server up?")

        site.site.engine("shop").store.machines.newest = away
        answer = await site.get("/runs")
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["hint"] == "is the server up?"
