"""`deploy`, `verify` and `rollback` against a release client that plays an environment; time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from forge.adapters.steps.base import PublishedArtifact, StepResult
from forge.adapters.steps.registry import step
from forge.model.configs import DeployConfig, RollbackConfig, VerifyConfig
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Threshold
from forge.model.traffic import Route

pytestmark = pytest.mark.looptime

WITHIN = {"exceeded": False, "why": "1 of 100 requests failed (1 %)", "rate": 0.01}
ABOVE = {"exceeded": True, "why": "9 of 100 requests failed (9 %)", "rate": 0.09}
UNKNOWN = {"exceeded": None, "why": "cannot know yet: 0 of at least 1 requests", "requests": 0}
SERVING = {"settled": True, "stable": "1.0", "wanted": 2, "ready": 2, "waits_for": "", "problem": ""}
STARTING = {**SERVING, "ready": 1, "problem": "readiness: connection refused"}
PROMOTED = {"status": "promoted", "reason": "all steps passed", "version": "1.1", "requests": 200, "failed_requests": 1}


class PlayedEnvironment:
    """Gives the answers it was told, in order, the last one for ever; keeps what it was asked."""

    def __init__(
        self,
        *,
        views: list[dict[str, Any]] | None = None,
        findings: list[dict[str, Any]] | None = None,
        ends: dict[str, Any] | None = None,
        lasts: float = 0.0,
        refusal: str = "",
        cancelled: bool = False,
    ):
        self.views = views or [SERVING]
        self.findings = findings or [WITHIN]
        self.ends = ends or PROMOTED
        self.lasts = lasts
        self.refusal = refusal
        self.cancelled = cancelled
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.withdrawn: list[str] = []

    async def deploy(self, environment: EnvironmentPlan, request: dict[str, Any], *, key: str, actor: str) -> str:
        self.asked.append(("deploy", {**request, "key": key, "actor": actor}))
        return f"{environment.name}-2"

    async def wait(self, environment: str, release: str, on_change: Callable[[str], None]) -> dict[str, Any]:
        on_change(f"{release}: weight 5% -> 25%")
        await asyncio.sleep(self.lasts)
        return self.ends

    async def command(self, environment: str, kind: str, payload: dict[str, Any], *, key: str, actor: str) -> str:
        self.asked.append((kind, {**payload, "key": key}))
        if kind == "abort":
            self.lasts, self.ends = 0.0, {**self.ends, "status": "aborted", "reason": payload["comment"]}
        return self.refusal

    async def view(self, environment: str) -> dict[str, Any]:
        return self.views.pop(0) if len(self.views) > 1 else self.views[0]

    async def address(self, environment: str) -> str:
        return "http://127.0.0.1:8080"

    async def examine(self, environment: str, thresholds: tuple[Threshold, ...]) -> list[dict[str, Any]]:
        return [self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]]

    async def withdraw(self, run: str, key: str, environment: str, release: str, actor: str) -> bool:
        if self.cancelled:
            await asyncio.sleep(1)
            self.withdrawn.append(release)
        return self.cancelled


@pytest.fixture
def perform(job: Any) -> Callable[..., Any]:
    async def perform(kind: str, config: msgspec.Struct, environment: PlayedEnvironment) -> StepResult:
        context = job.context(kind, msgspec.to_builtins(config))
        production = EnvironmentPlan("production", target_config={"command": ["true"], "replicas": 2})
        context.plan = replace(context.plan, environments=(production,))
        context.releases = environment
        await context.index.publish(
            PublishedArtifact("app.tar.gz", "abcdef0123456789", 1, "run-1", "build", "1", "p", "", 0.0)
        )
        return await step(kind).run(context)

    return perform


async def test_deploy_asks_for_the_artifact_by_its_hash_and_reports_the_promotion(perform: Any) -> None:
    environment = PlayedEnvironment()
    result = await perform(
        "deploy", DeployConfig("production", artifact="app.tar.gz", target={"replicas": 3}), environment
    )
    asked = environment.asked[0][1]
    assert result.outcome == "succeeded"
    assert result.message == "production-2 was promoted; 1 of 200 requests failed"
    assert result.outputs["release"] == "production-2"
    assert result.outputs["address"] == "http://127.0.0.1:8080"
    assert result.outputs["environment"] == "production"
    assert (result.outputs["version"], result.outputs["status"]) == ("1.1", "promoted")
    assert len(asked["version"]["id"]) == 12
    assert asked["request"]["version"] == asked["version"]["id"]
    assert asked["version"]["artifact"] == "abcdef0123456789"
    assert asked["version"]["config"] == {"command": ["true"], "replicas": 3}
    assert asked["actor"] == "tester"


async def test_another_configuration_of_the_same_build_is_another_version(perform: Any) -> None:
    environment = PlayedEnvironment()
    for replicas in (2, 3, 3):
        config = DeployConfig("production", artifact="app.tar.gz", target={"replicas": replicas})
        await perform("deploy", config, environment)
    two, three, again = [asked["version"]["id"] for _, asked in environment.asked]
    assert two != three
    assert three == again


async def test_a_route_without_a_version_leads_to_the_one_that_is_deployed(perform: Any) -> None:
    environment = PlayedEnvironment()
    routes = (Route("", header="x-canary", value="1"), Route("1.0", cookie="old", value="1"))
    await perform("deploy", DeployConfig("production", version="1.1", routes=routes), environment)
    assert [route["version"] for route in environment.asked[0][1]["request"]["routes"]] == ["1.1", "1.0"]


async def test_deploy_of_an_artifact_that_nobody_published_fails_before_anything_is_asked(perform: Any) -> None:
    environment = PlayedEnvironment()
    result = await perform("deploy", DeployConfig("production", artifact="other.tar.gz"), environment)
    assert (result.outcome, result.message) == ("failed", "no job of this run published `other.tar.gz`")
    assert environment.asked == []


async def test_deploy_fails_with_the_reason_of_the_rollback(perform: Any) -> None:
    ends = {**PROMOTED, "status": "rolled_back", "reason": "error rate above 5 %", "failed_requests": 17}
    result = await perform("deploy", DeployConfig("production", version="1.1"), PlayedEnvironment(ends=ends))
    assert result.outcome == "failed"
    assert result.message == ("production-2 was rolled back: error rate above 5 %; 17 of 200 requests failed")
    assert result.outputs["status"] == "rolled_back"
    assert result.outputs["address"] == "http://127.0.0.1:8080", "the steps of `on_failure` may want it"


async def test_deploy_that_does_not_wait_says_how_to_watch(perform: Any, job: Any) -> None:
    result = await perform(
        "deploy", DeployConfig("production", version="1.1", wait=False), PlayedEnvironment(lasts=1e9)
    )
    assert (result.outcome, result.message) == ("succeeded", "production-2 is under way")
    assert "forge release watch production" in job.log.read_text()


async def test_deploy_aborts_a_release_that_takes_too_long(perform: Any) -> None:
    environment = PlayedEnvironment(lasts=1e9)
    result = await perform("deploy", DeployConfig("production", version="1.1", timeout=60.0), environment)
    assert result.outcome == "timed_out"
    assert "was not over within 1m 0s; it was aborted" in result.message
    assert environment.asked[-1][0] == "abort"


@pytest.mark.parametrize("cancelled", [True, False])
async def test_deploy_withdraws_its_release_only_when_the_step_was_told_to_stop(perform: Any, cancelled: bool) -> None:
    environment = PlayedEnvironment(lasts=1e9, cancelled=cancelled)
    task = asyncio.create_task(perform("deploy", DeployConfig("production", version="1.1"), environment))
    await asyncio.sleep(5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert environment.withdrawn == (["production-2"] if cancelled else [])


async def test_verify_waits_for_the_rollout_then_judges(perform: Any, looptime: Any, job: Any) -> None:
    environment = PlayedEnvironment(views=[STARTING] * 8 + [SERVING])
    result = await perform("verify", VerifyConfig("production"), environment)
    assert (result.outcome, result.message) == ("succeeded", WITHIN["why"])
    assert looptime == 2.0
    log = job.log.read_text()
    assert log.count("waiting for the rollout: 1 of 2 replicas are ready readiness: connection refused") == 1
    assert "1.0 is rolled out" in log


async def test_verify_fails_when_the_rollout_is_late(perform: Any, looptime: Any) -> None:
    result = await perform("verify", VerifyConfig("production"), PlayedEnvironment(views=[STARTING]))
    assert result.outcome == "failed"
    assert "did not reach its ready state within 5m 0s: 1 of 2 replicas are ready" in result.message
    assert looptime == 300


async def test_verify_watches_for_as_long_as_it_is_told(perform: Any, looptime: Any) -> None:
    config = VerifyConfig("production", for_seconds=60.0)
    late = PlayedEnvironment(findings=[WITHIN, WITHIN, WITHIN, ABOVE])
    result = await perform("verify", config, late)
    assert (result.outcome, result.message, result.outputs["rate"]) == ("failed", ABOVE["why"], 0.09)
    assert looptime == 45
    assert (await perform("verify", config, PlayedEnvironment())).outcome == "succeeded"
    assert looptime == 105


async def test_verify_neither_passes_nor_fails_what_it_cannot_measure(perform: Any, looptime: Any, job: Any) -> None:
    result = await perform("verify", VerifyConfig("production"), PlayedEnvironment(findings=[UNKNOWN]))
    assert result.outcome == "error"
    assert "nothing could be judged within 5m 0s: cannot know yet" in result.message
    assert "write `minimum_requests: 0` in its checks" in result.message
    assert looptime == 300
    assert job.log.read_text().count("cannot know yet") == 1


@pytest.mark.parametrize(
    "finding",
    [
        {"exceeded": None, "why": "metrics: no answer within 5 s"},
        {"exceeded": None, "why": "cannot know yet: 3 of at least 20 requests", "requests": 3},
    ],
)
async def test_verify_gives_no_advice_that_would_not_help(perform: Any, finding: dict[str, Any]) -> None:
    result = await perform("verify", VerifyConfig("production"), PlayedEnvironment(findings=[finding]))
    assert result.outcome == "error"
    assert "minimum_requests" not in result.message


async def test_verify_goes_on_when_the_data_comes(perform: Any, looptime: Any) -> None:
    environment = PlayedEnvironment(findings=[UNKNOWN, UNKNOWN, WITHIN])
    assert (await perform("verify", VerifyConfig("production"), environment)).outcome == "succeeded"
    assert looptime == 30


async def test_verify_rolls_back_when_told_and_fails_all_the_same(perform: Any) -> None:
    environment = PlayedEnvironment(
        views=[SERVING, {**SERVING, "settled": False}, {**SERVING, "stable": "0.9"}], findings=[ABOVE]
    )
    result = await perform("verify", VerifyConfig("production", rollback=True), environment)
    assert result.outcome == "failed"
    assert result.message == f"{ABOVE['why']}; production went back to 0.9"
    assert [kind for kind, _ in environment.asked] == ["rollback"]


async def test_verify_that_cannot_roll_back_says_so(perform: Any) -> None:
    environment = PlayedEnvironment(findings=[ABOVE], refusal="there is no version before")
    result = await perform("verify", VerifyConfig("production", rollback=True), environment)
    assert result.message.endswith("it could not be rolled back: there is no version before")


async def test_rollback_waits_until_the_environment_serves_the_version(perform: Any, job: Any) -> None:
    going = {**SERVING, "settled": False, "waits_for": "production-3: 0.9 to be ready"}
    environment = PlayedEnvironment(views=[going, going, {**SERVING, "stable": "0.9"}])
    result = await perform("rollback", RollbackConfig("production", to="0.9"), environment)
    assert (result.outcome, result.outputs) == ("succeeded", {"stable": "0.9"})
    assert environment.asked == [("rollback", {"to": "0.9", "key": "job#1/1#1"})]
    assert job.log.read_text().count("production-3: 0.9 to be ready") == 1


async def test_rollback_that_ends_elsewhere_failed(perform: Any) -> None:
    result = await perform("rollback", RollbackConfig("production", to="0.9"), PlayedEnvironment())
    assert (result.outcome, result.message) == ("failed", "production is at 1.0, not at 0.9")


async def test_rollback_reports_why_it_is_impossible(perform: Any) -> None:
    environment = PlayedEnvironment(refusal="nothing was rolled back: there is no version before 1.0")
    result = await perform("rollback", RollbackConfig("production"), environment)
    assert (result.outcome, result.message) == ("failed", environment.refusal)


async def test_what_forge_cannot_do_is_not_the_versions_fault(perform: Any) -> None:
    class Away(PlayedEnvironment):
        async def deploy(self, *_words: Any, **_named: Any) -> str:
            raise DependencyFailed("no worker took up the command")

    with pytest.raises(DependencyFailed):
        await perform("deploy", DeployConfig("production", version="1.1"), Away())
