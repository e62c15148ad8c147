"""Axes times each other, plus `include`, minus `exclude`."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.matrix import MAX_INSTANCES, expand, instance_name
from forge.core.pipeline.resolve import resolve


def names(matrix: dict[str, list[Any]]) -> list[str]:
    return [instance_name("t", row) for row in expand(matrix).combinations]


def test_no_matrix_is_one_job_of_its_own_name():
    assert [instance_name("t", row) for row in expand(None).combinations] == ["t"]


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        ({"os": ["a", "b"]}, ["t (os=a)", "t (os=b)"]),
        ({"os": ["a"], "n": [1, 2]}, ["t (os=a, n=1)", "t (os=a, n=2)"]),
        ({"on": [True, False]}, ["t (on=true)", "t (on=false)"]),
        ({"os": ["a", "b"], "exclude": [{"os": "a"}]}, ["t (os=b)"]),
        (
            {"os": ["a", "b"], "n": [1, 2], "exclude": [{"os": "a", "n": 2}]},
            ["t (os=a, n=1)", "t (os=b, n=1)", "t (os=b, n=2)"],
        ),
        ({"os": ["a"], "include": [{"os": "b"}]}, ["t (os=a)", "t (os=b)"]),
        ({"os": ["a", "b"], "include": [{"os": "a", "x": 1}]}, ["t (os=a, x=1)", "t (os=b)"]),
        ({"os": ["a", "b"], "include": [{"x": 1}]}, ["t (os=a, x=1)", "t (os=b, x=1)"]),
        ({"include": [{"os": "a"}, {"os": "b", "x": 1}]}, ["t (os=a)", "t (os=b, x=1)"]),
        ({"os": ["a", "a"]}, ["t (os=a)"]),
        ({"os": ["a"], "include": [{"os": "a"}]}, ["t (os=a)"]),
    ],
)
def test_combinations(matrix: dict[str, list[Any]], expected: list[str]):
    assert names(matrix) == expected


@pytest.mark.parametrize("matrix", [{}, {"os": []}, {"os": ["a"], "exclude": [{"os": "a"}]}, {"include": []}])
def test_a_matrix_without_jobs_is_a_problem(matrix: dict[str, list[Any]]):
    assert "no job" in expand(matrix).problem


@pytest.mark.parametrize("sizes", [(257,), (17, 16), (7, 7, 7), (100, 100, 100, 100, 100, 100)])
def test_a_matrix_that_is_too_large_is_refused_without_being_built(sizes: tuple[int, ...]):
    found = expand({f"a{index}": list(range(size)) for index, size in enumerate(sizes)})
    assert f"makes {math.prod(sizes):,} jobs" in found.problem
    assert found.combinations == ()


def test_the_largest_matrix_is_allowed():
    assert len(expand({"a": list(range(16)), "b": list(range(16))}).combinations) == MAX_INSTANCES


def test_an_exclude_may_make_a_large_matrix_fit():
    found = expand({"a": list(range(20)), "b": list(range(20)), "exclude": [{"b": n} for n in range(10, 20)]})
    assert len(found.combinations) == 200


def test_an_exclude_that_matches_nothing_is_known():
    assert expand({"os": ["a"], "exclude": [{"os": "b"}, {"zz": 1}]}).unused == (0, 1)


axis = st.lists(st.sampled_from(["a", "b", "c", 1, 2, True]), min_size=1, max_size=4)


@given(st.dictionaries(st.sampled_from(["os", "py", "arch"]), axis, min_size=1))
def test_every_combination_is_there_once(matrix: dict[str, list[Any]]):
    found = expand(matrix).combinations
    shown = [instance_name("t", row) for row in found]
    assert len(set(shown)) == len(shown)
    distinct = math.prod(len({instance_name("", {"x": value}) for value in values}) for values in matrix.values())
    assert len(found) == distinct


@given(st.dictionaries(st.sampled_from(["os", "py"]), axis, min_size=1), st.sampled_from(["a", "b", 1]))
def test_what_is_excluded_is_gone_and_all_else_stays(matrix: dict[str, list[Any]], value: Any):
    before = expand(matrix).combinations
    name = next(iter(matrix))
    after = expand({**matrix, "exclude": [{name: value}]}).combinations
    assert not [row for row in after if str(row[name]) == str(value)]
    assert len(after) == len([row for row in before if str(row[name]) != str(value)])


def test_depending_on_a_matrix_means_all_of_its_instances():
    plan = resolve(
        Sources(
            read(
                "jobs:\n  t:\n    matrix: {os: [a, b], py: [3.10, 3.11]}\n    steps: [{run: make}]\n"
                "  d: {depends_on: t, steps: [{run: x}]}\n",
                "f",
            )
        )
    )
    tests = [job.name for job in plan.jobs if job.base == "t"]
    assert tests == ["t (os=a, py=3.10)", "t (os=a, py=3.11)", "t (os=b, py=3.10)", "t (os=b, py=3.11)"]
    assert plan.job("d").depends_on == tuple(tests)
    assert plan.job("t (os=b, py=3.10)").matrix == {"os": "b", "py": "3.10"}
