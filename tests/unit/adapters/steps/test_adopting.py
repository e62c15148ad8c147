"""What runs already becomes the version to go back to: once, unjudged, and only where the environment is new."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from forge.adapters.kubernetes.rendering import objects_in
from forge.adapters.steps import adopting
from forge.adapters.steps.base import StepResult
from forge.adapters.steps.registry import step
from forge.adapters.targets.kubernetes.adoption import Found
from forge.model.configs import DeployConfig, KubernetesTargetConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:2"}]}
"""
LIVE = Found("1.9", 5, objects_in(DEPLOYMENT.replace("shop:2", "shop:1.9")))


class Releases:
    """Plays an environment: keeps what it was asked, ends releases as it is told."""

    def __init__(self, stable: str | None = None, *, settled: bool = True, ends: str = "promoted") -> None:
        self.stable, self.settled, self.ends = stable, settled, ends
        self.asked: list[tuple[EnvironmentPlan, dict[str, Any], str]] = []

    async def view(self, environment: str) -> dict[str, Any]:
        if self.stable is None:
            raise UsageError(f"nothing was released to {environment} yet")
        return {"stable": self.stable, "settled": self.settled}

    async def deploy(self, environment: EnvironmentPlan, request: dict[str, Any], *, key: str, actor: str) -> str:
        self.asked.append((environment, request, key))
        return f"production-{len(self.asked)}"

    async def wait(self, environment: str, release: str, on_change: Any) -> dict[str, Any]:
        ends = self.ends if release == "production-1" else "promoted"
        return {"status": ends, "reason": "no pod", "version": "", "requests": 0, "failed_requests": 0}

    async def address(self, environment: str) -> str:
        return ""

    @property
    def versions(self) -> list[str]:
        return [request["version"]["id"] for _, request, _ in self.asked]


@pytest.fixture
def perform(job: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    job.write("k8s/shop.yaml", DEPLOYMENT)

    async def perform(releases: Releases, found: Found | Exception | None, *, adopt: bool = True) -> StepResult:
        async def find(_cluster: Any, environment: str, parts: Any) -> Found | None:
            perform.looked += 1
            assert (environment, parts.workload["metadata"]["name"]) == ("production", "shop")
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(adopting, "find_adoptable", find)
        target = KubernetesTargetConfig(manifests=("k8s",), adopt=adopt)
        policy = {"max_arms": 1, "on_overlap": "queue", "approvals": {"required": 2}, "freezes": [1]}
        environment = EnvironmentPlan(
            "production", target="kubernetes", target_config=msgspec.to_builtins(target), router="replicas", policy=policy,
            judge="sequential", judge_config={"alpha": 0.1},
        )  # fmt: skip
        context = job.context("deploy", msgspec.to_builtins(DeployConfig("production", version="2.0")))
        context.plan, context.releases = replace(context.plan, environments=(environment,)), releases
        return await step("deploy").run(context)

    perform.looked = 0  # type: ignore[attr-defined]
    return perform


async def test_what_runs_is_released_first_as_it_is(perform: Any, job: Any) -> None:
    releases = Releases()
    assert (await perform(releases, LIVE)).outcome == "succeeded"
    assert releases.versions == ["1.9", "2.0"]
    environment, request, key = releases.asked[0]
    assert (environment.judge, environment.judge_config) == ("none", {}), "nothing changes, so nothing is judged"
    assert environment.policy == {"max_arms": 1, "on_overlap": "queue"}, "nor does anybody have to approve it"
    assert request["version"]["config"]["replicas"] == 5, "as many as there are"
    assert key.endswith(" adopt")
    assert releases.asked[1][0].judge == "sequential"
    assert releases.asked[1][2] != key
    assert "Deployment shop is there already: it becomes the stable version 1.9" in job.said


async def test_its_manifests_are_kept_as_they_were_found(perform: Any, job: Any, tmp_path: Any) -> None:
    releases = Releases()
    await perform(releases, LIVE)
    await job.artifacts.get(releases.asked[0][1]["version"]["artifact"], tmp_path / "kept")
    assert objects_in((tmp_path / "kept").read_bytes()) == LIVE.manifests


@pytest.mark.parametrize("releases", [Releases("1.0"), Releases("", settled=False)], ids=["stable", "under-way"])
async def test_an_environment_that_was_released_to_adopts_nothing(perform: Any, releases: Releases) -> None:
    assert (await perform(releases, LIVE)).outcome == "succeeded"
    assert (releases.versions, perform.looked) == (["2.0"], 0)


async def test_an_environment_that_is_empty_again_adopts(perform: Any) -> None:
    releases = Releases("")
    await perform(releases, LIVE)
    assert releases.versions == ["1.9", "2.0"]


async def test_without_a_deployment_there_is_nothing_to_adopt(perform: Any) -> None:
    releases = Releases()
    assert (await perform(releases, None)).outcome == "succeeded"
    assert (releases.versions, perform.looked) == (["2.0"], 1)


async def test_nobody_is_adopted_against_the_users_will(perform: Any) -> None:
    releases = Releases()
    await perform(releases, LIVE, adopt=False)
    assert (releases.versions, perform.looked) == (["2.0"], 0)


async def test_what_cannot_be_adopted_stops_the_deploy(perform: Any) -> None:
    releases = Releases(ends="rolled_back")
    result = await perform(releases, LIVE)
    assert (result.outcome, result.message) == ("failed", "Deployment shop could not be adopted: no pod")
    assert releases.versions == ["1.9"]


async def test_somebody_elses_deployment_is_a_failure_and_a_cluster_away_is_not_the_users(perform: Any) -> None:
    releases = Releases()
    result = await perform(releases, UsageError("Deployment shop belongs to environment staging", hint="hand it back"))
    assert (result.outcome, result.message) == (
        "failed",
        "Deployment shop belongs to environment staging; hand it back",
    )
    with pytest.raises(DependencyFailed):
        await perform(releases, DependencyFailed("cluster prod: connection refused"))
    assert releases.versions == []
