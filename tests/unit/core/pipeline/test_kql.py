"""KQL: what it means in query DSL, and where it is not understood."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.kql import KqlError, translate


def either(*several: Any) -> dict[str, Any]:
    return {"bool": {"should": [*several], "minimum_should_match": 1}}


def both(*several: Any) -> dict[str, Any]:
    return {"bool": {"filter": [*several]}}


def is_not(one: Any) -> dict[str, Any]:
    return {"bool": {"must_not": [one]}}


A, B, C = ({"match": {name: "1"}} for name in "abc")


@pytest.mark.parametrize(
    ("query", "meaning"),
    [
        ("", {"match_all": {}}),
        ("  ", {"match_all": {}}),
        ("a: 1", A),
        ("a:1", A),
        ('service.name: "my shop"', {"match_phrase": {"service.name": "my shop"}}),
        (r'a: "say \"hi\""', {"match_phrase": {"a": 'say "hi"'}}),
        ("a: 1 and b: 1", both(A, B)),
        ("a: 1 AND b: 1 And c: 1", both(A, B, C)),
        ("a: 1 or b: 1", either(A, B)),
        ("a: 1 or b: 1 and c: 1", either(A, both(B, C))),
        ("(a: 1 or b: 1) and c: 1", both(either(A, B), C)),
        ("not a: 1", is_not(A)),
        ("not (a: 1 and b: 1)", is_not(both(A, B))),
        ("a: 1 and not b: 1", both(A, is_not(B))),
        ("a: (1 or 2)", either(A, {"match": {"a": "2"}})),
        ("a: (1 and not 2)", both(A, is_not({"match": {"a": "2"}}))),
        ("a: *", {"exists": {"field": "a"}}),
        ("a: /health*", {"query_string": {"fields": ["a"], "query": r"\/health*"}}),
        ("a: x+y*", {"query_string": {"fields": ["a"], "query": r"x\+y*"}}),
        (r"a: x\*y", {"match": {"a": "x*y"}}),
        ("status >= 500", {"range": {"status": {"gte": "500"}}}),
        ("a < 3 or b > 4", either({"range": {"a": {"lt": "3"}}}, {"range": {"b": {"gt": "4"}}})),
        ("timeout", {"multi_match": {"query": "timeout", "type": "best_fields", "lenient": True}}),
        ('"timed out"', {"multi_match": {"query": "timed out", "type": "phrase", "lenient": True}}),
        ("time*", {"query_string": {"query": "time*"}}),
        (r"a: \(x\)", {"match": {"a": "(x)"}}),
        ("andrew: orlando", {"match": {"andrew": "orlando"}}),
        ('"a b": c', {"match": {"a b": "c"}}),
    ],
)
def test_what_a_query_means(query: str, meaning: dict[str, Any]) -> None:
    assert translate(query) == meaning


@pytest.mark.parametrize(
    ("query", "at", "words"),
    [
        ("a: ", 3, "ends too early"),
        ("a: 1 b: 2", 6, "`b` is not expected here"),
        ("a: 1 and", 9, "ends too early"),
        ("and a: 1", 1, "`and` needs a condition on both sides"),
        ("a: 1 or or b: 1", 9, "`or` needs a condition on both sides"),
        ("(a: 1", 6, "`)` is missing"),
        ("a: 1)", 5, "`)` is not expected here"),
        ("a: {b: 1}", 4, "nested fields"),
        ('a: "open', 4, "is not closed"),
        ("a.*: 1", 1, "`*` in a field's name"),
        ("a >= ", 5, "ends too early"),
        (": 1", 1, "`:` is not expected here"),
        ("a: : 1", 4, "`:` is not expected here"),
        ("(" * 60 + "a", 33, "nested too deeply"),
    ],
)
def test_where_a_query_is_not_understood(query: str, at: int, words: str) -> None:
    with pytest.raises(KqlError) as error:
        translate(query)
    assert words in str(error.value)
    assert abs(error.value.at - at) <= 1


@given(st.one_of(st.text(max_size=60), st.text(alphabet='ab:()*"\\<>= andornot{}', max_size=40)))
def test_any_text_is_a_query_or_a_told_error(query: str) -> None:
    places = []
    try:
        json.dumps(translate(query))
    except KqlError as error:
        places.append(error.at)
    assert all(1 <= at <= len(query) + 1 for at in places)


WORDS = st.text(min_size=1, max_size=12).filter(
    lambda word: word.strip() == word and word.lower() not in ("and", "or", "not")
)


@given(WORDS)
def test_an_escaped_word_stands_for_itself(word: str) -> None:
    escaped = "".join(f"\\{sign}" for sign in word)
    assert translate(f"a: {escaped}") == {"match": {"a": word}}
    phrase = word.replace("\\", "\\\\").replace('"', '\\"')
    assert translate(f'a: "{phrase}"') == {"match_phrase": {"a": word}}
