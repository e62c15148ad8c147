"""`forge serve` and `forge worker` as processes: how they start, refuse to, end, and are survived."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from forge.engine.engine import Engine
from forge.engine.project import Project
from forge.service.local import LocalService
from forge.views.run import RunView
from serving.running import Server, make_project

SLOW = """\
name: slow
jobs:
  first: {steps: [{id: mark, run: "echo first >> ../../../../../../marks"}]}
  second:
    depends_on: first
    steps: [{id: wait, run: "echo begun >> ../../../../../../marks; sleep 3; echo done >> ../../../../../../marks"}]
  third: {depends_on: second, steps: [{id: mark, run: "echo third >> ../../../../../../marks"}]}
"""
"""A run whose steps leave marks in the project's folder: workspaces are `.forge/runs/ID/JOB/ATTEMPT/workspace`."""


def marks(folder: Path) -> list[str]:
    file = folder / "marks"
    return file.read_text().split() if file.exists() else []


async def until(look, seconds: float = 40.0):
    """Return what `look` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := await look()):
        assert time.monotonic() < deadline, "it took too long"
        await asyncio.sleep(0.1)
    return found


async def final(service: LocalService, run: str) -> RunView:
    async def look() -> RunView | None:
        view = await service.runs.get(run)
        return view if view.final else None

    return await until(look)


def forge(folder: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
    return subprocess.run(
        [sys.executable, "-m", "forge", *words], cwd=folder, capture_output=True, text=True, timeout=40,
        env={**own, **environ}, check=False,
    )  # fmt: skip


class TestStarting:
    def test_it_answers_where_it_says_and_ends_when_told(self, server):
        with server.client("") as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["status"]) == (200, "ok"), ready.text
            assert client.get("/openapi.json").json()["openapi"].startswith("3.1")
            assert "forge_workers 1.0" in client.get("/metrics").text
            nothing = client.get("/api/v1/projects")
            assert (nothing.status_code, nothing.headers["content-type"]) == (401, "application/problem+json")
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 8
        lines = [json.loads(line) for line in server.errors.read_text().splitlines() if line.startswith("{")]
        asked = [line for line in lines if line.get("path") == "/api/v1/projects"]
        assert asked[0]["status"] == 401
        assert asked[0]["request_id"] == nothing.headers["x-request-id"]

    def test_ctrl_c_ends_it_too(self, server):
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(15) == 0

    def test_a_port_that_is_taken_is_told(self, tmp_path):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            done = forge(make_project(tmp_path), "serve", "--port", str(other.getsockname()[1]))
        assert done.returncode == 2
        assert "cannot listen" in done.stderr
        assert "--port 0" in done.stderr

    def test_others_are_not_let_in_without_authentication(self, tmp_path):
        done = forge(make_project(tmp_path), "serve", "--host", "0.0.0.0", "--port", "0")
        assert done.returncode == 2
        assert "no authentication is configured" in done.stderr
        assert done.stdout == ""

    def test_what_it_says_to_people(self, tmp_path):
        project = make_project(tmp_path / "shop")
        with subprocess.Popen(
            [sys.executable, "-m", "forge", "serve", "--port", "0"],
            cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            line, rest = process.stdout.readline(), process.stdout.readline()
            process.terminate()
            _, told = process.communicate(timeout=20)
        assert line.startswith("Forge serves shop at http://127.0.0.1:")
        assert "log in once, as administrator: http://127.0.0.1:" in rest
        assert "Ctrl-C ends it" in told
        assert process.returncode == 0

    def test_a_slip_in_its_file_is_shown_where_it_stands(self, tmp_path):
        project = make_project(tmp_path)
        (project / "forge-server.yaml").write_text("port: 8700\nprot: 1\n")
        done = forge(project, "serve")
        assert done.returncode == 2
        assert "forge-server.yaml:2:1" in done.stderr

    def test_the_description_needs_no_project(self, tmp_path):
        done = forge(tmp_path, "serve", "--openapi")
        assert done.returncode == 0
        assert json.loads(done.stdout)["info"]["title"] == "Forge"

    def test_without_a_project_a_worker_has_nothing_to_do(self, tmp_path):
        done = forge(tmp_path, "worker")
        assert done.returncode == 2
        assert "no project" in done.stderr


class TestWorking:
    async def test_a_run_that_somebody_starts_is_worked_on(self, tmp_path):
        folder = make_project(tmp_path / "slow", SLOW)
        server = Server(folder)
        try:
            async with Engine.open(Project(folder)) as engine:
                service = LocalService(engine)
                run = await service.runs.start({}, actor="ann")
                assert (await final(service, run)).state == "succeeded"
        finally:
            server.stop()
        assert marks(folder) == ["first", "begun", "done", "third"]

    async def test_a_server_that_is_killed_is_survived_by_its_runs(self, tmp_path):
        folder = make_project(tmp_path / "slow", SLOW)
        (folder / "forge-server.yaml").write_text("lease_seconds: 2\n")
        first = Server(folder)
        async with Engine.open(Project(folder)) as engine:
            service = LocalService(engine)
            run = await service.runs.start({}, actor="ann")

            async def begun() -> bool:
                return "begun" in marks(folder)

            await until(begun)
            first.kill()
            second = Server(folder)
            try:
                view = await final(service, run)
            finally:
                second.stop()
        assert view.state == "succeeded"
        found = marks(folder)
        assert found.count("first") == found.count("third") == 1  # what was over is not done again
        assert found.count("done") == 1  # what the dead server had begun was ended and run again

    async def test_a_server_that_is_told_to_end_leaves_its_runs_to_the_next(self, tmp_path):
        folder = make_project(tmp_path / "slow", SLOW)
        first = Server(folder)
        async with Engine.open(Project(folder)) as engine:
            service = LocalService(engine)
            run = await service.runs.start({}, actor="ann")

            async def begun() -> bool:
                return "begun" in marks(folder)

            await until(begun)
            assert first.stop() == 0
            worker = Server(folder, "worker")
            try:
                view = await final(service, run)
            finally:
                worker.stop()
        assert view.state == "succeeded"
        assert marks(folder).count("done") == 1


class TestReadiness:
    def test_a_server_that_does_not_work_waits_for_a_worker(self, tmp_path):
        folder = make_project(tmp_path / "shop")
        server = Server(folder, "serve", "--port", "0", "--no-work")
        try:
            with httpx2.Client(base_url=server.url, trust_env=False) as client:
                lonely = client.get("/readyz")
                assert lonely.status_code == 503
                assert lonely.json()["checks"]["workers"] == "no worker was heard of lately"
                worker = Server(folder, "worker")
                try:
                    assert client.get("/readyz").status_code == 200
                finally:
                    worker.stop()
                assert client.get("/readyz").status_code == 503
        finally:
            server.stop()


@pytest.fixture
def server(tmp_path):
    running = Server(make_project(tmp_path / "shop"))
    yield running
    running.stop()
