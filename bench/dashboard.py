"""The dashboard under load: an event's way to 200 who watch, and pages over a database of 10,000 runs."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx2

from bench.figures import Figure, seconds

TESTS = Path(__file__).parents[1] / "tests"
PAGES = ("/", "/projects/shop", "/projects/shop?state=succeeded", "/projects/shop/runs/run-1", "/velocity", "/settings")


def measure(viewers: int = 200, events: int = 20, runs: int = 10_000) -> list[Figure]:
    """Serve a small project for real, in a process of its own, and watch it."""
    sys.path.insert(0, str(TESTS))
    try:
        from serving.running import Server, make_project

        with tempfile.TemporaryDirectory(prefix="forge-bench-") as name:
            folder = make_project(Path(name) / "shop", "name: shop\njobs:\n  one: {steps: [{run: echo hello}]}\n")
            asyncio.run(fill(folder, runs))
            server = Server(folder, "serve", "--port", "0", "--no-work")
            try:
                return asyncio.run(watch(server.url, server.token, viewers, events)) + pages(server)
            finally:
                server.stop()
    finally:
        sys.path.remove(str(TESTS))


async def fill(folder: Path, runs: int) -> None:
    """Put runs that succeeded into the project's database."""
    import msgspec

    from forge.core.pipeline.decide import new_run
    from forge.engine.engine import Engine
    from forge.engine.planning import load
    from forge.engine.project import Project
    from forge.engine.runs import KIND, encode_head, encode_parts

    async with Engine.open(Project(folder)) as engine:
        plan = load(engine.project)
        await engine.plans.pin(plan)
        for number in range(runs):
            at = time.time() - runs + number
            state = msgspec.structs.replace(
                new_run(plan, "", actor="bench", at=at), status="succeeded", finished_at=at + 1
            )
            await engine.store.machines.create(
                KIND, "", state.status, encode_head(state), encode_parts(state), id_prefix=KIND
            )


async def watch(url: str, token: str, viewers: int, events: int) -> list[Figure]:
    """Start runs while so many watch; return how long each event took to each of them, from before it was sent."""
    headers = {"Authorization": f"Bearer {token}"}
    limits = httpx2.Limits(max_connections=viewers + 20)
    sent: dict[str, float] = {}
    heard: list[tuple[str, float]] = []
    ready = asyncio.Event()
    open_ = 0
    async with httpx2.AsyncClient(base_url=url, headers=headers, limits=limits, timeout=60, trust_env=False) as client:

        async def view() -> None:
            nonlocal open_
            seen = 0
            stream = {"Accept": "text/event-stream"}
            async with client.stream("GET", "/api/v1/projects/shop/events", headers=stream) as answer:
                answer.raise_for_status()
                open_ += 1
                if open_ == viewers:
                    ready.set()
                async for line in answer.aiter_lines():
                    if line.startswith("data: ") and (run := _started(json.loads(line[6:]))):
                        heard.append((run, time.perf_counter()))
                        seen += 1
                        if seen == events:
                            return

        watching = [asyncio.create_task(view()) for _ in range(viewers)]
        await asyncio.wait_for(ready.wait(), 60)
        await asyncio.sleep(1.0)
        for number in range(events):
            began = time.perf_counter()
            key = {"Idempotency-Key": f"bench {number}"}
            started = (await client.post("/api/v1/projects/shop/runs", json={}, headers=key)).raise_for_status()
            sent[started.json()["id"]] = began
            await asyncio.sleep(0.25)
        await asyncio.wait_for(asyncio.gather(*watching), 60)
    ordered = sorted(at - sent[run] for run, at in heard)
    words = f"{seconds(statistics.median(ordered))}, p95 {seconds(ordered[int(len(ordered) * 0.95)])}"
    return [
        Figure(f"a run's start to {viewers} who watch, from before it was asked for", f"{words}; {len(ordered)} heard")
    ]


def pages(server: Any) -> list[Figure]:
    """Return how long pages take, and how large they are, over all those runs."""
    figures = []
    with httpx2.Client(base_url=server.url, timeout=30, trust_env=False) as browser:
        browser.headers["Authorization"] = f"Bearer {server.token}"
        for path in PAGES:
            times = []
            for _ in range(10):
                began = time.perf_counter()
                answer = browser.get(path).raise_for_status()
                times.append(time.perf_counter() - began)
            figures.append(
                Figure(f"page {path}", f"{seconds(statistics.median(times))}, {len(answer.content) / 1000:.0f} kB")
            )
    return figures


def _started(stored: dict[str, Any]) -> str:
    """Return which run an event tells the start of; nothing for other events."""
    return str(stored["machine"]) if stored["event"]["kind"] == "run_created" else ""
