from __future__ import annotations

import msgspec
import pytest

from forge.cli.render.paint import Paint, strip_ansi, width
from forge.cli.render.tables import Column, document, listing
from forge.cli.render.tree import Node, draw, environment_tree, header, plan_tree, release_tree, run_tree
from forge.core.pipeline.state import JobState, RunState, StepState
from forge.core.release.state import EnvironmentState, ReleaseState, Verdict, VersionState
from forge.model.configs import DeployConfig, VerifyConfig
from forge.model.plan import Approval, Concurrency, EnvironmentPlan, JobPlan, Plan, SecretReference, Source, StepPlan
from forge.model.strategy import Strategy, StrategyStep
from forge.model.traffic import ReplicaCount, Route, TrafficTable, Version
from forge.views.environment import environment_view
from forge.views.listing import RunRow, run_rows
from forge.views.plan import plan_view
from forge.views.run import run_view

PLAIN = Paint(colour=False)
CANARY = Strategy("canary", (StrategyStep(weight=500), StrategyStep(pause=600.0), StrategyStep(weight=5000)))


def shop() -> Plan:
    build = (
        StepPlan("1", "checkout", "checkout ."),
        StepPlan("2", "run", "make build\nmake more", {"script": "make build"}),
        StepPlan("on_failure-1", "run", "echo broken", {"script": "echo broken"}, run_on="failure"),
        StepPlan("always-1", "run", "rm -rf scratch", {"script": "rm"}, run_on="always"),
    )
    deploy = DeployConfig("production", "app.tar.gz", "1.4", CANARY)
    release = (
        StepPlan("1", "deploy", "deploy to production (canary)", msgspec.to_builtins(deploy)),
        StepPlan("2", "verify", "verify production", msgspec.to_builtins(VerifyConfig("production", for_seconds=30.0))),
    )
    return Plan(
        "shop",
        (
            JobPlan("build", "build", build),
            JobPlan("test (os=linux)", "test", (StepPlan("1", "run", "make test"),), ("build",), when="run.ref == 'main'"),
            JobPlan(
                "release", "release", release, ("build", "test (os=linux)"),
                gate=Approval("Is it well?", 2, ("ann", "bob")), concurrency=Concurrency("production"),
            ),
        ),
        Source("d" * 64, "0123456789abcdef", "main", dirty=True),
        parameters={"region": "eu"},
        secrets=(SecretReference("TOKEN", env="TOKEN"),),
        environments=(EnvironmentPlan("production", target_config={"replicas": 2, "command": ["x"]}),),
    )  # fmt: skip


def waiting_run() -> RunState:
    steps = {
        "1": StepState("succeeded", 1, 1000.0, 1000.4, 0),
        "2": StepState("succeeded", 2, 1000.5, 1012.5, 0, 36_900_000),
    }
    failed = {"1": StepState("failed", 1, 1013.0, 1016.0, 2, message="exit code 2")}
    return RunState(
        "run-7", "p" * 64, "waiting", "ann", 999.0, 1000.0, attempt=2,
        jobs={
            "build": JobState("build", "succeeded", 1, steps, started_at=1000.0, finished_at=1012.6),
            "test (os=linux)": JobState(
                "test (os=linux)", "failed", 2, failed, started_at=1013.0, finished_at=1016.0, message="step 1 failed"
            ),
            "release": JobState("release", "waiting_approval", waiting_since=1016.0),
        },
    )  # fmt: skip


