"""Manifest files are read as kubectl reads them, and what is wrong is told at its place."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes import documents
from forge.adapters.kubernetes.documents import read_documents, read_scalar
from forge.model.errors import InvalidConfiguration


def told(text: str | bytes) -> str:
    with pytest.raises(InvalidConfiguration) as wrong:
        read_documents(text, "k8s/shop.yaml")
    (diagnostic,) = wrong.value.diagnostics
    assert diagnostic.code == "manifest"
    return diagnostic.render()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True), ("yes", True), ("On", True), ("no", False), ("off", False), ("y", True), ("Y", True), ("n", False),
        ("", None), ("~", None), ("null", None), ("nULL", "nULL"), ("0", 0), ("-7", -7), ("+7", 7), ("1_000", 1000),
        ("0644", 420), ("0o644", 420), ("0x1F", 31), ("0b101", 5), ("08", 8), ("09.5", 9.5), ("-0x10", -16),
        ("1.5", 1.5), (".5", 0.5), ("1.0", 1), ("1e3", 1000), ("1e400", "1e400"), ("1.", 1), (".", "."), ("-", "-"),
        ("2020-01-01", "2020-01-01"), ("1:30", "1:30"), ("127.0.0.1", "127.0.0.1"), ("1.2.3", "1.2.3"),
        ("100m", "100m"), ("128Mi", "128Mi"), ("0x", "0x"), ("0_", 0), (".inf", ".inf"), (".nan", ".nan"),
        ("18446744073709551615", 2**64 - 1), ("18446744073709551616", 2.0**64), ("9" * 31, float("9" * 31)),
    ],
)  # fmt: skip
def test_a_text_without_quotes_is_what_kubectl_takes_it_for(text: str, value: Any) -> None:
    read = read_scalar(text)
    assert read == value
    assert type(read) is type(value)


def test_quotes_make_text_of_everything() -> None:
    assert read_documents("['1', \"true\", !!str 5, ! yes]", "f")[0].data == ["1", "true", "5", "yes"]


def test_a_file_holds_several_documents_and_empty_ones_count_for_nothing() -> None:
    text = "---\n# only words\n---\na: 1\n---\n\n---\nb: 2\n...\n---\nnull\n"
    assert [document.data for document in read_documents(text, "f")] == [{"a": 1}, {"b": 2}]
    assert read_documents("", "f") == []


def test_a_document_that_is_an_empty_text_is_there() -> None:
    assert [document.data for document in read_documents('""', "f")] == [""]


def test_anchors_and_merges_are_filled_in_and_end_with_their_document() -> None:
    text = "base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  y: 3\nlist: {<<: [{z: 1}, {z: 2, w: 4}]}\n"
    assert read_documents(text, "f")[0].data["more"] == {"x": 1, "y": 3}
    assert read_documents(text, "f")[0].data["list"] == {"z": 1, "w": 4}
    assert "`*b` refers to nothing" in told(text + "---\nother: *b\n")


def test_json_is_read_too() -> None:
    value = {"apiVersion": "v1", "items": [1, 2.5, None, True, "x"], "nested": {"a": {"b": []}}}
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, indent="\t")):
        assert read_documents(text, "f.json")[0].data == value


def test_a_diagnostic_points_at_keys_values_and_what_is_near() -> None:
    (document,) = read_documents("metadata:\n  name: shop\nspec:\n  ports:\n    - port: 80\n", "k8s/s.yaml")

    def place(*path: str | int, key: bool = False) -> tuple[int, int, int]:
        problem = document.problem("c", "m", path, key=key)
        return problem.line, problem.column, problem.length

    assert place("metadata", "name") == (2, 9, 4)
    assert place("metadata", "name", key=True) == (2, 3, 4)
    assert place("spec", "ports", 0, "port") == (5, 13, 2)
    assert place("metadata", "labels", "app") == (1, 1, 8), "what is missing is told at its owner"
    assert place("spec", "ports", 7) == (4, 3, 5)
    assert place() == (1, 1, 1)


def test_a_warning_is_one() -> None:
    (document,) = read_documents("a: 1", "f")
    assert document.problem("c", "m", warning=True).severity == "warning"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: {{ .Values.x }}\n", "hint: this is a template: `helm: {chart: DIR}` renders a chart"),
        ("{{- if .x }}\na: 1\n", "hint: this is a template"),
        ("a:\n\tb: 1\n", "indent with spaces; a tab cannot indent YAML"),
        ("a: 1\nb: 2\na: 3\n", "  --> k8s/shop.yaml:3:1"),
        ("a: 1\nb: 2\na: 3\n", "hint: the first is at line 1; keep one of the two"),
        ("a: 'x\n", "  --> k8s/shop.yaml:1:4"),
        ("a: !vault x\n", "the tag `!vault` means nothing in a manifest"),
        ("? [a, b]\n: 1\n", "a key must be text"),
        ("<<: 1\n", "`<<` takes a mapping, or a list of them"),
        (b"a: 1\nb: \xff\n", "byte 0xff at line 2 is not UTF-8"),
        ("a: \x01\n", "this is not YAML"),
        ("[" * 200, "this is nested more than 100 deep"),
    ],
)
def test_what_is_wrong_is_told_where_it_stands(text: str | bytes, expected: str) -> None:
    assert expected in told(text)


def test_a_bomb_of_aliases_ends_at_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 1000)
    bomb = "a: &a [x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [*{before}, *{before}, *{before}, *{before}, *{before}]\n"
        for before, name in ("ab", "bc", "cd", "de", "ef")
    )
    assert "aliases make this more than 1,000 values" in told(bomb)


def test_an_alias_of_itself_ends_at_a_limit() -> None:
    assert "aliases nest this more than 100 deep" in told("a: &a [*a]\n")


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_BYTES", 10)
    assert "the file is 0.0 MB" in told("a: 12345678901")


def test_other_line_ends_do_not_move_the_caret() -> None:
    (document,) = read_documents("\ufeffa: 1\r\nb: \u2028x\r\nc: 2\r\n", "f")
    assert (document.problem("c", "m", ("c",)).line, document.data["c"]) == (3, 2)


@given(st.text(alphabet="ab:-[]{}'\"#&*!|>?, \n\t01.%@`~", max_size=60))
def test_any_text_is_read_or_refused_with_a_place_in_the_file(text: str) -> None:
    try:
        read_documents(text, "f")
    except InvalidConfiguration as wrong:
        refused = wrong.diagnostics
    else:
        return
    lines = text.splitlines() or [""]
    for one in refused:
        assert one.render()
        assert 0 <= one.line <= len(lines) + 1


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    try:
        read_documents(content, "f")
    except InvalidConfiguration as wrong:
        refused = wrong.diagnostics
    else:
        return
    assert all(one.message for one in refused)


# Python's writer leaves out quotes where kubectl's reader needs them (`y`, `1e3`), and keeps odd ends of lines.
letters = st.characters(exclude_characters="\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029", exclude_categories=["Cs"])
words = st.text(letters, max_size=8).filter(lambda text: isinstance(read_scalar(text), str) or not text)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=10,
)


@given(plain)
def test_what_a_writer_of_yaml_wrote_is_read_back(value: Any) -> None:
    for text in (yaml.safe_dump(value, allow_unicode=True), json.dumps(value)):
        documents_read = [document.data for document in read_documents(text, "f")]
        assert documents_read == ([] if value is None else [value])
