"""Concurrency groups: one after another, in order of arrival, nothing dropped, nothing leaked."""

from __future__ import annotations

import pytest

from forge.core.pipeline.slots import Holder, is_left_behind
from forge.model.plan import Approval, Concurrency, Retry

ONE = Concurrency("deploy")


def test_jobs_of_one_group_run_one_after_another(make):
    run = make.drive(make.job("a", concurrency=ONE), make.job("b", concurrency=ONE), make.job("c"))
    run.tick()
    assert sorted(run.under_way) == ["a#1/1#1", "c#1/1#1"]
    assert run.status("b") == "queued"
    assert run.state.jobs["b"].waits_for == "a place in concurrency group `deploy`: number 1 in the queue"
    run.finish("a#1/1#1")
    run.tick()
    assert "b#1/1#1" in run.under_way
    run.carry_on()
    assert run.state.status == "succeeded"
    assert run.groups.empty


def test_two_runs_share_a_group_in_order_of_arrival(make):
    groups = make.Groups()
    runs = [make.drive(make.job("a", concurrency=ONE), groups=groups, run=f"run-{number}") for number in (1, 2, 3)]
    for run in runs:
        run.tick()
    assert [bool(run.started) for run in runs] == [True, False, False]
    assert runs[2].state.jobs["a"].slot.position == 2
    for run in runs:
        run.tick()
        run.carry_on()
        assert run.state.status == "succeeded"
    assert groups.empty


def test_a_whole_run_waits_for_its_place(make):
    groups = make.Groups()
    first, second = (make.drive(make.job("a"), concurrency=ONE, groups=groups, run=f"run-{n}") for n in (1, 2))
    first.tick()
    second.tick()
    assert (second.state.status, second.state.started_at) == ("queued", None)
    assert "number 1 in the queue" in second.state.waits_for
    assert second.wake_at == second.now + 15
    first.carry_on()
    assert first.state.status == "succeeded"
    second.carry_on()
    assert second.state.status == "succeeded"
    assert groups.empty


def test_a_run_is_not_over_before_its_places_are_given_back(make):
    run = make.drive(make.job("a", concurrency=ONE))
    run.tick()
    run.performs_slots = False
    run.finish("a#1/1#1")
    assert run.status("a") == "succeeded"
    assert run.state.status == "running"
    assert "given back" in run.state.waits_for
    run.finish("slot_free:a@1")
    assert run.state.status == "succeeded"


def test_a_job_that_is_cancelled_while_it_asks_gives_the_place_back_when_it_comes(make):
    run = make.drive(make.job("a", concurrency=ONE))
    run.performs_slots = False
    run.tick()
    run.command("cancel")
    assert run.status("a") == "cancelled"
    assert run.state.status != "cancelled"
    run.finish("slot_ask:a@1", position=0)
    assert "slot_free:a@1" in run.under_way
    run.finish("slot_free:a@1")
    assert run.state.status == "cancelled"


def test_a_job_that_is_cancelled_in_the_queue_leaves_it(make):
    groups = make.Groups()
    first, second = (make.drive(make.job("a", concurrency=ONE), groups=groups, run=f"run-{n}") for n in (1, 2))
    first.tick()
    second.tick()
    second.command("cancel")
    assert second.state.status == "cancelled"
    assert groups.queue["deploy"] == []


def test_a_retried_job_keeps_its_place_between_attempts(make):
    run = make.drive(make.job("a", concurrency=ONE, retry=Retry(2, delay=9)))
    run.tick()
    run.finish("a#1/1#1", "failed")
    assert run.groups.held["deploy"] == ["run-1/a@1"]
    run.sleep()
    run.carry_on()
    assert run.groups.empty


def test_a_gate_is_asked_before_a_place_is_taken(make):
    run = make.drive(make.job("a", concurrency=ONE, gate=Approval()))
    run.tick()
    assert run.groups.empty
    run.command("approve")
    assert run.status("a") == "running"


def test_a_retry_of_the_run_asks_again(make):
    run = make.drive(make.job("a", concurrency=ONE), concurrency=Concurrency("all"))
    run.carry_on(lambda _key: "failed")
    assert run.groups.empty
    run.command("retry")
    run.carry_on()
    assert run.state.status == "succeeded"
    assert run.groups.empty


def test_the_groups_name_may_be_an_expression(make):
    run = make.drive(make.job("a", concurrency=Concurrency("deploy-${{ params.where }}")), parameters={"where": "eu"})
    run.tick()
    assert run.groups.held == {"deploy-eu": ["run-1/a@1"]}


