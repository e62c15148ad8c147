"""What the proxy and the kernel say of a version, read while both are used and killed."""

from __future__ import annotations

import asyncio
import json
import math
import os
import signal

from forge.adapters.targets.local.environment import open_local


async def sample(world, version="1.0"):
    return (await world.signals.read([version]))[version]


async def test_requests_errors_and_latency_are_counted_by_version(world, eventually) -> None:
    await world.up("1.0", "1.1")
    await world.split(_1_0=10000)
    for _ in range(20):
        await world.get()
    for _ in range(5):
        await world.get("/?status=503")
    await world.get("/?status=404")
    await world.get("/?sleep=0.2")

    async def counted() -> bool:
        return dict((await sample(world)).latency).get(math.inf) == 27

    await eventually(counted, "the histogram is flushed")
    read = await world.signals.read(["1.0", "1.1", "9.9"])
    assert (read["1.0"].requests, read["1.0"].errors) == (27, 5)
    assert (read["1.1"].requests, read["1.1"].errors) == (0, 0)
    assert "9.9" not in read
    histogram = dict(read["1.0"].latency)
    assert list(histogram.values()) == sorted(histogram.values())
    assert histogram[math.inf] - histogram[0.165] >= 1


async def test_a_version_whose_replicas_are_gone_counts_its_failures(world) -> None:
    await world.up("1.0", restart_delay=60)
    await world.split(_1_0=10000)
    os.kill((await world.replica("1.0"))["pid"], signal.SIGKILL)
    codes = [(await world.get()).code for _ in range(5)]
    assert codes == [503] * 5
    assert (await sample(world)).errors == 5


async def test_counters_never_fall_over_kills_of_proxy_agent_and_reader(world, eventually) -> None:
    await world.up("1.0")
    await world.split(_1_0=10000)
    for _ in range(10):
        await world.get("/?status=500")
    assert (await sample(world)).requests == 10
    state = await world.status()
    os.kill(state["proxy"]["pid"], signal.SIGKILL)
    os.kill(state["agent"], signal.SIGKILL)

    async def serves() -> bool:
        return (await world.get()).code == 200

    await asyncio.sleep(0.05)
    await eventually(serves, "the proxy serves again")
    assert (await sample(world)).requests == 11
    kept = json.loads(json.dumps(world.signals.state()))
    for _ in range(4):
        await world.get()
    reader = open_local(world.plan, world.folder).signals
    reader.restore(kept)
    again = (await reader.read(["1.0"]))["1.0"]
    assert (again.requests, again.errors) == (15, 10)


async def test_cpu_and_memory_are_of_the_whole_process_tree(world, eventually) -> None:
    burn = "import time; x = bytearray(40_000_000)\nwhile True: pass"
    command = ["sh", "-c", f"{world.command[0]} -I -S -c '{burn}' & wait"]
    await world.up("1.0", command=command, ready={"tcp": False})
    first = await sample(world)
    await asyncio.sleep(0.5)

    async def used() -> bool:
        now = await sample(world)
        return now.cpu_seconds - first.cpu_seconds > 0.1 and now.memory > 40_000_000

    await eventually(used, "the child's use is seen")
    before = (await sample(world)).cpu_seconds
    os.killpg((await world.replica("1.0"))["pid"], signal.SIGKILL)
    await asyncio.sleep(0.1)
    assert (await sample(world)).cpu_seconds >= before
