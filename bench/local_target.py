"""The one-machine target: how fast traffic moves, what kills cost, and how many requests are lost (none)."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.figures import Figure, compare, spread
from forge.adapters.targets.local.environment import LocalEnvironment, open_local, shutdown, status
from forge.model.errors import DependencyFailed
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import TrafficTable, Version

SERVICE = """
import asyncio, os
version = os.environ["FORGE_VERSION"].encode()
answer = b"HTTP/1.1 200 OK\\r\\ncontent-length: %d\\r\\n\\r\\n%s" % (len(version), version)
async def serve(reader, writer):
    try:
        while True:
            await reader.readuntil(b"\\r\\n\\r\\n")
            writer.write(answer)
    except (EOFError, OSError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()
asyncio.run(main())
"""
TOKEN = 1


class Client:
    """One keep-alive connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("http://").partition(":")
        self.host, self.port = host, int(port)
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self) -> str:
        """Return the version that answered. Raises OSError or EOFError for anything but a 200."""
        if self.streams is None:
            self.streams = await asyncio.open_connection(self.host, self.port)
        reader, writer = self.streams
        writer.write(b"GET / HTTP/1.1\r\nhost: bench\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line)
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        return body.decode()

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


class World:
    """An environment with two versions of a small service."""

    def __init__(self, environment: LocalEnvironment, folder: Path) -> None:
        self.target, self.router, self.folder = environment.target, environment.router, folder
        self.generation = 0

    async def split(self, weights: dict[str, int]) -> None:
        self.generation += 1
        await self.router.apply(TrafficTable(weights, self.generation), TOKEN)

    async def ready(self, replicas: int) -> None:
        """Wait until both versions have so many ready replicas."""
        deadline = time.monotonic() + 30
        while any(count.ready < replicas for count in (await self.target.observe()).values()):
            if time.monotonic() > deadline:
                raise TimeoutError(await self.target.observe())
            await asyncio.sleep(0.005)

    async def pids(self) -> dict[str, Any]:
        state = await status(self.folder)
        replicas = [one["pid"] for version in state["versions"].values() for one in version["replicas"]]
        return {"agent": state["agent"], "proxy": state["proxy"]["pid"], "replicas": replicas}


@asynccontextmanager
async def two_versions(replicas: int = 2):
    with tempfile.TemporaryDirectory(prefix="forge-bench-") as name:
        service = Path(name) / "service.py"
        service.write_text(SERVICE)
        config = {
            "command": [sys.executable, "-I", "-S", str(service)],
            "ready": {"tcp": True, "interval": 0.05},
            "restart_max_delay": 0.5,
        }
        folder = Path(name) / "bench"
        world = World(open_local(EnvironmentPlan("bench", target_config=config), folder), folder)
        try:
            for version in ("old", "new"):
                await world.target.ensure(Version(version), replicas, None, TOKEN)
            await world.router.address()
            await world.ready(replicas)
            await world.split({"old": 10000})
            yield world
        finally:
            await shutdown(folder)


async def weight_changes(world: World, changes: int) -> Figure:
    """How long from asking for another version to its first answer on a connection that is open already."""
    client = Client(await world.router.address())
    taken = []
    for change in range(changes):
        wanted = ("new", "old")[change % 2]
        began = time.perf_counter()
        await world.split({wanted: 10000})
        while await client.get() != wanted:
            pass
        taken.append(time.perf_counter() - began)
    client.close()
    return Figure("weight change to effective split", spread(taken))


async def requests_lost(world: World, changes: int, clients: int = 8) -> Figure:
    """Count requests that fail while the split changes all the time."""
    address, answered, failed, going = await world.router.address(), Counter[str](), 0, True

    async def ask() -> None:
        nonlocal failed
        client = Client(address)
        while going:
            try:
                answered[await client.get()] += 1
            except (OSError, EOFError):
                failed += 1
                client.close()
        client.close()

    tasks = [asyncio.create_task(ask()) for _ in range(clients)]
    for change in range(changes):
        weight = change * 331 % 10001
        await world.split({"old": 10000 - weight, "new": weight})
        await asyncio.sleep(0.02)
    going = False
    await asyncio.gather(*tasks)
    return Figure(f"requests lost over {changes} weight changes", f"{failed} of {answered.total() + failed}")


async def agent_kills(world: World, kills: int) -> Figure:
    """How long from kill -9 of the agent until another one looks after the very same replicas."""
    taken = []
    for _ in range(kills):
        before = await world.pids()
        began = time.perf_counter()
        os.kill(before["agent"], signal.SIGKILL)
        await world.ready(2)
        taken.append(time.perf_counter() - began)
        after = await world.pids()
        assert (after["proxy"], after["replicas"]) == (before["proxy"], before["replicas"])
    return Figure("kill -9 of the agent to re-adoption", spread(taken))


async def replica_kills(world: World, kills: int) -> Figure:
    """How long until a killed replica is ready again, and what that costs the clients."""
    taken = []
    client = Client(await world.router.address())
    failed = 0
    for _ in range(kills):
        victim = (await world.pids())["replicas"][0]
        began = time.perf_counter()
        os.kill(victim, signal.SIGKILL)
        while victim in (await world.pids())["replicas"]:
            try:
                await client.get()
            except (OSError, EOFError):
                failed += 1
                client.close()
        await world.ready(2)
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(0.1)
    client.close()
    return Figure(
        "kill -9 of a replica to ready again (0.5 s of it back-off)", f"{spread(taken)}, {failed} requests lost"
    )


async def proxy_kills(world: World, kills: int) -> Figure:
    """How long until a killed proxy serves again at its port."""
    taken = []
    for _ in range(max(1, kills // 5)):  # few, or its back-off is all that is measured
        client = Client(await world.router.address())
        began = time.perf_counter()
        os.kill((await world.pids())["proxy"], signal.SIGKILL)
        while True:
            try:
                await world.router.observed()
                await client.get()
                break
            except (OSError, EOFError, DependencyFailed):
                client.close()
                await asyncio.sleep(0.002)
        taken.append(time.perf_counter() - began)
        client.close()
    return Figure("kill -9 of the proxy to serving again", spread(taken))


async def through_the_proxy(world: World, rounds: int, requests: int = 300) -> Figure:
    """What the proxy adds to a request, against asking a replica directly."""
    await world.split({"old": 10000})
    port = (await status(world.folder))["versions"]["old"]["replicas"][0]["port"]
    proxied, direct = Client(await world.router.address()), Client(f"http://127.0.0.1:{port}")
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(rounds):
        for client, times in ((proxied, ours), (direct, floor)):
            began = time.perf_counter()
            for _ in range(requests):
                await client.get()
            times.append(time.perf_counter() - began)
    proxied.close()
    direct.close()
    return compare(f"{requests} requests, one after the other", ours, floor, "without the proxy", each=requests)


async def _measure(changes: int, kills: int, rounds: int) -> list[Figure]:
    async with two_versions() as world:
        return [
            await weight_changes(world, changes),
            await requests_lost(world, changes),
            await agent_kills(world, kills),
            await replica_kills(world, kills),
            await proxy_kills(world, kills),
            await through_the_proxy(world, rounds),
        ]


def measure(changes: int = 200, kills: int = 10, rounds: int = 10) -> list[Figure]:
    """Measure everything in one environment of two versions with two replicas each."""
    return asyncio.run(_measure(changes, kills, rounds))
