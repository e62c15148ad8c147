"""Which environments a run or a gate is about, and who may act on them."""

from __future__ import annotations

import pytest

from forge.model.plan import JobPlan, Plan, Source, StepPlan
from forge.server.api.rights import (
    behind_gates,
    check_environments,
    environment_of_release,
    environments_of_job,
    environments_of_plan,
)
from forge.server.identity.permissions import Grant, Permission, Principal, Role
from forge.server.problems import Problem


def step(kind: str, **config) -> StepPlan:
    return StepPlan(id=kind, name=kind, kind=kind, config=config)


def job(name: str, *steps: StepPlan, environment: str = "") -> JobPlan:
    return JobPlan(name=name, base=name, steps=steps, environment=environment)


PLAN = Plan(
    name="shop",
    source=Source(digest=""),
    jobs=(
        job("build", step("run", script="make")),
        job("stage", step("deploy", environment="staging")),
        job("release", step("deploy", environment="production"), step("verify", environment="production")),
        job("undo", step("rollback", environment="canary")),
        job("tell", step("run", script="echo"), environment="wiki"),
    ),
)


def somebody(*grants: Grant) -> Principal:
    return Principal("ann", "user", "ann", grants)


def test_a_job_changes_what_its_steps_name_and_what_it_says_itself():
    assert [environments_of_job(one) for one in PLAN.jobs] == [
        frozenset(), {"staging"}, {"production"}, {"canary"}, {"wiki"},
    ]  # fmt: skip
    assert environments_of_plan(PLAN) == {"staging", "production", "canary", "wiki"}


def test_behind_a_gate_is_what_its_job_changes():
    assert behind_gates(PLAN, ["release"]) == {"production"}
    assert behind_gates(PLAN, ["stage", "release"]) == {"staging", "production"}
    assert behind_gates(PLAN, ["build", "nobody"]) == frozenset()


@pytest.mark.parametrize(
    ("grants", "environments", "allowed"),
    [
        ([Grant(Role.RUNNER)], ["staging", "production"], True),
        ([Grant(Role.ADMIN)], ["staging"], True),
        ([Grant(Role.RUNNER, "shop")], [], True),
        ([Grant(Role.RUNNER, "shop", "staging")], ["staging"], True),
        ([Grant(Role.RUNNER, "shop", "staging")], ["staging", "production"], False),
        (
            [Grant(Role.RUNNER, "shop", "staging"), Grant(Role.RUNNER, "shop", "production")],
            ["staging", "production"],
            True,
        ),
        ([Grant(Role.RUNNER, "shop", "staging")], [], False),
        ([Grant(Role.RUNNER, "till")], ["staging"], False),
        ([Grant(Role.VIEWER), Grant(Role.APPROVER)], ["staging"], False),
        ([], [], False),
    ],
)
def test_every_environment_is_needed_and_without_any_the_whole_project(grants, environments, allowed):
    principal = somebody(*grants)
    if allowed:
        check_environments(principal, Permission.RUN, "shop", environments, "it")
        return
    with pytest.raises(Problem) as caught:
        check_environments(principal, Permission.RUN, "shop", environments, "it")
    assert caught.value.status == 403
    assert "run" in caught.value.detail


@pytest.mark.parametrize(
    ("release", "environment"),
    [
        ("production-7", "production"),
        ("eu-west-1-12", "eu-west-1"),
        ("production", ""),
        ("production-x", ""),
        ("-1", ""),
    ],
)
def test_a_release_names_its_environment(release, environment):
    assert environment_of_release(release) == environment
