"""Environments on a cluster: what the file says is what the adapters get; what cannot work is refused in the plan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.resolve import diagnose, resolve
from forge.core.pipeline.schema_environment import OVERRIDES, EnvironmentModel, RouterModel, TargetOverrides
from forge.core.pipeline.schema_kubernetes import HelmModel, KubernetesTargetModel
from forge.model import configs
from forge.model.configs import (
    MOST_VERSIONS,
    ROUTER_CAPABILITIES,
    ROUTERS_OF,
    GatewayApiRouterConfig,
    HelmChart,
    IngressNginxRouterConfig,
    IstioRouterConfig,
    KubernetesAccess,
    KubernetesTargetConfig,
    LocalTargetConfig,
    ReplicasRouterConfig,
)
from forge.model.errors import InvalidConfiguration
from forge.model.plan import EnvironmentPlan, Plan

PROMETHEUS = {"prometheus": {"url": "https://prometheus.example", "preset": "plain"}}


def environment(target: Any = None, **fields: Any) -> EnvironmentPlan:
    given = {"target": {"kubernetes": target or {"manifests": "k8s"}}, **fields}
    return EnvironmentModel.model_validate(given).plan("production")


def config(target: Any) -> KubernetesTargetConfig:
    return msgspec.convert(environment(target).target_config, KubernetesTargetConfig)


def plan(text: str, **parameters: Any) -> Plan:
    return resolve(Sources(read(text, "forge/pipeline.yaml")), parameters)


def told(text: str) -> list[str]:
    return [f"{one.severity}: {one.message}" for one in diagnose(Sources(read(text, "forge/pipeline.yaml")))]


def pipeline(step: str, target: str = "manifests: k8s", more: str = "") -> str:
    return f"""
parameters: {{version: "1.0"}}
environments:
  production:
    target: {{kubernetes: {{{target}}}}}
    signals: [{{prometheus: {{url: "https://prometheus.example", preset: plain}}}}]
    {more}
jobs:
  deploy:
    steps:
      - deploy: {step}
