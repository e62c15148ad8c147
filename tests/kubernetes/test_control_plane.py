"""The control plane of the tests is the real one: what a deployment tool relies on, it does."""

from __future__ import annotations

import json
import sys

import pytest

from cluster.access import Api, Kubectl, Refused, until
from cluster.fixtures import fresh_namespace

SERVER = """
import http.server, os, socket
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = os.environ["VERSION"].encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
print("serving", os.environ["VERSION"], flush=True)
http.server.ThreadingHTTPServer((os.environ["POD_IP"], 8080), Answer).serve_forever()
"""


def deployment(name: str = "shop", replicas: int = 4, version: str = "v1", **annotations: str) -> dict:
    """Return a Deployment whose pods serve their version's name."""
    container = {
        "name": "shop",
        "image": f"registry.test/shop:{version}",
        "command": [sys.executable, "-c", SERVER],
        "env": [
            {"name": "VERSION", "value": version},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": annotations},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def config_map(name: str = "settings", **data: str) -> dict:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def test_it_is_kubernetes_itself_and_not_a_likeness(cluster):
    told = cluster.api("GET", "/version")
    assert (told["major"], told["minor"]) == ("1", "36")
    kinds = {one["kind"] for one in cluster.api("GET", "/apis/apps/v1")["resources"]}
    assert {"Deployment", "StatefulSet", "ReplicaSet", "DaemonSet"} <= kinds


def test_a_deployment_gets_ready_and_its_service_knows_the_pods(kubectl):
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "shop"},
        "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    kubectl.apply(deployment(), service)
    kubectl.rolled_out("deployment/shop")
    assert kubectl.json("get", "deployment", "shop")["status"]["readyReplicas"] == 4

    def ready_endpoints():
        slices = kubectl.json("get", "endpointslices", "-l", "kubernetes.io/service-name=shop")["items"]
        found = [one for each in slices for one in each["endpoints"] if one["conditions"]["ready"]]
        return len(found) == 4

    until(ready_endpoints, "four endpoints", 20)


def test_pods_write_logs_that_kubectl_reads(kubectl):
    kubectl.apply(deployment(replicas=1, version="v7"))
    kubectl.rolled_out("deployment/shop")
    assert "serving v7" in kubectl.ok("logs", "deployment/shop")


def test_kubectl_rolls_a_change_out_and_undoes_it(kubectl):
    kubectl.apply(deployment(replicas=2, version="v1"))
    kubectl.rolled_out("deployment/shop")
    kubectl.apply(deployment(replicas=2, version="v2"))
    kubectl.rolled_out("deployment/shop")

    def images():
        pods = kubectl.json("get", "pods", "-l", "app=shop")["items"]
        return {pod["spec"]["containers"][0]["image"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}

    until(lambda: images() == {"registry.test/shop:v2"}, "the second version alone", 20)
    kubectl.ok("rollout", "undo", "deployment/shop")
    kubectl.rolled_out("deployment/shop")
    until(lambda: images() == {"registry.test/shop:v1"}, "the first version alone", 20)


def test_a_pod_that_never_gets_ready_holds_a_rollout_up(kubectl):
    broken = deployment(replicas=1, **{"forge.test/fail": "never-ready"})
    broken["spec"]["progressDeadlineSeconds"] = 3
    kubectl.apply(broken)
    done = kubectl("rollout", "status", "deployment/shop", "--timeout=30s")
    assert done.returncode != 0
    assert "exceeded its progress deadline" in done.stdout + done.stderr


def test_two_owners_of_a_field_are_a_conflict_unless_forced(kubectl):
    mine = ("apply", "--server-side", "--field-manager=forge", "-f", "-")
    kubectl.ok(*mine, stdin=config_map(colour="blue"))
    theirs = kubectl("apply", "--server-side", "--field-manager=somebody", "-f", "-", stdin=config_map(colour="red"))
    assert theirs.returncode != 0
    assert 'conflict with "forge": .data.colour' in theirs.stderr
    assert kubectl.json("get", "configmap", "settings")["data"] == {"colour": "blue"}
    forced = ("apply", "--server-side", "--force-conflicts", "--field-manager=somebody", "-f", "-")
    kubectl.ok(*forced, stdin=config_map(colour="red"))
    assert kubectl.json("get", "configmap", "settings")["data"] == {"colour": "red"}


def test_a_write_to_what_has_changed_meanwhile_is_refused(cluster, namespace):
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    old = cluster.api("POST", path, config_map(colour="blue"))
    cluster.api("PUT", f"{path}/settings", {**old, "data": {"colour": "red"}})
    with pytest.raises(Refused) as refused:
        cluster.api("PUT", f"{path}/settings", {**old, "data": {"colour": "green"}})
    assert (refused.value.code, refused.value.status["reason"]) == (409, "Conflict")


def test_an_account_may_do_what_its_role_says_and_nothing_else(cluster, namespace, service_account_kubeconfig):
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "create"]}]
    api = Api(service_account_kubeconfig(rules))
    path = f"/api/v1/namespaces/{namespace}"
    assert api("POST", f"{path}/configmaps", config_map(colour="blue"))["data"] == {"colour": "blue"}
    for verb, where in (
        ("DELETE", f"{path}/configmaps/settings"),
        ("GET", f"{path}/secrets"),
        ("GET", "/api/v1/nodes"),
    ):
        with pytest.raises(Refused) as refused:
            api(verb, where)
        assert (refused.value.code, refused.value.status["reason"]) == (403, "Forbidden")
    assert f"system:serviceaccount:{namespace}:forge" in refused.value.status["message"]


