"""The small words of a run: keys, sentences, and what expressions can see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.decide import decide, new_run
from forge.core.pipeline.keys import ASK, FREE, SAVE, SideKey, StepKey, parse
from forge.core.pipeline.plan_index import index_of
from forge.core.pipeline.state import JobState, RunState, StepState
from forge.core.pipeline.variables import has_expression, job_outputs, variables
from forge.core.pipeline.wording import clock, name_list
from forge.model.plan import JobPlan, Plan, Source, StepPlan

NAMES = st.text(min_size=1, max_size=20)
COUNTS = st.integers(0, 10**6)


@given(job=NAMES, attempt=COUNTS, step=st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True), step_attempt=COUNTS)
def test_step_keys_are_read_back_whatever_the_job_is_called(job, attempt, step, step_attempt):
    key = StepKey(job, attempt, step, step_attempt)
    assert parse(str(key)) == key


@given(kind=st.sampled_from([ASK, FREE, SAVE]), job=st.text(max_size=20), attempt=COUNTS)
def test_side_keys_are_read_back_whatever_the_job_is_called(kind, job, attempt):
    key = SideKey(kind, job, attempt)
    assert parse(str(key)) == key


@given(st.text(max_size=40))
def test_any_text_is_a_key_or_not_and_never_an_error(text):
    key = parse(text)
    assert key is None or isinstance(key, (StepKey, SideKey))


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ((), ""),
        (("a",), "`a`"),
        (("a", "b"), "`a` and `b`"),
        (("a", "b", "c", "d"), "`a`, `b`, `c` and `d`"),
        (("a", "b", "c", "d", "e"), "`a`, `b`, `c` and 2 more"),
    ],
)
def test_many_names_are_told_shortly(names, text):
    assert name_list(names) == text


def test_moments_are_told_in_utc():
    assert clock(0.0) == "1970-01-01 00:00:00 UTC"


@pytest.mark.parametrize(
    ("value", "found"),
    [("a ${{ b }}", True), ("$ {{ b }}", False), ({"a": [{"b": "${{ c }}"}]}, True), ({"${{ key }}": 1}, False), (3, False), (("x",), False)],
)  # fmt: skip
def test_expressions_are_found_in_plain_data(value, found):
    assert has_expression(value) is found


class TestVariables:
    STEPS = (StepPlan("1", "run", "first"), StepPlan("2", "run", "second", env={"C": "3"}))
    PLAN = Plan(
        "p",
        (
            JobPlan("test (os=a)", "test", STEPS),
            JobPlan("test (os=b)", "test", STEPS, matrix={"os": "b"}, env={"B": "2"}),
        ),
        Source("d", "c0ffee", "main"),
        parameters={"n": 1},
        env={"A": "1"},
    )

    def seen(self, *states, job=1, step=None):
        run = RunState("run-7", "x", actor="ana", attempt=2, jobs={state.name: state for state in states})
        plan_job = self.PLAN.jobs[job]
        return variables(self.PLAN, run, run.jobs, plan_job, step)

    def states(self, first="succeeded", second="running"):
        done = {
            "1": StepState("succeeded", 1, outputs={"tag": "v1"}),
            "2": StepState("failed", 1, outputs={"tag": "v2"}),
        }
        return JobState("test (os=a)", first, steps=done), JobState("test (os=b)", second, inputs={"ok": True})

    def test_everything_has_its_place(self):
        seen = self.seen(*self.states(), step=self.STEPS[1])
        assert seen["params"] == {"n": 1}
        assert seen["env"] == {"A": "1", "B": "2", "C": "3"}
        assert seen["matrix"] == {"os": "b"}
        assert seen["inputs"] == {"ok": True}
        assert seen["run"] == {"id": "run-7", "actor": "ana", "commit": "c0ffee", "ref": "main", "attempt": 2}

    def test_a_job_is_seen_with_its_outputs_the_later_over_the_earlier(self):
        seen = self.seen(*self.states())
        assert seen["jobs"]["test (os=a)"] == {"status": "succeeded", "outputs": {"tag": "v2"}}
        assert job_outputs(self.states()[0]) == {"tag": "v2"}

    @pytest.mark.parametrize(
        ("first", "second", "together"),
        [("succeeded", "succeeded", "succeeded"), ("succeeded", "skipped", "succeeded"), ("skipped", "skipped", "skipped"),
         ("succeeded", "failed", "failed"), ("running", "succeeded", "running")],
    )  # fmt: skip
    def test_a_matrix_is_also_seen_as_one_job(self, first, second, together):
        assert self.seen(*self.states(first, second))["jobs"]["test"]["status"] == together

    def test_steps_are_seen_by_id_and_by_name(self):
        seen = self.seen(*self.states(), job=0)["steps"]
        assert seen["1"] == seen["first"] == {"status": "succeeded", "outputs": {"tag": "v1"}}

    def test_a_name_never_hides_another_steps_id(self):
        steps = (StepPlan("1", "run", "2"), StepPlan("2", "run", "other"))
        plan = Plan("p", (JobPlan("a", "a", steps),), Source(""))
        state = JobState("a", steps={"1": StepState("failed", 1), "2": StepState("succeeded", 1)})
        run = RunState("run-1", "x", jobs={"a": state})
        assert variables(plan, run, run.jobs, plan.jobs[0])["steps"]["2"]["status"] == "succeeded"


def test_payloads_carry_variables_only_where_something_reads_them(make):
    run = make.drive(make.job("plain"), make.job("reads", make.step("1", config={"script": "echo ${{ run.id }}"})))
    actions = {action.payload["job"]: action.payload for action in run.tick().actions}
    assert "variables" not in actions["plain"]
    assert actions["reads"]["variables"]["run"]["id"] == "run-1"


def test_a_plans_index_is_made_once_and_knows_far_dependents(make):
    plan = make.plan(make.job("a"), make.job("b", depends_on=("a",)), make.job("c", depends_on=("b",)), make.job("d"))
    assert index_of(plan) is index_of(plan)
    assert index_of(plan).with_dependents({"a"}) == {"a", "b", "c"}
    for _ in range(100):
        index_of(make.plan(make.job("other")))
    assert index_of(plan).plan is plan


def test_a_decision_says_why(make):
    run = make.drive(make.job("a"))
    assert "begins 1: a#1/1#1" in run.tick().why
    run.command("cancel")
    assert "stops 1" in run.why


def test_an_empty_plan_succeeds_at_once():
    plan = Plan("p", (), Source(""))
    decision = decide(plan, new_run(plan, "run-1", actor="ana", at=0.0), (), (), 1.0)
    assert decision.state.status == "succeeded"


def test_a_final_run_is_left_alone(make):
    run = make.drive(make.job("a"))
    run.carry_on()
    decision = run.tick()
    assert decision.state == run.state
    assert not decision.actions
    assert not decision.events
    assert not decision.cancel
    assert decision.wake_at is None
