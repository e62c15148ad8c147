from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.cli.options import HOISTED, hoist, pairs, pick, run_id, seconds
from forge.model.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "understood"),
    [
        (["run", "--progress", "plain", "--yes"], ["--progress", "plain", "run", "--yes"]),
        (["run", "--progress=json"], ["--progress=json", "run"]),
        (["runs", "-C", "there", "-o", "json", "--debug"], ["-C", "there", "--debug", "runs", "-o", "json"]),
        (["run", "--", "--debug"], ["run", "--", "--debug"]),
        (["run", "--progress"], ["--progress", "run"]),
        (["--debug", "run"], ["--debug", "run"]),
    ],
)
def test_the_options_of_forge_may_stand_after_the_command(typed, understood):
    assert hoist(typed) == understood


@given(st.lists(st.sampled_from(["run", "-p", "a=1", "--debug", "--no-color", "--", "x", "--yes"])))
def test_hoisting_loses_nothing_and_keeps_the_order_of_the_rest(words):
    result = hoist(words)
    assert sorted(result) == sorted(words)
    cut = words.index("--") if "--" in words else len(words)
    rest = [word for word in words[:cut] if word not in HOISTED] + words[cut:]
    assert result[len(result) - len(rest) :] == rest


def test_pairs():
    assert pairs(["a=1", "b=x=y", "c="], "-p") == {"a": "1", "b": "x=y", "c": ""}


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a=1", "a=2"]])
def test_what_is_no_pair_is_an_error_that_names_it(words):
    with pytest.raises(UsageError) as raised:
        pairs(words, "-p")
    assert words[-1].split("=", 1)[0] in raised.value.message


def test_seconds():
    assert seconds("") is None
    assert seconds("1m30s") == 90.0
    with pytest.raises(UsageError):
        seconds("soon")


def test_pick():
    assert pick("build", ["build", "test"], "job") == "build"
    with pytest.raises(UsageError) as raised:
        pick("biuld", ["build", "test"], "job")
    assert raised.value.hint == "did you mean `build`?"
    with pytest.raises(UsageError) as raised:
        pick("x", [], "job")
    assert raised.value.hint


@pytest.mark.parametrize(("typed", "meant"), [("3", "run-3"), ("run-3", "run-3"), ("run-x", "run-x")])
def test_a_run_may_be_named_by_its_number(typed, meant):
    assert run_id(typed) == meant
