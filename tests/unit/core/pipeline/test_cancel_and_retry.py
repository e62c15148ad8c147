"""Cancelling a run or a job, and doing again what did not succeed."""

from __future__ import annotations

import pytest

from forge.model.plan import Approval, Concurrency, Retry


def cleaning(make, **fields):
    extra = (make.step("on_failure-1", run_on="failure"), make.step("always-1", run_on="always"))
    return make.job("a", make.step("1"), make.step("2"), *extra, **fields)


class TestCancelling:
    def test_running_steps_are_stopped_and_always_steps_still_run(self, make):
        run = make.drive(cleaning(make, retry=Retry(3)), make.job("b", depends_on=("a",)))
        run.tick()
        run.command("cancel", "ben", comment="wrong branch")
        assert run.cancels == ("a#1/1#1",)
        assert run.status("b") == "cancelled"
        assert run.state.status == "running"
        run.tick()
        assert run.cancels == ("a#1/1#1",)
        run.finish("a#1/1#1", "cancelled")
        assert list(run.under_way) == ["a#1/always-1#1"]
        run.finish("a#1/always-1#1")
        assert run.state.status == "cancelled"
        assert run.state.cancel_requested == "ben"
        assert "wrong branch" in run.state.jobs["a"].message
        assert [step.status for step in run.state.jobs["a"].steps.values()] == [
            "cancelled",
            "skipped",
            "skipped",
            "succeeded",
        ]

    def test_what_had_not_begun_ends_at_once(self, make):
        run = make.drive(
            make.job("gate", gate=Approval()),
            make.job("later", depends_on=("gate",)),
            make.job("queued", concurrency=Concurrency("x")),
        )
        run.tick()
        run.carry_on()
        run.command("cancel")
        assert run.state.status == "cancelled"
        assert {name: job.status for name, job in run.state.jobs.items()} == {
            "gate": "cancelled", "later": "cancelled", "queued": "succeeded",
        }  # fmt: skip

    def test_places_are_given_back(self, make):
        run = make.drive(make.job("a", concurrency=Concurrency("x")), concurrency=Concurrency("y"))
        run.tick()
        run.command("cancel")
        run.finish("a#1/1#1", "cancelled")
        assert run.state.status == "cancelled"
        assert run.groups.empty

    @pytest.mark.parametrize("waits", ["step", "job"])
    def test_a_job_between_two_attempts_is_not_tried_again(self, make, waits):
        retry = Retry(3, delay=100)
        job = make.job("a", make.step("1", retry=retry)) if waits == "step" else make.job("a", retry=retry)
        run = make.drive(job)
        run.tick()
        run.finish("a#1/1#1", "failed")
        run.command("cancel")
        assert run.state.status == "cancelled"

    def test_a_job_that_waits_at_an_approve_step_still_cleans_up(self, make):
        run = make.drive(make.job("a", make.step("1"), make.gate_step("2"), make.step("always-1", run_on="always")))
        run.tick()
        run.finish("a#1/1#1")
        run.command("cancel")
        assert list(run.under_way) == ["a#1/always-1#1"]
        run.carry_on()
        assert run.state.status == "cancelled"

    def test_an_always_step_that_runs_is_spared_unless_forced(self, make):
        run = make.drive(
            make.job(
                "a", make.step("1"), make.step("always-1", run_on="always"), make.step("always-2", run_on="always")
            )
        )
        run.tick()
        run.finish("a#1/1#1")
        run.command("cancel")
        assert run.cancels == ()
        run.command("cancel")
        assert "asked for it already" in run.said("command_refused")[-1]
        run.command("cancel", force=True)
        assert run.cancels == ("a#1/always-1#1",)
        run.finish("a#1/always-1#1", "cancelled")
        assert run.state.status == "cancelled"
        assert run.state.jobs["a"].steps["always-2"].status == "skipped"

    def test_an_on_failure_step_that_runs_is_stopped_and_the_failure_stays(self, make):
        run = make.drive(cleaning(make))
        run.tick()
        run.finish("a#1/1#1", "failed", "broken")
        run.command("cancel")
        assert run.cancels == ("a#1/on_failure-1#1",)
        run.finish("a#1/on_failure-1#1", "cancelled")
        run.carry_on()
        assert run.status("a") == "failed"

    def test_a_step_that_ends_by_itself_meanwhile_keeps_its_result(self, make):
        run = make.drive(make.job("a", make.step("1"), make.step("2")))
        run.tick()
        run.command("cancel")
        run.finish("a#1/1#1", "succeeded")
        assert run.state.jobs["a"].steps["1"].status == "succeeded"
        assert run.state.status == "cancelled"

    def test_a_step_that_somebody_else_stopped_ends_the_job_as_cancelled(self, make):
        run = make.drive(make.job("a"))
        run.tick()
        run.finish("a#1/1#1", "cancelled")
        assert run.state.status == "cancelled"

    def test_one_job_can_be_cancelled_alone(self, make):
        run = make.drive(make.job("a"), make.job("b"))
        run.tick()
        run.command("cancel", "run-9", job="a")
        assert run.cancels == ("a#1/1#1",)
        run.finish("a#1/1#1", "cancelled")
        run.carry_on()
        assert (run.status("a"), run.status("b"), run.state.status) == ("cancelled", "succeeded", "cancelled")

    def test_a_run_that_waits_for_its_place_can_be_cancelled(self, make):
        groups = make.Groups()
        first, second = (
            make.drive(make.job("a"), concurrency=Concurrency("x"), groups=groups, run=f"run-{n}") for n in (1, 2)
        )
        first.tick()
        second.tick()
        second.command("cancel")
        assert second.state.status == "cancelled"
        assert not second.started
        first.carry_on()
        assert groups.empty

    @pytest.mark.parametrize(
        ("payload", "reason"),
        [({}, "too late, the run is succeeded"), ({"job": "a"}, "too late, the run is succeeded")],
    )
    def test_a_run_that_is_over_cannot_be_cancelled(self, make, payload, reason):
        run = make.drive(make.job("a"))
        run.carry_on()
        before = run.state
        run.command("cancel", **payload)
        assert reason in run.said("command_refused")[0]
        assert run.state == before

    def test_unknown_and_finished_jobs_are_refused(self, make):
        run = make.drive(make.job("build"), make.job("b", depends_on=("build",)))
        run.tick()
        run.finish("build#1/1#1")
        run.command("cancel", job="biuld")
        run.command("cancel", job="build")
        assert "did you mean `build`?" in run.said("command_refused")[0]
        assert "too late, build is succeeded" in run.said("command_refused")[1]


