"""Gates: who may open one, what they enter, and that no vote is ever silent."""

from __future__ import annotations

import pytest

from forge.core.pipeline.inputs import check_inputs, convert, missing, with_defaults
from forge.model.plan import Approval, Parameter


def gated(make, *, actor="ana", **approval):
    run = make.drive(make.job("build"), make.job("ship", depends_on=("build",), gate=Approval(**approval)), actor=actor)
    run.carry_on()
    return run


def refusal(run):
    return run.said("command_refused")[-1]


def test_a_manual_job_waits_for_a_person_and_the_run_says_so(make):
    run = gated(make, message="check staging first")
    assert run.state.status == "waiting"
    assert run.state.waits_for == "approval of `ship`"
    assert run.status("ship") == "waiting_approval"
    assert run.state.jobs["ship"].waits_for == "approval by a person"
    assert "check staging first" in run.said("gate_opened")[0]
    assert run.wake_at is None


def test_an_approval_lets_the_job_go_on(make):
    run = gated(make)
    run.command("approve", "ben", job="ship", comment="looks good")
    assert list(run.under_way) == ["ship#1/1#1"]
    vote = run.state.jobs["ship"].votes[0]
    assert (vote.actor, vote.approve, vote.comment) == ("ben", True, "looks good")
    run.carry_on()
    assert run.state.status == "succeeded"


def test_the_job_may_be_left_out_when_one_waits(make):
    run = gated(make)
    run.command("approve")
    assert run.status("ship") == "running"


def test_the_job_must_be_said_when_several_wait(make):
    run = make.drive(make.job("a", gate=Approval()), make.job("b", gate=Approval()))
    run.tick()
    run.command("approve")
    assert "`a` and `b`" in refusal(run)


def test_the_run_does_not_wait_while_other_jobs_go_on(make):
    run = make.drive(make.job("a", gate=Approval()), make.job("b"))
    run.tick()
    assert run.state.status == "running"
    run.finish("b#1/1#1")
    assert run.state.status == "waiting"


def test_a_gate_opens_only_when_everything_before_it_is_done(make):
    run = make.drive(make.job("build"), make.job("ship", depends_on=("build",), gate=Approval()))
    run.tick()
    run.command("approve", job="ship")
    assert "too early, the job waits for `build` to succeed" in refusal(run)
    run.finish("build#1/1#1")
    assert run.status("ship") == "waiting_approval"


def test_a_gate_behind_a_failure_never_asks(make):
    run = make.drive(make.job("build"), make.job("ship", depends_on=("build",), gate=Approval()))
    run.carry_on(lambda _key: "failed")
    assert "gate_opened" not in run.kinds()
    assert run.status("ship") == "blocked"


class TestWhoMay:
    def test_several_distinct_people_are_needed(self, make):
        run = gated(make, required=2)
        run.command("approve", "ben", job="ship")
        assert run.status("ship") == "waiting_approval"
        assert run.state.jobs["ship"].waits_for == "approval by a person"
        run.command("approve", "ben", job="ship")
        assert "ben has approved already" in refusal(run)
        assert run.status("ship") == "waiting_approval"
        run.command("approve", "cyd", job="ship")
        assert run.status("ship") == "running"
        assert run.said("approved") == ["ben approved ship (1 of 2)", "cyd approved ship (2 of 2)"]

    def test_only_approvers_may_approve_or_reject(self, make):
        run = gated(make, approvers=("cyd", "dan"))
        assert run.state.jobs["ship"].waits_for == "approval among `cyd` and `dan`"
        for word in ("approve", "reject"):
            run.command(word, "ben", job="ship")
            assert "ben is not among the approvers `cyd` and `dan`" in refusal(run)
        run.command("approve", "dan", job="ship")
        assert run.status("ship") == "running"

    def test_nobody_approves_their_own_run_where_that_is_not_allowed(self, make):
        run = gated(make, allow_self=False)
        assert run.state.jobs["ship"].waits_for.endswith("other than ana")
        run.command("approve", "ana", job="ship")
        assert "ana started the run and may not approve it" in refusal(run)
        run.command("approve", "ben", job="ship")
        assert run.status("ship") == "running"

    def test_by_default_one_may_approve_ones_own_run(self, make):
        run = gated(make)
        run.command("approve", "ana", job="ship")
        assert run.status("ship") == "running"

    def test_who_started_the_run_may_reject_it(self, make):
        run = gated(make, allow_self=False)
        run.command("reject", "ana", job="ship")
        assert run.status("ship") == "rejected"

    def test_a_vote_without_a_name_is_refused(self, make):
        run = gated(make)
        run.command("approve", "", job="ship")
        assert "does not say who" in refusal(run)

    def test_an_unknown_job_is_refused_with_a_hint(self, make):
        run = gated(make)
        run.command("approve", job="shipp")
        assert "did you mean `ship`?" in refusal(run)

    def test_a_late_approval_is_refused_and_says_why(self, make):
        run = gated(make)
        run.command("approve", "ben", job="ship")
        run.command("approve", "cyd", job="ship")
        assert "does not wait for approval, it is running" in refusal(run)
        run.carry_on()
        run.command("approve", "cyd", job="ship")
        assert "too late, the job is succeeded" in refusal(run)

    def test_a_command_that_nobody_knows_is_refused_with_a_hint(self, make):
        run = gated(make)
        run.command("aprove", job="ship")
        assert "did you mean `approve`?" in refusal(run)


