"""A deploy to a cluster renders in the job's workspace, keeps what came of it, and makes a version of that alone."""

from __future__ import annotations

import shutil
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from forge.adapters.kubernetes.rendering import objects_in
from forge.adapters.steps.base import PublishedArtifact, StepResult
from forge.adapters.steps.registry import step
from forge.model.configs import DeployConfig, HelmChart, KubernetesAccess, KubernetesTargetConfig
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy

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
SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}}}\n"
SCALER = """
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec: {minReplicas: 5, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}
"""
PLAIN = KubernetesTargetConfig(access=KubernetesAccess(namespace="shop"), manifests=("k8s",), adopt=False)
"""Nothing is asked of a cluster: adoption is tried on a real one, in tests/kubernetes."""


class Releases:
    """Takes every release and says that it was promoted."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def deploy(self, environment: EnvironmentPlan, request: dict[str, Any], *, key: str, actor: str) -> str:
        self.asked.append(request)
        return f"{environment.name}-1"

    async def wait(self, environment: str, release: str, on_change: Any) -> dict[str, Any]:
        return {"status": "promoted", "reason": "", "version": "", "requests": 0, "failed_requests": 0}

    async def address(self, environment: str) -> str:
        return ""


class Cluster:
    """Performs deploy steps of one environment in a job's workspace."""

    def __init__(self, job: Any) -> None:
        self.job = job
        self.releases = Releases()

    async def deploy(
        self, place: KubernetesTargetConfig = PLAIN, *, cwd: str = "", env: dict[str, str] | None = None, **config: Any
    ) -> StepResult:
        wanted = msgspec.to_builtins(DeployConfig("production", **config))
        context = self.job.context("deploy", wanted, cwd=cwd)
        environment = EnvironmentPlan(
            "production", target="kubernetes", target_config=msgspec.to_builtins(place), router="replicas"
        )
        context.plan = replace(context.plan, environments=(environment,))
        context.releases = self.releases
        context.env = {**context.env, **(env or {})}
        return await step("deploy").run(context)

    @property
    def version(self) -> dict[str, Any]:
        version: dict[str, Any] = self.releases.asked[-1]["version"]
        return version

    async def kept(self, tmp: Path) -> tuple[dict[str, Any], ...]:
        """Return the objects that the newest version's artifact holds."""
        await self.job.artifacts.get(self.version["artifact"], tmp / "kept")
        return objects_in((tmp / "kept").read_bytes())


@pytest.fixture
def cluster(job: Any) -> Cluster:
    job.write("k8s/shop.yaml", DEPLOYMENT)
    job.write("k8s/service.yaml", SERVICE)
    return Cluster(job)


async def test_the_version_is_what_was_rendered_and_nothing_else(cluster: Cluster, tmp_path: Path) -> None:
    result = await cluster.deploy()
    assert result.outcome == "succeeded"
    assert [item["kind"] for item in await cluster.kept(tmp_path)] == ["Service", "Deployment"]
    pinned = msgspec.convert(cluster.version["config"], KubernetesTargetConfig)
    assert pinned == KubernetesTargetConfig(access=KubernetesAccess(namespace="shop"), replicas=3, adopt=False)
    assert f"rendered 2 objects for Deployment/shop (sha256 {cluster.version['artifact']})" in cluster.job.said


async def test_the_artifact_is_one_of_the_run_and_outlives_the_workspace(cluster: Cluster) -> None:
    await cluster.deploy()
    digest = cluster.version["artifact"]
    name = f"production-{digest[:12]}/manifests.yaml"
    assert (await cluster.job.index.find("run-1", name)).digest == digest
    shutil.rmtree(cluster.job.workspace / "k8s")
    assert await cluster.job.artifacts.has(digest)
    assert cluster.job.private() == [], "nothing is left beside the workspace"


