"""Performing a step: what its result, its errors and its end mean to the run."""

from __future__ import annotations

import asyncio

import pytest

from forge.adapters.artifacts.memory import MemoryArtifacts
from forge.adapters.steps.base import StepResult
from forge.core.pipeline.decide import new_run
from forge.core.pipeline.keys import StepKey
from forge.engine.project import Project
from forge.engine.step_performing import StepPerformer
from forge.model.decision import Action
from forge.model.errors import DependencyFailed
from forge.model.plan import JobPlan, Plan, SecretReference, Source, StepPlan


class Remembering:
    """A runner that remembers what it was asked to end."""

    def __init__(self):
        self.killed = []

    async def kill(self, key, grace=0.0):
        self.killed.append(key)
        return 1


class NoStore:
    documents = None


class Bench:
    """Performs one step, whose behaviour is a function of its context."""

    def __init__(self, root, monkeypatch):
        self.project, self.runner, self.monkeypatch = Project(root), Remembering(), monkeypatch
        self.context = None

    async def perform(self, behaviour, *, variables=None, secrets=None, **fields):
        for name, value in (secrets or {}).items():
            self.monkeypatch.setenv(f"FROM_{name}", value)
        step = StepPlan("1", "test", "one", fields.pop("config", {}), **fields)
        references = tuple(SecretReference(name, env=f"FROM_{name}") for name in secrets or {})
        plan = Plan("p", (JobPlan("a", "a", (step,)),), Source(""), secrets=references)
        key = StepKey("a", 1, "1", 1)
        payload = {"job": "a", "attempt": 1, "step": "1", "step_attempt": 1, "variables": variables or {}}
        bench = self

        class Step:
            async def run(self, context):
                bench.context = context
                return await behaviour(context)

        performer = StepPerformer(
            NoStore(), self.project, MemoryArtifacts(), self.runner, None, step_of_kind=lambda _kind: Step()
        )  # fmt: skip
        return await performer.perform(
            plan, new_run(plan, "run-7", actor="ana", at=0.0), Action(str(key), "step", payload)
        )

    @property
    def log(self):
        return self.project.step_log("run-7", "a", 1, "1").read_text()


@pytest.fixture
def bench(tmp_path, monkeypatch):
    return Bench(tmp_path, monkeypatch)


async def fine(_context):
    return StepResult("succeeded", exit_code=0)


async def test_a_result_becomes_an_outcome(bench):
    async def work(_context):
        return StepResult("failed", "exit code 3", 3, 4096, {"a": 1})

    outcome = await bench.perform(work)
    assert (outcome.key, outcome.result, outcome.message) == ("a#1/1#1", "failed", "exit code 3")
    assert outcome.data == {"exit_code": 3, "peak_memory": 4096, "outputs": {"a": 1}}


async def test_an_expected_error_is_told_with_its_hint(bench):
    async def work(_context):
        raise DependencyFailed("the registry is away", hint="try later")

    outcome = await bench.perform(work)
    assert (outcome.result, outcome.message) == ("error", "the registry is away; try later")
    assert "the registry is away" in bench.log


async def test_an_unexpected_error_leaves_its_traceback_in_the_log_without_secrets(bench):
    async def work(context):
        raise RuntimeError(f"bad password {context.env['PASSWORD']}")

    outcome = await bench.perform(work, secrets={"PASSWORD": "hunter2000"})
    assert (outcome.result, outcome.message) == ("error", "RuntimeError: bad password ***")
    assert "Traceback" in bench.log
    assert "hunter2000" not in bench.log


async def test_secrets_are_masked_in_messages_and_outputs_however_deep(bench):
    async def work(context):
        secret = context.env["PASSWORD"]
        return StepResult("failed", f"no {secret}", outputs={"a": [{"b": (secret,)}], "n": 1})

    outcome = await bench.perform(work, secrets={"PASSWORD": "hunter2000"})
    assert outcome.message == "no ***"
    assert outcome.data["outputs"] == {"a": [{"b": ["***"]}], "n": 1}


async def test_a_secret_that_is_too_short_to_hide_is_warned_of(bench):
    await bench.perform(fine, secrets={"PIN": "123"})
    assert "the secret PIN is too short to be hidden" in bench.log


async def test_configuration_is_interpolated_and_values_are_not_expressions(bench):
    config = {"name": "${{ params.tag }}.tar", "list": ["$${{ x }}", {"deep": "${{ params.n }}"}], "count": 3}
    outcome = await bench.perform(fine, config=config, variables={"params": {"tag": "${{ 1 }}", "n": 5}})
    assert outcome.result == "succeeded", outcome.message
    assert bench.context.step.config == {"name": "${{ 1 }}.tar", "list": ["${{ x }}", {"deep": "5"}], "count": 3}


async def test_a_wrong_expression_is_an_error(bench):
    outcome = await bench.perform(fine, config={"name": "${{ params.nope }}"})
    assert outcome.result == "error"
    assert "nope" in outcome.message


async def test_a_timeout_stops_the_step(bench):
    ended = asyncio.Event()

    async def work(_context):
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    outcome = await bench.perform(work, timeout=0.05)
    assert (outcome.result, ended.is_set()) == ("timed_out", True)
    assert "did not end within" in outcome.message


async def test_a_timeout_inside_of_the_step_is_not_the_steps_own(bench):
    async def work(_context):
        raise TimeoutError("a socket")

    assert (await bench.perform(work, timeout=60.0)).result == "error"


async def test_cancelling_waits_for_the_step_to_stop_and_makes_no_outcome(bench):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work(_context):
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.02)
            ended.set()

    performing = asyncio.create_task(bench.perform(work))
    await begun.wait()
    performing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await performing
    assert ended.is_set()


async def test_what_is_left_of_an_interrupted_execution_is_ended_first(bench):
    async def interrupted(_context):
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await bench.perform(interrupted)
    assert bench.runner.killed == []
    await bench.perform(fine)
    assert bench.runner.killed == ["run-7/a#1/1#1"]
    assert "run again" in bench.log
    bench.runner.killed.clear()
    await bench.perform(fine)
    assert bench.runner.killed == [], "the last one was not interrupted"
