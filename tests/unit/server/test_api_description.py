"""The description of the API: whole, consistent, and about what is really there."""

from __future__ import annotations

import re

import jsonschema
import pytest

from forge.server.api.bodies import Promote, StartRun
from forge.server.app import describe


@pytest.fixture(scope="module")
def description():
    return describe()


def operations(description):
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def test_it_is_openapi_3_1_and_says_what_it_is_about(description):
    assert description["openapi"].startswith("3.1")
    assert description["info"]["title"] == "Forge"
    assert "Idempotency-Key" in description["info"]["description"]


def test_every_operation_has_a_name_of_its_own_and_a_summary(description):
    names = [operation["operationId"] for _, _, operation in operations(description)]
    assert len(names) == len(set(names)) >= 40
    assert all(operation.get("summary") for _, _, operation in operations(description))


def test_every_reference_leads_somewhere(description):
    text = str(description)
    known = set(description["components"]["schemas"])
    assert set(re.findall(r"#/components/schemas/([\w.]+)", text)) <= known


def test_every_schema_is_one(description):
    for schema in description["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_errors_are_problem_documents(description):
    told = 0
    for path, _, operation in operations(description):
        for status, answer in operation["responses"].items():
            if path.startswith("/api/v1") and status.startswith("4"):
                assert list(answer["content"]) == ["application/problem+json"], (path, status)
                told += 1
    assert told > 100


def test_writes_take_a_key_and_reads_do_not(description):
    for path, method, operation in operations(description):
        given = {one["name"] for one in operation.get("parameters", ())}
        if path.startswith("/api/v1"):
            assert ("Idempotency-Key" in given) == (method in {"post", "put", "patch", "delete"}), path


def test_whoever_asks_must_log_in_except_for_health(description):
    assert set(description["components"]["securitySchemes"]) == {"token", "session"}
    for path, _, operation in operations(description):
        if path in {"/healthz", "/readyz", "/metrics"}:
            assert "security" not in operation
        elif path.startswith("/api/"):
            assert operation["security"], path


def test_pages_are_not_part_of_it(description):
    assert not [
        path for path in description["paths"] if path == "/" or path.startswith(("/projects", "/login", "/static"))
    ]


def test_values_of_parameters_are_as_on_a_command_line():
    body = StartRun(parameters={"text": "x", "number": 3, "share": 0.5, "yes": True})
    assert body.given() == {"text": "x", "number": "3", "share": "0.5", "yes": "true"}


def test_a_promotion_has_the_keys_that_environments_know():
    assert Promote(full=True).model_dump() == {"release": "", "comment": "", "full": True, "override": ""}
