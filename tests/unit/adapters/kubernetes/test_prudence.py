"""What a manifest gives up is told as a warning, at its place; what is prudent is told nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.prudence import capacity_warnings
from forge.adapters.kubernetes.rendering import manifests_in
from forge.model.errors import UsageError

GOLDEN = Path(__file__).parents[3] / "golden" / "kubernetes" / "prudence"
PRUDENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 3
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - {name: shop, image: "shop:1", readinessProbe: {httpGet: {path: /healthz, port: 8080}}}
        - {name: side, image: "side:1"}
"""
SCALER = """\
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: shop}
spec: {minReplicas: 2, maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}
"""


def told(text: str, replicas: int = 0) -> list[str]:
    return [one.message for one in capacity_warnings(manifests_in(text, "k8s/shop.yaml"), replicas=replicas)]


CASES = {
    "away": PRUDENT.replace("maxUnavailable: 0", "maxUnavailable: 1"),
    "away-percent": PRUDENT.replace("maxUnavailable: 0", "maxUnavailable: 25%"),
    "recreate": PRUDENT.replace("{rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", "{type: Recreate}"),
    "one-replica": PRUDENT.replace("replicas: 3", "replicas: 1"),
    "no-replicas": PRUDENT.replace("  replicas: 3\n", ""),
    "no-probe": PRUDENT.replace(", readinessProbe: {httpGet: {path: /healthz, port: 8080}}", ""),
    "scaled-to-one": PRUDENT.replace("  replicas: 3\n", "") + SCALER.replace("minReplicas: 2", "minReplicas: 1"),
    "on-delete": PRUDENT.replace("kind: Deployment", "kind: DaemonSet").replace("strategy: {", "updateStrategy: {type: OnDelete, "),
    "everything": """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxUnavailable: "50%"
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: shop
          image: shop:1
""",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_what_is_given_up_reads_as_recorded(name: str) -> None:
    found = [one.render() for one in capacity_warnings(manifests_in(CASES[name], "k8s/shop.yaml"))]
    text = "\n".join(found) + "\n"
    assert found
    recorded = GOLDEN / f"{name}.txt"
    if os.environ.get("FORGE_UPDATE_GOLDEN"):
        recorded.parent.mkdir(parents=True, exist_ok=True)
        recorded.write_text(text)
    assert text == recorded.read_text()


@pytest.mark.parametrize("name", sorted(CASES))
def test_each_is_a_warning_with_something_to_do(name: str) -> None:
    for one in capacity_warnings(manifests_in(CASES[name], "k8s/shop.yaml")):
        assert (one.severity, one.code) == ("warning", "capacity")
        assert one.hint
        assert one.line


@pytest.mark.parametrize(
    "text",
    [
        PRUDENT,
        PRUDENT.replace("maxUnavailable: 0", 'maxUnavailable: "0%"'),
        PRUDENT.replace("  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}\n", ""),
        PRUDENT.replace("  replicas: 3\n", "") + SCALER,
        PRUDENT.replace("kind: Deployment", "kind: StatefulSet").replace("strategy: {", "updateStrategy: {"),
        PRUDENT.replace("kind: Deployment", "kind: DaemonSet").replace("  replicas: 3\n", ""),
        PRUDENT.replace("kind: Deployment", "kind: StatefulSet").replace(", readinessProbe: {httpGet: {path: /healthz, port: 8080}}", ""),
    ],
)  # fmt: skip
def test_what_gives_up_nothing_is_told_nothing(text: str) -> None:
    assert told(text) == []


def test_what_the_environment_sets_counts_instead_of_the_manifest() -> None:
    assert told(CASES["one-replica"], replicas=3) == []
    assert told(CASES["no-replicas"], replicas=2) == []
    assert len(told(PRUDENT, replicas=1)) == 1


def test_a_database_that_clients_ask_needs_a_probe_too() -> None:
    service = "---\n{apiVersion: v1, kind: Service, metadata: {name: shop}, spec: {selector: {app: shop}}}\n"
    bare = CASES["no-probe"].replace("kind: Deployment", "kind: StatefulSet")
    assert told(bare) == []
    assert told(bare + service) == ["StatefulSet/shop has no readiness probe: it is asked before it can answer"]


def test_a_workload_that_is_not_there_is_told_as_such() -> None:
    with pytest.raises(UsageError, match="no workload `other`"):
        list(capacity_warnings(manifests_in(PRUDENT, "f"), workload="other"))


odd = st.sampled_from(["null", "[]", "{}", "x", "-1", "0", "true", "1.5", '"25%"', '"%"', "{type: 5}", "[1]"])


@given(odd, odd, odd, odd)
def test_odd_values_are_the_clusters_business(strategy: str, replicas: str, containers: str, away: str) -> None:
    text = f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: shop}}
spec:
  replicas: {replicas}
  strategy: {{type: {strategy}, rollingUpdate: {{maxUnavailable: {away}}}}}
  template: {{spec: {{containers: {containers}}}}}
"""
    for one in capacity_warnings(manifests_in(text, "f")):
        assert one.severity == "warning"
