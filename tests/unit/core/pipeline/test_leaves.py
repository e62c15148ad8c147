"""The values at the ends of the tree: what they take, what they become, what they say otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline import leaves
from forge.core.pipeline.document import read
from forge.core.pipeline.leaves import LeafError

anything = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
READERS: list[Callable[[Any], Any]] = [
    leaves.text, leaves.script, leaves.command, leaves.argv, leaves.name, leaves.title, leaves.artifact_name,
    leaves.inside_path, leaves.duration, leaves.timeout, leaves.fraction, leaves.cores, leaves.weight, leaves.size,
    leaves.count, leaves.positive, leaves.number, leaves.flag, leaves.text_list, leaves.scalar, leaves.env_value,
    leaves.condition,
]  # fmt: skip


def value(written: str) -> Any:
    return read(f"a: {written}\n", "f").data["a"]


@pytest.mark.parametrize(
    ("reader", "written", "expected"),
    [
        (leaves.text, "1.10", "1.10"), (leaves.text, "0x1F", "0x1F"), (leaves.text, "x", "x"), (leaves.text, "''", ""),
        (leaves.script, "true", "true"), (leaves.script, "5", "5"),
        (leaves.command, "serve --port 1", ("sh", "-c", "exec serve --port 1")),
        (leaves.command, "[serve, --port, 8080]", ("serve", "--port", "8080")),
        (leaves.argv, "a; b", ("sh", "-c", "a; b")), (leaves.argv, "[a, b]", ("a", "b")),
        (leaves.name, "a-b_c.d", "a-b_c.d"), (leaves.name, "app-${{ matrix.os }}", "app-${{ matrix.os }}"),
        (leaves.artifact_name, "dist/app.tar.gz", "dist/app.tar.gz"), (leaves.artifact_name, "a@1+b=c", "a@1+b=c"),
        (leaves.inside_path, "a/b", "a/b"), (leaves.inside_path, ".", "."), (leaves.inside_path, "a..b", "a..b"),
        (leaves.duration, "30s", 30.0), (leaves.duration, "1h30m", 5400.0), (leaves.duration, "250ms", 0.25),
        (leaves.duration, "45", 45.0), (leaves.duration, "0", 0.0), (leaves.duration, "1.5h", 5400.0),
        (leaves.fraction, "5%", 0.05), (leaves.fraction, "5 %", 0.05), (leaves.fraction, "5", 0.05),
        (leaves.fraction, "0.5", 0.005), (leaves.fraction, "100%", 1.0), (leaves.fraction, "0", 0.0),
        (leaves.cores, "80%", 0.8), (leaves.cores, "250%", 2.5), (leaves.cores, "50", 0.5),
        (leaves.weight, "5%", 500), (leaves.weight, "0.01%", 1), (leaves.weight, "33.33", 3333),
        (leaves.size, "512MiB", 512 * 1024**2), (leaves.size, "64MB", 64_000_000), (leaves.size, "10", 10),
        (leaves.count, "0", 0), (leaves.count, "0x10", 16), (leaves.positive, "1", 1), (leaves.number, "1.5", 1.5),
        (leaves.flag, "true", True), (leaves.flag, "false", False),
        (leaves.text_list, "a", ("a",)), (leaves.text_list, "[a, 1]", ("a", "1")), (leaves.text_list, "[]", ()),
        (leaves.scalar, "3.10", "3.10"), (leaves.scalar, "3", 3), (leaves.scalar, "true", True), (leaves.scalar, "x", "x"),
        (leaves.env_value, "1.10", "1.10"), (leaves.env_value, "true", "true"), (leaves.env_value, "''", ""),
        (leaves.condition, "a == 1", "a == 1"), (leaves.condition, "${{ a }}", "a"), (leaves.condition, "false", "false"),
        (leaves.condition, "'${{ a }} == ${{ b }}'", "${{ a }} == ${{ b }}"),
    ],
)  # fmt: skip
def test_what_is_taken(reader: Callable[[Any], Any], written: str, expected: Any):
    assert reader(value(written)) == expected


@pytest.mark.parametrize(
    ("reader", "written", "words"),
    [
        (leaves.text, "true", "must be text, not `true`"), (leaves.text, "[a]", "not a list"), (leaves.text, "~", "not nothing"),
        (leaves.script, "'  '", "is empty"), (leaves.command, "[]", "must be a command"), (leaves.command, "''", "must be a command"),
        (leaves.name, "a b", "cannot be `a b`"), (leaves.name, "-a", "cannot be"), (leaves.name, "a/b", "cannot be"),
        (leaves.artifact_name, "../a", "cannot be"), (leaves.artifact_name, "/a", "cannot be"), (leaves.artifact_name, "a//b", "cannot be"),
        (leaves.artifact_name, "a/../b", "cannot be"), (leaves.artifact_name, "-rf", "cannot be"), (leaves.artifact_name, "a b", "cannot be"),
        (leaves.inside_path, "..", "leaves the project"), (leaves.inside_path, "a/../../b", "leaves the project"),
        (leaves.inside_path, "/etc", "leaves the project"), (leaves.inside_path, "~/x", "leaves the project"),
        (leaves.inside_path, "'a\\..\\b'", "leaves the project"),
        (leaves.duration, "soon", "is not a duration"), (leaves.duration, "5 minutes", "is not a duration"), (leaves.duration, "-1", "is not a duration"),
        (leaves.duration, "true", "must be a duration"), (leaves.duration, "400d", "longer than a year"), (leaves.duration, "1e300", "not a duration"),
        (leaves.timeout, "0", "longer than nothing"),
        (leaves.fraction, "101%", "not a percentage"), (leaves.fraction, "-1", "not a percentage"), (leaves.fraction, "lots", "not a percentage"),
        (leaves.cores, "-1", "not a percentage"), (leaves.cores, "a lot", "not a percentage"), (leaves.size, "big", "not a size"), (leaves.size, "-1", "not a size"),
        (leaves.count, "-1", "0 or more, not `-1`"), (leaves.count, "1.5", "whole number"), (leaves.count, "'1'", "whole number"), (leaves.count, "true", "whole number"),
        (leaves.positive, "0", "1 or more"), (leaves.positive, "99999999999", "whole number"), (leaves.number, "-0.5", "0 or more"),
        (leaves.flag, "yes", "must be `true` or `false`, not `yes`"), (leaves.flag, "1", "must be `true` or `false`"),
        (leaves.text_list, "{a: b}", "a text or a list"), (leaves.text_list, "[[a]]", "must be text"), (leaves.scalar, "[a]", "text, a number or a boolean"),
        (leaves.env_value, "~", "not nothing"), (leaves.env_value, "{a: b}", "not a mapping"), (leaves.env_value, '"a\\0b"', "NUL"),
        (leaves.title, '"a\\nb"', "one line"), (leaves.title, '"\\e[2J"', "control characters"),
        (leaves.condition, "''", "is empty"), (leaves.condition, "${{ }}", "is empty"), (leaves.condition, "[a]", "must be text"),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(reader: Callable[[Any], Any], written: str, words: str):
    with pytest.raises(LeafError) as wrong:
        reader(value(written))
    assert words in str(wrong.value)


@pytest.mark.parametrize("word", ["yes", "no", "on", "off"])
def test_the_booleans_of_old_yaml_get_a_hint(word: str):
    with pytest.raises(LeafError) as wrong:
        leaves.flag(value(word))
    assert "`true` and `false`" in wrong.value.hint


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
@given(found=anything)
def test_anything_is_taken_or_refused_in_words(reader: Callable[[Any], Any], found: Any):
    try:
        reader(found)
    except LeafError as wrong:
        told = str(wrong)
    else:
        return
    assert told
    assert "\n" not in told


@given(st.text(max_size=60))
def test_a_path_that_is_taken_stays_inside(path: str):
    import posixpath

    try:
        taken = leaves.inside_path(path)
    except LeafError:
        return
    assert posixpath.normpath(posixpath.join("/root", taken)).startswith("/root")


@given(st.text(max_size=60).filter(lambda text: "${{" not in text))
def test_an_artifacts_name_is_a_path_inside_and_no_option(name: str):
    import posixpath

    try:
        taken = leaves.artifact_name(name)
    except LeafError:
        return
    assert posixpath.normpath(posixpath.join("/root", taken)).startswith("/root")
    assert not taken.startswith("-")
    assert taken.isascii()


@pytest.mark.parametrize(
    ("found", "words"),
    [(None, "nothing"), (True, "`true`"), ({}, "a mapping"), ([], "a list"), (1, "a number"), ("", "text")],
)
def test_kinds_in_words(found: Any, words: str):
    assert leaves.kind_of(found) == words


def test_a_long_value_is_shortened_in_messages():
    assert leaves.shown("x" * 500) == f"`{'x' * 60}...`"
    assert leaves.shown("one\ntwo") == "`one...`"


def test_one_of_names_what_was_meant():
    with pytest.raises(LeafError) as wrong:
        leaves.one_of("quue", ("queue", "cancel_running"))
    assert wrong.value.hint == "did you mean `queue`?"
    with pytest.raises(LeafError, match="must be one of `a`, `b`, not a list"):
        leaves.one_of([], ("a", "b"))
