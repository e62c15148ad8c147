"""Objects kept in memory: new ones come by a watch, and what is stale never passes for new."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import lightkube.config.client_adapter  # noqa: F401  # imported before the clocks run
import pytest

from cluster.scripted_api import Answer, Request, ScriptedApi, listing, status
from forge.adapters.kubernetes import connection, watching
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.kinds import POD
from forge.adapters.kubernetes.sharing import close_shared, shared_cluster, shared_watch
from forge.adapters.kubernetes.watching import Watched
from forge.model.configs import KubernetesAccess
from forge.model.errors import DependencyFailed


def pod(name: str, version: str = "1", **labels: str) -> dict:
    return {"metadata": {"name": name, "resourceVersion": version, "labels": labels, "managedFields": [{"big": 1}]}}


def event(kind: str, item: dict) -> dict:
    return {"type": kind, "object": item}


class Story:
    """Lists in turn and watches in turn; the last of each for ever."""

    def __init__(self) -> None:
        self.lists: list[Answer] = [listing([])]
        self.watches: list[Answer] = [Answer(stream=[], keep_open=True)]

    def __call__(self, request: Request) -> Answer:
        which = self.watches if "watch=true" in request.query else self.lists
        return which.pop(0) if len(which) > 1 else which[0]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ScriptedApi]:
    server = ScriptedApi(Story())
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def watched(api, tmp_path) -> AsyncIterator[Watched]:
    cluster = Cluster(KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path)))
    made = Watched(cluster, POD)
    yield made
    await made.close()
    await cluster.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(connection, "SECONDS", 0.4)
    monkeypatch.setattr(watching, "SECONDS", 0.6)
    monkeypatch.setattr(watching, "PATIENCE", 0.3)
    monkeypatch.setattr(connection, "ATTEMPTS", 1)


async def names(watched: Watched) -> list[str]:
    return sorted(item["metadata"]["name"] for item in await watched.objects())


async def until(watched: Watched, expected: list[str]) -> None:
    deadline = time.monotonic() + 3
    while await names(watched) != expected:
        assert time.monotonic() < deadline, await names(watched)
        await asyncio.sleep(0.01)


async def test_what_is_there_comes_first_and_then_every_change(api, watched) -> None:
    api.script.lists = [listing([pod("a"), pod("b")], "7")]
    api.script.watches = [
        Answer(stream=[event("ADDED", pod("c", "8")), event("DELETED", pod("a", "9")),
                       event("MODIFIED", pod("b", "10", new="yes"))], keep_open=True)
    ]  # fmt: skip
    assert await names(watched) == ["a", "b"]
    await until(watched, ["b", "c"])
    found = {item["metadata"]["name"]: item for item in await watched.objects()}
    assert found["b"]["metadata"]["labels"] == {"new": "yes"}
    assert "managedFields" not in found["c"]["metadata"]
    watch = next(request for request in api.requests if "watch=true" in request.query)
    assert "resourceVersion=7" in watch.query
    assert "allowWatchBookmarks=true" in watch.query


async def test_reading_again_asks_nobody(api, watched) -> None:
    await watched.objects()
    await asyncio.sleep(0.05)
    asked = len(api.requests)
    started = time.perf_counter()
    for _ in range(1000):
        await watched.objects()
    assert time.perf_counter() - started < 0.5
    assert len(api.requests) == asked == 2


async def test_a_watch_that_ends_is_continued_where_it_was(api, watched) -> None:
    api.script.lists = [listing([pod("a")], "7")]
    bookmark = event("BOOKMARK", {"metadata": {"resourceVersion": "42"}})
    api.script.watches = [Answer(stream=[bookmark]), Answer(stream=[event("ADDED", pod("b", "43"))], keep_open=True)]
    await until(watched, ["a", "b"])
    assert watched.lists == 1
    assert "resourceVersion=42" in api.requests[-1].query


@pytest.mark.parametrize(
    "end",
    [
        Answer(stream=[{"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}]),
        status(410, "too old resource version"),
    ],
)
async def test_a_watch_that_is_too_old_is_begun_with_a_new_list(api, watched, end) -> None:
    api.script.lists = [listing([pod("a")], "7"), listing([pod("b")], "90")]
    api.script.watches = [end, Answer(stream=[], keep_open=True)]
    await until(watched, ["b"])
    assert watched.lists == 2
    assert "resourceVersion=90" in api.requests[-1].query


@pytest.mark.parametrize(
    "broken",
    [
        Answer(stream=["not json"]),
        Answer(stream=['{"type": "ADDED"}']),
        Answer(stream=['{"type": "ADDED", "object": 3}']),
        Answer(stream=['{"type": "ADDED", "object": {"metadata": {"name": "x"']),
        status(500, "etcd is gone"),
        Answer(drop=True),
    ],
)
async def test_a_watch_that_breaks_is_mended_and_nothing_is_lost(api, watched, broken) -> None:
    api.script.lists = [listing([pod("a")], "7"), listing([pod("a"), pod("b")], "8")]
    api.script.watches = [broken, Answer(stream=[], keep_open=True)]
    await until(watched, ["a", "b"])


async def test_where_only_lists_work_it_lists(api, watched) -> None:
    api.script.watches = [status(403, "no watch for you")]
    await watched.objects()
    api.script.lists = [listing([pod("late")], "8")]
    await until(watched, ["late"])


async def test_a_refused_list_is_told_at_once(api, watched) -> None:
    api.script.lists = [status(403, 'pods is forbidden: User "x" cannot list resource "pods" in API group "" '
                                    'in the namespace "shop"', reason="Forbidden")]  # fmt: skip
    with pytest.raises(DependencyFailed, match="not allowed to list pods in namespace shop"):
        await watched.objects()
    api.script.lists = [listing([pod("a")])]
    deadline = time.monotonic() + 3
    while True:
        try:
            assert await names(watched) == ["a"]
            break
        except DependencyFailed:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)


async def test_what_was_read_last_counts_for_a_while_and_then_not(api, watched) -> None:
    api.script.lists = [listing([pod("a")]), status(500, "etcd is gone")]
    api.script.watches = [Answer(drop=True)]
    assert await names(watched) == ["a"]
    with pytest.raises(DependencyFailed):
        await _read_for(watched, 3)


async def _read_for(watched: Watched, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert await names(watched) == ["a"]
        await asyncio.sleep(0.02)


async def test_a_server_that_says_nothing_is_told_in_time(api, watched) -> None:
    api.script.lists = [Answer(hang=True)]
    async with asyncio.timeout(3):
        with pytest.raises(DependencyFailed):
            await watched.objects()


async def test_silence_on_a_watch_is_noticed(api, watched, monkeypatch) -> None:
    monkeypatch.setattr(watching, "SILENCE", 0.2)
    api.script.lists = [listing([pod("a")]), listing([pod("b")])]
    await until(watched, ["b"])


async def test_old_news_do_not_undo_what_a_write_returned(api, watched) -> None:
    api.script.lists = [listing([pod("a", "5")], "5")]
    late = event("MODIFIED", pod("a", "6", old="yes"))
    api.script.watches = [Answer(stream=[], keep_open=True)]
    await watched.objects()
    watched.take(pod("a", "9", mine="yes"))
    watched._absorb(late, "watch")
    assert (await watched.objects())[0]["metadata"]["labels"] == {"mine": "yes"}
    watched.take(pod("a", "8", stale="yes"))
    assert (await watched.objects())[0]["metadata"]["labels"] == {"mine": "yes"}


async def test_nobody_reading_ends_it_and_the_next_reader_starts_it(api, tmp_path) -> None:
    cluster = Cluster(KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path)))
    api.script.watches = [Answer(stream=[])]
    watched = Watched(cluster, POD, idle=0.05)
    await watched.objects()
    deadline = time.monotonic() + 3
    while watched._task is not None and not watched._task.done():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    api.script.lists = [listing([pod("a")])]
    assert await names(watched) == ["a"]
    await watched.close()
    await cluster.close()


async def test_closing_leaves_no_task(api, watched) -> None:
    await watched.objects()
    await watched.close()
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("watch ")] == []
    assert await names(watched) == []


async def test_environments_of_one_cluster_share_connection_and_watch(api, tmp_path) -> None:
    access = KubernetesAccess(kubeconfig=api.kubeconfig(tmp_path))
    assert shared_cluster(access) is shared_cluster(KubernetesAccess(kubeconfig=access.kubeconfig))
    first, second = (shared_watch(shared_cluster(access), POD) for _ in range(2))
    assert first is second
    await asyncio.gather(first.objects(), second.objects())
    assert first.lists == 1
    await close_shared()
    assert shared_cluster(access) is not None
    await close_shared()


def test_a_watch_is_begun_anew_in_another_loop(tmp_path) -> None:
    cluster: list[Cluster] = []

    async def look() -> list[str]:
        server = ScriptedApi(Story())
        server.script.lists = [listing([pod(f"p{len(cluster)}")])]
        await server.start()
        path = server.kubeconfig(tmp_path)
        if not cluster:
            cluster.append(Cluster(KubernetesAccess(kubeconfig=path)))
            watches.append(Watched(cluster[0], POD))
        found = await names(watches[0])
        await server.stop()
        return found

    watches: list[Watched] = []
    assert asyncio.run(look()) == ["p0"]
    assert asyncio.run(look()) == ["p1"]
