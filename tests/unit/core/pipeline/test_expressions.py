"""Expressions: checked before a run, evaluated in it, within a budget."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.expression_words import reference_list, tokens
from forge.core.pipeline.expressions import (
    MAX_LENGTH,
    ExpressionError,
    check,
    evaluate,
    fragments,
    holds,
    interpolate,
    references,
    replace_fragments,
)

VALUES = {
    "params": {"count": 3, "name": "shop", "on": True, "ratio": 1.5, "tags": ["a", "b"], "deep": {"x": None}},
    "env": {"A": "1"},
    "matrix": {"os": "linux"},
    "jobs": {"build": {"status": "succeeded", "outputs": {"tag": "v1"}}, "test (os=linux)": {"status": "failed"}},
    "steps": {"1": {"status": "succeeded", "outputs": {}}},
    "run": {"id": "run-7", "ref": "main", "attempt": 1},
}


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("params.count + 1", 4),
        ("params.name", "shop"),
        ('params.name == "shop" && !(params.on == false)', True),
        ("params.ratio * 2.0", 3.0),
        ("params.tags[1]", "b"),
        ("params.tags.map(t, t + '!')", ["a!", "b!"]),
        ("params.deep.x", None),
        ("params.tags", ["a", "b"]),
        ("params.deep", {"x": None}),
        ("size(params.tags) > 1 ? 'many' : 'few'", "many"),
        ('jobs.build.outputs.tag + "-" + run.id', "v1-run-7"),
        ('jobs["test (os=linux)"].status', "failed"),
        ('steps["1"].status in ["succeeded", "skipped"]', True),
        ("has(params.nope)", False),
        ("run.ref.startsWith('ma')", True),
        ("run.ref.matches('^(main|release/.*)$')", True),
        ("params.tags.exists(t, t == 'b')", True),
        ("int(env.A) + 1", 2),
        ("// a comment\n1", 1),
    ],
)
def test_values(expression: str, value: object):
    assert check(expression) is None
    assert evaluate(expression, VALUES) == value


def test_a_root_that_is_left_out_is_empty():
    assert evaluate("size(inputs) + size(params)", {}) == 0


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("1 +", "ends too early"),
        ("(1", "ends too early"),
        ("a b", "`b` is not expected here"),
        ("#", "`#` means nothing"),
        ("brnch == 1", "`brnch` is not known here"),
        ("parms.x", "did you mean `params`?"),
        ("secrets.TOKEN", "secrets cannot be used"),
        ("upper(run.id)", "there is no function `upper`"),
        ("1 + 'a'", "`+` does not work on"),
        ("(" * 100 + "1" + ")" * 100, "nested too deeply"),
        ("1" + "+1" * 400, "nested too deeply"),
        ("'" + "x" * MAX_LENGTH + "'", "longer than"),
        ("[1].map(a, [1].map(b, [1].map(c, [1].map(d, d))))", "more than 3 loops"),
        ("'a\0b'", "not valid text"),
        ("'\ud800'", "not valid text"),
    ],
)
def test_what_does_not_compile_is_told_in_plain_words(expression: str, words: str):
    problem = check(expression)
    assert problem is not None
    assert words in problem
    with pytest.raises(ExpressionError):
        evaluate(expression, VALUES)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("params.nope", "there is no `nope`"),
        ("params.count / 0", "divide by zero"),
        ("params.name + params.count", "mixes types"),
        ("params.tags[9]", "params.tags"),
        ("int(params.name)", "int"),
        ("9223372036854775807 + params.count", "overflow"),
        ("b'bytes'", "is not text"),
        ("timestamp('2026-01-01T00:00:00Z')", "is not text"),
        ("type(1)", "is not text"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_of_ours(expression: str, words: str):
    assert check(expression) is None
    with pytest.raises(ExpressionError, match=words):
        evaluate(expression, VALUES)


def test_a_loop_bomb_ends_by_its_budget():
    numbers = "[" + ",".join(["1"] * 90) + "]"
    bomb = f"{numbers}.map(a, {numbers}.map(b, {numbers}.map(c, a + b + c)))"
    start = time.process_time()
    with pytest.raises(ExpressionError, match="too long"):
        evaluate(bomb, {})
    assert time.process_time() - start < 5


def test_regular_expressions_do_not_backtrack_for_ever():
    start = time.process_time()
    assert evaluate("params.x.matches('^(a+)+$')", {"params": {"x": "a" * 5000 + "b"}}) is False
    assert time.process_time() - start < 2


@pytest.mark.parametrize(("condition", "value"), [("run.ref == 'main'", True), ("false", False)])
def test_conditions_are_true_or_false(condition: str, value: bool):
    assert holds(condition, VALUES) is value


def test_a_condition_that_is_neither_is_an_error():
    with pytest.raises(ExpressionError, match="not true or false"):
        holds("params.name", VALUES)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain $HOME ${HOME} $(x) {{ y }}", "plain $HOME ${HOME} $(x) {{ y }}"),
        ("${{ params.name }}", "shop"),
        ("a-${{params.count}}-${{ params.on }}", "a-3-true"),
        ("${{ params.ratio }} ${{ params.ratio * 2.0 }}", "1.5 3"),
        ("${{ params.tags }} ${{ params.deep.x }}.", '["a", "b"] .'),
        ("$${{ params.name }}", "${{ params.name }}"),
        ("${{ params.name }}$${{ x }}${{ run.id }}", "shop${{ x }}run-7"),
        ("${{\n params.name\n}}", "shop"),
    ],
)
def test_interpolation(text: str, result: str):
    assert interpolate(text, VALUES) == result


def test_a_value_is_never_interpolated_again():
    assert interpolate("${{ params.x }}", {"params": {"x": "${{ run.id }}"}}) == "${{ run.id }}"


@pytest.mark.parametrize("text", ["${{ params.name", "a ${{ b }} ${{ c"])
def test_an_unclosed_expression_is_an_error(text: str):
    with pytest.raises(ExpressionError, match="never closed"):
        fragments(text)
    with pytest.raises(ExpressionError):
        interpolate(text, VALUES)


def test_fragments_and_their_replacement():
    text = "a ${{ x }} $${{ y }} ${{z}}"
    assert fragments(text) == ["x", "z"]
    assert replace_fragments(text, lambda found: f"<{found}>") == "a <x> $${{ y }} <z>"


@pytest.mark.parametrize(
    ("expression", "found"),
    [
        ("params.a", [("params", "a")]),
        ('jobs["a b"].outputs["x"]', [("jobs", "a b", "outputs", "x")]),
        ("params.a + params.b.c", [("params", "a"), ("params", "b", "c")]),
        ("params.l.map(run, run.x)", [("params", "l")]),
        ("params.name.startsWith(run.ref)", [("params", "name"), ("run", "ref")]),
        ("'params.a' + \"run.b\"", []),
        ("has(params.x)", [("params", "x")]),
        ("jobs[params.which].status", [("jobs",), ("params", "which")]),
        ("// params.a\nrun.id", [("run", "id")]),
        ("size(jobs)", [("jobs",)]),
    ],
)
def test_references(expression: str, found: list[tuple[str, ...]]):
    assert references(expression) == found


@given(st.text(max_size=80))
def test_tokens_cover_an_expression_in_order(expression: str):
    end = 0
    for token in tokens(expression):
        assert token.start >= end
        assert expression[token.start : token.end] == token.text
        end = token.end


@given(st.text(alphabet="parms.jobs[]()'\"+- 1a\\x", max_size=40))
def test_references_stand_where_they_say(expression: str):
    for reference in reference_list(expression):
        assert expression[reference.start : reference.end].startswith(reference.path[0])


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_a_problem_in_words(expression: str):
    problem = check(expression)
    if problem is not None:
        assert problem
        return
    with contextlib.suppress(ExpressionError):
        evaluate(expression, VALUES)


@given(st.text(max_size=60))
def test_text_is_interpolated_or_refused(text: str):
    with contextlib.suppress(ExpressionError):
        assert isinstance(interpolate(text, VALUES), str)


@given(st.text().filter(lambda text: "${{" not in text))
def test_text_without_expressions_is_untouched(text: str):
    assert interpolate(text, {}) == text
