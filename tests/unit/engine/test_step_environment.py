"""What a step finds in its environment."""

from __future__ import annotations

import pytest

from forge.core.pipeline.expressions import interpolate
from forge.core.pipeline.keys import StepKey
from forge.core.pipeline.state import JobState, RunState
from forge.core.pipeline.variables import declared_env
from forge.engine import step_environment
from forge.model.plan import JobPlan, Plan, Source, StepPlan

STEP = StepPlan("1", "run", "one", env={"C": "${{ env.B }}3"})
JOB = JobPlan(
    "test (os=linux)",
    "test",
    (STEP,),
    env={"B": "${{ env.A }}2", "X": "job"},
    matrix={"os": "linux"},
    environment="staging",
)
PLAN = Plan(
    "p",
    (JOB,),
    Source("d" * 64, "c0ffee", "main"),
    env={"A": "1", "X": "pipeline"},
    parameters={"dry-run": True, "count": 3},
)


def test_nothing_is_inherited_by_accident():
    found = step_environment.base(
        {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "y"}
    )
    assert found == {"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "TERM": "dumb"}


def test_there_is_always_a_path():
    assert step_environment.base({})["PATH"]


def test_the_nearer_declaration_wins_and_each_may_use_the_ones_before():
    assert declared_env(PLAN, JOB, STEP, {}, interpolate) == {"A": "1", "B": "12", "C": "123", "X": "job"}


def test_a_text_without_expressions_is_not_touched():
    def never(_text, _known):
        raise AssertionError("must not be called")

    plain = JobPlan("a", "a", (), env={"A": "$HOME ${B} {{ c }}"})
    assert declared_env(Plan("p", (plain,), Source("")), plain, None, {}, never) == {"A": "$HOME ${B} {{ c }}"}


def test_forge_tells_where_a_step_is():
    state = RunState(
        "run-7", PLAN.digest, actor="ana", attempt=2, jobs={JOB.name: JobState(JOB.name, inputs={"to-percent": 5})}
    )
    told = step_environment.of_forge(PLAN, state, JOB, STEP, StepKey(JOB.name, 3, "1", 4))
    assert told == told | {
        "CI": "true", "FORGE_RUN": "run-7", "FORGE_RUN_ATTEMPT": "2", "FORGE_JOB": JOB.name, "FORGE_JOB_ATTEMPT": "3",
        "FORGE_STEP": "1", "FORGE_STEP_ATTEMPT": "4", "FORGE_ACTOR": "ana", "FORGE_COMMIT": "c0ffee", "FORGE_REF": "main",
        "FORGE_PARAM_DRY_RUN": "true", "FORGE_PARAM_COUNT": "3", "FORGE_MATRIX_OS": "linux", "FORGE_INPUT_TO_PERCENT": "5",
        "FORGE_ENVIRONMENT": "staging",
    }  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (3, "3"), (2.5, "2.5"), ("x", "x")])
def test_values_are_told_as_shells_compare_them(value, text):
    assert step_environment.as_text(value) == text
