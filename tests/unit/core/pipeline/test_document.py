"""YAML by the core schema, with the place of everything, in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.document import MAX_BYTES, Document, read
from forge.core.pipeline.nodes import Span
from forge.model.errors import InvalidConfiguration


def data(text: str | bytes):
    return read(text, "f.yaml").data


def problems(text: str | bytes):
    with pytest.raises(InvalidConfiguration) as wrong:
        read(text, "f.yaml")
    return wrong.value.diagnostics


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("no", "no"), ("y", "y"), ("Yes", "Yes"), ("NO", "NO"),
        ("true", True), ("True", True), ("TRUE", True), ("false", False), ("tRue", "tRue"),
        ("null", None), ("~", None), ("", None), ("Null", None), ("nUll", "nUll"),
        ("0", 0), ("-12", -12), ("+3", 3), ("0o17", 15), ("0xFF", 255), ("1_000", "1_000"), ("0b11", "0b11"),
        ("1.5", 1.5), (".5", 0.5), ("1.", 1.0), ("1e3", 1000.0), ("-2.5E-2", -0.025), ("1.2.3", "1.2.3"),
        ("12:30", "12:30"), ("1:30:00", "1:30:00"), ("2026-01-02", "2026-01-02"), ("=", "="),
        ("'1'", "1"), ('"true"', "true"), ("'null'", "null"), ("!!str 5", "5"), ("!!int 5", 5), ("! 7", "7"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema(written: str, value: object):
    found = data(f"a: {written}\n")["a"]
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


@pytest.mark.parametrize(("written", "hint"), [("022", "22 or 0o22"), ("-007", "7 or 0o7"), ("00", "0 or 0o0")])
def test_a_number_with_a_leading_zero_is_refused_with_both_readings(written: str, hint: str):
    (one,) = problems(f"umask: {written}\n")
    assert f"`{written}`" in one.message
    assert hint in one.hint


@pytest.mark.parametrize("written", ["1.10", "3.10", "0x10", "007.5", "1e3"])
def test_numbers_remember_how_they_were_written(written: str):
    assert data(f"a: {written}\n")["a"].text == written


def test_block_scalars_keep_their_lines():
    assert data("a: |\n  one\n   two\nb: >-\n  x\n  y\n") == {"a": "one\n two\n", "b": "x y"}


def test_aliases_and_merge_keys_are_filled_in_and_own_keys_win():
    text = "x-a: &a {one: 1, two: 2}\nx-b: &b {two: 3, three: 4}\nc: {<<: [*a, *b], one: 9}\nd: {<<: *a}\n"
    assert data(text)["c"] == {"one": 9, "two": 2, "three": 4}
    assert data(text)["d"] == {"one": 1, "two": 2}


def test_a_quoted_merge_key_is_just_a_key():
    assert data("a: {'<<': b}\n") == {"a": {"<<": "b"}}


@pytest.mark.parametrize(
    ("path", "key", "span"),
    [
        (("jobs", "build", "steps", 1, "run"), False, Span(5, 14, 9)),
        (("jobs", "build", "steps", 1, "run"), True, Span(5, 9, 3)),
        (("jobs", "build", "steps", 0), False, Span(4, 9, 1)),
        (("jobs", "build"), True, Span(2, 3, 5)),
        (("jobs", "build", "timeout"), False, Span(2, 3, 5)),
        (("jobs", "build", "steps", 9), False, Span(4, 7, 1)),
        (("jobs", "build", "steps", 0, "checkout", "path"), False, Span(4, 19, 1)),
        ((), False, Span(1, 1, 1)),
    ],
)
def test_every_value_and_key_has_its_place(path, key, span):
    document = read("jobs:\n  build:\n    steps:\n      - checkout: .\n      - run: make test\n", "f.yaml")
    assert document.span(path, key=key) == span


def test_columns_count_letters_not_bytes():
    assert read("ünï: {größe: 1}\n", "f").span(("ünï", "größe"), key=True) == Span(1, 7, 5)


def test_a_merged_key_is_found_where_it_was_written():
    document = read("x: &x\n  deep: 1\ny:\n  <<: *x\n", "f")
    assert document.span(("y", "deep")) == Span(2, 9, 1)


def test_artefact_is_found_as_artifact():
    assert read("publish: {artefact: a}\n", "f").span(("publish", "artifact")) == Span(1, 21, 1)


def test_text_inside_a_block_is_found_on_its_line():
    document = read("run: |\n  echo one\n  echo ${{ x }}\nafter: ${{ x }}\n", "f")
    assert document.find(("run",), "${{ x }}") == Span(3, 8, 8)
    assert document.find(("after",), "${{ x }}") == Span(4, 8, 8)
    assert document.find(("run",), "nowhere") == document.span(("run",))


@pytest.mark.parametrize("text", ["\ufeffa: 1\n", "a: 1\r\n", "a: 1\r"])
def test_byte_order_marks_and_foreign_line_ends_are_read(text: str):
    assert data(text) == {"a": 1}
    assert data(text.encode()) == {"a": 1}


@pytest.mark.parametrize("text", [b"\xff\xfea", b"a: \xc3\x28\n", b"ok: 1\nbad: \xe9\n", "a: \ud800"])
def test_what_is_not_utf8_is_told(text):
    (one,) = problems(text)
    assert one.code == "encoding"


def test_the_line_of_a_bad_byte_is_told():
    assert "line 3" in problems(b"a: 1\nb: 2\nc: \xff\n")[0].message


def test_ten_megabytes_are_refused_at_once():
    content = b"a: " + b"x" * 10_000_000
    start = time.process_time()
    (one,) = problems(content)
    assert time.process_time() - start < 0.1
    assert one.code == "too-large"
    assert "10.0 MB" in one.message


def test_the_largest_allowed_file_is_read_in_bounded_time():
    line = "- aaaa: bbbb\n"
    start = time.process_time()
    (one,) = problems(line * (MAX_BYTES // len(line)))
    assert one.code == "too-large"  # more values than anybody writes
    assert time.process_time() - start < 10


def test_billion_laughs_end_in_bounded_time_and_memory():
    rows = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    tracemalloc.start()
    start = time.process_time()
    (one,) = problems("\n".join(rows))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert one.code == "too-large"
    assert time.process_time() - start < 10
    assert peak < 100_000_000


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_ends_at_a_limit_instead_of_the_stack(opening: str):
    assert problems(opening * 50_000)[0].code == "too-large"


def test_an_anchor_that_holds_itself_ends():
    assert problems("a: &a\n  b: [*a]\n")[0].code == "too-large"


def test_every_bad_scalar_and_duplicate_is_told_at_once():
    found = problems("a: 01\nb: .inf\na: 2\nc: !x 3\n")
    assert [one.line for one in found] == [1, 2, 3, 4]


def test_a_snippet_never_carries_terminal_codes_or_endless_lines():
    (one,) = problems("a: " + "x" * 5000 + "\nb: \x1b[31m\n")
    assert "\x1b" not in one.render()
    (long,) = problems("a: 022 # " + "y" * 100_000)
    assert len(long.snippet) <= 400


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_diagnostics(content: bytes):
    try:
        assert isinstance(read(content, "f"), Document)
    except InvalidConfiguration as wrong:
        told = [one.render() for one in wrong.diagnostics]
    else:
        return
    assert told
    assert all(told)


@given(st.text(alphabet=st.sampled_from("ab:-?[]{}&*!|>'\"#%@`, \n\t01.~<"), max_size=60))
def test_any_yaml_like_text_is_a_document_or_diagnostics_with_places(content: str):
    try:
        read(content, "f")
    except InvalidConfiguration as wrong:
        told = wrong.diagnostics
    else:
        return
    assert all(one.message and one.line <= len(content.splitlines()) + 1 for one in told)


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp", "Cn", "Co")), max_size=8)


@given(
    st.recursive(
        st.one_of(st.booleans(), st.integers(-(10**9), 10**9), WORDS, st.none()),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
        max_leaves=12,
    )
)
def test_json_is_yaml(value: object):
    import json

    assert data(json.dumps({"value": value}, ensure_ascii=False)) == {"value": value}
