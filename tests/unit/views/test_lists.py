from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.steps.base import PublishedArtifact
from forge.core.pipeline.state import JobState, RunState
from forge.model.configs import DeployConfig
from forge.model.plan import Approval, JobPlan, Plan, Source, StepPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.views.listing import artifact_row, run_row, run_rows
from forge.views.plan import plan_view, summary

PLAN = Plan("shop", (JobPlan("a", "a", ()), JobPlan("b", "b", (), depends_on=("a",))), Source("", "c0ffee", "main"))


def test_a_row_has_id_state_and_jobs():
    state = RunState("run-3", "p", "failed", "ann", 5.0, 6.0, 9.0, jobs={"a": JobState("a", "failed")})
    row = msgspec.to_builtins(run_row(state, PLAN, 99.0))
    assert (row["id"], row["state"], row["duration"]) == ("run-3", "failed", 3.0)
    assert row["jobs"] == ({"name": "a", "state": "failed"}, {"name": "b", "state": "pending"})
    assert (row["actor"], row["commit"], row["ref"], row["pipeline"]) == ("ann", "c0ffee", "main", "shop")


def test_done_counts_what_is_behind():
    jobs = {"a": JobState("a", "succeeded"), "b": JobState("b", "skipped")}
    assert run_row(RunState("run-1", "p", jobs=jobs), PLAN, 1.0).done == "2/2"
    assert run_row(RunState("run-1", "p"), PLAN, 1.0).done == "0/2"


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3)), unique_by=lambda pair: pair[0]))
def test_newest_first_and_the_higher_number_of_the_same_moment(runs):
    rows = run_rows([(RunState(f"run-{number}", "p", created_at=float(at)), PLAN) for number, at in runs], 99.0)
    order = [(row.created_at, int(row.id.removeprefix("run-"))) for row in rows]
    assert order == sorted(order, reverse=True)
    assert len(rows) == len(runs)


def test_an_artifact_keeps_what_it_is():
    row = artifact_row(PublishedArtifact("app.tar.gz", "d" * 64, 12, "run-1", "build", "3", "p", "c", 7.0))
    assert (row.name, row.digest, row.size, row.job, row.created_at) == ("app.tar.gz", "d" * 64, 12, "build", 7.0)


def test_a_plan_in_one_line():
    deploy = DeployConfig(
        "production", "app", strategy=Strategy("canary", (StrategyStep(500), StrategyStep(pause=60.0)))
    )
    step = StepPlan("1", "deploy", "deploy", msgspec.to_builtins(deploy))
    gated = JobPlan("b", "b", (step,), depends_on=("a",), gate=Approval())
    assert summary(plan_view(Plan("x", (JobPlan("a", "a", ()), gated), Source("")))) == (
        "2 jobs in 2 waves, 1 gate, 1 release; waits at least 1m 0s"
    )
    assert summary(plan_view(Plan("x", (JobPlan("a", "a", ()),), Source("")))) == "1 job in 1 wave, 0 gates, 0 releases"
