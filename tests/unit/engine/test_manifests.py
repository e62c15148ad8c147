"""Manifests in the repository are looked at by lint, by plan, and before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from forge.engine.planning import diagnose, load
from forge.engine.project import Project
from forge.model.errors import InvalidConfiguration

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - {name: shop, image: "shop:1", readinessProbe: {httpGet: {path: /healthz, port: 8080}}}
"""
RISKY = DEPLOYMENT.replace("  replicas: 3\n", "  replicas: 3\n  strategy: {rollingUpdate: {maxUnavailable: 1}}\n")
BROKEN = "apiVersion: v1\nmetadata: {name: shop}\n"
PIPELINE = """\
parameters: {version: "1"}
environments:
  production:
    target: {kubernetes: {TARGET}}
    signals: [{prometheus: {url: "https://prometheus.example", preset: plain}}]
jobs:
  deploy:
    JOB
    steps:
BEFORE
      - deploy: STEP
"""


class Repository:
    """A project with one pipeline that deploys to a cluster."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, **files: str) -> None:
        for name, text in files.items():
            path = self.root / name.replace("__", "/").replace("_yaml", ".yaml")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def pipeline(
        self, *, target: str = "manifests: k8s", step: str = "production", before: str = "", job: str = "x-none: 1"
    ) -> None:
        text = PIPELINE.replace("TARGET", target).replace("STEP", step).replace("JOB", job)
        self.write(forge__pipeline_yaml=text.replace("BEFORE\n", f"      - {before}\n" if before else ""))

    @property
    def told(self) -> list[str]:
        found = diagnose(self.root / "forge" / "pipeline.yaml")
        return [f"{one.severity} {one.file}:{one.line}:{one.column}: {one.message}" for one in found]

    def refused(self) -> list[str]:
        try:
            load(Project(self.root))
        except InvalidConfiguration as wrong:
            return [one.message for one in wrong.diagnostics]
        return []


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    made = Repository(tmp_path)
    made.pipeline()
    made.write(k8s__shop_yaml=DEPLOYMENT)
    return made


AWAY = "warning k8s/shop.yaml:6:46: `maxUnavailable: 1` gives up capacity while replicas are replaced"
NO_KIND = "an object needs `kind`, a text"


def test_prudent_manifests_are_no_problem(repository: Repository) -> None:
    assert repository.told == []
    assert repository.refused() == []


def test_capacity_that_is_given_up_is_told_and_stops_nobody(repository: Repository) -> None:
    repository.write(k8s__shop_yaml=RISKY)
    assert repository.told == [AWAY]
    assert repository.refused() == []


def test_a_slip_in_a_manifest_stops_the_run_before_it_starts(repository: Repository) -> None:
    repository.write(k8s__other_yaml=BROKEN)
    assert repository.told == [f"error k8s/other.yaml:1:1: {NO_KIND}"]
    assert repository.refused() == [NO_KIND]


def test_what_a_step_before_may_rewrite_is_only_a_warning(repository: Repository) -> None:
    repository.write(k8s__other_yaml=BROKEN)
    repository.pipeline(before="run: ./render.sh")
    assert repository.told == [f"warning k8s/other.yaml:1:1: {NO_KIND}"]
    assert repository.refused() == []


def test_another_source_is_left_to_the_run(repository: Repository) -> None:
    repository.write(k8s__other_yaml=BROKEN)
    repository.pipeline(before='checkout: {repository: "https://example.org/k8s.git"}')
    assert repository.told == []
    repository.pipeline(before="checkout: .")
    assert repository.told == [f"error k8s/other.yaml:1:1: {NO_KIND}"]


def test_a_file_that_a_step_makes_is_left_to_the_run(repository: Repository) -> None:
    repository.pipeline(target="manifests: built/all.yaml", before="run: make manifests")
    assert repository.told == [
        "warning forge/pipeline.yaml:4:38: there is no file or folder `built/all.yaml` in the repository"
    ]
    assert repository.refused() == []


def test_a_path_that_is_nearly_there_is_told_with_what_is_meant(repository: Repository) -> None:
    repository.pipeline(target="manifests: k8s/shpo.yaml")
    (one,) = diagnose(repository.root / "forge" / "pipeline.yaml")
    assert (one.severity, one.hint) == ("warning", "did you mean `k8s/shop.yaml`?")


def test_paths_begin_where_the_step_works(repository: Repository) -> None:
    repository.write(deep__k8s__shop_yaml=RISKY)
    repository.pipeline(job="working_directory: deep")
    assert repository.told == [AWAY.replace("k8s/", "deep/k8s/")]


def test_a_steps_own_manifests_are_looked_at_instead(repository: Repository) -> None:
    repository.write(other__shop_yaml=RISKY)
    repository.pipeline(step="{environment: production, target: {manifests: other}}")
    assert repository.told == [AWAY.replace("k8s/", "other/")]


def test_what_only_the_run_knows_is_left_to_it(repository: Repository) -> None:
    repository.write(k8s__shop_yaml=BROKEN)
    step = '{environment: production, target: {manifests: "k8s/${{ params.version }}"}}'
    repository.pipeline(step=step)
    assert repository.told == []
    repository.pipeline(target="kustomize: k8s")
    assert repository.told == []


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("manifests: k8s, workload: Deployment/shp", "the manifests hold no workload `Deployment/shp`"),
        ("manifests: k8s, service: front", "the manifests hold no Service `front`"),
        ('manifests: k8s, images: {shp: "shop:${{ params.version }}"}', "Deployment/shop has no container `shp`"),
    ],
)
def test_names_that_the_manifests_do_not_have_are_refused(repository: Repository, target: str, message: str) -> None:
    repository.pipeline(target=target)
    (one,) = repository.refused()
    assert one.startswith(message)


@pytest.mark.parametrize(("strategy", "able"), [("rolling", True), ("canary", False), ("blue_green", False)])
def test_the_kind_in_the_manifests_decides_about_the_strategy(
    repository: Repository, strategy: str, able: bool
) -> None:
    repository.write(k8s__shop_yaml=DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet"))
    repository.pipeline(step=f"{{environment: production, strategy: {strategy}}}")
    assert (repository.refused() == []) is able


@pytest.mark.parametrize(
    ("router", "able"), [("replicas", True), ("{istio: shop}", False), ("{gateway_api: shop}", False)]
)
def test_a_router_needs_a_service_to_split(repository: Repository, router: str, able: bool) -> None:
    text = (repository.root / "forge" / "pipeline.yaml").read_text()
    repository.write(forge__pipeline_yaml=text.replace("    signals:", f"    router: {router}\n    signals:"))
    assert (repository.refused() == []) is able
    if not able:
        assert (
            "needs a Service, and the manifests hold none that selects the pods of Deployment/shop"
            in repository.refused()[0]
        )
        repository.write(
            k8s__front_yaml="{apiVersion: v1, kind: Service, metadata: {name: front}, spec: {selector: {app: shop}}}\n"
        )
        assert repository.refused() == []


def test_an_environment_of_this_machine_needs_no_manifests(tmp_path: Path) -> None:
    made = Repository(tmp_path)
    made.write(
        forge__pipeline_yaml="environments: {kubernetes: {target: {local: {command: ./x}}}}\n"
        "jobs: {a: {steps: [{deploy: kubernetes}]}}\n"
    )
    assert made.told == []


def test_environments_in_a_file_of_their_own_are_looked_at_too(repository: Repository) -> None:
    text = (repository.root / "forge" / "pipeline.yaml").read_text()
    head, jobs = text.split("jobs:\n")
    repository.write(
        forge__pipeline_yaml=f"jobs:\n{jobs}", forge__environments_yaml=head.split("\n", 1)[1], k8s__shop_yaml=RISKY
    )
    assert repository.told == [AWAY]
