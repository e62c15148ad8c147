"""Jobs: order, parallelism, conditions, timeouts, retries, clean-up."""

from __future__ import annotations

import pytest

from forge.model.plan import Retry


def test_jobs_begin_when_what_they_depend_on_succeeded(make):
    run = make.drive(make.job("a"), make.job("b", depends_on=("a",)), make.job("c", depends_on=("a", "b")))
    run.tick()
    assert list(run.under_way) == ["a#1/1#1"]
    assert run.state.jobs["c"].waits_for == "`a` and `b` to succeed"
    run.finish("a#1/1#1")
    assert list(run.under_way) == ["b#1/1#1"]
    run.finish("b#1/1#1")
    run.finish("c#1/1#1")
    assert run.state.status == "succeeded"
    assert run.state.finished_at == run.now


def test_independent_jobs_run_at_once_up_to_the_limit_in_the_order_of_the_plan(make):
    run = make.drive(*(make.job(name) for name in "abcd"), max_parallel=2)
    run.tick()
    assert list(run.under_way) == ["a#1/1#1", "b#1/1#1"]
    assert run.status("c") == "queued"
    assert "at most 2" in run.state.jobs["c"].waits_for
    run.finish("b#1/1#1")
    assert list(run.under_way) == ["a#1/1#1", "c#1/1#1"]


def test_the_plans_own_limit_counts_more_than_the_workers(make):
    run = make.drive(*(make.job(name) for name in "abc"), max_parallel=4)
    limited = make.Driver(make.plan(*(make.job(name) for name in "abc"), max_parallel=1), max_parallel=4)
    run.tick()
    limited.tick()
    assert len(run.under_way) == 3
    assert len(limited.under_way) == 1


def test_a_failed_job_stops_only_what_depends_on_it(make):
    run = make.drive(
        make.job("bad"),
        make.job("good"),
        make.job("after", depends_on=("bad",)),
        make.job("far", depends_on=("after",)),
    )
    state = run.carry_on(lambda key: "failed" if key.startswith("bad") else "succeeded")
    assert {name: job.status for name, job in state.jobs.items()} == {
        "bad": "failed", "good": "succeeded", "after": "blocked", "far": "blocked",
    }  # fmt: skip
    assert state.status == "failed"
    assert state.jobs["after"].message == "`bad` did not succeed"
    assert state.message.startswith("bad: step `step 1` failed")


def test_steps_run_one_after_another_and_a_failure_skips_the_rest(make):
    run = make.drive(make.job("a", make.step("1"), make.step("2"), make.step("3")))
    run.tick()
    run.finish("a#1/1#1")
    run.finish("a#1/2#1", "failed", "exit code 3", exit_code=3)
    steps = run.state.jobs["a"].steps
    assert [step.status for step in steps.values()] == ["succeeded", "failed", "skipped"]
    assert steps["2"].exit_code == 3
    assert run.state.jobs["a"].message == "step `step 2` failed: exit code 3"
    assert run.started == ["a#1/1#1", "a#1/2#1"]


@pytest.mark.parametrize(
    ("failing", "expected"), [(False, ["1", "always-1"]), (True, ["1", "on_failure-1", "always-1"])]
)
def test_on_failure_steps_run_after_a_failure_and_always_steps_after_anything(make, failing, expected):
    extra = (make.step("on_failure-1", run_on="failure"), make.step("always-1", run_on="always"))
    run = make.drive(make.job("a", make.step("1"), *extra))
    run.carry_on(lambda key: "failed" if failing and "/1#" in key else "succeeded")
    assert [key.split("/")[1].split("#")[0] for key in run.started] == expected
    assert run.status("a") == ("failed" if failing else "succeeded")


def test_an_always_step_that_fails_fails_a_job_that_had_succeeded(make):
    run = make.drive(make.job("a", make.step("1"), make.step("always-1", run_on="always")))
    run.carry_on(lambda key: "failed" if "always" in key else "succeeded")
    assert run.status("a") == "failed"


def test_the_first_failure_is_the_jobs_message_even_if_cleaning_up_fails_too(make):
    run = make.drive(make.job("a", make.step("1"), make.step("always-1", run_on="always")))
    run.tick()
    run.finish("a#1/1#1", "failed", "first")
    run.finish("a#1/always-1#1", "failed", "second")
    assert "first" in run.state.jobs["a"].message


