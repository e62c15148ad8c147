"""Job templates: functions of their own typed parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.expressions import evaluate, fragments, interpolate
from forge.core.pipeline.resolve import diagnose, resolve
from forge.core.pipeline.templates import Bindings, literal, substitute_expression, substitute_text
from forge.model.plan import JobPlan, Plan, Retry

TEMPLATE = """
parameters: {tag: {type: string, default: latest}, n: 3}
templates:
  suite:
    parameters:
      python: {type: choice, options: ["3.11", "3.12"]}
      count: 2
      quick: false
      name: unit
    env: {A: template, NAME: "${{ params.name }}"}
    timeout: 5m
    retry: 4
    shell: zsh -c
    when: params.count > 1
    steps:
      - run: test ${{ params.python }} -n ${{ params.count }} ${{ params.quick }} ${{ run.id }}
        when: params.name == "unit" && !params.quick
      - publish: report-${{ params.name }}.xml
    always: [{run: clean}]
"""


def plan(jobs: str) -> Plan:
    return resolve(Sources(read(f"{TEMPLATE}jobs:\n{jobs}", "forge/pipeline.yaml")))


def one(body: str) -> JobPlan:
    return plan(f"  it: {{template: suite, {body}}}\n").job("it")


def problems(jobs: str) -> list[str]:
    return [found.message for found in diagnose(Sources(read(f"{TEMPLATE}jobs:\n{jobs}", "f")))]


def test_parameters_are_filled_in_and_the_rest_is_left_to_the_run():
    job = one("with: {python: '3.12', count: 5}")
    assert job.steps[0].config["script"] == "test 3.12 -n 5 false ${{ run.id }}"
    assert job.steps[1].config["name"] == "report-unit.xml"
    assert job.env == {"A": "template", "NAME": "unit"}


def test_conditions_are_filled_in_too():
    job = one("with: {python: '3.12', name: 'a\"b'}")
    assert evaluate(job.when, {}) is True
    assert evaluate(job.steps[0].when, {}) is False


def test_a_job_wins_over_its_template():
    job = one(
        "with: {python: '3.11'}, env: {A: job, B: b}, timeout: 1m, retry: 2, shell: dash -c, always: [{run: mine}]"
    )
    assert job.env == {"A": "job", "B": "b", "NAME": "unit"}
    assert (job.timeout, job.retry, job.shell) == (60.0, Retry(2), "dash -c")
    assert [(step.id, step.config.get("script")) for step in job.steps if step.run_on == "always"] == [
        ("always-1", "mine")
    ]


def test_what_a_job_does_not_say_comes_from_its_template():
    job = one("with: {python: '3.11'}")
    assert (job.timeout, job.retry, job.shell) == (300.0, Retry(4), "zsh -c")
    assert [step.run_on for step in job.steps] == ["success", "success", "always"]


def test_two_jobs_may_use_one_template():
    found = plan(
        "  a: {template: suite, with: {python: '3.11', name: a}}\n"
        "  b: {template: suite, with: {python: '3.12', name: b}, depends_on: a}\n"
    )
    assert [job.steps[1].config["name"] for job in found.jobs] == ["report-a.xml", "report-b.xml"]


def test_a_job_may_hand_an_expression_on():
    job = one("with: {python: '3.11', count: '${{ params.n * 2 }}'}")
    script = job.steps[0].config["script"]
    assert interpolate(script, {"params": {"n": 3}, "run": {"id": "r"}}) == "test 3.11 -n 6 false r"


def test_text_that_is_handed_on_still_cannot_become_code():
    found = problems("  it: {template: suite, with: {python: '3.11', name: x, count: '${{ params.tag }}'}}\n")
    assert "`params.tag` is text that somebody types; in a script it would be run as code" in found


def test_a_template_with_a_matrix_of_the_job():
    found = plan(
        "  it:\n    template: suite\n    matrix: {py: ['3.11', '3.12']}\n    with: {python: '3.11', name: '${{ matrix.py }}'}\n"
    )
    assert [job.steps[1].config["name"] for job in found.jobs] == ["report-3.11.xml", "report-3.12.xml"]


@pytest.mark.parametrize(
    ("jobs", "message"),
    [
        ("  a: {template: suit}\n", "there is no template `suit`"),
        ("  a: {template: suite}\n", "the template `suite` needs a value for `python`"),
        ("  a: {template: suite, with: {python: '3.11', nmae: x}}\n", "the template `suite` has no parameter `nmae`"),
        ("  a: {template: suite, with: {python: '2.7'}}\n", "the parameter `python` of `suite` is not one of `3.11`, `3.12`: `2.7`"),
        ("  a: {template: suite, with: {python: '3.11', count: many}}\n", "the parameter `count` of `suite` is not a number: `many`"),
        ("  a: {template: suite, with: {python: '3.11', name: 'a ${{ run.id }}'}}\n", "the parameter `name` of `suite` mixes text and expressions; make it one `${{ ... }}`"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_told(jobs: str, message: str):
    assert message in problems(jobs)


def test_a_template_sees_only_its_own_parameters():
    text = "parameters: {tag: 1}\ntemplates: {t: {steps: [{checkout: {ref: '${{ params.tag }}'}}]}}\njobs: {a: {template: t}}"
    assert [one.message for one in diagnose(Sources(read(text, "f")))] == ["there is no `params.tag`"]


def test_templates_come_from_included_files_and_errors_point_into_them():
    pipeline = read("include: forge/t.yaml\njobs: {a: {template: t}, b: {template: u}}", "forge/pipeline.yaml")
    included = read("templates:\n  t: {steps: [{run: a}]}\n  u: {steps: [{rum: a}]}\n", "forge/t.yaml")
    (found,) = diagnose(Sources(pipeline, included={"forge/t.yaml": included}))
    assert (found.file, found.line, found.column) == ("forge/t.yaml", 3, 16)
    assert "no key `rum`" in found.message


def test_a_template_in_two_files_is_told_with_both_places():
    pipeline = read("templates: {t: {steps: [{run: a}]}}\njobs: {a: {template: t}}", "forge/pipeline.yaml")
    included = read("templates:\n  t: {steps: [{run: a}]}\n", "forge/t.yaml")
    (found,) = diagnose(Sources(pipeline, included={"forge/t.yaml": included}))
    assert (found.file, found.line, found.code) == ("forge/t.yaml", 2, "duplicate-name")
    assert "forge/pipeline.yaml:1" in found.hint


values = st.one_of(
    st.booleans(), st.integers(-(10**9), 10**9), st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20)
)


@given(values)
def test_a_literal_is_the_value_again(value: object):
    assert evaluate(literal(value), {}) == value


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20).filter(lambda text: "${{" not in text))
def test_text_is_filled_in_exactly(value: str):
    assert substitute_text("a ${{ params.x }} b", Bindings({"x": literal(value)})) == f"a {value} b"


@given(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20))
def test_a_value_in_a_condition_is_data_and_never_code(value: str):
    condition = substitute_expression("params.x == run.id", Bindings({"x": literal(value)}))
    assert evaluate(condition, {"run": {"id": value}}) is True


def test_names_inside_texts_and_of_loops_are_left_alone():
    bindings = Bindings({"x": "1"})
    assert substitute_expression('"params.x" + params.xy', bindings) == '"params.x" + params.xy'
    assert fragments(substitute_text("$${{ params.x }} ${{ run.id }}", bindings)) == ["run.id"]
