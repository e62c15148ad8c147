"""Cursors: opaque, whole, and refused when nobody gave them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.server.paging import cursor_after, number_of, page, place_of
from forge.server.problems import Problem


@given(st.text(min_size=1, max_size=50))
def test_a_cursor_stands_for_its_place(place):
    assert place_of(cursor_after(place)) == place


@given(st.text(max_size=60))
def test_any_other_text_is_refused_or_stands_for_a_place(text):
    refused = False
    place = ""
    try:
        place = place_of(text)
    except Problem as problem:
        refused = problem.status == 400
    assert refused or not text or cursor_after(place) == text.rstrip("=")


@pytest.mark.parametrize("cursor", [cursor_after("-1"), cursor_after("x"), cursor_after("1" * 19), cursor_after("²")])
def test_a_number_is_a_number(cursor):
    with pytest.raises(Problem):
        number_of(cursor)


def test_numbers_and_pages():
    assert number_of("") == 0
    assert number_of(cursor_after("17")) == 17
    assert page(["a"], "17") == {"items": ["a"], "next": cursor_after("17")}
    assert page([], "")["next"] == ""