@pytest.mark.parametrize("of_run", [True, False])
def test_a_group_whose_name_is_wrong_is_an_error(make, of_run):
    wrong = Concurrency("${{ params.nope }}")
    run = make.drive(make.job("a", concurrency=None if of_run else wrong), concurrency=wrong if of_run else None)
    run.carry_on()
    assert (run.status("a"), run.state.status) == ("error", "error")
    assert "nope" in run.state.jobs["a"].message


@pytest.mark.parametrize("of_run", [True, False])
def test_a_place_that_cannot_be_asked_for_is_an_error(make, of_run):
    run = make.drive(make.job("a", concurrency=None if of_run else ONE), concurrency=ONE if of_run else None)
    run.performs_slots = False
    run.tick()
    (key,) = run.under_way
    run.finish(key, "error", "the database is away")
    assert run.state.status == "error"
    assert "the database is away" in run.state.message


def test_a_place_that_was_not_given_back_is_told(make):
    run = make.drive(make.job("a", concurrency=ONE))
    run.tick()
    run.performs_slots = False
    run.finish("a#1/1#1")
    run.finish("slot_free:a@1", "error", "away")
    assert run.said("slot_not_freed")
    assert run.state.status == "succeeded"


def test_asking_others_to_stop_is_passed_on(make):
    run = make.drive(make.job("a", concurrency=Concurrency("deploy", when_busy="cancel_running")))
    run.performs_slots = False
    assert run.tick().actions[0].payload["cancel_running"] is True


def test_a_run_whose_jobs_all_wait_behind_one_gate_waits_for_a_person(make):
    first = make.job("a", make.gate_step("1"), make.step("2"), concurrency=ONE)
    run = make.drive(first, make.job("b", concurrency=ONE))
    run.tick()
    assert run.state.status == "waiting"
    assert run.state.waits_for == "approval of `a`"
    run.command("approve", job="a")
    run.carry_on()
    assert run.state.status == "succeeded"


class TestPlacesLeftBehind:
    """A worker that was cut off may take a place when its run has long given it back."""

    @pytest.mark.parametrize("name", ["run-1/a@1", "run-1/@1", "run-1/test (os=x/y)@12"])
    def test_holders_are_told_by_their_names(self, name):
        assert str(Holder.parse(name)) == name

    def test_a_place_of_a_job_that_ended_is_nobodys(self, make):
        run = make.drive(make.job("a", concurrency=ONE), make.job("b"))
        holder = Holder("run-1", 1, "a")
        assert not is_left_behind(holder, run.state)
        run.tick()
        assert not is_left_behind(holder, run.state)
        run.performs_slots = False
        run.finish("a#1/1#1")
        assert not is_left_behind(holder, run.state), "it is still being given back"
        run.finish("slot_free:a@1")
        assert is_left_behind(holder, run.state)
        assert not is_left_behind(Holder("run-1", 1, ""), run.state)

    def test_a_place_of_an_earlier_attempt_of_the_run_is_nobodys(self, make):
        run = make.drive(make.job("a", concurrency=ONE), concurrency=Concurrency("all"))
        run.carry_on(lambda _key: "failed")
        assert is_left_behind(Holder("run-1", 1, ""), run.state)
        run.command("retry")
        assert is_left_behind(Holder("run-1", 1, "a"), run.state)
        assert not is_left_behind(Holder("run-1", 2, "a"), run.state)


class TestCaches:
    def test_caches_are_kept_before_the_run_is_over(self, make):
        run = make.drive(make.job("a", make.step("1", "cache"), make.step("2")))
        run.performs_slots = False
        run.tick()
        run.finish("a#1/1#1")
        run.finish("a#1/2#1")
        assert list(run.under_way) == ["save_caches:a@1"]
        assert (run.status("a"), run.state.status) == ("succeeded", "running")
        assert "caches" in run.state.waits_for
        run.finish("save_caches:a@1", "error", "disk full")
        assert run.state.status == "succeeded"
        assert "disk full" in run.said("caches_not_saved")[0]

    def test_a_failed_job_keeps_no_caches(self, make):
        run = make.drive(make.job("a", make.step("1", "cache"), make.step("2")))
        run.carry_on(lambda key: "failed" if "/2#" in key else "succeeded")
        assert not any(key.startswith("save_caches") for key in run.keys)
