from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.cli.releases import outcome_line
from forge.cli.subjects import RELEASE_EXIT, RUN_EXIT, EnvironmentSubject, RunSubject, worst
from forge.core.pipeline.state import RUN_FINAL, RunStatus
from forge.core.release.state import RELEASE_FINAL, ReleaseStatus
from forge.model.errors import ExitCode, UsageError
from forge.service.steering import check_possible
from forge.views.environment import ArmView, EnvironmentView, ReplicasView
from forge.views.release import ReleaseView
from forge.views.run import RunView


def release(number: int, state: str, **fields) -> ReleaseView:
    return ReleaseView(f"production-{number}", "production", f"1.{number}", state, "canary", 0, (), 0, None, **fields)


def view(*releases: ReleaseView, previous: tuple[str, ...] = (), stable: str = "1.1") -> EnvironmentView:
    arm = ArmView(stable, "stable", 10_000, 10_000, ReplicasView(1, 1, 1), "ready")
    return EnvironmentView("production", "stable", stable, (arm,), releases, previous=previous)


@pytest.mark.parametrize(
    ("shown", "kind", "payload"),
    [
        (view(release(1, "promoted")), "promote", {}),
        (view(release(1, "promoted")), "pause", {}),
        (view(), "abort", {}),
        (view(), "undo", {}),
        (view(), "retry", {}),
        (view(release(1, "promoted")), "rollback", {"to": "7"}),
        (view(release(1, "promoted")), "rollback", {}),
        (view(release(1, "progressing")), "abort", {"release": "production-9"}),
    ],
)
def test_what_cannot_have_any_effect_is_refused_before_it_is_sent(shown, kind, payload):
    with pytest.raises(UsageError) as raised:
        check_possible(shown, kind, payload)
    assert raised.value.message


@pytest.mark.parametrize(
    ("shown", "kind", "payload"),
    [
        (view(release(2, "paused")), "resume", {}),
        (view(release(2, "progressing")), "abort", {"release": "production-2"}),
        (view(release(1, "promoted"), previous=("1.0",)), "rollback", {}),
        (view(release(1, "promoted"), previous=("1.0",)), "rollback", {"to": "1.0"}),
        (view(release(2, "progressing")), "rollback", {}),
        (view(release(2, "aborted")), "retry", {}),
    ],
)
def test_what_can_is_let_through(shown, kind, payload):
    check_possible(shown, kind, payload)


def test_a_version_that_is_nearly_right_is_suggested():
    with pytest.raises(UsageError) as raised:
        check_possible(view(release(1, "promoted"), previous=("1.0.4",)), "rollback", {"to": "1.0.5"})
    assert raised.value.hint == "did you mean `1.0.4`?"


def test_the_outcome_is_one_line():
    assert outcome_line(view()) == "stable is 1.1"
    told = outcome_line(view(release(2, "aborted", reason="aborted by ann")))
    assert told == "stable is 1.1; production-2 aborted (aborted by ann)"


def test_every_state_that_settles_has_an_exit_code():
    assert RUN_EXIT.keys() >= RUN_FINAL
    assert RELEASE_EXIT.keys() >= RELEASE_FINAL
    run = RunSubject(None, "run-1")  # type: ignore[arg-type]
    for state in RunStatus.__args__:
        code = run.exit_code(RunView("run-1", state, "", ()))
        assert (code == ExitCode.STILL_RUNNING) == (state in {"queued", "running"})


@given(st.lists(st.sampled_from(ReleaseStatus.__args__), max_size=5))
def test_an_environment_exits_with_what_is_under_way_else_with_the_last(states):
    states = sorted(states, key=lambda state: state in RELEASE_FINAL)
    shown = view(*(release(number, state) for number, state in enumerate(states)))
    code = EnvironmentSubject(None, "env-1").exit_code(shown)  # type: ignore[arg-type]
    open_states = [state for state in states if state not in RELEASE_FINAL]
    if not states:
        assert code == ExitCode.SUCCEEDED
    elif open_states:
        assert code in {ExitCode.STILL_RUNNING, ExitCode.WAITING_FOR_APPROVAL}
    else:
        assert code == RELEASE_EXIT[states[0]]


def test_of_several_results_the_gravest_counts():
    codes = [ExitCode.SUCCEEDED, ExitCode.WAITING_FOR_APPROVAL, ExitCode.DID_NOT_SUCCEED]
    assert worst(codes) == ExitCode.DID_NOT_SUCCEED
    assert worst([*codes, ExitCode.FORGE_FAILED]) == ExitCode.FORGE_FAILED
    assert worst([]) == ExitCode.SUCCEEDED
