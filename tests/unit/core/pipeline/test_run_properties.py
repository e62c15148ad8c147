"""Whatever the plan, the outcomes and what people do: the invariants hold and every run ends.

The driver checks at every decision: no step before its dependencies succeeded, never more jobs than allowed,
no action twice, every waiting state says what it waits for, same arguments same decision, unchanged jobs stay
the same object, and the state survives JSON.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.pipeline.keys import StepKey, parse
from forge.core.pipeline.state import JOB_FINAL, RUN_FINAL
from forge.model.decision import Command, Outcome
from forge.model.plan import Approval, Concurrency, JobPlan, Plan, Retry, Source, StepPlan

RESULTS = st.sampled_from(["succeeded"] * 6 + ["failed", "error", "timed_out", "cancelled", "lost"])
CONDITIONS = st.sampled_from(["", "", "", "true", "false", "params.nope"])
PEOPLE = st.sampled_from(["ana", "ben", "cyd", ""])


@st.composite
def approvals(draw):
    return Approval(
        required=draw(st.integers(1, 2)),
        approvers=draw(st.sampled_from([(), (), ("ben", "cyd")])),
        allow_self=draw(st.booleans()),
        timeout=draw(st.sampled_from([None, 50.0])),
    )


@st.composite
def steps(draw, identifier, run_on="success"):
    if run_on == "success" and draw(st.integers(0, 9)) == 0:
        approval = draw(approvals())
        config = {"approval": {"required": approval.required, "timeout": approval.timeout}}
        return StepPlan(identifier, "approve", identifier, config)
    return StepPlan(
        identifier,
        draw(st.sampled_from(["run", "run", "cache"])),
        identifier,
        run_on=run_on,
        when=draw(CONDITIONS),
        retry=Retry(draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 1.0, 30.0]))),
        on_crash=draw(st.sampled_from(["rerun", "rerun", "report"])),
    )


@st.composite
def jobs(draw, number):
    name = f"j{number}"
    needs = draw(st.sets(st.integers(0, number - 1), max_size=3)) if number else set()
    made = [draw(steps(str(n + 1))) for n in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        made.append(draw(steps("on_failure-1", "failure")))
    if draw(st.booleans()):
        made.append(draw(steps("always-1", "always")))
    return JobPlan(
        name,
        name,
        tuple(made),
        tuple(f"j{need}" for need in sorted(needs)),
        gate=draw(st.none() | approvals()) if draw(st.integers(0, 3)) == 0 else None,
        when=draw(CONDITIONS),
        timeout=draw(st.sampled_from([None, None, 40.0])),
        retry=Retry(draw(st.integers(1, 2)), draw(st.sampled_from([0.0, 5.0]))),
        concurrency=draw(st.sampled_from([None, None, Concurrency("g"), Concurrency("h", 2)])),
    )


@st.composite
def plans(draw):
    count = draw(st.integers(1, 6))
    return Plan(
        "p",
        tuple(draw(jobs(number)) for number in range(count)),
        Source(""),
        concurrency=draw(st.sampled_from([None, None, Concurrency("run")])),
    )


def to_the_end(run, data, *, approve=True):
    """Let things happen in any order until the run is over; bounded, so a run that never ends fails."""
    for _ in range(600):
        if run.state.status in RUN_FINAL:
            return
        if run.under_way:
            key = data.draw(st.sampled_from(sorted(run.under_way)))
            gone = {"workspace_gone": True} if data.draw(st.integers(0, 19)) == 0 else {}
            result = "cancelled" if key in run.cancels else data.draw(RESULTS)
            run.finish(key, "error" if gone else result, **gone)
        elif run.wake_at is not None and (run.state.status != "waiting" or data.draw(st.booleans())):
            run.sleep()
        else:
            waiting = [job for job in run.state.jobs.values() if job.status == "waiting_approval"]
            assert waiting, f"nothing is under way, nothing wakes it, nobody is asked: {run.state}"
            for person in ("ben", "cyd"):
                run.command("approve" if approve else "reject", person, job=waiting[0].name)
    raise AssertionError(f"the run does not end: {run.state}")


def settle(run):
    """Look until nothing moves: a place that was given back is found by the next look at the queue."""
    before = None
    while before != run.state:
        before = run.state
        run.tick()


@settings(max_examples=100)
@given(plan=plans(), data=st.data(), limit=st.integers(1, 3))
def test_every_run_ends_and_leaves_nothing_behind(make, plan, data, limit):
    run = make.Driver(plan, max_parallel=limit)
    run.tick()
    to_the_end(run, data)
    assert run.groups.empty
    assert not run.under_way
    assert all(job.status in JOB_FINAL for job in run.state.jobs.values())
    assert not any(job.waits_for for job in run.state.jobs.values())
    assert run.state.finished_at is not None
    for job in run.state.jobs.values():
        if job.status == "blocked":
            needs = plan.job(job.name).depends_on
            assert any(run.status(name) not in {"succeeded", "skipped"} for name in needs)


@settings(max_examples=50)
@given(plan=plans(), data=st.data())
def test_people_may_do_anything_at_any_time(make, plan, data):
    run = make.Driver(plan, max_parallel=2)
    run.tick()
    for _ in range(data.draw(st.integers(1, 12))):
        kind = data.draw(st.sampled_from(["approve", "reject", "cancel", "retry", "finish", "sleep", "nonsense"]))
        if kind == "finish":
            if run.under_way:
                key = data.draw(st.sampled_from(sorted(run.under_way)))
                run.finish(key, "cancelled" if key in run.cancels else data.draw(RESULTS))
        elif kind == "sleep":
            run.sleep(data.draw(st.sampled_from([0.0, 1.0, 20.0, 60.0])))
        else:
            payload = {"job": data.draw(st.sampled_from(["", "j0", "j1", "typo"]))}
            if kind == "cancel":
                payload["force"] = data.draw(st.booleans())
            events = len(run.events)
            run.command(kind, data.draw(PEOPLE), **payload)
            assert len(run.events) > events, f"{kind} was silent"
    to_the_end(run, data)
    assert run.groups.empty


@settings(max_examples=50)
@given(plan=plans(), data=st.data())
def test_a_finished_step_is_started_again_only_by_a_new_attempt(make, plan, data):
    run = make.Driver(plan, max_parallel=2)
    run.tick()
    to_the_end(run, data)
    assert max(Counter(run.started).values(), default=1) == 1
    for key in run.started:
        step_key = parse(key)
        assert isinstance(step_key, StepKey)
        step = next(step for step in plan.job(step_key.job).steps if step.id == step_key.step)
        assert step_key.step_attempt <= step.retry.attempts


@settings(max_examples=50)
@given(plan=plans(), data=st.data())
def test_a_retry_runs_only_what_did_not_succeed_and_ends_too(make, plan, data):
    run = make.Driver(plan, max_parallel=2)
    run.tick()
    to_the_end(run, data, approve=False)
    kept = {name: job for name, job in run.state.jobs.items() if job.status in {"succeeded", "skipped"}}
    run.started.clear()
    again = run.state.status != "succeeded"
    run.command("retry")
    to_the_end(run, data)
    assert run.state.attempt == (2 if again else 1)
    begun = {parse(key).job for key in run.started}
    needed = {job.name for job in plan.jobs if not set(job.depends_on) <= kept.keys() or job.name not in kept}
    assert begun <= needed
    for name in kept.keys() - needed:
        assert run.state.jobs[name] is kept[name]


@settings(max_examples=50)
@given(plan=plans(), data=st.data())
def test_delivering_everything_twice_changes_nothing(make, plan, data):
    """The engine may hand over an outcome or a command again after a crash."""
    run = make.Driver(plan, max_parallel=2)
    run.tick()
    for _ in range(15):
        if run.state.status in RUN_FINAL or not run.under_way:
            break
        key = data.draw(st.sampled_from(sorted(run.under_way)))
        outcome = Outcome(key, "cancelled" if key in run.cancels else data.draw(RESULTS), run.now)
        run.tick(outcomes=[outcome])
        settle(run)
        before, begun = run.state, list(run.started)
        run.tick(outcomes=[outcome, outcome])
        assert (run.state, run.started) == (before, begun)
    if run.state.status not in RUN_FINAL:
        cancel = Command(99, "cancel", "ben", run.now)
        run.tick(commands=[cancel])
        settle(run)
        once, begun = run.state, list(run.started)
        run.tick(commands=[cancel])
        assert (run.state, run.started) == (once, begun)


@settings(max_examples=50)
@given(plan=plans(), data=st.data())
def test_a_crash_before_the_write_loses_nothing(make, plan, data):
    """A decision that was not written is made again from the same state and inputs, with the same actions."""
    run = make.Driver(plan, max_parallel=2)
    run.tick()
    for _ in range(20):
        if not run.under_way:
            break
        key = data.draw(st.sampled_from(sorted(run.under_way)))
        outcome = Outcome(key, "cancelled" if key in run.cancels else data.draw(RESULTS), run.now)
        lost = make.Driver(plan, max_parallel=2, groups=run.groups, state=run.state)
        lost.now, lost.performs_slots = run.now, False
        first = lost.tick(outcomes=[outcome])
        side, run.performs_slots = run.performs_slots, False
        second = run.tick(outcomes=[outcome])
        run.performs_slots = side
        assert first == second
        run._perform_side_actions()


def test_a_thousand_jobs_are_decided_quickly(make):
    import time

    layers = [[f"j{layer}-{n}" for n in range(10)] for layer in range(100)]
    made = [
        make.job(name, depends_on=layers[depth - 1] if depth else ())
        for depth, layer in enumerate(layers)
        for name in layer
    ]
    from forge.core.pipeline.decide import decide, new_run

    plan = make.plan(*made)
    state, waiting, ticks = new_run(plan, "run-1", actor="ana", at=0.0), [], 0
    outcomes = ()
    began = time.process_time()
    while True:
        decision = decide(plan, state, (), outcomes, float(ticks), max_parallel=10)
        state, ticks = decision.state, ticks + 1
        waiting += [action.key for action in decision.actions]
        if not waiting:
            break
        outcomes = (Outcome(waiting.pop(0), "succeeded", float(ticks)),)
    assert state.status == "succeeded"
    assert ticks <= 2000
    assert (time.process_time() - began) / ticks < 0.002
