"""Many releases at once on the test cluster: calls to its API, processor and memory of Forge, and how long it takes.

Each environment is a Deployment of one sleeping pod that gets a new version by a rolling update. The first run brings
the first versions up; the second one is measured. Forge works in this process, so that what it asks can be counted.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from bench.figures import Figure, seconds
from bench.kubernetes_route import TESTS, Missing, cluster

PATIENCE = 1500.0


def measure(single: int = 5, many: int = 500) -> list[Figure]:
    """Release to one environment after the other, then to many at once."""
    sys.path.insert(0, str(TESTS))
    try:
        with cluster() as (kubeconfig, kubectl), tempfile.TemporaryDirectory(prefix="forge-bench-") as name:
            kept, os.environ["KUBECONFIG"] = os.environ.get("KUBECONFIG"), str(kubeconfig)
            try:
                return [
                    *asyncio.run(released(Path(name) / "one", kubectl.namespace, "one", 1, rounds=single)),
                    *asyncio.run(released(Path(name) / "many", kubectl.namespace, "many", many)),
                ]
            finally:
                os.environ.pop("KUBECONFIG") if kept is None else os.environ.update(KUBECONFIG=kept)
    except Missing as missing:
        return [Figure("releases on Kubernetes", f"not measured: {missing}")]
    finally:
        sys.path.remove(str(TESTS))


def write_project(folder: Path, namespace: str, prefix: str, environments: int) -> None:
    """Write a pipeline that releases a version to so many environments side by side."""
    from cluster import shops

    (folder / "forge").mkdir(parents=True)
    (folder / "k8s").mkdir()
    names = [f"{prefix}-{number}" for number in range(environments)]
    for name in names:
        (folder / "k8s" / f"{name}.yaml").write_text(yaml.safe_dump(shops.deployment(name, replicas=1)))
    target = {"namespace": namespace, "progress_deadline": "20m"}
    pipeline = {
        "parameters": {"version": {"type": "string"}}, "max_parallel": environments,
        "environments": {name: {"target": {"kubernetes": {**target, "manifests": f"k8s/{name}.yaml"}},
                                "router": "replicas", "judge": "none"} for name in names},
        "jobs": {name: {"steps": [{"deploy": {"environment": name, "version": "${{ params.version }}",
                                              "strategy": "rolling"}}]} for name in names},
    }  # fmt: skip
    (folder / "forge" / "pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))


async def released(
    folder: Path, namespace: str, prefix: str, environments: int, *, rounds: int = 1
) -> list[Figure]:  # fmt: skip
    """Release a first version everywhere, then another one; return what the others cost."""
    from forge.engine.engine import Engine
    from forge.engine.project import Project

    write_project(folder, namespace, prefix, environments)
    async with Engine.open(Project(folder), max_parallel=environments) as engine:
        await run(engine, "1.0")
        spent: list[tuple[float, float]] = []
        with counted() as calls:
            for number in range(rounds):
                processor, began = time.process_time(), time.perf_counter()
                await run(engine, f"2.{number}")
                spent.append((time.perf_counter() - began, time.process_time() - processor))
    releases = environments * rounds
    took, processor = sum(one for one, _ in spent), sum(one for _, one in spent)
    what = f"{environments} releases at once" if environments > 1 else "a release, one after the other"
    asked = ", ".join(f"{count / releases:.1f} {method}" for method, count in calls.most_common())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        Figure(f"on Kubernetes, {what}: all promoted", seconds(took / rounds)),
        Figure(f"{what}: API calls of each", f"{calls.total() / releases:.0f} ({asked})"),
        Figure(
            f"{what}: processor of each, memory of Forge", f"{seconds(processor / releases)}, {peak:.0f} MB at most"
        ),
    ]


async def run(engine: Any, version: str) -> None:
    """Run the pipeline to its end. Raises RuntimeError when a release did not succeed."""
    from forge.core.pipeline.state import RUN_FINAL
    from forge.service.starting import start

    started = await start(engine, {"version": version}, "bench")
    deadline = time.monotonic() + PATIENCE

    async def over() -> bool:
        await asyncio.sleep(0.2)
        state, _ = await engine.run_state(started)
        return state.status in RUN_FINAL or time.monotonic() > deadline

    await engine.work(over)
    state, _ = await engine.run_state(started)
    if state.status != "succeeded":
        raise RuntimeError(f"{started} is {state.status} after {version}: {state.message}")


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count the requests to the cluster by their method, watches apart."""
    calls: Counter[str] = Counter()
    send = httpx2.AsyncClient.send

    async def noted(self: httpx2.AsyncClient, request: httpx2.Request, **options: Any) -> httpx2.Response:
        if request.url.path.startswith(("/api", "/apis")):
            calls["watch" if "watch=" in str(request.url.query) else request.method] += 1
        return await send(self, request, **options)

    httpx2.AsyncClient.send = noted  # type: ignore[method-assign]
    try:
        yield calls
    finally:
        httpx2.AsyncClient.send = send  # type: ignore[method-assign]
