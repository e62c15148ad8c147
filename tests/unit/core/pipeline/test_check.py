"""What is allowed between jobs, and where the line to what is not runs. (The texts are in the golden files.)"""

from __future__ import annotations

import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose
from forge.core.pipeline.validate import FOREIGN

ENVIRONMENT = "environments: {p: {target: {local: {command: run}}}}\n"


def codes(text: str) -> list[str]:
    return [one.code for one in diagnose(Sources(read(text, "f")))]


def told(text: str) -> list[tuple[str, int]]:
    return [(one.code, one.line) for one in diagnose(Sources(read(text, "f")))]


def jobs(**bodies: str) -> str:
    return "jobs:\n" + "".join(f"  {name}: {{{body}}}\n" for name, body in bodies.items())


PUBLISH = "steps: [{publish: app}]"
DOWNLOAD = "steps: [{download: app}]"
RUN = "steps: [{run: x}]"


@pytest.mark.parametrize(
    "text",
    [
        jobs(a=PUBLISH, b=f"depends_on: a, {DOWNLOAD}"),
        jobs(a=PUBLISH, b=f"depends_on: a, {RUN}", c=f"depends_on: b, {DOWNLOAD}"),
        jobs(a="steps: [{publish: app}, {download: app}]"),
        jobs(b=f"depends_on: [c, a], {DOWNLOAD}", c=RUN, a=PUBLISH),
        jobs(a="steps: [{run: x}], on_failure: [{publish: app}]", b=f"depends_on: a, {DOWNLOAD}"),
        jobs(
            a="matrix: {os: [x, y]}, steps: [{publish: 'app-${{ matrix.os }}'}]",
            b="depends_on: a, steps: [{download: app-x}, {download: app-y}]",
        ),
        jobs(
            a="matrix: {os: [x, y]}, steps: [{publish: 'app-${{ matrix.os }}'}]",
            b="depends_on: a, matrix: {os: [x, y]}, steps: [{download: 'app-${{ matrix.os }}'}]",
        ),
        ENVIRONMENT + jobs(a=PUBLISH, b="depends_on: a, steps: [{deploy: {environment: p, artifact: app}}]"),
        ENVIRONMENT + jobs(a="environment: p, steps: [{verify: p}, {rollback: p}]"),
        ENVIRONMENT + "parameters: {where: [p]}\n" + jobs(a="steps: [{verify: '${{ params.where }}'}]"),
        "parameters: {where: string}\n" + ENVIRONMENT + jobs(a="steps: [{verify: '${{ params.where }}'}]"),
        jobs(a=RUN, b=f"depends_on: a, when: jobs.a.outputs.x == 'y', {RUN}"),
        jobs(a="matrix: {os: [x]}, steps: [{run: x}]", b=f"depends_on: a, when: jobs.a.status == 'succeeded', {RUN}"),
        jobs(a='steps: [{name: Build it, run: x}, {run: y, when: \'steps["Build it"].status == "succeeded"\'}]'),
        jobs(a="steps: [{run: x}, {run: y, when: 'steps[\"1\"].outputs.z == 1'}]"),
        jobs(a="steps: [{id: one, run: x}], always: [{run: y, when: 'steps.one.status == \"failed\"'}]"),
        jobs(a="env: {A: '${{ env.FORGE_COMMIT }}'}, steps: [{run: x}]"),
        jobs(a="steps: [{approve: {inputs: {why: string}}}, {run: x, env: {W: '${{ inputs.why }}'}}]"),
        jobs(a="trigger: {manual: {required: 2, approvers: [x, y]}}, steps: [{run: x}]"),
        jobs(a="trigger: {manual: {required: 5}}, steps: [{run: x}]"),
    ],
)
def test_allowed(text: str):
    assert codes(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (jobs(a=PUBLISH, b=DOWNLOAD), ["artifact-order"]),
        (jobs(a=f"depends_on: b, {PUBLISH}", b=DOWNLOAD), ["artifact-order"]),
        (jobs(a="steps: [{download: app}, {publish: app}]"), ["artifact-order"]),
        (jobs(a="steps: [{publish: app}, {publish: app}]"), ["artifact-twice"]),
        (jobs(a=PUBLISH, b=f"depends_on: a, {PUBLISH}"), ["artifact-twice"]),
        (jobs(a="matrix: {os: [x, y]}, steps: [{publish: app}]"), ["artifact-twice"]),
        (
            jobs(
                a="matrix: {os: [x]}, steps: [{publish: 'app-${{ matrix.os }}'}]",
                b="depends_on: a, steps: [{download: app-z}]",
            ),
            ["unknown-artifact"],
        ),
        (ENVIRONMENT + jobs(a="steps: [{deploy: {environment: p, artifact: app}}]"), ["unknown-artifact"]),
        (ENVIRONMENT + "parameters: {where: [q]}\n" + jobs(a="steps: [{verify: '${{ matrix.x }}'}]"), ["unknown-name"]),
        (jobs(a=RUN, b=f"when: jobs.a.status == 'x', {RUN}"), ["unknown-name"]),
        (jobs(a=f"when: jobs.a.status == 'x', {RUN}"), ["unknown-name"]),
        (jobs(a="steps: [{run: x, when: 'steps.two.status == \"x\"'}, {id: two, run: y}]"), ["unknown-name"]),
        (jobs(a="steps: [{run: x, env: {A: '${{ env.HOME }}'}}]"), ["unknown-name"]),
        (jobs(a="trigger: {manual: {required: 2, approvers: [x, x]}}, steps: [{run: x}]"), ["gate-never-opens"]),
        (jobs(a=f"depends_on: [a, b], {RUN}", b=f"depends_on: a, {RUN}"), ["cycle", "cycle"]),
        (jobs(a="shell: '${{ run.id }}', steps: [{run: x}]"), ["expression"]),
    ],
)
def test_not_allowed(text: str, expected: list[str]):
    assert codes(text) == expected