async def test_the_same_manifests_are_the_same_version_wherever_they_are(cluster: Cluster) -> None:
    await cluster.deploy()
    first = cluster.version["id"]
    cluster.job.write("other/all.yml", f"{SERVICE}---{DEPLOYMENT}")
    await cluster.deploy(replace(PLAIN, manifests=("other",)))
    assert cluster.version["id"] == first
    cluster.job.write("k8s/service.yaml", SERVICE.replace("selector", "type: NodePort, selector"))
    await cluster.deploy()
    assert cluster.version["id"] != first


async def test_another_image_is_another_version(cluster: Cluster, tmp_path: Path) -> None:
    await cluster.deploy()
    first = cluster.version["id"]
    await cluster.deploy(target={"images": {"shop": "shop:2"}})
    assert cluster.version["id"] != first
    (main,) = [item for item in await cluster.kept(tmp_path) if item["kind"] == "Deployment"]
    assert main["spec"]["template"]["spec"]["containers"] == [{"name": "shop", "image": "shop:2"}]


async def test_a_version_that_was_named_keeps_its_name(cluster: Cluster) -> None:
    await cluster.deploy(version="1.4.0")
    assert cluster.version["id"] == cluster.releases.asked[-1]["request"]["version"] == "1.4.0"


async def test_paths_begin_in_the_steps_folder(cluster: Cluster) -> None:
    cluster.job.write("deep/only/shop.yaml", DEPLOYMENT)
    assert (await cluster.deploy(replace(PLAIN, manifests=("only",)), cwd="deep")).outcome == "succeeded"
    assert (await cluster.deploy(replace(PLAIN, manifests=("../k8s",)), cwd="deep")).outcome == "succeeded"
    refused = await cluster.deploy(replace(PLAIN, manifests=("../../..",)), cwd="deep")
    assert (refused.outcome, refused.message.partition(";")[0]) == ("failed", "`../../..` leads out of the workspace")


@pytest.mark.parametrize(
    ("configured", "manifest", "scaler", "size"),
    [
        (7, "replicas: 3", SCALER, 7),
        (0, "replicas: 3", SCALER, 3),
        (0, "x-none: 1", SCALER, 5),
        (0, "x-none: 1", "", 1),
    ],
)
async def test_its_full_size(cluster: Cluster, configured: int, manifest: str, scaler: str, size: int) -> None:
    cluster.job.write("k8s/shop.yaml", DEPLOYMENT.replace("replicas: 3", manifest) + f"---{scaler}")
    await cluster.deploy(replace(PLAIN, replicas=configured))
    assert cluster.version["config"]["replicas"] == size


async def test_a_published_file_of_manifests_is_deployed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.job.write("out.yaml", DEPLOYMENT.replace("shop:1", "shop:9"))
    await cluster.job.step("publish", name="out.yaml")
    nowhere = replace(PLAIN, manifests=(), workload="Deployment/shop")
    assert (await cluster.deploy(nowhere, artifact="out.yaml")).outcome == "succeeded"
    (main,) = await cluster.kept(tmp_path)
    assert main["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:9"


async def test_a_published_folder_is_no_file_of_manifests(cluster: Cluster) -> None:
    await cluster.job.step("publish", name="k8s")
    result = await cluster.deploy(artifact="k8s")
    assert result.message == "the artifact `k8s` is a folder; publish one file of manifests, or set `manifests`"
    assert (await cluster.deploy(artifact="none")).message == "no job of this run published `none`"


async def test_a_published_artifact_that_is_gone_is_nobodys_mistake(cluster: Cluster) -> None:
    gone = PublishedArtifact("x.yaml", "0" * 64, 1, "run-1", "build", "1", "p", "", 0.0)
    await cluster.job.index.publish(gone)
    with pytest.raises(DependencyFailed, match="is not stored any more"):
        await cluster.deploy(artifact="x.yaml")


async def test_slips_are_told_with_their_places_in_the_log_and_the_first_as_the_reason(cluster: Cluster) -> None:
    cluster.job.write("k8s/shop.yaml", DEPLOYMENT.replace("app: shop}}\n    spec", "app: 5}}\n    spec"))
    cluster.job.write("k8s/service.yaml", "kind: Service\nmetadata: {name: a}\n")
    result = await cluster.deploy()
    assert result.outcome == "failed"
    assert result.message == "k8s/service.yaml:1:1: an object needs `apiVersion`, a text, and 1 more"
    assert "--> k8s/shop.yaml:9:30" in cluster.job.said
    assert cluster.releases.asked == [], "nothing was begun"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"manifests": ("k9s",)}, "there is no file or folder `k9s`"),
        (
            {"workload": "Deployment/shp"},
            "the manifests hold no workload `Deployment/shp`; did you mean `Deployment/shop`?",
        ),
        ({"service": "other"}, "the manifests hold no Service `other`"),
        (
            {"images": {"shp": "a"}},
            "Deployment/shop has no container `shp` to give the image `a`; did you mean `shop`?",
        ),
        ({"manifests": ()}, "there are no manifests; add `manifests: k8s/` to the environment's target"),
        ({"manifests": (), "kustomize": "k8s"}, "the folder `k8s` has no kustomization.yaml; write `manifests: k8s`"),
        ({"manifests": (), "helm": HelmChart("charts/x")}, "there is no chart `charts/x`"),
    ],
)
async def test_what_is_not_there_is_told_before_anything_begins(cluster: Cluster, changes: Any, message: str) -> None:
    if "helm" in changes:
        changes = {**changes, "helm": HelmChart("./charts/x")}
        message = "there is no chart `./charts/x`"
    result = await cluster.deploy(replace(PLAIN, **changes))
    assert result.outcome == "failed"
    assert result.message.startswith(message)
    assert cluster.releases.asked == []


