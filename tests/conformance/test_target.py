"""What every target keeps of its contract: with real processes, on a real Kubernetes control plane, and in memory."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cluster import shops
from forge.adapters.targets.base import Target
from forge.adapters.targets.local.environment import open_local, shutdown
from forge.adapters.targets.memory import MemoryTarget
from forge.model.errors import StaleLease
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import ReplicaCount, Version

SCRIPT = "import os, time\nprint('hello from', os.environ['FORGE_REPLICA'], flush=True)\ntime.sleep(600)"


@pytest.fixture
def shop_namespace(request) -> tuple[Path, str] | None:
    """Where a real cluster is and a namespace of the test's own; None where the test needs none."""
    if request.node.callspec.params["target"] != "kubernetes":
        return None
    return request.getfixturevalue("cluster").kubeconfig, request.getfixturevalue("namespace")


@pytest.fixture(params=["local", "memory", pytest.param("kubernetes", marks=pytest.mark.kubernetes)])
async def target(request, tmp_path, shop_namespace) -> AsyncIterator[Target]:
    if shop_namespace is not None:
        artifact = shops.written(tmp_path, shops.deployment(), shops.service())
        shop = shops.Shop(*shop_namespace, artifact)
        yield shop
        await shop.close()
        return
    if request.param == "memory":
        memory = MemoryTarget(time.monotonic, ready_after=0.05)
        memory.lines = [("1.0/1", "hello from 1"), ("1.0/2", "hello from 2"), ("1.1/1", "hello from 1")]
        yield memory
        return
    command = [sys.executable, "-I", "-S", "-c", SCRIPT]
    config = {"command": command, "ready": {"tcp": False}, "stop_grace": 2.0}
    folder = tmp_path / "environment"
    yield open_local(EnvironmentPlan("production", target_config=config), folder).target
    await shutdown(folder)


async def until(target: Target, version: str, ready: int) -> ReplicaCount:
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        count = (await target.observe()).get(version)
        if count is not None and count.ready == count.running == ready:
            return count
        await asyncio.sleep(0.02)
    pytest.fail(f"{version} never had {ready} ready replicas: {await target.observe()}")


async def until_gone(target: Target, version: str) -> None:
    deadline = time.monotonic() + 15
    while version in await target.observe():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_nothing_runs_at_first(target) -> None:
    assert await target.observe() == {}


async def test_a_version_comes_grows_shrinks_and_goes(target) -> None:
    await target.ensure(Version("1.0"), 2, None, 1)
    assert (await target.observe())["1.0"].desired == 2
    assert (await until(target, "1.0", 2)).message == ""
    for replicas in (3, 1, 0):
        await target.ensure(Version("1.0"), replicas, None, 1)
        assert (await until(target, "1.0", replicas)).desired == replicas
    await target.remove("1.0", 1)
    await until_gone(target, "1.0")


async def test_asking_twice_is_asking_once(target) -> None:
    for _ in range(3):
        await target.ensure(Version("1.0"), 1, None, 1)
    await until(target, "1.0", 1)
    for _ in range(3):
        await target.remove("1.0", 1)
    await until_gone(target, "1.0")
    await target.remove("never there", 1)


async def test_versions_live_side_by_side(target) -> None:
    for version in ("1.0", "1.1"):
        await target.ensure(Version(version), 1, None, 1)
    for version in ("1.0", "1.1"):
        await until(target, version, 1)
    await target.remove("1.0", 1)
    await until_gone(target, "1.0")
    assert (await target.observe())["1.1"].ready == 1


async def test_an_old_token_is_refused_and_changes_nothing(target) -> None:
    await target.ensure(Version("1.0"), 1, None, 5)
    with pytest.raises(StaleLease):
        await target.ensure(Version("1.1"), 1, None, 4)
    with pytest.raises(StaleLease):
        await target.remove("1.0", 4)
    counts = await target.observe()
    assert set(counts) == {"1.0"}
    assert counts["1.0"].desired == 1
    await target.ensure(Version("1.0"), 2, None, 5)
    await target.ensure(Version("1.0"), 1, None, 6)


async def test_log_lines_begin_with_who_wrote_them(target) -> None:
    await target.ensure(Version("1.0"), 2, None, 1)
    await target.ensure(Version("1.1"), 1, None, 1)
    await until(target, "1.0", 2)
    await until(target, "1.1", 1)
    deadline = time.monotonic() + 10
    lines: list[str] = []
    while len(lines) < 2 and time.monotonic() < deadline:
        lines = [line async for line in target.logs("1.0", follow=False, tail=10)]
        await asyncio.sleep(0.02)
    assert len(set(lines)) == 2
    assert all(re.fullmatch(r"1\.0/(\w+): hello from \1", line) for line in lines), lines
    while len(lines) < 3 and time.monotonic() < deadline:
        lines = [line async for line in target.logs(None, follow=False, tail=10)]
    assert [re.fullmatch(r"1\.1/(\w+): hello from \1", line) for line in lines].count(None) == 2, lines
    assert [line async for line in target.logs("9.9", follow=False, tail=10)] == []