class TestRejecting:
    def test_a_rejected_job_ends_and_blocks_what_depends_on_it(self, make):
        run = make.drive(make.job("ship", gate=Approval(required=2)), make.job("after", depends_on=("ship",)))
        run.tick()
        run.command("approve", "cyd", job="ship")
        run.command("reject", "ben", job="ship", comment="not today")
        assert run.status("ship") == "rejected"
        assert run.state.jobs["ship"].message == "rejected by ben: not today"
        assert run.status("after") == "blocked"
        assert run.state.status == "rejected"
        assert not run.started

    def test_a_gates_timeout_rejects(self, make):
        run = gated(make, timeout=3600.0)
        assert run.wake_at == run.now + 3600
        run.sleep(3599)
        assert run.status("ship") == "waiting_approval"
        run.sleep(1)
        assert run.state.status == "rejected"
        assert "nobody opened the gate within 1h" in run.state.jobs["ship"].message

    def test_an_approval_in_time_counts_even_when_it_is_read_late(self, make):
        run = gated(make, timeout=3600.0)
        given = run.now + 3500
        run.now += 5000
        run.command("approve", job="ship", at=given)
        assert run.status("ship") == "running"

    def test_an_approval_after_the_timeout_does_not_count_even_when_both_are_read_at_once(self, make):
        run = gated(make, timeout=3600.0)
        run.now += 5000
        run.command("approve", job="ship")
        assert "too late, the gate closed" in refusal(run)
        assert run.status("ship") == "rejected"


class TestInputs:
    FIELDS = (
        Parameter("percent", "number", default=10),
        Parameter("reason", required=True),
        Parameter("region", "choice", options=("eu", "us")),
        Parameter("notify", "boolean"),
    )

    def test_what_was_entered_is_checked_and_seen_by_expressions(self, make):
        run = make.drive(
            make.job(
                "ship", make.step("1", when="inputs.percent == 25 && inputs.notify"), gate=Approval(inputs=self.FIELDS)
            )
        )
        run.tick()
        run.command(
            "approve", job="ship", inputs={"percent": "25", "reason": "hotfix", "notify": "yes", "region": "eu"}
        )
        assert run.state.jobs["ship"].inputs == {"percent": 25, "reason": "hotfix", "notify": True, "region": "eu"}
        assert run.started == ["ship#1/1#1"]

    def test_defaults_fill_what_was_left_out(self, make):
        run = make.drive(make.job("ship", gate=Approval(inputs=self.FIELDS)))
        run.tick()
        run.command("approve", job="ship", inputs={"reason": "x"})
        assert run.state.jobs["ship"].inputs == {"percent": 10, "reason": "x"}

    def test_everything_that_is_wrong_is_said_at_once(self, make):
        run = make.drive(make.job("ship", gate=Approval(inputs=self.FIELDS)))
        run.tick()
        run.command(
            "approve", job="ship", inputs={"percent": "lots", "region": "mars", "notify": "perhaps", "reasn": "x"}
        )
        text = refusal(run)
        for words in ("`percent` must be a number", "`region` must be one of eu, us", "`notify` must be true or false",
                      "did you mean `reason`?", "input `reason` is required"):  # fmt: skip
            assert words in text
        assert run.status("ship") == "waiting_approval"
        assert not run.state.jobs["ship"].votes

    def test_a_second_approver_cannot_change_what_the_first_saw(self, make):
        run = make.drive(make.job("ship", gate=Approval(required=2, inputs=self.FIELDS)))
        run.tick()
        run.command("approve", "ben", job="ship", inputs={"reason": "x", "percent": 5})
        run.command("approve", "cyd", job="ship", inputs={"percent": 100})
        assert "`percent` was already given as 5" in refusal(run)
        run.command("approve", "cyd", job="ship", inputs={"percent": 5, "region": "us"})
        assert run.state.jobs["ship"].inputs == {"reason": "x", "percent": 5, "region": "us"}

    def test_inputs_of_a_gate_that_takes_none_are_refused(self, make):
        run = gated(make)
        run.command("approve", job="ship", inputs={"x": 1})
        assert "unknown input `x`; this gate takes none" in refusal(run)

    @pytest.mark.parametrize(
        ("kind", "raw", "value"),
        [("number", "3", 3), ("number", "2.5", 2.5), ("number", 7, 7), ("number", "1e3", 1000), ("boolean", "off", False),
         ("boolean", True, True), ("string", 5, "5"), ("string", "", "")],
    )  # fmt: skip
    def test_text_becomes_the_fields_type(self, kind, raw, value):
        found = convert(Parameter("x", kind), raw)
        assert found == value
        assert type(found) is type(value)

    @pytest.mark.parametrize(
        ("kind", "raw"),
        [("number", "nan"), ("number", "inf"), ("number", True), ("number", None), ("number", []), ("boolean", 2),
         ("string", True), ("string", None), ("string", {}), ("choice", "x")],
    )  # fmt: skip
    def test_what_is_not_of_the_fields_type_is_refused(self, kind, raw):
        with pytest.raises(ValueError, match="must be"):
            convert(Parameter("x", kind), raw)

    def test_a_default_satisfies_a_required_field(self):
        fields = (Parameter("a", required=True, default="x"), Parameter("b", required=True))
        assert missing(fields, {}) == ["input `b` is required"]
        assert with_defaults(fields, {"b": "y"}) == {"a": "x", "b": "y"}

    def test_options_bind_plain_text_too(self):
        assert check_inputs((Parameter("a", options=("x",)),), {"a": "y"}, {})[1]