def test_a_typo_in_one_job_hides_nothing_in_another():
    text = jobs(
        a="steps: [{rum: x}, {publish: app}]",
        b=f"depends_on: [a, c], {RUN}",
        c=f"depends_on: b, timeout: never, {RUN}",
        d=f"depends_on: zz, {RUN}",
    )
    assert told(text) == [("unknown-key", 2), ("cycle", 3), ("value", 4), ("unknown-job", 5)]


def test_nothing_is_told_that_only_follows_from_another_error():
    text = jobs(
        a="steps: [{publsh: app}]", b=f"depends_on: a, {DOWNLOAD}", c="template: nope", d=f"depends_on: c, {RUN}"
    )
    assert told(text) == [("unknown-key", 2)]


def test_a_broken_job_is_still_a_job_that_others_may_name():
    assert told("jobs:\n  a: 5\n  b: {depends_on: a, steps: [{run: x}]}\n") == [("value", 2)]


def test_a_broken_environment_is_still_an_environment():
    text = "environments: {p: {target: {lokal: {}}}}\n" + jobs(a="steps: [{verify: p}]")
    assert codes(text) == ["unknown-key"]


def test_a_broken_matrix_is_told_once():
    assert codes(jobs(a="matrix: {os: []}, steps: [{run: x}]", b=f"depends_on: a, {RUN}")) == ["matrix"]


def test_one_problem_in_many_instances_is_told_once():
    text = jobs(a="matrix: {n: [1, 2, 3, 4]}, steps: [{download: nope}, {verify: nowhere}]")
    assert sorted(codes(text)) == ["unknown-artifact", "unknown-environment"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [(word, meant) for word, meant in sorted(FOREIGN.items()) if meant in {"depends_on", "when", "timeout", "always"}],
)
def test_words_of_other_tools_are_understood(word: str, meant: str):
    (one,) = diagnose(Sources(read(f"jobs:\n  a:\n    {word}: 5\n    steps: [{{run: x}}]\n", "f")))
    assert one.hint == f"did you mean `{meant}`?"


def test_diagnostics_come_in_the_files_order():
    text = jobs(z="timeout: x, steps: [{rum: a}]", a="depends_on: q, steps: [{run: '${{ nope }}'}]")
    lines = [(one.line, one.column) for one in diagnose(Sources(read(text, "f")))]
    assert lines == sorted(lines)
    assert len(lines) == 4


@pytest.mark.parametrize("count", [300])
def test_three_hundred_problems_are_all_told(count: int):
    text = "jobs:\n" + "".join(f"  j{n}: {{steps: [{{rum: x}}]}}\n" for n in range(count))
    assert codes(text) == ["unknown-key"] * count
