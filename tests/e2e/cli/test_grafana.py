"""A canary on real processes, as Grafana sees it; and releases while Grafana is away."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from itertools import pairwise
from unittest.mock import patch

import pytest
from stores.grafana_server import Grafana

from forge.engine.engine import Engine
from forge.engine.project import Project

PIPELINE = """\
parameters:
  version: {type: string, required: true}
secrets: [GRAFANA_TOKEN]
jobs:
  release:
    steps:
      - deploy:
          environment: production
          version: ${{ params.version }}
          strategy:
            canary:
              steps: [{weight: 20%}, {pause: 1s}, {weight: 60%}, {pause: 1s}]
          checks: []
"""
ENVIRONMENTS = """\
production:
  target:
    local:
      command: {python} -u -m http.server --bind 127.0.0.1 $PORT
      replicas: 1
      ready: {{tcp: true}}
      drain: 0.2s
  notify:
    - grafana: {{url: "{url}", auth: {{bearer: GRAFANA_TOKEN}}, dashboard: shop, tags: [team-a], service: shop}}
"""
TOKEN = "glsa_not-to-be-seen"


@pytest.fixture
def grafana():
    with Grafana(TOKEN) as running:
        yield running


@pytest.fixture
def forge(project, grafana):
    made = project(PIPELINE)
    made.env["GRAFANA_TOKEN"] = TOKEN
    environments(made, grafana.url)
    yield made
    made("env", "down", "production", "--yes")


def environments(forge, url: str) -> None:
    text = ENVIRONMENTS.format(python=sys.executable, url=url)
    (forge.folder / "forge" / "environments.yaml").write_text(text)


def deployed(forge, version: str) -> float:
    began = time.monotonic()
    forge.ok("run", "--yes", "-p", f"version={version}")
    return time.monotonic() - began


def eventually(condition, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.1)


CANARY = ["starting", "weight 20%", "weight 60%", "promoting", "promoted"]


def test_the_regions_of_a_canary(forge, grafana) -> None:
    deployed(forge, "1")
    before = time.time()
    deployed(forge, "2")
    after = time.time()
    assert grafana.steps("production-2") == CANARY
    regions = grafana.of("production-2")
    for region in regions:
        assert before * 1000 <= region["time"] <= region["timeEnd"] <= after * 1000
        assert region["dashboardUID"] == "shop"
        assert {"forge", "env:production", "service:shop", "version:2", "team-a"} <= set(region["tags"])
        assert region["text"].startswith("production-2: ")
    for region, following in pairwise(regions):
        assert region["timeEnd"] == following["time"]
    weights = {region["tags"][5]: region["timeEnd"] - region["time"] for region in regions}
    assert 900 <= weights["step:weight 20%"] <= 6000
    assert grafana.steps("production-1")[-1] == "promoted"
    (link,) = forge.json("explain", "production-2")["links"]
    assert link.startswith(f"{grafana.url}/explore?")
    assert forge.json("release", "get", "production")["releases"][0]["links"] == [link]
    assert link in forge.ok("explain", "production-2")
    stored = b"".join(path.read_bytes() for path in forge.folder.rglob("*.db*"))
    assert stored
    assert TOKEN.encode() not in stored


async def work_until(forge, condition) -> None:
    """Be the next worker until it is so."""

    async def so() -> bool:
        return condition()

    with patch.dict(os.environ, forge.env):
        async with asyncio.timeout(60), Engine.open(Project(forge.folder)) as engine:
            await engine.work(so)


@pytest.mark.parametrize("way", ["refused", "500"])
def test_a_grafana_that_is_away_delays_nothing_and_is_caught_up(forge, grafana, way: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        away = f"http://127.0.0.1:{taken.getsockname()[1]}"
        if way == "refused":
            environments(forge, away)
        grafana.fault = 500
        deployed(forge, "1")
        deployed(forge, "2")
        assert [one["state"] for one in forge.json("release", "get", "production")["releases"]] == ["promoted"] * 2
        assert grafana.annotations == {}
        grafana.fault = 0
        environments(forge, grafana.url)
    if way == "refused":
        deployed(forge, "3")  # which brings the right address
    asyncio.run(work_until(forge, lambda: len(grafana.steps("production-2")) == len(CANARY)))
    assert grafana.steps("production-2") == CANARY


def test_a_killed_worker_loses_no_region_and_makes_none_twice(project, grafana) -> None:
    forge = project(PIPELINE, real=True, GRAFANA_TOKEN=TOKEN)
    environments(forge, grafana.url)
    try:
        deployed(forge, "1")
        running = forge.start("run", "--yes", "-p", "version=2")
        eventually(lambda: "weight 20%" in grafana.steps("production-2"))
        running.kill()
        running.wait()
        running.stdout.close()
        asyncio.run(work_until(forge, lambda: grafana.steps("production-2")[-1:] == ["promoted"]))
        steps = grafana.steps("production-2")
        assert [step for step in steps if step in CANARY] == CANARY
        assert len(set(steps)) == len(steps)
        asyncio.run(work_until(forge, lambda: grafana.of("production-2")[-2]["timeEnd"] > 0))
        regions = grafana.of("production-2")
        assert all(one["timeEnd"] == after["time"] for one, after in pairwise(regions))
    finally:
        forge("env", "down", "production", "--yes")


def test_an_answer_that_was_lost_makes_no_second_annotation(forge, grafana) -> None:
    grafana.forget = 2
    deployed(forge, "1")
    asyncio.run(work_until(forge, lambda: "promoted" in grafana.steps("production-1")))
    steps = grafana.steps("production-1")
    assert len(set(steps)) == len(steps)
