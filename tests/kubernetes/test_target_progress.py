"""Why replicas are not ready, on a real control plane: told in the first seconds, in words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from cluster import shops
from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.naming import name_for_version, version_slug
from forge.model.traffic import ReplicaCount, Version

VERSION = Version("1.0")
FIRST_SECONDS = 8.0
NAME = name_for_version("shop", version_slug("1.0"))


@pytest.fixture
async def shop(cluster, namespace, tmp_path) -> AsyncIterator[shops.Shop]:
    made = shops.Shop(cluster.kubeconfig, namespace, shops.written(tmp_path, shops.deployment(), shops.service()))
    yield made
    await made.close()


async def told(shop: shops.Shop, *words: str, seconds: float = FIRST_SECONDS) -> ReplicaCount:
    """Return the count once its message has all the words."""
    deadline = time.monotonic() + seconds
    while True:
        count = (await shop.observe()).get("1.0")
        if count is not None and all(word in count.message for word in words):
            assert count.ready < count.desired
            return count
        assert time.monotonic() < deadline, count
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        ("image-error", ("image", "cannot be pulled")),
        ("crash-loop", ("container web exits with",)),
        ("never-ready", ("container web runs",)),
    ],
)
async def test_a_failure_is_told_in_the_first_seconds(shop, tmp_path, fail, words) -> None:
    artifact = shops.written(tmp_path, shops.deployment(fail=fail), shops.service(), name="failing.yaml")
    await shop.ensure(VERSION, 2, artifact, 1)
    count = await told(shop, *words)
    assert (count.desired, count.ready) == (2, 0)


async def test_a_crash_comes_with_its_last_words(shop, tmp_path) -> None:
    program = ["/bin/sh", "-c", "echo starting; echo 'no database at db:5432'; exit 3"]
    artifact = shops.written(tmp_path, shops.deployment(command=program, replicas=1), name="crashing.yaml")
    await shop.ensure(VERSION, 1, artifact, 1)
    count = await told(shop, "container web exits with 3", "no database at db:5432")
    assert count.ready == 0


async def test_a_probe_that_fails_is_told_with_what_it_says(shop, tmp_path) -> None:
    workload = shops.deployment(replicas=1)
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["readinessProbe"] = {"exec": {"command": ["/bin/false"]}, "periodSeconds": 1}
    await shop.ensure(VERSION, 1, shops.written(tmp_path, workload, name="unready.yaml"), 1)
    await told(shop, "probe")


async def test_a_pod_that_fits_nowhere_is_told(shop, tmp_path) -> None:
    workload = shops.deployment(replicas=1)
    workload["spec"]["template"]["spec"]["nodeSelector"] = {"disk": "ssd"}
    await shop.ensure(VERSION, 1, shops.written(tmp_path, workload, name="nowhere.yaml"), 1)
    await told(shop, "no node takes it", "node affinity/selector")


async def test_a_pod_that_is_too_large_is_told(shop, tmp_path) -> None:
    workload = shops.deployment(replicas=1)
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["resources"] = {"requests": {"cpu": "100000"}}
    await shop.ensure(VERSION, 1, shops.written(tmp_path, workload, name="large.yaml"), 1)
    await told(shop, "no node takes it", "Insufficient cpu")


async def test_configuration_that_is_missing_is_told(shop, tmp_path) -> None:
    workload = shops.deployment(replicas=1)
    container = workload["spec"]["template"]["spec"]["containers"][0]
    container["envFrom"] = [{"secretRef": {"name": "not-there"}}]
    await shop.ensure(VERSION, 1, shops.written(tmp_path, workload, name="missing.yaml"), 1)
    await told(shop, "cannot be started", "not-there")


async def test_an_exceeded_quota_is_told_though_no_pod_was_made(shop, kubectl) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"},
                   "spec": {"hard": {"pods": "1"}}})  # fmt: skip
    await shop.ensure(VERSION, 3, None, 1)
    count = await told(shop, "no pod can be made", "exceeded quota: small")
    assert count.desired == 3


async def test_a_quota_on_what_forge_makes_is_refused_in_words(shop, kubectl) -> None:
    kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
                   "spec": {"hard": {"count/deployments.apps": "0"}}})  # fmt: skip
    deadline = time.monotonic() + 10
    while not kubectl.json("get", "resourcequota", "none").get("status", {}).get("hard"):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)
    with pytest.raises(errors.Refused, match=f"does not take Deployment {NAME}.*exceeded quota: none") as caught:
        await shop.ensure(VERSION, 1, None, 1)
    assert caught.value.hint == "free or raise the ResourceQuota"


async def test_a_policy_that_refuses_is_told_in_its_words(shop, kubectl, namespace) -> None:
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": f"no-{namespace}"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["deployments"]}]},
            "validations": [{"expression": "false", "message": "no releases on Fridays"}],
        },
    }  # fmt: skip
    binding = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": f"no-{namespace}"},
        "spec": {"policyName": f"no-{namespace}", "validationActions": ["Deny"],
                 "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}},
    }  # fmt: skip
    kubectl.apply(policy, binding)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                await shop.ensure(VERSION, 0, None, 1)
                await shop.ensure(VERSION, 1, None, 1)
            except errors.Refused as refused:
                assert "no releases on Fridays" in refused.message  # noqa: PT017
                break
            assert time.monotonic() < deadline
            await shop.remove("1.0", 1)
            await asyncio.sleep(0.2)
    finally:
        kubectl.ok("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", f"no-{namespace}")


async def test_a_webhook_that_does_not_answer_is_told(shop, kubectl, namespace) -> None:
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": f"dead-{namespace}"},
        "webhooks": [{
            "name": "dead.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 1, "clientConfig": {"url": "https://127.0.0.1:9/"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "rules": [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE"],
                       "resources": ["deployments"]}],
        }],
    }  # fmt: skip
    kubectl.apply(hook)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                await shop.ensure(VERSION, 1, None, 1)
            except Exception as refused:
                assert 'webhook "dead.example.com"' in str(refused)  # noqa: PT017
                break
            assert time.monotonic() < deadline
            await shop.remove("1.0", 1)
            await asyncio.sleep(0.2)
    finally:
        kubectl.ok("delete", "validatingwebhookconfiguration", f"dead-{namespace}")
    await shop.ensure(VERSION, 1, None, 1)


async def test_a_paused_deployment_is_told(shop, kubectl) -> None:
    await shop.ensure(VERSION, 1, None, 1)
    kubectl.ok("rollout", "pause", f"deployment/{NAME}")
    deadline = time.monotonic() + FIRST_SECONDS
    while "edited" not in (await shop.observe())["1.0"].message:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    await shop.ensure(VERSION, 1, None, 1)


async def test_an_invalid_manifest_is_told_with_its_field(shop, tmp_path) -> None:
    workload = shops.deployment(replicas=1)
    workload["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 99999999}]
    with pytest.raises(errors.Refused, match=r"containerPort|ports"):
        await shop.ensure(VERSION, 1, shops.written(tmp_path, workload, name="bad.yaml"), 1)


async def test_a_kind_that_is_not_installed_is_told_before_anything_runs(shop, tmp_path) -> None:
    certificate = {"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "tls"}, "spec": {}}
    artifact = shops.written(tmp_path, shops.deployment(), certificate, name="crd.yaml")
    with pytest.raises(errors.NotThere, match=r"no Certificate of cert-manager\.io/v1"):
        await shop.ensure(VERSION, 1, artifact, 1)
    assert await shop.observe() == {}
