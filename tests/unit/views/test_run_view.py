from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from forge.core.pipeline.state import JobState, RunState, StepState, Vote
from forge.model.configs import ApproveConfig
from forge.model.plan import Approval, JobPlan, Parameter, Plan, Source, StepPlan
from forge.views.run import elapsed, run_view, shell_word

RUN = StepPlan("1", "run", "make build", {"script": "make build"})


def plan(*jobs: JobPlan) -> Plan:
    return Plan("shop", jobs, Source("d" * 64, commit="c" * 40, ref="main"))


def run(**fields) -> RunState:
    return RunState(**{"id": "run-1", "plan_digest": "p" * 64, "actor": "ann", "created_at": 10.0, **fields})


def test_jobs_come_in_the_order_of_the_plan_whatever_the_order_of_the_states():
    two = plan(JobPlan("build", "build", (RUN,)), JobPlan("test", "test", (RUN,), depends_on=("build",)))
    state = run(jobs={"test": JobState("test", "pending"), "build": JobState("build", "running")})
    view = run_view(state, two, 20.0)
    assert [job.name for job in view.jobs] == ["build", "test"]
    assert view.jobs[1].depends_on == ("build",)
    assert (view.pipeline, view.commit, view.ref, view.plan) == ("shop", "c" * 40, "main", "p" * 64)


def test_a_job_without_a_state_is_pending():
    view = run_view(run(), plan(JobPlan("build", "build", (RUN,))), 20.0)
    assert view.jobs[0].state == "pending"
    assert view.jobs[0].steps[0].state == "pending"


def test_durations_grow_until_the_end_and_not_after():
    job = JobState("build", "running", 1, {"1": StepState("running", 1, started_at=12.0)}, started_at=11.0)
    one = plan(JobPlan("build", "build", (RUN,)))
    going = run_view(run(status="running", started_at=10.0, jobs={"build": job}), one, 20.0)
    assert (going.duration, going.jobs[0].duration, going.jobs[0].steps[0].duration) == (10.0, 9.0, 8.0)
    ended = msgspec.structs.replace(job, status="succeeded", finished_at=15.0)
    over = run(status="succeeded", started_at=10.0, finished_at=16.0, jobs={"build": ended})
    assert run_view(over, one, 99.0).duration == 6.0
    assert run_view(over, one, 99.0).jobs[0].duration == 4.0


def test_the_current_step_is_the_one_under_way():
    steps = (RUN, StepPlan("2", "run", "make test"))
    job = JobState("build", "running", 1, {"1": StepState("succeeded", 1), "2": StepState("running", 1)})
    view = run_view(run(jobs={"build": job}), plan(JobPlan("build", "build", steps)), 20.0)
    assert view.jobs[0].current_step is not None
    assert view.jobs[0].current_step.id == "2"


def test_a_gate_shows_who_said_yes_and_what_is_asked():
    field = Parameter("ticket", description="the ticket", required=True)
    gate = Approval("Really?", required=2, approvers=("ann", "bob"), inputs=(field,))
    votes = (Vote("ann", True, 12.0), Vote("eve", False, 13.0))
    job = JobState("ship", "waiting_approval", votes=votes, waiting_since=11.0)
    view = run_view(run(status="waiting", jobs={"ship": job}), plan(JobPlan("ship", "ship", (RUN,), gate=gate)), 20.0)
    shown = view.jobs[0].gate
    assert shown is not None
    assert (shown.message, shown.required, shown.given) == ("Really?", 2, ("ann",))
    assert shown.inputs[0].name == "ticket"
    assert shown.inputs[0].required
    assert view.next == ("forge approve run-1 ship", "forge resume run-1")
    assert [one.name for one in view.waiting_jobs()] == ["ship"]


def test_at_an_approve_step_its_own_gate_and_votes_are_shown():
    config = msgspec.to_builtins(ApproveConfig(Approval("Is it well?", required=2)))
    steps = (RUN, StepPlan("2", "approve", "approve", config))
    votes = (Vote("ann", True, 12.0), Vote("bob", True, 15.0, gate="2"))
    states = {"1": StepState("succeeded", 1), "2": StepState("running", 1)}
    job = JobState("ship", "waiting_approval", 1, states, votes=votes)
    of_the_job = JobPlan("ship", "ship", steps, gate=Approval("Begin?"))
    view = run_view(run(status="waiting", jobs={"ship": job}), plan(of_the_job), 20.0)
    shown = view.jobs[0].gate
    assert shown is not None
    assert (shown.message, shown.given) == ("Is it well?", ("bob",))


def test_what_to_do_next_fits_the_state():
    one = plan(JobPlan("a b", "a", (RUN,)))
    failed = run(status="failed", jobs={"a b": JobState("a b", "failed", 1, {"1": StepState("failed", 1)})})
    assert run_view(failed, one, 1.0).next == ("forge logs run-1 'a b'", "forge retry run-1")
    assert run_view(run(status="succeeded"), one, 1.0).next == ()
    assert run_view(run(status="running"), one, 1.0).next == ("forge resume run-1", "forge cancel run-1")


def test_a_final_job_waits_for_nothing():
    job = JobState("build", "cancelled", waits_for="`x` to succeed")
    view = run_view(run(jobs={"build": job}), plan(JobPlan("build", "build", (RUN,))), 20.0)
    assert view.jobs[0].waits_for == ""


def test_the_view_is_plain_json_and_comes_back_the_same():
    gate = Approval("Really?", inputs=(Parameter("n", "number", default=3),))
    view = run_view(run(), plan(JobPlan("build", "build", (RUN,), gate=gate)), 20.0)
    assert msgspec.json.decode(msgspec.json.encode(view), type=type(view)) == view


@given(st.floats(0, 1e10), st.none() | st.floats(0, 1e10), st.floats(0, 1e10))
def test_time_never_runs_backwards(start, end, now):
    seconds = elapsed(start, end, now)
    assert seconds is not None
    assert seconds >= 0


@given(st.text(st.characters(codec="ascii", exclude_characters="'", min_codepoint=32), min_size=1))
def test_a_name_typed_in_a_shell_stays_one_word(name):
    import shlex

    assert shlex.split(shell_word(name)) == [name]
