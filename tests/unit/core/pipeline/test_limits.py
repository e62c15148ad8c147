"""However large or wrong a file is that may be read, an answer comes in bounded time."""

from __future__ import annotations

import time

import pytest

from forge.core.pipeline.assemble import MAX_JOBS, Sources
from forge.core.pipeline.document import MAX_BYTES, read
from forge.core.pipeline.resolve import MAX_INSTANCES, diagnose, resolve
from forge.core.pipeline.validate import MAX_TOLD
from forge.model.errors import InvalidConfiguration

SECONDS = 20
"""Far more than it takes, and far less than what grows with the square."""


def codes(text: str) -> list[str]:
    assert len(text) <= MAX_BYTES
    start = time.process_time()
    try:
        found = diagnose(Sources(read(text, "f")))
    except InvalidConfiguration as wrong:
        found = list(wrong.diagnostics)
    assert time.process_time() - start < SECONDS
    return [one.code for one in found]


@pytest.mark.parametrize("body", ["5", "{steps: [{rum: x}]}"])
def test_a_file_full_of_mistakes(body: str):
    found = codes("jobs:\n" + "".join(f"  job{n}: {body}\n" for n in range(6_000)))
    assert found.count("too-many") == 1
    assert len(found) == MAX_TOLD + 1


def test_a_file_full_of_unknown_keys_at_the_top():
    found = codes("jobs: {a: {steps: [{run: x}]}}\n" + "".join(f"jbos{n}: 1\n" for n in range(8_000)))
    assert len(found) == MAX_TOLD + 1


def test_more_jobs_than_anybody_has():
    assert codes("jobs:\n" + "".join(f"  j{n}: {{steps: [{{run: x}}]}}\n" for n in range(MAX_JOBS + 1))) == [
        "too-large"
    ]


def test_many_large_matrices():
    body = f"{{matrix: {{a: [{','.join(map(str, range(250)))}]}}, steps: [{{run: x}}]}}"
    text = "jobs:\n" + "".join(f"  j{n}: {body}\n" for n in range(MAX_INSTANCES // 250 + 5))
    assert codes(text) == ["too-large"]


def test_a_long_chain_of_jobs_is_planned():
    text = "jobs:\n" + "".join(
        f"  j{n}: {{depends_on: [{f'j{n - 1}' if n else ''}], steps: [{{run: x}}]}}\n" for n in range(1500)
    )
    start = time.process_time()
    plan = resolve(Sources(read(text, "f")))
    assert time.process_time() - start < SECONDS
    assert [job.name for job in plan.jobs] == [f"j{n}" for n in range(1500)]


def test_a_ring_of_jobs_is_one_cycle():
    text = "jobs:\n" + "".join(f"  j{n}: {{depends_on: j{(n + 1) % 1500}, steps: [{{run: x}}]}}\n" for n in range(1500))
    assert codes(text) == ["cycle"]


def test_everybody_waits_for_everybody_before():
    text = "jobs:\n" + "".join(
        f"  j{n}: {{depends_on: [{', '.join(f'j{m}' for m in range(n))}], steps: [{{run: x}}]}}\n" for n in range(300)
    )
    assert codes(text) == []


def test_a_script_with_many_expressions():
    text = "jobs: {a: {steps: [{run: '" + "${{ run.id }} " * 5_000 + "'}]}}"
    assert codes(text) == []


def test_a_script_of_unclosed_expressions():
    assert "expression" in codes("jobs: {a: {steps: [{run: '" + "${{ " * 100_000 + "'}]}}")


def test_a_line_of_a_megabyte():
    assert codes("jobs: {a: {steps: [{run: '" + "x" * 900_000 + "', timeout: soon}]}}") == ["value"]
