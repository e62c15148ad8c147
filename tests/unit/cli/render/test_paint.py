from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.cli.render.paint import ICONS, Paint, pad, shorten, strip_ansi, tame_ansi, width
from forge.core.pipeline.state import JobStatus, RunStatus, StepStatus
from forge.core.release.state import ReleaseStatus

NASTY = st.text(st.sampled_from("ab \x1b[]m0;1;?25hlJ\x07\r\n\t\\éあ"))


@given(NASTY)
def test_stripped_text_has_no_control_characters(text):
    assert not [letter for letter in strip_ansi(text) if letter < " " and letter not in "\t\n"]


@given(NASTY)
def test_tamed_text_has_colours_and_nothing_else_that_a_terminal_obeys(text):
    import re

    rest = re.sub(r"\x1b\[[0-?]*[ -/]*m", "", tame_ansi(text))
    assert "\x1b[" not in rest
    assert "\x07" not in rest
    assert "\r" not in rest


@pytest.mark.parametrize(
    "attack", ["\x1b[2J", "\x1b[?25l", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x1b\\", "\x1b[1A", "\x1bc", "\x08", "\x9b2J"]
)
def test_a_log_line_cannot_drive_the_terminal(attack):
    assert tame_ansi(f"a{attack}b") == "ab"
    assert strip_ansi(f"a{attack}b") == "ab"


def test_colours_of_a_log_line_stay():
    assert tame_ansi("\x1b[1;32mok\x1b[0m") == "\x1b[1;32mok\x1b[0m"


def test_width_counts_cells():
    assert width("あb\x1b[31mc\x1b[0m") == 4
    assert width("e\u0301") == 1
    assert pad("あ", 4) == "あ  "


@given(st.text(), st.integers(1, 30))
def test_shortened_text_fits(text, cells):
    assert width(shorten(text, cells)) <= max(cells, 1)


@given(st.text())
def test_text_that_fits_is_left_alone(text):
    assert shorten(text, 10_000) == text


def test_every_state_of_runs_jobs_steps_and_releases_has_an_icon_or_is_quiet():
    quiet = {"pending", "skipped", "blocked", "superseded"}
    for states in (RunStatus, JobStatus, StepStatus, ReleaseStatus):
        assert {state for state in states.__args__ if state not in ICONS} <= quiet


def test_without_colour_nothing_is_added():
    plain = Paint(colour=False)
    assert plain.state("failed") == "✖ failed"
    assert plain.bold("x") + plain.red("y") + plain.icon("running") == "xy◌"


def test_with_colour_failures_are_red():
    assert Paint(colour=True).state("failed") == "\x1b[31m✖ failed\x1b[0m"
