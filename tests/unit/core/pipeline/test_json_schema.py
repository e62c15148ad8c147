"""The JSON Schema that editors use agrees with what Forge accepts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose
from forge.core.pipeline.schema_pipeline import json_schema
from forge.core.pipeline.schema_steps import KINDS

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline"
EXAMPLES = Path(__file__).parents[4] / "examples"


def errors(text: str, kind: Any = "pipeline") -> list[str]:
    schema = json_schema(kind)
    content = json.loads(json.dumps(read(text, "f").data))
    return [error.message for error in jsonschema.Draft202012Validator(schema).iter_errors(content)]


@pytest.mark.parametrize("kind", ["pipeline", "environments", "templates"])
def test_the_schema_is_a_valid_schema(kind: Any):
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert schema["title"] == f"Forge {kind}"


def test_the_schema_is_the_same_each_time():
    assert json.dumps(json_schema()) == json.dumps(json_schema())


@pytest.mark.parametrize("name", ["seed", "full"])
def test_the_schema_accepts_valid_files(name: str):
    assert errors((GOLDEN / f"{name}.yaml").read_text()) == []


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/forge/pipeline.yaml")), ids=lambda path: path.parts[-3])
def test_the_schema_accepts_the_examples(path: Path):
    assert errors(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "checkout: .", "checkout: {path: a}", "run: make", "run: 5", "publish: app", "publish: {artefact: app}",
        "publish: {artifact: app, path: x}", "download: app", "download: {artefact: app, into: x, extract: true}",
        "cache: {key: a, paths: b}", "cache: {key: a, paths: [b, c]}", "quality: {junit: [a], min_line_coverage: 80%}",
        "quality: {coverage: a, min_line_coverage: 80}", "deploy: p", "deploy: {environment: p, strategy: canary}",
        "deploy: {environment: p, strategy: {canary: {steps: [{weight: 5%}, {pause: until_resumed}]}}}",
        "deploy: {environment: p, strategy: {canary: adaptive}}",
        "deploy: {environment: p, strategy: {canary: {adaptive: {budget: 20, tolerance: 0.1%, most: 50%}, bake: 1m}}}",
        "deploy: {environment: p, checks: [{error_rate: 5%}, {latency: 1s}, {memory: 5MiB}, {cpu: {above: 80%}}]}",
        "deploy: {environment: p, target: {command: [a, b], replicas: 2, ready: /x}}", "verify: p",
        "verify: {environment: p, for: 1m}", "rollback: p", "rollback: {environment: p, to: 1.2}", "approve: Sure?",
        "approve: {required: 2, inputs: {why: string, where: [a, b], n: 3, what: {type: choice, options: [x]}}}",
        "{run: a, retry: 3, timeout: 5m, when: true, env: {A: 1, B: true}, on_crash: report, x-note: [1]}",
        "{run: a, retry: {attempts: 2}, timeout: 30}",
    ],
)  # fmt: skip
def test_the_schema_accepts_every_short_form(line: str):
    assert errors(f"jobs:\n  a:\n    steps:\n      - {line}\n") == []


@pytest.mark.parametrize(
    "body",
    [
        "depends_on: b", "depends_on: [b, c]", "trigger: manual", "trigger: automatic", "trigger: {manual: Go?}",
        "trigger: {manual: {required: 2}}", "concurrency: g", "concurrency: {group: g, limit: 2}", "retry: 2",
        "matrix: {os: [a, 1, true], include: [{os: b}], exclude: [{os: a}]}", "env: {A: 1}", "when: false",
    ],
)  # fmt: skip
def test_the_schema_accepts_every_form_of_a_job(body: str):
    assert errors(f"jobs:\n  a:\n    {body}\n    steps: [{{run: a}}]\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "nmae: x\njobs: {}\n",
        "jobs: {a: {stpes: []}}\n",
        "jobs: {a: {steps: [{rum: a}]}}\n",
        "jobs: {a: {steps: [{publish: {artifact: a, paht: b}}]}}\n",
        "jobs: {a: {steps: [{publish: {path: b}}]}}\n",
        "jobs: {a: {steps: [{publish: {artifact: a, artefact: b}}]}}\n",
        "jobs: {a: {steps: [{run: a, on_crash: restart}]}}\n",
        "jobs: {a: {steps: [{deploy: {environment: p, strategy: canry}}]}}\n",
        "jobs: {a: {steps: [{run: a, env: {A-B: c}}]}}\n",
        "jobs: {a: {trigger: manul, steps: [{run: a}]}}\n",
        "jobs: {a: {steps: [{run: a}], retry: 0}}\n",
        "name: x\n",
        "[]\n",
    ],
)
def test_the_schema_refuses_what_forge_refuses(text: str):
    assert errors(text)
    assert [one for one in diagnose(Sources(read(text, "f"))) if one.severity == "error"]


@pytest.mark.parametrize("secrets", ["[A, B]", "{A: , B: {env: C}}", "{A: {command: [pass, a]}}", "{A: {file: x}}"])
def test_the_schema_accepts_every_form_of_a_secret(secrets: str):
    assert errors(f"secrets: {secrets}\njobs: {{a: {{steps: [{{run: a}}]}}}}") == []


def test_a_step_must_be_of_one_kind_for_editors_too():
    assert errors("jobs: {a: {steps: [{name: x}]}}\n")
    assert errors("jobs: {a: {steps: [{run: a, publish: b}]}}\n")


def test_environments_may_stand_at_the_top_of_their_file_or_under_their_key():
    inner = "staging: {target: {local: {command: x}}, router: envoy}"
    assert errors(f"environments: {{{inner}}}", "environments") == []
    assert errors(inner, "environments") == []
    assert errors("staging: {target: {lokal: {}}}", "environments")


def test_every_step_kind_and_key_is_described():
    properties = json_schema()["$defs"]["StepModel"]["properties"]
    assert set(KINDS) <= set(properties)
    for model in json_schema()["$defs"].values():
        forms = [model, *model.get("anyOf", [])]
        assert any(form.get("description") for form in forms), model