def test_what_forge_could_not_do_is_an_error_and_not_a_failure(make):
    run = make.drive(make.job("a"))
    run.carry_on(lambda _key: "error")
    assert (run.status("a"), run.state.status) == ("error", "error")


class TestConditions:
    def test_a_false_condition_skips_the_job_and_holds_nobody_up(self, make):
        run = make.drive(
            make.job("a", when="params.deploy"), make.job("b", depends_on=("a",)), parameters={"deploy": False}
        )
        run.carry_on()
        assert (run.status("a"), run.status("b"), run.state.status) == ("skipped", "succeeded", "succeeded")
        assert "params.deploy" in run.state.jobs["a"].message

    def test_a_condition_sees_what_other_jobs_became(self, make):
        conditions = {"yes": "jobs.a.outputs.tag == 'v1'", "no": "jobs.a.status == 'failed'"}
        run = make.drive(
            make.job("a"), *(make.job(name, depends_on=("a",), when=when) for name, when in conditions.items())
        )
        run.tick()
        run.finish("a#1/1#1", outputs={"tag": "v1"})
        run.carry_on()
        assert (run.status("yes"), run.status("no")) == ("succeeded", "skipped")

    def test_a_condition_sees_the_values_of_env_and_not_its_expressions(self, make):
        job = make.job(
            "a", make.step("1", when="env.URL == 'https://eu.prod'"), env={"URL": "https://${{ env.PLACE }}"}
        )
        run = make.drive(job, env={"PLACE": "${{ params.region }}.prod"}, parameters={"region": "eu"})
        run.carry_on()
        assert run.started == ["a#1/1#1"]

    def test_a_wrong_expression_in_env_makes_the_condition_an_error(self, make):
        run = make.drive(make.job("a", when="env.X == 'x'", env={"X": "${{ params.nope }}"}))
        run.carry_on()
        assert run.status("a") == "error"
        assert "nope" in run.state.jobs["a"].message

    def test_a_condition_of_a_step_sees_earlier_steps(self, make):
        second = make.step("2", when="steps['step 1'].outputs.changed == 'no'")
        run = make.drive(make.job("a", make.step("1"), second, make.step("3", when="steps['1'].status == 'succeeded'")))
        run.tick()
        run.finish("a#1/1#1", outputs={"changed": "yes"})
        assert run.started[-1] == "a#1/3#1"
        assert run.state.jobs["a"].steps["2"].status == "skipped"

    @pytest.mark.parametrize("wrong", ["params.nope == 1", "1 + 1", "'text'"])
    def test_a_condition_that_cannot_be_told_is_an_error_of_the_job(self, make, wrong):
        run = make.drive(make.job("a", when=wrong), make.job("b"))
        run.carry_on()
        assert (run.status("a"), run.status("b")) == ("error", "succeeded")
        assert wrong in run.state.jobs["a"].message
        assert run.state.status == "error"

    def test_a_wrong_condition_of_a_step_still_lets_always_steps_run(self, make):
        run = make.drive(make.job("a", make.step("1", when="params.nope"), make.step("always-1", run_on="always")))
        run.carry_on()
        assert run.started == ["a#1/always-1#1"]
        assert run.status("a") == "error"
        assert "params.nope" in run.state.jobs["a"].message

    def test_a_job_all_of_whose_steps_are_skipped_gives_its_place_to_the_next(self, make):
        run = make.drive(
            make.job("a"),
            *(make.job(name, make.step("1", when="false")) for name in "bcd"),
            make.job("e"),
            max_parallel=1,
        )
        run.carry_on()
        assert run.state.status == "succeeded"
        assert run.started == ["a#1/1#1", "e#1/1#1"]