def environment() -> EnvironmentState:
    release = ReleaseState(
        "production-2", "1.4", CANARY, "progressing", "ann", "run-7", 5.0, 10.0, step=1, previous="1.3",
        requests=412, failed_requests=3, verdict=Verdict("hold", "1.4: cannot know yet: 12 of at least 20 requests"),
        waits_for="the pause of 10m 0s",
    )  # fmt: skip
    other = ReleaseState("production-3", "1.5", Strategy(), "queued", created_at=4.0, waits_for="production-2 to end")
    old = ReleaseState("production-1", "1.3", Strategy(), "promoted", created_at=1.0, finished_at=4.0)
    versions = {
        "1.3": VersionState(Version("1.3"), 2, ReplicaCount(2, 2, 2)),
        "1.4": VersionState(Version("1.4"), 2, ReplicaCount(2, 2, 1, "replica 2: GET /healthz answered 503", 4)),
        "1.2": VersionState(Version("1.2"), 0, ReplicaCount(0, 0, 0)),
    }
    return EnvironmentState(
        "production", EnvironmentPlan("production"), "1.3", ("1.2",), versions,
        {one.id: one for one in (old, release, other)},
        TrafficTable({"1.3": 9500, "1.4": 500}, 3, (Route("1.4", header="x-try", value="new"),)), {"1.3": 9900, "1.4": 100},
    )  # fmt: skip


def test_run(golden):
    golden("run", "\n".join(run_tree(run_view(waiting_run(), shop(), 1060.0), PLAIN)))


def test_environment_with_a_canary(golden):
    view = environment_view(environment(), 100.0, address="http://127.0.0.1:8080")
    golden("environment", "\n".join(environment_tree(view, PLAIN)))


def test_releases_under_way(golden):
    golden("releases", "\n".join(release_tree(environment_view(environment(), 100.0), PLAIN)))


def test_rolled_back(golden):
    state = environment()
    bad = msgspec.structs.replace(
        state.releases["production-2"], status="rolled_back", finished_at=70.0, failed_requests=41,
        reason="1.4: 41 of 412 requests failed (10 %) in the last 10s, above the limit of 5 %",
    )  # fmt: skip
    state = msgspec.structs.replace(
        state, releases={"production-2": bad}, traffic=TrafficTable({"1.3": 10000}, 4), observed={"1.3": 10000}
    )
    golden("rolled-back", "\n".join(environment_tree(environment_view(state, 100.0), PLAIN)))


def test_plan(golden):
    golden("plan", "\n".join(plan_tree(plan_view(shop()), PLAIN)))


def runs() -> list[RunRow]:
    early = RunState("run-6", "p", "succeeded", "bob", 100.0, 100.0, 160.0)
    return run_rows([(early, shop()), (waiting_run(), shop())], 1060.0)


def columns() -> list[Column[RunRow]]:
    from unittest.mock import patch

    from forge.cli.runs import _columns
    from forge.cli.session import Session
    from forge.cli.terminal import Terminal

    with patch("time.time", return_value=1060.0):
        from pathlib import Path

        return _columns(Session(Path(), Terminal()))


@pytest.mark.parametrize("output", ["table", "wide", "json", "yaml", "name"])
def test_runs(golden, output):
    golden(f"runs-{output}", listing(runs(), columns(), output, name=lambda row: row.id))


def test_no_runs():
    assert listing([], columns(), "table", name=lambda row: row.id, empty="no runs yet") == "no runs yet"
    assert listing([], columns(), "json", name=lambda row: row.id, empty="no runs yet") == "[]"
    assert listing([], columns(), "name", name=lambda row: row.id, empty="no runs yet") == ""


def test_json_and_yaml_say_the_same():
    import json

    import yaml

    view = run_view(waiting_run(), shop(), 1060.0)
    assert yaml.safe_load(document(view, "yaml")) == json.loads(document(view, "json"))


@pytest.mark.parametrize("tree", [run_tree(run_view(waiting_run(), shop(), 1060.0), Paint(colour=True))])
def test_colours_change_nothing_but_colours(tree):
    assert any("\x1b[" in line for line in tree)
    plain = run_tree(run_view(waiting_run(), shop(), 1060.0), PLAIN)
    assert [strip_ansi(line) for line in tree] == plain


def test_a_tree_is_cut_to_the_terminal():
    nodes = [Node("a" * 80, "info", [Node("b" * 200)])]
    assert max(width(line) for line in draw(nodes, max_width=40)) == 40


def test_header_leaves_out_what_is_empty():
    assert header([("A", "1"), ("Longer", ""), ("Be", "2")]) == ["A:   1", "Be:  2"]