class TestInTheMiddleOfAJob:
    def waiting(self, make, **approval):
        steps = (
            make.step("1"),
            make.gate_step("2", **approval),
            make.step("3"),
            make.step("always-1", run_on="always"),
        )
        run = make.drive(
            make.job("ship", *steps, timeout=100.0), make.job("other", make.step("1"), make.step("2")), max_parallel=1
        )
        run.tick()
        run.finish("ship#1/1#1")
        return run

    def test_the_job_waits_and_leaves_its_place_to_others(self, make):
        run = self.waiting(make, message="sure?")
        assert run.status("ship") == "waiting_approval"
        assert run.state.jobs["ship"].steps["2"].status == "running"
        assert list(run.under_way) == ["other#1/1#1"]
        run.command("approve", "ben", job="ship")
        assert run.status("ship") == "queued"
        run.finish("other#1/1#1")
        run.finish("other#1/2#1")
        assert list(run.under_way) == ["ship#1/3#1"]
        assert run.state.jobs["ship"].steps["2"].outputs == {"approved_by": ["ben"]}

    def test_a_rejection_ends_the_job_after_its_always_steps(self, make):
        run = self.waiting(make)
        run.carry_on()
        run.command("reject", "ben", job="ship")
        run.carry_on()
        assert run.status("ship") == "rejected"
        assert run.started[-1] == "ship#1/always-1#1"
        assert run.state.jobs["ship"].steps["3"].status == "skipped"
        assert run.state.status == "rejected"

    def test_waiting_for_people_does_not_use_up_the_jobs_timeout(self, make):
        run = self.waiting(make)
        run.carry_on()
        run.sleep(5000)
        assert run.status("ship") == "waiting_approval"
        run.command("approve", "ben", job="ship")
        assert run.status("ship") == "running"
        assert run.wake_at == pytest.approx(run.now + 100)

    def test_its_own_timeout_rejects(self, make):
        run = self.waiting(make, timeout=50.0)
        run.carry_on()
        run.sleep()
        run.carry_on()
        assert run.state.jobs["ship"].steps["2"].status == "timed_out"
        assert run.status("ship") == "rejected"

    def test_two_gates_of_one_job_each_need_their_own_votes(self, make):
        run = make.drive(make.job("ship", make.gate_step("1"), make.step("2"), make.gate_step("3"), gate=Approval()))
        run.tick()
        for _ in range(2):
            run.command("approve", "ben", job="ship")
        run.finish("ship#1/2#1")
        assert run.status("ship") == "waiting_approval"
        run.command("approve", "ben", job="ship")
        assert run.state.status == "succeeded"
        assert [vote.gate for vote in run.state.jobs["ship"].votes] == ["", "1", "3"]
