"""What a screen says of a release that a policy gate holds, and what a person can do about it."""

from __future__ import annotations

from forge.core.release.state import EnvironmentState, ReleaseState
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.views.release import ReleaseView, release_view


def view(**fields: object) -> ReleaseView:
    release = ReleaseState("production-2", "1.4", Strategy("canary"), **fields)  # type: ignore[arg-type]
    state = EnvironmentState("production", EnvironmentPlan("production"), releases={release.id: release})
    return release_view(state, release, 100.0)


def test_a_release_in_a_freeze_says_until_when_and_how_to_pass_it() -> None:
    found = view(status="queued", held_by=("freeze",), waits_for="the end of the freeze", earliest=500.0)
    assert (found.held_by, found.waits_for, found.earliest) == (("freeze",), "the end of the freeze", 500.0)
    assert found.next == (
        "forge release promote production --release production-2 --override REASON",
        "forge release abort production --release production-2",
    )


def test_approvals_are_given_not_passed() -> None:
    assert view(status="queued", held_by=("approval",)).next == (
        "forge release approve production --release production-2",
        "forge release abort production --release production-2",
    )


def test_both_at_once_offer_both() -> None:
    commands = view(status="queued", held_by=("window", "approval")).next
    assert [command.split()[2] for command in commands] == ["approve", "promote", "abort"]


def test_a_release_that_waits_for_its_turn_has_nothing_to_pass() -> None:
    assert view(status="queued").next == ("forge release abort production --release production-2",)


def test_a_canary_held_on_its_way_can_be_passed_or_ended() -> None:
    assert view(status="progressing", held_by=("budget",)).next == (
        "forge release promote production --override REASON",
        "forge release abort production",
    )


def test_what_is_over_is_held_by_nothing_and_keeps_the_reason_on_record() -> None:
    found = view(status="promoted", held_by=("freeze",), override="ada: urgent", fix=True)
    assert (found.held_by, found.override, found.fix) == ((), "ada: urgent", True)