class TestRetrying:
    def broken(self, make):
        run = make.drive(
            make.job("good"), make.job("bad", depends_on=("good",)), make.job("after", depends_on=("bad", "good")),
            make.job("other"),
        )  # fmt: skip
        run.carry_on(lambda key: "failed" if key.startswith("bad") else "succeeded")
        return run

    def test_only_what_failed_and_what_depends_on_it_runs_again(self, make):
        run = self.broken(make)
        kept = run.state.jobs["good"], run.state.jobs["other"]
        run.started.clear()
        run.now += 100
        run.command("retry", "ben")
        assert run.state.attempt == 2
        assert run.state.finished_at is None
        assert list(run.under_way) == ["bad#2/1#1"]
        run.carry_on()
        assert run.started == ["bad#2/1#1", "after#1/1#1"]
        assert run.state.status == "succeeded"
        assert (run.state.jobs["good"], run.state.jobs["other"]) == kept
        assert run.said("run_retried") == ["ben retries 2 of 4 jobs (attempt 2)"]

    def test_a_retried_job_has_all_its_attempts_again(self, make):
        run = make.drive(make.job("a", retry=Retry(2, delay=1)))
        for _ in range(2):
            run.carry_on(lambda _key: "failed")
            run.sleep(5)
            run.carry_on(lambda _key: "failed")
            assert run.state.status == "failed"
            run.command("retry")
        assert run.started == [f"a#{attempt}/1#1" for attempt in (1, 2, 3, 4, 5)]

    def test_gates_ask_again(self, make):
        run = make.drive(make.job("ship", gate=Approval()))
        run.tick()
        run.command("reject", job="ship")
        run.command("retry")
        assert run.status("ship") == "waiting_approval"
        run.command("approve", job="ship")
        run.carry_on()
        assert run.state.status == "succeeded"
        assert [vote.approve for vote in run.state.jobs["ship"].votes] == [True]

    def test_a_cancelled_run_can_be_carried_on(self, make):
        run = make.drive(make.job("a"), make.job("b", depends_on=("a",)), make.job("c", depends_on=("b",)))
        run.tick()
        run.finish("a#1/1#1")
        run.command("cancel")
        run.finish("b#1/1#1", "cancelled")
        assert run.state.status == "cancelled"
        run.command("retry")
        assert run.state.cancel_requested == ""
        run.carry_on()
        assert run.state.status == "succeeded"
        assert run.started == ["a#1/1#1", "b#1/1#1", "b#2/1#1", "c#1/1#1"]

    def test_a_run_that_goes_on_cannot_be_retried(self, make):
        run = make.drive(make.job("a"))
        run.tick()
        run.command("retry")
        assert "the run is still running" in run.said("command_refused")[0]

    def test_a_run_that_succeeded_has_nothing_to_retry(self, make):
        run = make.drive(make.job("a"))
        run.carry_on()
        run.command("retry")
        assert "nothing to do again" in run.said("command_refused")[0]
        assert run.state.attempt == 1

    def test_outcomes_of_an_earlier_attempt_do_not_count(self, make):
        run = self.broken(make)
        run.command("retry")
        before = run.state
        run.finish("bad#1/1#1", "succeeded")
        assert run.state == before

    def test_expressions_see_the_attempt_of_the_run(self, make):
        run = make.drive(make.job("a", make.step("1", env={"TRY": "${{ run.attempt }}"})))
        run.carry_on(lambda _key: "failed")
        run.command("retry")
        assert run.under_way["a#2/1#1"].payload["variables"]["run"]["attempt"] == 2
