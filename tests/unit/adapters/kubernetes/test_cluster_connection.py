"""The connection to a cluster, against a server that answers, refuses, hangs, and talks nonsense."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from cluster.scripted_api import Answer, Request, ScriptedApi, listing, status
from forge.adapters.kubernetes import connection, errors
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, Kind
from forge.model.configs import KubernetesAccess
from forge.model.errors import DependencyFailed, UsageError

Script = Callable[[Request], Answer]


class Stage:
    """A scripted server and a connection to it."""

    def __init__(self, api: ScriptedApi, cluster: Cluster) -> None:
        self.api, self.cluster = api, cluster

    def plays(self, *answers: Answer) -> None:
        """Give these answers in turn, the last one for ever."""
        left = list(answers)
        self.api.script = lambda _: left.pop(0) if len(left) > 1 else left[0]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    api = ScriptedApi(lambda _: Answer())
    await api.start()
    cluster = Cluster(KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path)))
    yield Stage(api, cluster)
    await cluster.close()
    await api.stop()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.4)


async def test_an_object_is_read_and_one_that_is_not_there_is_none(stage) -> None:
    stage.plays(Answer(body={"kind": "ConfigMap", "metadata": {"name": "a"}}))
    assert (await stage.cluster.get(CONFIG_MAP, "a"))["metadata"]["name"] == "a"
    assert stage.api.requests[0].path == "/api/v1/namespaces/shop/configmaps/a"
    stage.plays(status(404, "not found", reason="NotFound"))
    assert await stage.cluster.get(CONFIG_MAP, "a") is None
    assert await stage.cluster.delete(CONFIG_MAP, "a") is False


async def test_all_pages_of_a_list_are_read(stage) -> None:
    first = {"metadata": {"continue": "more", "resourceVersion": "4"}, "items": [{"metadata": {"name": "a"}}]}
    stage.plays(Answer(body=first), listing([{"metadata": {"name": "b"}}], "5"))
    items, version = await stage.cluster.objects(DEPLOYMENT, labels="a=b")
    assert [item["metadata"]["name"] for item in items] == ["a", "b"]
    assert {(item["apiVersion"], item["kind"]) for item in items} == {("apps/v1", "Deployment")}
    assert version == "5"
    assert "labelSelector=a%3Db" in stage.api.requests[0].query
    assert "continue=more" in stage.api.requests[1].query


@pytest.mark.parametrize("code", [429, 500, 503, 504])
async def test_a_busy_server_is_asked_again_also_for_writes(stage, code) -> None:
    busy = status(code, "busy")
    busy.headers["Retry-After"] = "0"
    stage.plays(busy, busy, Answer(body={"metadata": {"name": "a"}}))
    item = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    assert await stage.cluster.apply(item) == {"metadata": {"name": "a"}}
    assert len(stage.api.requests) == 3
    assert {request.body for request in stage.api.requests} == {json.dumps(item, separators=(",", ":")).encode()}


async def test_a_server_that_stays_busy_is_told_in_its_own_words(stage) -> None:
    busy = status(429, "too many requests, please try again later")
    busy.headers["Retry-After"] = "0"
    stage.plays(busy)
    with pytest.raises(DependencyFailed, match="cluster test: get ConfigMap a: too many requests"):
        await stage.cluster.get(CONFIG_MAP, "a")
    assert len(stage.api.requests) == connection.ATTEMPTS


async def test_a_long_pause_is_not_waited_for_here(stage) -> None:
    busy = status(429, "later")
    busy.headers["Retry-After"] = "60"
    stage.plays(busy)
    async with asyncio.timeout(1):
        with pytest.raises(DependencyFailed, match="later"):
            await stage.cluster.get(CONFIG_MAP, "a")
    assert len(stage.api.requests) == 1


async def test_a_server_that_says_nothing_is_given_up_in_time(stage) -> None:
    stage.plays(Answer(hang=True))
    async with asyncio.timeout(3):
        with pytest.raises(DependencyFailed, match=r"no answer within 0\.4 s"):
            await stage.cluster.get(CONFIG_MAP, "a")


async def test_a_connection_that_breaks_is_made_anew(stage) -> None:
    stage.plays(Answer(drop=True), Answer(body={"metadata": {"name": "a"}}))
    assert await stage.cluster.get(CONFIG_MAP, "a") == {"metadata": {"name": "a"}}


async def test_nobody_there_is_a_dependency_that_failed(stage) -> None:
    await stage.api.stop()
    with pytest.raises(DependencyFailed, match="cluster test: list deployments: "):
        await stage.cluster.objects(DEPLOYMENT)


@pytest.mark.parametrize("body", ["<html>proxy</html>", "[1]", '{"half": ', ""])
async def test_nonsense_is_no_answer(stage, body) -> None:
    stage.plays(Answer(body=body or " "))
    with pytest.raises(DependencyFailed, match="did not answer with JSON"):
        await stage.cluster.get(CONFIG_MAP, "a")


async def test_an_error_page_of_a_proxy_is_shown_in_part(stage) -> None:
    stage.plays(Answer(code=404, body="<html>no such page</html>" + "x" * 1000))
    with pytest.raises(errors.NotThere, match="no such page") as caught:
        await stage.cluster.objects(DEPLOYMENT)
    assert len(caught.value.message) < 400


async def test_a_kind_that_the_cluster_has_not_is_told_with_what_to_install(stage) -> None:
    stage.plays(status(404, "the server could not find the requested resource"))
    with pytest.raises(errors.NotThere, match=r"cluster test has no Certificate of cert-manager.io/v1") as caught:
        await stage.cluster.kind("cert-manager.io/v1", "Certificate")
    assert "CustomResourceDefinition" in (caught.value.hint or "")


async def test_a_kind_is_looked_up_once_and_a_slip_in_its_name_is_told(stage) -> None:
    resources = [{"name": "certificates", "kind": "Certificate", "namespaced": True},
                 {"name": "certificates/status", "kind": "Certificate", "namespaced": True}]  # fmt: skip
    stage.plays(Answer(body={"resources": resources}))
    for _ in range(2):
        kind = await stage.cluster.kind("cert-manager.io/v1", "Certificate")
        assert kind == Kind("cert-manager.io/v1", "Certificate", "certificates")
    assert len(stage.api.requests) == 1
    with pytest.raises(errors.NotThere) as caught:
        await stage.cluster.kind("cert-manager.io/v1", "Certifcate")
    assert caught.value.hint == "did you mean `Certificate`?"


async def test_a_kind_is_found_by_its_group_alone(stage) -> None:
    stage.api.script = lambda request: Answer(
        body={"preferredVersion": {"groupVersion": "g.example/v2"}} if request.path == "/apis/g.example"
        else {"resources": [{"name": "things", "kind": "Thing", "namespaced": False}]}
    )  # fmt: skip
    assert await stage.cluster.kind_in_group("g.example", "Thing") == Kind("g.example/v2", "Thing", "things", False)
    assert await stage.cluster.kind_in_group("", "ConfigMap") == CONFIG_MAP


async def test_a_deletion_is_of_that_very_object(stage) -> None:
    stage.plays(Answer(body={"kind": "Status"}))
    assert await stage.cluster.delete(DEPLOYMENT, "a", uid="u-1")
    assert json.loads(stage.api.requests[0].body) == {
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u-1"},
    }


async def test_objects_without_a_namespace_have_none_in_their_address(stage) -> None:
    await stage.cluster.get(NAMESPACE, "shop")
    assert stage.api.requests[0].path == "/api/v1/namespaces/shop"


async def test_an_unknown_context_is_told_with_the_one_that_was_meant(tmp_path, stage) -> None:
    path = stage.api.kubeconfig(tmp_path)
    with pytest.raises(UsageError, match="no context `prodction`") as caught:
        await Cluster(KubernetesAccess(kubeconfig=path, context="prodction")).version()
    assert caught.value.hint == "did you mean `production`?"


@pytest.mark.parametrize("text", ["", "clusters: [", "[]", "clusters: []\ncontexts: []\nusers: []\n"])
async def test_a_kubeconfig_that_is_none_is_a_slip_and_no_crash(tmp_path, text) -> None:
    path = tmp_path / "broken"
    path.write_text(text)
    with pytest.raises(UsageError, match="no cluster to talk to"):
        await Cluster(KubernetesAccess(kubeconfig=str(path))).version()
    with pytest.raises(UsageError, match="no cluster to talk to"):
        await Cluster(KubernetesAccess(kubeconfig=str(tmp_path / "missing"))).version()


async def test_the_environments_kubeconfig_goes_before_the_pods_own_account(tmp_path, stage, monkeypatch) -> None:
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{stage.api.kubeconfig(tmp_path)}")
    stage.plays(Answer(body={"gitVersion": "v1.36.3"}))
    cluster = Cluster(KubernetesAccess(namespace="elsewhere"))
    assert await cluster.version() == "v1.36.3"
    assert cluster.namespace == "elsewhere"
    await cluster.close()


async def test_a_login_command_of_the_newest_form_is_run(tmp_path, stage) -> None:
    script = tmp_path / "login"
    script.write_text('#!/bin/sh\necho \'{"status": {"token": "abc"}}\'\n')
    script.chmod(0o755)
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(script), "interactiveMode": "Never"}
    path = stage.api.kubeconfig(tmp_path, exec=login)
    stage.plays(Answer(body={"gitVersion": "v1"}))
    cluster = Cluster(KubernetesAccess(kubeconfig=path))
    assert await cluster.version() == "v1"
    await cluster.close()


def test_a_connection_outlives_the_loop_that_it_was_made_in(tmp_path) -> None:
    cluster: Cluster | None = None

    async def ask() -> str:
        nonlocal cluster
        api = ScriptedApi(lambda _: Answer(body={"gitVersion": "v1"}))
        await api.start()
        path = api.kubeconfig(tmp_path)
        cluster = cluster or Cluster(KubernetesAccess(kubeconfig=path))
        found = await cluster.version()
        await api.stop()
        return found

    assert asyncio.run(ask()) == "v1"
    assert asyncio.run(ask()) == "v1"


async def test_lines_end_with_the_connection_and_silence_is_noticed(stage) -> None:
    stage.plays(Answer(stream=["one", "two"]))
    path = "/api/v1/namespaces/shop/pods/a/log"
    assert [line async for line in stage.cluster.lines(path, {}, "read", silence=0.3)] == ["one", "two"]
    stage.plays(Answer(stream=["one"], keep_open=True))
    quiet = stage.cluster.lines(path, {}, "read", silence=0.2)
    assert await anext(quiet) == "one"
    with pytest.raises(DependencyFailed):
        await anext(quiet)
    stage.plays(status(403, "no"))
    with pytest.raises(errors.Refused):
        [line async for line in stage.cluster.lines(path, {}, "read", silence=0.2)]


async def test_credentials_that_were_renewed_in_the_kubeconfig_are_read_again(tmp_path, stage) -> None:
    path = stage.api.kubeconfig(tmp_path, token="old")
    stage.plays(Answer(body={"gitVersion": "v1"}))
    cluster = Cluster(KubernetesAccess(kubeconfig=path))
    await cluster.version()
    stage.plays(status(401, "Unauthorized"), Answer(body={"gitVersion": "v2"}))
    stage.api.kubeconfig(tmp_path, token="new")
    assert await cluster.version() == "v2"
    assert [request.headers["authorization"] for request in stage.api.requests] == [
        "Bearer old", "Bearer old", "Bearer new",
    ]  # fmt: skip
    stage.plays(status(401, "Unauthorized"))
    with pytest.raises(DependencyFailed, match="does not know who asks") as caught:
        await cluster.version()
    assert caught.value.hint == "log in to the cluster again"
    assert len(stage.api.requests) == 5
    await cluster.close()


@pytest.mark.parametrize("command", ["echo not json", "echo '{}'", "echo no way >&2; exit 1"])
async def test_a_login_command_that_fails_is_told(tmp_path, stage, command) -> None:
    script = tmp_path / "login"
    script.write_text(f"#!/bin/sh\n{command}\n")
    script.chmod(0o755)
    login = {"apiVersion": "client.authentication.k8s.io/v1beta1", "command": str(script)}
    cluster = Cluster(KubernetesAccess(kubeconfig=stage.api.kubeconfig(tmp_path, exec=login)))
    with pytest.raises(DependencyFailed, match="cluster test: ask its version: the kubeconfig's login failed"):
        await cluster.version()
    with pytest.raises(DependencyFailed, match="login failed"):
        [line async for line in cluster.lines("/log", {}, "read", silence=1)]
    await cluster.close()
