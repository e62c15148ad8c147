"""What a plan asks clusters, and what it says when it cannot: of files that are not there, and of clusters away."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from forge.adapters.kubernetes.diffing import FieldChange, ObjectChange
from forge.adapters.targets.kubernetes import planned
from forge.adapters.targets.kubernetes.planned import PlannedRelease
from forge.engine import differences as module
from forge.engine.differences import StepDifferences, differences
from forge.model.configs import DeployConfig, KubernetesTargetConfig
from forge.model.errors import DependencyFailed, UsageError
from forge.model.plan import EnvironmentPlan, JobPlan, Plan, Source, StepPlan

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:1"}]}
"""
ASKED = PlannedRelease("cluster prod", "shop", "1.0", (ObjectChange("Deployment/shop", "new"),))


def plan(target: KubernetesTargetConfig, /, *, folder: str = "", matrix: Any = None, **config: Any) -> Plan:
    wanted = msgspec.to_builtins(DeployConfig("production", **config))
    steps = (
        StepPlan("1", "run", "make", {"script": "make"}),
        StepPlan("2", "deploy", "deploy to production", wanted, working_directory=folder),
        StepPlan("3", "deploy", "deploy here", msgspec.to_builtins(DeployConfig("here"))),
    )
    environments = (
        EnvironmentPlan("production", target="kubernetes", target_config=msgspec.to_builtins(target)),
        EnvironmentPlan("here"),
    )
    job = JobPlan("release", "release", steps, matrix=matrix or {})
    return Plan("shop", (job,), Source(""), parameters={"version": "2.0"}, environments=environments)


class Played:
    """Plays the cluster: keeps what it was asked, and answers or raises."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, _cluster: Any, environment: str, parts: Any, **settings: Any) -> PlannedRelease:
        self.asked.append({"environment": environment, "parts": parts, **settings})
        if isinstance(self.answer, Exception):
            raise self.answer
        if self.answer is None:
            await asyncio.sleep(60)
        return self.answer

    @property
    def image(self) -> str:
        pod = self.asked[-1]["parts"].workload["spec"]["template"]["spec"]
        image: str = pod["containers"][0]["image"]
        return image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "k8s").mkdir()
    (tmp_path / "k8s" / "shop.yaml").write_text(DEPLOYMENT)
    return tmp_path


def play(monkeypatch: pytest.MonkeyPatch, answer: Any = ASKED) -> Played:
    played = Played(answer)
    monkeypatch.setattr(planned, "planned_release", played)
    return played


PLAIN = KubernetesTargetConfig(manifests=("k8s",))


async def test_each_deploy_to_a_cluster_is_asked_for_and_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played = play(monkeypatch)
    (told,) = await differences(plan(PLAIN), root)
    assert told == StepDifferences(
        "release", "deploy to production", "production", "cluster prod", "shop", "1.0", ASKED.changes
    )
    assert [(asked["environment"], asked["replicas"]) for asked in played.asked] == [("production", 3)]


async def test_what_is_known_before_a_run_is_filled_in_and_the_rest_is_named(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played = play(monkeypatch)
    image = "shop:${{ params.version }}-${{ matrix.os }}-${{ run.commit }}"
    await differences(plan(PLAIN, matrix={"os": "linux"}, target={"images": {"shop": image}}), root)
    assert played.image == "shop:2.0-linux-<run.commit>"


async def test_paths_begin_where_the_step_works(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    (told,) = await differences(plan(PLAIN, folder="deep"), root)
    assert told.problem == "its manifests are made by the run"
    (root / "deep").mkdir()
    (root / "k8s").rename(root / "deep" / "k8s")
    (told,) = await differences(plan(PLAIN, folder="deep"), root)
    assert told.problem == ""


@pytest.mark.parametrize(
    ("target", "config"),
    [
        (KubernetesTargetConfig(manifests=("built/all.yaml",)), {}),
        (KubernetesTargetConfig(kustomize="overlays"), {}),
        (KubernetesTargetConfig(workload="Deployment/shop"), {}),
        (PLAIN, {"artifact": "manifests.yaml"}),
        (PLAIN, {"target": {"manifests": ["${{ steps.render.outputs.path }}"]}}),
    ],
)
async def test_what_only_the_run_makes_is_not_known(
    root: Path, monkeypatch: pytest.MonkeyPatch, target: KubernetesTargetConfig, config: Any
) -> None:
    played = play(monkeypatch)
    (told,) = await differences(plan(target, **config), root)
    assert told.problem == "its manifests are made by the run"
    assert played.asked == []


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (DependencyFailed("cluster prod: list deployments: connection refused"), "cluster prod: list deployments: connection refused"),
        (UsageError("the kubeconfig has no context `prd`", hint="did you mean `prod`?"), "the kubeconfig has no context `prd`; did you mean `prod`?"),
    ],
)  # fmt: skip
async def test_a_cluster_that_cannot_be_asked_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str
) -> None:
    play(monkeypatch, error)
    (told,) = await differences(plan(PLAIN), root)
    assert (told.problem, told.changes) == (problem, ())


async def test_a_cluster_that_never_answers_is_not_waited_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, None)
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    (told,) = await differences(plan(PLAIN), root)
    assert told.problem == "the cluster was not reached within 0 s"


async def test_manifests_that_are_wrong_are_told_with_their_place(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch)
    (root / "k8s" / "b.yaml").write_text("kind: Service\nmetadata: {name: a}\n")
    (told,) = await differences(plan(PLAIN), root)
    assert told.problem == "k8s/b.yaml:1: an object needs `apiVersion`, a text"


def test_what_is_told_is_plain_data() -> None:
    told = StepDifferences("j", "s", "e", changes=(ObjectChange("a", "changed", (FieldChange("x", "1", "2"),)),))
    assert msgspec.to_builtins(told)["changes"] == (
        {"object": "a", "outcome": "changed", "fields": ({"path": "x", "before": "1", "after": "2"},), "note": ""},
    )
