"""The output of pods, and what is asked about those that are not ready, against a scripted apiserver."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster.scripted_api import Answer, Request, ScriptedApi, listing, status
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.targets.kubernetes import inquiring, logs
from forge.adapters.targets.kubernetes.counting import VersionSeen
from forge.adapters.targets.kubernetes.inquiring import Inquiry
from forge.adapters.targets.kubernetes.logs import read_logs
from forge.adapters.targets.kubernetes.progress import Details
from forge.model.configs import KubernetesAccess


class Pods:
    """Logs by pod; each read of a pod gives its next text, the last one for ever."""

    def __init__(self) -> None:
        self.texts: dict[str, list[Answer]] = {}
        self.gone: set[str] = set()
        self.events: list[dict] = []

    def __call__(self, request: Request) -> Answer:
        if request.path.endswith("/events"):
            return listing(self.events)
        name = request.path.split("/pods/")[1].removesuffix("/log")
        if not request.path.endswith("/log"):
            return status(404, "gone") if name in self.gone else Answer(body={"metadata": {"name": name}})
        texts = self.texts[name]
        return texts.pop(0) if len(texts) > 1 else texts[0]


def text(*lines: str, keep_open: bool = False) -> Answer:
    return Answer(stream=list(lines), keep_open=keep_open)


def pod(name: str, *containers: str, **status) -> dict:
    spec = {"containers": [{"name": each} for each in containers or ("web",)]}
    return {"metadata": {"name": name, "uid": name}, "spec": spec, "status": status}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ScriptedApi]:
    server = ScriptedApi(Pods())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def cluster(api, tmp_path) -> AsyncIterator[Cluster]:
    made = Cluster(KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path)))
    yield made
    await made.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(logs, "LOOK_AGAIN", 0.02)
    monkeypatch.setattr(inquiring, "AGAIN", 0.5)


def looking(versions: dict[str, list[dict]]):
    async def look() -> dict[str, VersionSeen]:
        return {key: VersionSeen(key, None, tuple(pods)) for key, pods in versions.items()}

    return look


async def read(cluster: Cluster, versions: dict[str, list[dict]], version: str | None, tail: int = 10) -> list[str]:
    return [line async for line in read_logs(cluster, looking(versions), version, follow=False, tail=tail)]


async def test_lines_of_one_version_or_of_all(api, cluster) -> None:
    api.script.texts = {"s-a": [text("one", "two")], "s-b": [text("three")]}
    versions = {"1.0": [pod("s-a")], "1.1": [pod("s-b")]}
    assert await read(cluster, versions, None) == ["1.0/a: one", "1.0/a: two", "1.1/b: three"]
    assert await read(cluster, versions, "1.1", tail=3) == ["1.1/b: three"]
    assert "tailLines=3" in api.requests[-1].query
    assert await read(cluster, versions, "9.9") == []


async def test_every_container_is_read_and_one_without_a_log_is_passed_over(api, cluster) -> None:
    waiting = status(400, 'container "web" in pod "s-a" is waiting to start: ContainerCreating', reason="BadRequest")
    api.script.texts = {"s-a": [waiting, text("from the second")], "s-b": [status(404, "no pod")], "s-c": [text("c")]}
    versions = {"1.0": [pod("s-a", "web", "proxy"), pod("s-b"), pod("s-c")]}
    assert await read(cluster, versions, None) == ["1.0/a: from the second", "1.0/c: c"]


async def test_following_goes_on_where_it_broke_off_without_a_line_twice(api, cluster) -> None:
    first, second, third = (f"2026-01-01T00:00:0{second}.000000000Z line {second}" for second in (1, 2, 3))
    api.script.texts = {"s-a": [text(first, second), status(500, "busy"), text(second, third, keep_open=True)]}
    reading = read_logs(cluster, looking({"1.0": [pod("s-a")]}), None, follow=True, tail=5)
    async with asyncio.timeout(5):
        assert [await anext(reading) for _ in range(3)] == ["1.0/a: line 1", "1.0/a: line 2", "1.0/a: line 3"]
    await reading.aclose()
    queries = [request.query for request in api.requests if request.path.endswith("/log")]
    assert "tailLines=5" in queries[0]
    assert "sinceTime=2026-01-01T00%3A00%3A02Z" in queries[-1]
    assert "tailLines" not in queries[-1]


async def test_following_finds_pods_that_come_and_reads_them_whole(api, cluster) -> None:
    versions = {"1.0": [pod("s-a")]}
    api.script.texts = {
        "s-a": [text("2026-01-01T00:00:01Z a", keep_open=True)],
        "s-b": [text("2026-01-01T00:00:02Z b", keep_open=True)],
    }
    reading = read_logs(cluster, looking(versions), None, follow=True, tail=0)
    async with asyncio.timeout(5):
        assert await anext(reading) == "1.0/a: a"
        versions["1.1"] = [pod("s-b")]
        assert await anext(reading) == "1.1/b: b"
    await reading.aclose()
    queries = {request.path: request.query for request in api.requests if request.path.endswith("/log")}
    assert "tailLines=0" in queries["/api/v1/namespaces/shop/pods/s-a/log"]
    assert "tailLines" not in queries["/api/v1/namespaces/shop/pods/s-b/log"]


async def test_no_reader_is_left_when_nobody_follows_any_more(api, cluster) -> None:
    api.script.texts = {"s-a": [text("2026-01-01T00:00:01Z a", keep_open=True)]}
    reading = read_logs(cluster, looking({"1.0": [pod("s-a")]}), None, follow=True, tail=1)
    await anext(reading)
    await reading.aclose()
    assert [task for task in asyncio.all_tasks() if "log" in task.get_name()] == []


async def test_a_pod_that_is_gone_is_read_no_more(api, cluster) -> None:
    api.script.texts = {"s-a": [text("2026-01-01T00:00:01Z bye")]}
    api.script.gone = {"s-a"}
    reading = read_logs(cluster, looking({"1.0": [pod("s-a")]}), None, follow=True, tail=1)
    assert await anext(reading) == "1.0/a: bye"
    await asyncio.sleep(0.2)
    asked = [request for request in api.requests if request.path.endswith("/log")]
    assert len(asked) == 1
    await reading.aclose()


async def known(inquiry: Inquiry, *pods: dict) -> dict[str, Details]:
    deadline = time.monotonic() + 3
    while not (found := inquiry.details(pods)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    return found


async def test_warnings_and_last_words_come_with_a_later_look(api, cluster) -> None:
    api.script.events = [
        {"metadata": {"name": "2"}, "reason": "Unhealthy", "message": "HTTP 503", "lastTimestamp": "2026-01-02"},
        {"metadata": {"name": "1"}, "reason": "Unhealthy", "message": "HTTP 500", "lastTimestamp": "2026-01-01"},
    ]
    api.script.texts = {"s-a": [text("no database")]}
    crashed = pod("s-a", containerStatuses=[{"name": "web", "lastState": {"terminated": {"exitCode": 1}}}])
    inquiry = Inquiry(cluster)
    assert inquiry.details([crashed]) == {}
    found = await known(inquiry, crashed)
    assert found["s-a"] == Details({"Unhealthy": "HTTP 503"}, "no database")
    log = next(request.query for request in api.requests if request.path.endswith("/log"))
    assert "previous=true" in log
    assert "tailLines=1" in log
    asked = len(api.requests)
    for _ in range(10):
        inquiry.details([crashed])
    await asyncio.sleep(0.05)
    assert len(api.requests) == asked
    await inquiry.close()


async def test_a_running_pod_is_not_asked_for_last_words(api, cluster) -> None:
    api.script.texts = {}
    inquiry = Inquiry(cluster)
    running = pod("s-a", containerStatuses=[{"name": "web", "state": {"running": {}}}])
    assert (await known(inquiry, running))["s-a"] == Details()
    assert all(not request.path.endswith("/log") for request in api.requests)
    await inquiry.close()


async def test_who_may_not_ask_knows_nothing_more_and_observing_goes_on(api, cluster) -> None:
    api.script = lambda _: status(403, "events is forbidden")
    inquiry = Inquiry(cluster)
    assert (await known(inquiry, pod("s-a")))["s-a"] == Details()
    await inquiry.close()


async def test_questions_that_hang_are_ended_with_the_environment(api, cluster) -> None:
    api.script = lambda _: Answer(hang=True)
    inquiry = Inquiry(cluster)
    inquiry.details([pod("s-a"), pod("s-b"), pod("s-c"), pod("s-d")])
    await asyncio.sleep(0.05)
    assert len([task for task in asyncio.all_tasks() if task.get_name().startswith("ask about")]) == inquiring.MOST
    await inquiry.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("ask about")] == []


def test_moments_compare_as_time_whatever_their_fraction_and_zone() -> None:
    in_order = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:01.05Z", "2026-01-01T00:00:01.5Z", "2026-01-01T00:00:01.51Z"]
    assert [logs._comparable(each) for each in in_order] == sorted(map(logs._comparable, in_order))
    assert logs._zone("2026-01-01T00:00:01.5+02:00") == "+02:00"
    assert logs._comparable("2026-01-01T00:00:01.5+02:00") == "2026-01-01T00:00:01.500000000"
