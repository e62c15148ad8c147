"""Migrations as steps: the environment hears of a contract before it begins, and how it ended; an expand is told to nobody."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from forge.adapters.steps.base import StepContext, StepResult
from forge.adapters.steps.migrating import environment_name, performed
from forge.model.errors import DependencyFailed
from forge.model.migrations import Contract, Migration
from forge.model.plan import EnvironmentPlan

DONE = StepResult("succeeded")


class Heard:
    """An environment that writes down what it hears, and when."""

    def __init__(self, order: list[str], refusal: str = "") -> None:
        self.order = order
        self.refusal = refusal
        self.contracts: list[Contract] = []
        self.ended: list[dict[str, Any]] = []

    async def begin_contract(self, environment: EnvironmentPlan, contract: Contract, *, actor: str) -> str:
        self.order.append(f"begin in {environment.name} by {actor}")
        self.contracts.append(contract)
        return self.refusal

    async def command(self, environment: str, kind: str, payload: dict[str, Any], *, key: str, actor: str) -> str:
        self.order.append(kind)
        self.ended.append({**payload, "key": key})
        return ""


class Work:
    kind = "run"

    def __init__(self, order: list[str], result: StepResult | Exception) -> None:
        self.order = order
        self.result = result

    async def run(self, context: StepContext) -> StepResult:
        self.order.append("work")
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


@pytest.fixture
def bench(job: Any) -> Any:
    order: list[str] = []

    async def perform(
        migration: Migration | None, result: StepResult | Exception = DONE, refusal: str = "",
        job_environment: str = "",
    ) -> tuple[StepResult, Heard]:  # fmt: skip
        context = job.context("run", {"script": "true"})
        context.step = replace(context.step, migration=migration, name="drop price")
        context.plan = replace(context.plan, environments=(EnvironmentPlan("production"), EnvironmentPlan("staging")))
        context.job = replace(context.job, environment=job_environment)
        heard = context.releases = Heard(order, refusal)
        return await performed(Work(order, result), context), heard

    perform.order = order  # type: ignore[attr-defined]
    return perform


async def test_a_step_that_is_no_migration_tells_nobody(bench: Any) -> None:
    result, _ = await bench(None)
    assert (result.outcome, bench.order) == ("succeeded", ["work"])


async def test_an_expand_takes_nothing_away_so_nobody_has_to_know(bench: Any) -> None:
    await bench(Migration("expand", "production"))
    assert bench.order == ["work"]


async def test_a_contract_is_told_before_it_begins_and_when_it_is_over(bench: Any) -> None:
    result, heard = await bench(Migration("contract", "production", "1.4"))
    assert result.outcome == "succeeded"
    assert bench.order == ["begin in production by tester", "work", "end_contract"]
    (contract,) = heard.contracts
    assert (contract.step, contract.since, contract.run) == ("drop price", "1.4", "run-1")
    assert heard.ended[0]["contract"] == contract.key
    assert heard.ended[0]["failed"] == ""


async def test_a_contract_that_is_refused_does_not_begin(bench: Any) -> None:
    result, _ = await bench(Migration("contract", "production", "1.4"), refusal="1.3 is stable")
    assert (result.outcome, result.message) == ("failed", "this migration was not begun: 1.3 is stable")
    assert bench.order == ["begin in production by tester"]


async def test_a_contract_that_fails_is_told_with_its_reason(bench: Any) -> None:
    result, heard = await bench(Migration("contract", "production", "1.4"), StepResult("failed", "exit code 3", 3))
    assert (result.outcome, result.exit_code) == ("failed", 3)
    assert heard.ended[0]["failed"] == "exit code 3"


async def test_a_contract_whose_step_could_not_be_performed_counts_as_failed(bench: Any) -> None:
    with pytest.raises(DependencyFailed):
        await bench(Migration("contract", "production", "1.4"), DependencyFailed("no such shell"))
    assert bench.order == ["begin in production by tester", "work", "end_contract"]


@pytest.mark.parametrize(
    ("own", "of_job", "expected"), [("production", "staging", "production"), ("", "staging", "staging"), ("", "", "")]
)
async def test_which_environment_it_is_about(bench: Any, own: str, of_job: str, expected: str) -> None:
    _, heard = await bench(Migration("contract", own, "1.4"), job_environment=of_job)
    told = [words for words in bench.order if words.startswith("begin")]
    assert told == ([f"begin in {expected} by tester"] if expected else [])
    assert len(heard.contracts) == len(told)


async def test_a_job_step_has_its_environment_by_itself(job: Any) -> None:
    context = job.context("job", {"manifest": "m.yaml", "environment": "production"})
    assert environment_name(context, Migration("contract", "", "1")) == "production"
    assert environment_name(context, Migration("contract", "staging", "1")) == "staging"