"""


def test_everything_that_can_be_said_of_a_target_reaches_it() -> None:
    given = {
        "kubeconfig": "~/.kube/other", "context": "prod", "namespace": "shop", "manifests": ["k8s/base", "k8s/prod.yaml"],
        "workload": "Deployment/shop", "service": "front", "images": {"shop": "registry.example/shop:2"}, "replicas": 4,
        "adopt": False, "progress_deadline": "2m",
    }  # fmt: skip
    assert config(given) == KubernetesTargetConfig(
        access=KubernetesAccess("~/.kube/other", "prod", "shop"),
        manifests=("k8s/base", "k8s/prod.yaml"),
        workload="Deployment/shop",
        service="front",
        images={"shop": "registry.example/shop:2"},
        replicas=4,
        adopt=False,
        progress_deadline=120.0,
    )


def test_what_is_left_out_is_the_adapters_default() -> None:
    assert config({"manifests": "k8s"}) == KubernetesTargetConfig(manifests=("k8s",))


def test_manifests_may_come_from_kustomize_or_a_chart() -> None:
    assert config({"kustomize": "overlays/prod"}).kustomize == "overlays/prod"
    assert config({"helm": "charts/shop"}).helm == HelmChart("charts/shop")
    full = {
        "chart": "charts/shop",
        "release": "shop",
        "values": "prod.yaml",
        "set": {"replicas": 3, "on": True, "v": "1.10"},
    }
    assert config({"helm": full}).helm == HelmChart(
        "charts/shop", "shop", ("prod.yaml",), {"replicas": "3", "on": "true", "v": "1.10"}
    )


def test_a_workload_that_is_deployed_otherwise_needs_no_manifests() -> None:
    assert config({"workload": "Deployment/shop"}).manifests == ()


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"manifests": "k8s", "helm": "charts"}, {"manifests": "../k8s"}, {"kustomize": "/etc"}, {"manifests": []},
        {"manifests": "k8s", "workload": "Pod/x"}, {"manifests": "k8s", "workload": "Deployment/"},
        {"manifests": "k8s", "namespace": "Shop"}, {"manifests": "k8s", "service": "a/b"}, {"helm": ""},
        {"manifests": "k8s", "images": {"shop": ""}}, {"manifests": "k8s", "images": {"shop": "-x"}},
        {"manifests": "k8s", "images": {"shop": 5.5, "b": None}}, {"manifests": "k8s", "replicas": -1},
        {"helm": {"chart": "--post-renderer=x"}}, {"helm": {"release": "x"}}, {"helm": {"chart": "c", "set": []}},
        {"manifests": "k8s", "progress_deadline": 0}, {"manifests": {"a": "b"}},
    ],
)  # fmt: skip
def test_what_no_cluster_could_run_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        KubernetesTargetModel.model_validate(wrong)


ROUTERS = [
    ("gateway_api", {"route": "shop"}, GatewayApiRouterConfig("shop")),
    (
        "gateway_api", {"route": "shop", "kind": "GRPCRoute", "namespace": "edge", "address": "http://127.0.0.1:8080"},
        GatewayApiRouterConfig("shop", "GRPCRoute", "edge", "http://127.0.0.1:8080"),
    ),
    ("istio", {"virtual_service": "shop"}, IstioRouterConfig("shop")),
    (
        "istio", {"virtual_service": "shop", "namespace": "mesh", "routes": ["main"], "propagation": "5s"},
        IstioRouterConfig("shop", "mesh", ("main",), 5.0),
    ),
    ("ingress_nginx", {"ingress": "shop", "propagation": "500ms"}, IngressNginxRouterConfig("shop", "", 0.5)),
    ("replicas", {"address": "http://127.0.0.1:1"}, ReplicasRouterConfig("http://127.0.0.1:1")),
]  # fmt: skip


@pytest.mark.parametrize(("name", "settings", "expected"), ROUTERS)
def test_everything_that_can_be_said_of_a_router_reaches_it(name: str, settings: Any, expected: msgspec.Struct) -> None:
    made = environment(router={name: settings})
    assert made.router == name
    assert msgspec.convert(made.router_config, type(expected)) == expected


@pytest.mark.parametrize("name", ["gateway_api", "istio", "ingress_nginx"])
def test_a_router_is_also_named_by_its_object_alone(name: str) -> None:
    assert "shop" in environment(router={name: "shop"}).router_config.values()


def test_without_a_router_the_replicas_are_the_split() -> None:
    for fields in ({}, {"router": "replicas"}, {"router": {}}):
        made = environment(**fields)
        assert (made.router, made.target, made.signals) == ("replicas", "kubernetes", "kubernetes")


def test_an_environment_of_this_machine_is_as_it_was() -> None:
    made = EnvironmentModel.model_validate({"target": {"local": {"command": "./serve"}}}).plan("local")
    assert (made.target, made.router, made.signals, made.judge) == ("local", "envoy", "envoy", "sequential")
    assert made.sources == ()
    assert msgspec.convert(made.target_config, LocalTargetConfig).command == ("sh", "-c", "exec ./serve")


def test_every_router_of_the_file_is_known_to_the_table_of_capabilities() -> None:
    routers = set().union(*ROUTERS_OF.values())
    assert set(RouterModel.model_fields) == routers == set(ROUTER_CAPABILITIES)
    assert set(MOST_VERSIONS) <= routers
    assert all("weights" in known for known in ROUTER_CAPABILITIES.values())


def test_a_router_of_two_versions_lets_a_third_wait() -> None:
    assert environment(router={"ingress_nginx": "shop"}).policy["max_arms"] == 1
    assert environment(router={"istio": "shop"}).policy["max_arms"] == 4
    with pytest.raises(ValidationError):
        environment(router={"ingress_nginx": "shop"}, policy={"max_arms": 2})
    assert environment(router={"ingress_nginx": "shop"}, policy={"max_arms": 1}).policy["max_arms"] == 1


def test_what_nothing_measures_is_judged_by_nothing() -> None:
    assert environment().judge == "none"
    assert environment(signals=[PROMETHEUS]).judge == "sequential"
    assert environment(judge="none").judge == "none"
    for judge in ("sequential", "threshold"):
        with pytest.raises(ValidationError):
            environment(judge=judge)
        assert environment(judge=judge, signals=[PROMETHEUS]).judge == judge


def test_a_release_that_nothing_measures_is_told() -> None:
    text = pipeline("production").replace("signals:", "x-signals:")
    assert told(text) == [
        "warning: nothing measures what runs in `production`: a release goes as far as its replicas are ready"
    ]
    assert told(pipeline("production")) == []


def deployed(text: str, **parameters: Any) -> dict[str, Any]:
    (job,) = plan(text, **parameters).jobs
    target: dict[str, Any] = job.steps[0].config["target"]
    return target


def test_an_expression_in_an_environment_is_filled_in_by_each_deploy_step() -> None:
    text = pipeline("production", 'manifests: k8s, images: {shop: "shop:${{ params.version }}", side: "side:1"}')
    assert deployed(text) == {"images": {"shop": "shop:${{ params.version }}", "side": "side:1"}}
    assert plan(text).environments[0].target_config["images"] == {"side": "side:1"}, "the same for every run"
    assert plan(text, version="2").environments == plan(text).environments


def test_a_steps_own_image_goes_over_the_environments() -> None:
    target = 'manifests: k8s, images: {shop: "shop:${{ params.version }}", side: "side:1"}'
    step = '{environment: production, target: {images: {shop: "shop:mine", other: "x:1"}}}'
    assert deployed(pipeline(step, target)) == {"images": {"shop": "shop:mine", "side": "side:1", "other": "x:1"}}


def test_a_constant_environment_adds_nothing_to_the_step() -> None:
    assert deployed(pipeline("production", 'manifests: k8s, images: {shop: "shop:1"}')) == {}


def test_an_expression_in_chart_settings_takes_the_chart_into_the_step() -> None:
    target = 'helm: {chart: charts/shop, set: {tag: "${{ params.version }}", size: 3}}'
    expected = {
        "chart": "charts/shop",
        "release": "",
        "values": [],
        "settings": {"tag": "${{ params.version }}", "size": "3"},
    }
    assert deployed(pipeline("production", target))["helm"] == expected
    kept = plan(pipeline("production", target)).environments[0].target_config["helm"]
    assert kept["settings"] == {"size": "3"}


def test_a_step_with_manifests_of_its_own_needs_no_chart() -> None:
    target = 'helm: {chart: charts/shop, set: {tag: "${{ params.version }}"}}'
    step = "{environment: production, target: {manifests: k8s}}"
    assert deployed(pipeline(step, target)) == {"manifests": ["k8s"], "kustomize": "", "helm": None}


def test_a_step_for_every_value_of_a_matrix_gets_the_words_of_its_environment() -> None:
    text = """
