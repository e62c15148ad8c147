from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.cli.terminal import PROGRESS_MODES, detect, wants_colour
from forge.model.errors import UsageError


def here(environ=None, *, out=True, err=True, in_=True, **flags):
    return detect(environ or {}, out_is_terminal=out, err_is_terminal=err, in_is_terminal=in_, **flags)


@pytest.mark.parametrize(
    ("environ", "is_terminal", "colour"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),
        ({"TERM": "dumb"}, True, False),
        ({"CLICOLOR": "0"}, True, False),
        ({"CLICOLOR": "1"}, False, False),
        ({"CLICOLOR_FORCE": "1"}, False, True),
        ({"CLICOLOR_FORCE": "0"}, False, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, True),
    ],
)
def test_colour_is_decided_by_the_usual_variables(environ, is_terminal, colour):
    assert wants_colour(environ, is_terminal=is_terminal) is colour


def test_the_flag_wins_over_everything():
    assert not wants_colour({"FORCE_COLOR": "1"}, is_terminal=True, no_colour=True)


def test_each_stream_has_its_own_colour():
    piped = here(out=False)
    assert (piped.colour_out, piped.colour_err) == (False, True)


@pytest.mark.parametrize(
    ("environ", "err", "flag", "mode"),
    [
        ({}, True, "", "tty"),
        ({}, False, "", "plain"),
        ({"TERM": "dumb"}, True, "", "plain"),
        ({"FORGE_PROGRESS": "json"}, True, "", "json"),
        ({"FORGE_PROGRESS": "json"}, True, "quiet", "quiet"),
        ({"FORGE_PROGRESS": "auto"}, False, "", "plain"),
        ({}, False, "tty", "tty"),
    ],
)
def test_progress_follows_flag_then_variable_then_terminal(environ, err, flag, mode):
    assert here(environ, err=err, progress=flag).progress == mode


def test_an_unknown_mode_is_an_error_with_a_suggestion():
    with pytest.raises(UsageError) as raised:
        here(progress="plian")
    assert raised.value.hint == "did you mean `plain`?"


@pytest.mark.parametrize(
    ("environ", "flags", "asks"),
    [
        ({}, {}, True),
        ({}, {"in_": False}, False),
        ({}, {"err": False}, False),
        ({}, {"out": False}, True),
        ({}, {"no_input": True}, False),
        ({"FORGE_NO_INPUT": "1"}, {}, False),
        ({"FORGE_NO_INPUT": "0"}, {}, True),
    ],
)
def test_a_question_is_only_asked_of_a_person_who_can_see_and_answer_it(environ, flags, asks):
    assert here(environ, **flags).interactive is asks


@given(
    st.dictionaries(st.sampled_from(["NO_COLOR", "FORCE_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "TERM", "FORGE_NO_INPUT"]),
                    st.sampled_from(["", "0", "1", "dumb", "xterm"])),
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from(["", *PROGRESS_MODES]),
)  # fmt: skip
def test_whatever_the_environment_the_mode_is_one_of_four(environ, out, err, in_, progress):
    assert here(environ, out=out, err=err, in_=in_, progress=progress).progress in {"tty", "plain", "json", "quiet"}