class TestRetries:
    def test_a_step_is_tried_again_with_growing_pauses(self, make):
        run = make.drive(make.job("a", make.step("1", retry=Retry(4, delay=2, factor=3, max_delay=10))))
        run.tick()
        pauses = []
        for attempt in (1, 2, 3):
            run.finish(f"a#1/1#{attempt}", "failed", "flaky")
            assert run.state.jobs["a"].steps["1"].status == "retrying"
            assert f"attempt {attempt + 1} of 4" in run.state.jobs["a"].waits_for
            pauses.append(run.wake_at - run.now)
            run.sleep()
        assert pauses == [2, 6, 10]
        run.finish("a#1/1#4")
        assert run.state.status == "succeeded"

    def test_a_step_is_not_tried_early(self, make):
        run = make.drive(make.job("a", make.step("1", retry=Retry(2, delay=60))))
        run.tick()
        run.finish("a#1/1#1", "error")
        run.sleep(59)
        assert not run.under_way
        run.sleep(1)
        assert list(run.under_way) == ["a#1/1#2"]

    def test_the_last_attempt_counts(self, make):
        run = make.drive(make.job("a", make.step("1", retry=Retry(2, delay=1))))
        run.tick()
        run.finish("a#1/1#1", "timed_out")
        run.sleep()
        run.finish("a#1/1#2", "timed_out", "too slow")
        assert run.status("a") == "failed"
        assert run.state.jobs["a"].steps["1"].attempt == 2

    def test_a_job_is_tried_again_from_its_first_step(self, make):
        run = make.drive(
            make.job("a", make.step("1"), make.step("2"), retry=Retry(2, delay=5)), make.job("b", depends_on=("a",))
        )
        run.tick()
        run.finish("a#1/1#1")
        run.finish("a#1/2#1", "failed", "flaky")
        assert run.status("a") == "retrying"
        assert run.state.status == "running"
        assert "attempt 2 of 2" in run.state.jobs["a"].waits_for
        run.sleep()
        assert list(run.under_way) == ["a#2/1#1"]
        run.carry_on()
        assert run.state.status == "succeeded"

    def test_always_steps_run_at_the_end_of_each_attempt(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("always-1", run_on="always"), retry=Retry(2, delay=1)))
        run.carry_on(lambda key: "failed" if "/1#" in key else "succeeded")
        run.sleep()
        run.carry_on(lambda key: "failed" if "/1#" in key else "succeeded")
        assert run.started == ["a#1/1#1", "a#1/always-1#1", "a#2/1#1", "a#2/always-1#1"]
        assert run.status("a") == "failed"

    def test_a_job_that_waits_to_be_tried_again_leaves_its_place_to_others(self, make):
        run = make.drive(make.job("a", retry=Retry(2, delay=100)), make.job("b"), max_parallel=1)
        run.tick()
        run.finish("a#1/1#1", "failed")
        assert list(run.under_way) == ["b#1/1#1"]

    def test_huge_factors_do_not_overflow(self, make):
        from forge.core.pipeline.step_rules import backoff

        assert backoff(Retry(10_000, 1.0, 1e300, 30.0), 9_000) == 30.0


class TestTimeouts:
    def test_a_jobs_timeout_stops_its_step_and_then_cleans_up(self, make):
        extra = (make.step("on_failure-1", run_on="failure"), make.step("always-1", run_on="always"))
        run = make.drive(make.job("a", make.step("1"), make.step("2"), *extra, timeout=60.0))
        run.tick()
        assert run.wake_at == 1060.0
        run.sleep()
        assert run.cancels == ("a#1/1#1",)
        assert run.status("a") == "running"
        run.tick()
        assert run.cancels == ("a#1/1#1",), "asked again, in case that the asker died"
        run.finish("a#1/1#1", "cancelled")
        assert run.state.jobs["a"].steps["1"].status == "timed_out"
        assert "timeout of 1m 0s" in run.state.jobs["a"].steps["1"].message
        run.carry_on()
        assert run.started[1:] == ["a#1/on_failure-1#1", "a#1/always-1#1"]
        assert run.status("a") == "failed"
        assert "timeout" in run.state.jobs["a"].message

    def test_cleaning_up_has_the_timeout_once_more_and_not_longer(self, make):
        run = make.drive(
            make.job(
                "a",
                make.step("1"),
                make.step("always-1", run_on="always"),
                make.step("always-2", run_on="always"),
                timeout=60.0,
            )
        )
        run.tick()
        run.sleep()
        run.sleep(30)
        run.finish("a#1/1#1", "cancelled")
        assert run.wake_at == 1120.0
        run.sleep()
        assert run.cancels == ("a#1/always-1#1",)
        run.finish("a#1/always-1#1", "cancelled")
        assert run.state.jobs["a"].steps["always-2"].status == "skipped"
        assert run.status("a") == "failed"

    def test_a_timeout_ends_a_step_that_waits_to_be_tried_again(self, make):
        run = make.drive(make.job("a", make.step("1", retry=Retry(2, delay=500)), timeout=60.0))
        run.tick()
        run.finish("a#1/1#1", "failed")
        assert run.wake_at == 1060.0
        run.sleep()
        assert run.state.status == "failed"
        assert run.state.jobs["a"].steps["1"].status == "timed_out"

    def test_a_step_that_succeeded_just_before_it_was_stopped_stays_succeeded(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("2"), timeout=60.0))
        run.tick()
        run.sleep()
        run.finish("a#1/1#1", "succeeded")
        assert [step.status for step in run.state.jobs["a"].steps.values()] == ["succeeded", "skipped"]
        assert run.status("a") == "failed"

    def test_a_timed_out_job_may_be_tried_again(self, make):
        run = make.drive(make.job("a", timeout=60.0, retry=Retry(2, delay=1)))
        run.tick()
        run.sleep()
        run.finish("a#1/1#1", "cancelled")
        assert run.status("a") == "retrying"
        run.sleep()
        run.carry_on()
        assert run.state.status == "succeeded"