def test_an_account_without_rules_is_known_but_may_nothing(namespace, service_account_kubeconfig):
    kubectl = Kubectl(service_account_kubeconfig([], name="nobody"), namespace)
    done = kubectl("get", "pods")
    assert done.returncode != 0
    assert "Forbidden" in done.stderr


def test_a_quota_refuses_what_exceeds_it(kubectl):
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "few"},
        "spec": {"hard": {"pods": "2", "count/configmaps": "2"}},
    }
    kubectl.apply(quota)
    until(lambda: kubectl.json("get", "resourcequota", "few").get("status", {}).get("used"), "the quota to count", 20)
    kubectl.apply(deployment(replicas=4))

    def refused():
        status = kubectl.json("get", "deployment", "shop").get("status", {})
        told = {one["type"]: one for one in status.get("conditions", [])}
        return status.get("readyReplicas") == 2 and told.get("ReplicaFailure")

    assert "exceeded quota: few" in until(refused, "two ready replicas and a refusal", 30)["message"]


def test_a_namespace_that_is_being_deleted_takes_nothing_new(cluster, namespace):
    path = f"/api/v1/namespaces/{namespace}"
    holding = config_map("holding")
    holding["metadata"]["finalizers"] = ["forge.test/holding"]
    cluster.api("POST", f"{path}/configmaps", holding)
    cluster.api("DELETE", path)
    with pytest.raises(Refused) as refused:
        cluster.api("POST", f"{path}/configmaps", config_map("new"))
    assert refused.value.code == 403
    assert "because it is being terminated" in refused.value.status["message"]
    change = [{"op": "remove", "path": "/metadata/finalizers"}]
    cluster.api("PATCH", f"{path}/configmaps/holding", change, kind="application/json-patch+json")


DEPLOYMENTS = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}


def test_an_admission_webhook_refuses_with_its_own_words(kubectl, admission_webhook):
    def verdict(item: dict) -> str | None:
        return None if item["metadata"].get("labels", {}).get("team") else "every Deployment needs a team"

    hook = admission_webhook(DEPLOYMENTS, verdict)
    refused = kubectl("apply", "-f", "-", stdin=deployment(replicas=1))
    assert refused.returncode != 0
    assert "every Deployment needs a team" in refused.stderr
    allowed = deployment(replicas=1)
    allowed["metadata"]["labels"] = {"team": "shop"}
    kubectl.apply(allowed)
    assert hook.seen >= 2


def test_an_admission_webhook_that_does_not_answer_fails_the_write(cluster, namespace, admission_webhook):
    hook = admission_webhook(DEPLOYMENTS, lambda item: None, patience=1)
    hook.delay = 3.0
    with pytest.raises(Refused) as refused:
        cluster.api("POST", f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment())
    assert refused.value.code == 500
    assert "failed calling webhook" in refused.value.status["message"]


def test_a_kind_that_the_cluster_does_not_know_is_told_so(kubectl):
    unknown = {"apiVersion": "forge.test/v1", "kind": "Wish", "metadata": {"name": "peace"}}
    done = kubectl("apply", "-f", "-", stdin=unknown)
    assert done.returncode != 0
    assert 'no matches for kind "Wish" in version "forge.test/v1"' in done.stderr


def test_a_paused_deployment_takes_no_change_until_it_goes_on(kubectl):
    kubectl.apply(deployment(replicas=1, version="v1"))
    kubectl.rolled_out("deployment/shop")
    kubectl.ok("rollout", "pause", "deployment/shop")
    kubectl.ok("set", "image", "deployment/shop", "shop=registry.test/shop:v2")
    until(lambda: kubectl.json("get", "deployment", "shop")["status"]["observedGeneration"] >= 3, "the controller", 20)
    assert len(kubectl.json("get", "replicasets")["items"]) == 1
    kubectl.ok("rollout", "resume", "deployment/shop")
    until(lambda: len(kubectl.json("get", "replicasets")["items"]) == 2, "the second version", 20)


def watched(api: Api, namespace: str, version: str) -> list[dict]:
    """Return the events of a watch of one second from a version on."""
    path = f"/api/v1/namespaces/{namespace}/configmaps?watch=1&timeoutSeconds=1&resourceVersion={version}"
    return [json.loads(line) for line in api.text("GET", path).splitlines()]


@pytest.mark.long
def test_an_apiserver_that_comes_back_keeps_what_was_but_not_its_history(own_cluster):
    api = own_cluster.api()
    with fresh_namespace(own_cluster, "restart") as name:
        path = f"/api/v1/namespaces/{name}/configmaps"
        version = api("POST", path, config_map(colour="blue"))["metadata"]["resourceVersion"]
        api("PATCH", f"{path}/settings", {"data": {"colour": "red"}}, kind="application/merge-patch+json")
        changes = [one["object"]["data"]["colour"] for one in watched(api, name, version) if one["type"] == "MODIFIED"]
        assert changes == ["red"]

        own_cluster.stop_apiserver("kill")
        with pytest.raises(OSError, match="refused"):
            api("GET", path)
        own_cluster.start_apiserver()
        assert api("GET", f"{path}/settings")["data"] == {"colour": "red"}

        own_cluster.forget_history()
        own_cluster.restart_apiserver()
        try:
            told = [(one["type"], one["object"].get("code")) for one in watched(api, name, version)]
        except Refused as refused:
            told = [("ERROR", refused.code)]
        assert told == [("ERROR", 410)]

        kubectl = own_cluster.kubectl(name)
        kubectl.apply(deployment(replicas=1))
        kubectl.rolled_out("deployment/shop", patience=45)
