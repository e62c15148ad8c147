"""Editors are told of clusters what Forge accepts of them, and refuse what Forge refuses."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import jsonschema
import pytest

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose
from forge.core.pipeline.schema_kubernetes import KubernetesTargetModel
from forge.core.pipeline.schema_pipeline import json_schema


@cache
def validator() -> Any:
    return jsonschema.Draft202012Validator(json_schema("pipeline"))


def errors(text: str) -> list[str]:
    content = json.loads(json.dumps(read(text, "f").data))
    return [error.message for error in validator().iter_errors(content)]


def refused(text: str) -> list[str]:
    return [one.message for one in diagnose(Sources(read(text, "f"))) if one.severity == "error"]


def environment(target: str, more: str = "") -> str:
    return f"""
environments:
  production:
    target: {target}
    signals: [{{prometheus: {{url: "https://prometheus.example", preset: plain}}}}]
    {more}
jobs: {{a: {{steps: [{{run: "true"}}]}}}}
"""


def deploy(step: str) -> str:
    head = environment("{kubernetes: {manifests: k8s}}", "router: {istio: shop}")
    return head.replace('{run: "true"}', f"{{deploy: {step}}}")


@pytest.mark.parametrize(
    "target",
    [
        "manifests: k8s", "manifests: [k8s/a.yaml, k8s/b]", "kustomize: overlays/prod", "helm: charts/shop",
        "helm: {chart: charts/shop, release: shop, values: prod.yaml, set: {replicas: 3, on: true, tag: v1}}",
        "helm: {chart: 'oci://registry.example/shop', values: [a.yaml, b.yaml]}", "workload: Deployment/shop",
        "{kubeconfig: ~/.kube/prod, context: prod, namespace: shop, manifests: k8s, service: front, adopt: false}",
        "{manifests: k8s, replicas: 4, progress_deadline: 10m, images: {shop: 'r.example/shop:1'}, x-note: here}",
        "{manifests: k8s, workload: StatefulSet/db}",
    ],
)  # fmt: skip
def test_every_form_of_a_target_is_accepted_by_both(target: str) -> None:
    body = target if target.startswith("{") else f"{{{target}}}"
    text = environment(f"{{kubernetes: {body}}}")
    assert (errors(text), refused(text)) == ([], [])


@pytest.mark.parametrize(
    "router",
    [
        "replicas", "{replicas: {}}", "{replicas: {address: 'http://127.0.0.1'}}", "{gateway_api: shop}",
        "{gateway_api: {route: shop, kind: GRPCRoute, namespace: edge, address: x}}", "{istio: shop}",
        "{istio: {virtual_service: shop, routes: main, propagation: 2s}}", "{ingress_nginx: shop}",
        "{ingress_nginx: {ingress: shop, propagation: 500ms, namespace: edge}}",
    ],
)  # fmt: skip
def test_every_form_of_a_router_is_accepted_by_both(router: str) -> None:
    text = environment("{kubernetes: {manifests: k8s}}", f"router: {router}")
    assert (errors(text), refused(text)) == ([], [])


@pytest.mark.parametrize(
    "step",
    [
        "production", "{environment: production, target: {images: {shop: 'shop:2'}, replicas: 3}}",
        "{environment: production, target: {kustomize: overlays/eu}}", "{environment: production, target: {helm: charts/x}}",
        "{environment: production, target: {manifests: [a, b], progress_deadline: 5m}}",
        "{environment: production, routes: [{header: x-canary}, {cookie: beta}, {mirror: 5%}]}",
    ],
)  # fmt: skip
def test_every_form_of_a_deploy_is_accepted_by_both(step: str) -> None:
    assert (errors(deploy(step)), refused(deploy(step))) == ([], [])


@pytest.mark.parametrize(
    "target",
    [
        "{kubernets: {manifests: k8s}}", "{kubernetes: {manifest: k8s}}", "{kubernetes: {manifests: {a: b}}}",
        "{kubernetes: {manifests: k8s, replicas: 0}}", "{kubernetes: {manifests: k8s, replicas: many}}",
        "{kubernetes: {manifests: k8s, namespace: Shop}}", "{kubernetes: {manifests: k8s, images: [a]}}",
        "{kubernetes: {manifests: k8s, adopt: maybe}}", "{kubernetes: {helm: {release: shop}}}",
        "{kubernetes: {helm: {chart: x, vlues: y}}}", "{kubernetes: {manifests: k8s, contxt: prod}}",
    ],
)  # fmt: skip
def test_what_forge_refuses_of_a_target_editors_refuse_too(target: str) -> None:
    assert errors(environment(target))
    assert refused(environment(target))


@pytest.mark.parametrize(
    "router",
    ["gateway_api", "{gateway: shop}", "{istio: {virtual_servise: shop}}", "{gateway_api: {kind: TCPRoute, route: a}}"],
)
def test_what_forge_refuses_of_a_router_editors_refuse_too(router: str) -> None:
    text = environment("{kubernetes: {manifests: k8s}}", f"router: {router}")
    assert errors(text)
    assert refused(text)


def test_every_key_of_a_target_is_told_to_editors() -> None:
    told = json_schema("pipeline")["$defs"]["KubernetesTargetModel"]["properties"]
    assert set(KubernetesTargetModel.keys()) <= set(told)