@pytest.mark.parametrize(
    ("strategy", "outcome"), [("rolling", "succeeded"), ("canary", "failed"), ("blue_green", "failed")]
)
async def test_pods_that_cannot_be_there_twice_roll(cluster: Cluster, strategy: Any, outcome: str) -> None:
    cluster.job.write("k8s/shop.yaml", DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet"))
    result = await cluster.deploy(strategy=Strategy(strategy))
    assert result.outcome == outcome
    if outcome == "failed":
        assert result.message.startswith("StatefulSet/shop cannot run two versions beside each other")


async def test_kustomize_builds_what_is_deployed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.job.write("k8s/kustomization.yaml", "resources: [shop.yaml, service.yaml]\nnamePrefix: eu-\n")
    result = await cluster.deploy(replace(PLAIN, manifests=(), kustomize="k8s"))
    assert result.outcome == "succeeded", result.message
    assert sorted(item["metadata"]["name"] for item in await cluster.kept(tmp_path)) == ["eu-shop", "eu-shop"]


async def test_what_kustomize_complains_of_is_the_reason(cluster: Cluster) -> None:
    cluster.job.write("k8s/kustomization.yaml", "resources: [missing.yaml]\n")
    result = await cluster.deploy(replace(PLAIN, manifests=(), kustomize="k8s"))
    assert result.outcome == "failed"
    assert "`kubectl kustomize k8s` failed: accumulating resources" in result.message


async def test_without_helm_the_step_says_what_is_missing(cluster: Cluster, tmp_path: Path) -> None:
    cluster.job.write("charts/shop/Chart.yaml", "name: shop\n")
    chart = replace(PLAIN, manifests=(), helm=HelmChart("charts/shop"))
    with pytest.raises(DependencyFailed) as told:
        await cluster.deploy(chart, env={"PATH": str(tmp_path)})
    assert told.value.message == "`helm` is not on the PATH"
    assert told.value.hint == "install helm; or render the chart in a step before and use `manifests`"


async def test_rendered_secrets_are_nobody_elses_to_read(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    put = cluster.job.artifacts.put

    async def watched(path: Path) -> str:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        digest: str = await put(path)
        return digest

    monkeypatch.setattr(cluster.job.artifacts, "put", watched)
    cluster.job.write(
        "k8s/secret.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: key}, stringData: {a: pssst}}\n"
    )
    await cluster.deploy()
    assert modes == [0o600]
    assert "pssst" not in cluster.job.said
    assert "pssst" not in str(cluster.releases.asked)
