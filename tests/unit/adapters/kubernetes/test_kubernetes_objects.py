"""Which part each object of a release plays, in which order they are applied, and what is pruned."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.adapters.kubernetes.objects import (
    NEVER_PRUNED,
    ObjectKey,
    find_service,
    find_workload,
    in_apply_order,
    key_of,
    prunable,
    references,
    split_objects,
    with_references,
)
from forge.model.errors import UsageError


def thing(kind: str, name: str, api: str = "v1", namespace: str = "", **rest: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def workload(name: str = "shop", kind: str = "Deployment", pod: dict[str, Any] | None = None) -> dict[str, Any]:
    pod = pod or {"containers": [{"name": "shop", "image": "shop:1"}]}
    labels = {"app": name}
    template = {"metadata": {"labels": {**labels, "tier": "web"}}, "spec": pod}
    return thing(kind, name, "apps/v1", spec={"selector": {"matchLabels": labels}, "template": template})


def service(name: str = "shop", app: str = "shop", namespace: str = "", **spec: Any) -> dict[str, Any]:
    return thing("Service", name, namespace=namespace, spec={"selector": {"app": app}, **spec})


READER = {
    "containers": [
        {
            "name": "shop",
            "envFrom": [{"configMapRef": {"name": "settings"}}, {"secretRef": {"name": "keys"}}],
            "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "one", "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "two", "key": "b"}}},
                {"name": "C", "value": "plain"},
            ],
        }
    ],
    "initContainers": [{"name": "before", "envFrom": [{"configMapRef": {"name": "first"}}]}],
    "volumes": [
        {"name": "files", "configMap": {"name": "files"}},
        {"name": "tls", "secret": {"secretName": "tls"}},
        {"name": "both", "projected": {"sources": [{"configMap": {"name": "p1"}}, {"secret": {"name": "p2"}}]}},
        {"name": "scratch", "emptyDir": {}},
    ],
}
READ = {
    ("ConfigMap", "settings"), ("Secret", "keys"), ("ConfigMap", "one"), ("Secret", "two"), ("ConfigMap", "first"),
    ("ConfigMap", "files"), ("Secret", "tls"), ("ConfigMap", "p1"), ("Secret", "p2"),
}  # fmt: skip


def test_an_object_is_known_by_its_group_not_by_its_version() -> None:
    before = key_of(thing("Ingress", "shop", "networking.k8s.io/v1beta1"))
    assert before == key_of(thing("Ingress", "shop", "networking.k8s.io/v1"))
    assert before.title == "Ingress/shop"
    assert key_of(thing("Role", "r", "rbac.authorization.k8s.io/v1", "other")).title == "Role/r in other"


def test_the_only_workload_is_the_one() -> None:
    assert find_workload([service(), workload()])["kind"] == "Deployment"
    assert find_workload([workload(kind="StatefulSet")])["kind"] == "StatefulSet"


@pytest.mark.parametrize("wanted", ["Deployment/worker", "worker"])
def test_of_several_workloads_the_named_one_is_taken(wanted: str) -> None:
    assert find_workload([workload(), workload("worker")], wanted)["metadata"]["name"] == "worker"


def test_a_workload_that_is_not_there_is_told_with_what_is_near() -> None:
    with pytest.raises(UsageError) as told:
        find_workload([workload(), workload("worker")], "Deployment/wroker")
    assert told.value.message == "the manifests hold no workload `Deployment/wroker`"
    assert told.value.hint == "did you mean `Deployment/worker`?"


def test_several_workloads_are_all_named_and_the_key_to_set() -> None:
    with pytest.raises(UsageError) as told:
        find_workload([workload(), workload("worker")])
    assert told.value.message == "the manifests hold 2 workloads: `Deployment/shop`, `Deployment/worker`"
    assert told.value.hint == "say which one is released: `workload: Deployment/shop`"


def test_one_name_of_two_kinds_needs_the_kind() -> None:
    both = [workload(), workload(kind="StatefulSet")]
    with pytest.raises(UsageError, match="several workloads `shop`"):
        find_workload(both, "shop")
    assert find_workload(both, "StatefulSet/shop")["kind"] == "StatefulSet"


def test_manifests_without_a_workload_are_refused_whatever_else_they_hold() -> None:
    foreign = thing("Deployment", "shop", "example.com/v1")
    with pytest.raises(UsageError, match="hold no Deployment, StatefulSet or DaemonSet"):
        find_workload([service(), foreign])


def test_the_service_is_found_by_what_it_selects() -> None:
    objects = [service("other", app="db"), service("front"), workload()]
    assert find_service(objects, objects[2]) == objects[1]
    assert find_service([workload()], workload()) is None
    assert find_service([thing("Service", "all", spec={})], workload()) is None, "no selector selects nothing"


def test_a_headless_service_beside_one_with_an_address_is_not_the_one_that_clients_ask() -> None:
    headless = service("peers", clusterIP="None")
    assert find_service([headless, service("front")], workload()) == service("front")
    assert find_service([headless], workload()) == headless


def test_several_services_of_the_same_pods_need_a_name() -> None:
    objects = [service("a"), service("b")]
    with pytest.raises(UsageError) as told:
        find_service(objects, workload())
    assert told.value.hint == "say which one clients ask: `service: a`"
    assert find_service(objects, workload(), "b") == objects[1]


def test_a_service_of_other_pods_is_refused_with_the_labels_that_it_needs() -> None:
    with pytest.raises(UsageError) as told:
        find_service([service("db", app="db")], workload(), "db")
    assert told.value.message == "the Service `db` does not select the pods of Deployment/shop"
    assert told.value.hint == "its selector must fit their labels: app=shop, tier=web"


def test_an_unknown_service_is_told_with_what_is_near() -> None:
    with pytest.raises(UsageError) as told:
        find_service([service("front")], workload(), "frnt")
    assert told.value.hint == "did you mean `front`?"
    with pytest.raises(UsageError) as told:
        find_service([], workload(), "front")
    assert told.value.hint == "add a Service to the manifests, or leave `service` out"


def test_a_service_of_another_namespace_is_not_the_workloads() -> None:
    home = workload()
    home["metadata"]["namespace"] = "shop"
    assert find_service([service(namespace="other")], home) is None
    assert find_service([service(namespace="shop")], home) is not None
    assert find_service([service()], home) is not None, "one that names none is where the others are"


def test_every_place_that_reads_configuration_is_found() -> None:
    assert references(workload(pod=READER)) == READ
    cron = thing("CronJob", "nightly", "batch/v1", spec={"jobTemplate": {"spec": {"template": {"spec": READER}}}})
    assert references(cron) == READ
    assert references(thing("Pod", "one", spec=READER)) == READ
    assert references(service()) == set()


def test_what_pods_read_is_renamed_everywhere_and_the_original_stays() -> None:
    before = workload(pod=READER)
    kept = copy.deepcopy(before)
    after = with_references(before, {key: f"{key[1]}-abc" for key in READ})
    assert before == kept
    assert references(after) == {(kind, f"{name}-abc") for kind, name in READ}
    assert with_references(after, {(kind, f"{name}-abc"): name for kind, name in READ}) == before


def test_a_secret_and_a_config_map_of_one_name_are_told_apart() -> None:
    pod = {"volumes": [{"configMap": {"name": "x"}}, {"secret": {"secretName": "x"}}]}
    after = with_references(workload(pod=pod), {("Secret", "x"): "y"})
    assert references(after) == {("ConfigMap", "x"), ("Secret", "y")}


def scaler(target: str = "shop", kind: str = "Deployment") -> dict[str, Any]:
    return thing(
        "HorizontalPodAutoscaler", f"{target}-scaler", "autoscaling/v2",
        spec={"scaleTargetRef": {"apiVersion": "apps/v1", "kind": kind, "name": target}},
    )  # fmt: skip


def budget(app: str = "shop") -> dict[str, Any]:
    return thing("PodDisruptionBudget", app, "policy/v1", spec={"selector": {"matchLabels": {"app": app}}})


ROUTES = [
    thing("HTTPRoute", "a", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": [{"name": "shop"}]}]}),
    thing("GRPCRoute", "b", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": [{"name": "shop"}]}]}),
    thing("Ingress", "c", "networking.k8s.io/v1", spec={"rules": [{"http": {"paths": [{"backend": {"service": {"name": "shop"}}}]}}]}),
    thing("Ingress", "d", "networking.k8s.io/v1", spec={"defaultBackend": {"service": {"name": "shop"}}}),
    thing("VirtualService", "e", "networking.istio.io/v1", spec={"http": [{"route": [{"destination": {"host": "shop"}}]}]}),
    thing("VirtualService", "f", "networking.istio.io/v1", "web", spec={"http": [{"route": [{"destination": {"host": "shop.web.svc.cluster.local"}}]}]}),
]  # fmt: skip


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route['kind']}-{route['metadata']['name']}")
def test_a_route_to_the_service_is_no_shared_object(route: dict[str, Any]) -> None:
    parts = split_objects([workload(), service(), route])
    assert parts.routes == (route,)
    assert parts.shared == ()


def test_a_route_to_something_else_is_shared() -> None:
    other = thing("HTTPRoute", "x", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": [{"name": "db"}]}]})
    assert split_objects([workload(), service(), other]).shared == (other,)
    assert split_objects([workload(), ROUTES[0]]).shared == (ROUTES[0],), "no service, so nothing to split"


def test_each_object_has_its_part() -> None:
    settings, unused = thing("ConfigMap", "settings"), thing("ConfigMap", "unused")
    job = thing("Job", "load", "batch/v1", spec={"template": {"spec": {"containers": [{"name": "x"}]}}})
    main = workload(pod=READER)
    objects = [job, ROUTES[0], scaler(), budget(), budget("db"), unused, settings, main, service(), scaler("db")]
    parts = split_objects(objects)
    assert (parts.workload, parts.service, parts.mounted) == (main, service(), (settings,))
    assert (parts.autoscaler, parts.budgets, parts.routes) == (scaler(), (budget(),), (ROUTES[0],))
    assert parts.shared == (unused, budget("db"), job, scaler("db"))


def test_configuration_that_another_object_reads_too_stays_under_its_name() -> None:
    settings = thing("ConfigMap", "settings")
    job = thing("Job", "load", "batch/v1", spec={"template": {"spec": READER}})
    parts = split_objects([workload(pod=READER), settings, job])
    assert parts.mounted == (settings,)
    assert parts.shared == (settings, job)


def test_configuration_of_another_namespace_is_not_the_pods() -> None:
    main = workload(pod=READER)
    main["metadata"]["namespace"] = "shop"
    away = thing("ConfigMap", "settings", namespace="other")
    assert split_objects([main, away]).shared == (away,)


def test_a_budget_of_more_than_labels_is_left_alone() -> None:
    wide = budget()
    wide["spec"]["selector"]["matchExpressions"] = [{"key": "app", "operator": "Exists"}]
    assert split_objects([workload(), wide]).shared == (wide,)


def test_what_others_need_comes_first_and_what_may_refuse_them_last() -> None:
    kinds = [
        "ValidatingWebhookConfiguration", "HTTPRoute", "Widget", "HorizontalPodAutoscaler", "Deployment", "Service",
        "PersistentVolumeClaim", "ConfigMap", "RoleBinding", "Role", "ServiceAccount", "CustomResourceDefinition",
        "Namespace",
    ]  # fmt: skip
    ordered = [item["kind"] for item in in_apply_order(thing(kind, "x") for kind in kinds)]
    assert ordered == [
        "Namespace", "CustomResourceDefinition", "ServiceAccount", "Role", "RoleBinding", "ConfigMap",
        "PersistentVolumeClaim", "Service", "Deployment", "HorizontalPodAutoscaler", "HTTPRoute", "Widget",
        "ValidatingWebhookConfiguration",
    ]  # fmt: skip


def test_the_order_of_the_files_is_kept_among_equals() -> None:
    names = ["b", "c", "a"]
    assert [item["metadata"]["name"] for item in in_apply_order(thing("ConfigMap", name) for name in names)] == names


def test_what_no_version_has_any_more_is_pruned_in_reverse_order() -> None:
    before = [key_of(item) for item in (thing("ConfigMap", "old"), thing("Service", "old"), thing("ConfigMap", "new"))]
    gone = prunable(before, [ObjectKey("", "ConfigMap", "", "new")]).gone
    assert [key.title for key in gone] == ["Service/old", "ConfigMap/old"]


@pytest.mark.parametrize("kind", sorted(NEVER_PRUNED))
def test_what_holds_data_is_kept_and_told(kind: str) -> None:
    pruning = prunable([ObjectKey("", kind, "", "precious")], [])
    assert pruning.gone == ()
    assert [key.name for key in pruning.kept] == ["precious"]


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["spec", "template", "metadata", "labels", "selector", "containers", "volumes", "configMap", "name", "rules",
         "backendRefs", "http", "matchLabels", "envFrom", "projected", "sources", "scaleTargetRef"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
kinds = st.sampled_from(["Deployment", "Service", "ConfigMap", "HTTPRoute", "Ingress", "CronJob", "Pod", "X"])
wild = st.builds(
    lambda kind, name, spec: thing(kind, name, "apps/v1" if kind == "Deployment" else "v1", spec=spec),
    kinds,
    st.sampled_from(["a", "b"]),
    anything,
)


@pytest.mark.parametrize("name", [["a"], {"a": 1}, 7, None])
def test_a_route_with_a_backend_that_is_no_name_is_shared(name: Any) -> None:
    odd = thing("HTTPRoute", "x", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": [{"name": name}]}]})
    assert split_objects([workload(), service(), odd]).shared == (odd,)


@given(st.lists(wild, max_size=5))
def test_objects_of_any_shape_are_split_without_loss_or_refused_in_words(objects: list[dict[str, Any]]) -> None:
    before = copy.deepcopy(objects)
    try:
        parts = split_objects(objects)
    except UsageError as told:
        refused = told
    else:
        refused = None
    assert objects == before, "nothing that is given is changed"
    if refused is not None:
        assert refused.message
        assert refused.hint
        return
    single = [parts.workload, *filter(None, (parts.service, parts.autoscaler))]
    groups = [*parts.mounted, *parts.budgets, *parts.routes, *parts.shared]
    for item in objects:
        assert item in single + groups
    assert with_references(parts.workload, {}) == parts.workload