class TestCrashes:
    def test_a_lost_step_is_an_error_that_is_not_tried_again(self, make):
        step = make.step("1", on_crash="report", retry=Retry(3))
        run = make.drive(make.job("a", step, retry=Retry(3)))
        action = run.tick().actions[0]
        assert not action.rerun
        run.finish("a#1/1#1", "lost")
        assert run.status("a") == "error"
        assert "on_crash: report" in run.state.jobs["a"].message

    def test_a_job_begins_again_when_its_workspace_is_gone(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("2")))
        run.tick()
        run.finish("a#1/1#1")
        run.finish("a#1/2#1", "error", "the workspace is not here", workspace_gone=True)
        assert list(run.under_way) == ["a#2/1#1"]
        assert run.said("job_restarted") == ["a begins again: the workspace is not here"]
        run.carry_on()
        assert run.state.status == "succeeded"

    def test_a_restart_does_not_use_up_a_retry(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("2"), retry=Retry(2, delay=1)))
        run.tick()
        run.finish("a#1/1#1")
        run.finish("a#1/2#1", "error", workspace_gone=True)
        run.finish("a#2/1#1", "failed")
        assert run.status("a") == "retrying"

    def test_a_job_does_not_begin_again_over_a_step_that_must_not_be_repeated(self, make):
        run = make.drive(make.job("a", make.step("1", on_crash="report"), make.step("2")))
        run.tick()
        run.finish("a#1/1#1")
        run.finish("a#1/2#1", "error", "gone", workspace_gone=True)
        assert run.status("a") == "error"
        assert run.started == ["a#1/1#1", "a#1/2#1"]

    def test_a_workspace_that_vanishes_every_time_ends_as_an_error(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("2")))
        run.tick()
        for attempt in (1, 2, 3, 4):
            run.finish(f"a#{attempt}/1#1")
            run.finish(f"a#{attempt}/2#1", "error", "gone", workspace_gone=True)
        assert run.status("a") == "error"

    @pytest.mark.parametrize(
        "key", ["", "nonsense", "x#1/1#1", "a#1/9#1", "a#2/1#1", "a#1/1#2", "slot_ask:a@1", "slot_free:@9", "a#x/1#1"]
    )
    def test_outcomes_of_what_is_not_under_way_change_nothing(self, make, key):
        run = make.drive(make.job("a"))
        run.tick()
        before = run.state
        decision = run.finish(key, "failed")
        assert decision.state == before
        assert not decision.actions
        assert not decision.events

    def test_an_outcome_that_is_delivered_twice_counts_once(self, make):
        run = make.drive(make.job("a", make.step("1", retry=Retry(3, delay=1))))
        run.tick()
        run.finish("a#1/1#1", "failed")
        before = run.state
        run.finish("a#1/1#1", "failed")
        assert run.state == before