environments:
  eu: {target: {kubernetes: {manifests: k8s, images: {shop: "eu/shop:${{ run.commit }}"}}}}
  us: {target: {kubernetes: {manifests: k8s, images: {shop: "us/shop:${{ run.commit }}"}}}}
jobs:
  deploy:
    matrix: {region: [eu, us]}
    steps:
      - deploy: ${{ matrix.region }}
"""
    images = [job.steps[0].config["target"]["images"]["shop"] for job in plan(text).jobs]
    assert images == ["eu/shop:${{ run.commit }}", "us/shop:${{ run.commit }}"]


@pytest.mark.parametrize(("router", "key", "able"), [
    (router, key, capability in ROUTER_CAPABILITIES[router])
    for router in sorted(ROUTERS_OF["kubernetes"])
    for key, capability in (("header: x", "header_routes"), ("cookie: x", "cookie_routes"), ("mirror: 5%", "mirror"))
])  # fmt: skip
def test_a_route_that_the_router_cannot_make_is_refused_in_the_plan(router: str, key: str, able: bool) -> None:
    settings = "replicas" if router == "replicas" else f"{{{router}: shop}}"
    text = pipeline(f"{{environment: production, routes: [{{{key}}}]}}", more=f"router: {settings}")
    if able:
        assert plan(text).jobs
        return
    with pytest.raises(InvalidConfiguration) as refused:
        plan(text)
    (one,) = refused.value.diagnostics
    assert one.code == "capability"
    assert f"`{router}` cannot" in one.message
    assert all(name in one.hint for name in ("istio",)), "which router can"


@pytest.mark.parametrize("kind", ["StatefulSet", "DaemonSet"])
@pytest.mark.parametrize(("strategy", "able"), [("rolling", True), ("canary", False), ("blue_green", False)])
def test_pods_that_cannot_be_there_twice_roll(kind: str, strategy: str, able: bool) -> None:
    text = pipeline(f"{{environment: production, strategy: {strategy}}}", f"manifests: k8s, workload: {kind}/db")
    assert any("cannot run two versions beside each other" in one for one in told(text)) is not able


def test_what_another_target_has_is_refused_on_a_step() -> None:
    text = pipeline("{environment: production, target: {command: ./serve}}")
    assert told(text) == ["error: the target of `production` is `kubernetes`, which has no `command`"]


def test_overrides_are_named_as_the_targets_configuration_is() -> None:
    assert set(configs.KubernetesTargetConfig.__struct_fields__) >= OVERRIDES["kubernetes"]
    assert set(configs.LocalTargetConfig.__struct_fields__) >= OVERRIDES["local"]


def test_one_source_of_a_step_empties_the_environments() -> None:
    given = TargetOverrides.model_validate({"kustomize": "overlays/prod"}).overrides()
    assert given == {"manifests": [], "kustomize": "overlays/prod", "helm": None}
    merged = {**environment({"manifests": "k8s"}).target_config, **given}
    assert msgspec.convert(merged, KubernetesTargetConfig).manifests == ()


def test_a_short_chart_is_a_chart() -> None:
    assert HelmModel.model_validate("charts/shop").config() == HelmChart("charts/shop")


names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)


@given(
    st.fixed_dictionaries(
        {"manifests": st.lists(names, min_size=1, max_size=3)},
        optional={
            "context": names, "namespace": names, "service": names, "workload": names.map(lambda n: f"Deployment/{n}"),
            "images": st.dictionaries(names, names, max_size=2), "replicas": st.integers(1, 500), "adopt": st.booleans(),
        },
    )
)  # fmt: skip
def test_whatever_is_given_is_kept(given: dict[str, Any]) -> None:
    made = msgspec.to_builtins(config(given))
    for key, value in given.items():
        kept = made["access"].get(key) if key in {"context", "namespace"} else made[key]
        assert kept == (tuple(value) if key == "manifests" else value) or list(kept) == value


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(KubernetesTargetModel.keys())), anything)
def test_any_value_is_taken_or_refused_in_words(key: str, value: Any) -> None:
    try:
        KubernetesTargetModel.model_validate({"workload": "Deployment/shop", key: value}).config()
    except ValidationError as wrong:
        refused = wrong.errors()
    else:
        return
    assert all(error["type"] in {"forge", "missing", "extra_forbidden"} for error in refused), "in words of ours"
