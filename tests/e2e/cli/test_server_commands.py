"""The same commands through a server: same output, same exit codes as on the project's own machine."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cluster.releases import SERVICE
from forge.adapters.targets.local.environment import shutdown
from forge.engine.project import Project
from serving.inside import Asked
from serving.listening import listening
from serving.running import Server, make_project

FORGE = Path(sys.executable).parent / "forge"
PIPELINE = {
    "parameters": {"version": {"type": "string", "default": "v1"}, "bad": {"type": "boolean", "default": False}},
    "jobs": {
        "build": {"steps": [{"id": "make", "run": "for n in 1 2 3; do echo part $n; done; echo made > out.txt"},
                            {"publish": "out.txt"}]},
        "ship": {"depends_on": "build", "steps": [{"approve": {"message": "Well?"}}, {"id": "go", "run": "! $BAD"}],
                 "env": {"BAD": "${{ params.bad }}"}},
    },
}  # fmt: skip


class Done(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


class Command:
    """`forge` in a folder, with FORGE_SERVER or without."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        own = {name: value for name, value in os.environ.items() if not name.startswith("FORGE_")}
        config = folder.parent / "config"
        self.environ = {**own, "FORGE_ACTOR": "ann", "TZ": "UTC", "XDG_CONFIG_HOME": str(config), **environ}

    async def start(self, *words: str, stdin: int = DEVNULL) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(FORGE), *words, cwd=self.folder, env=self.environ, stdin=stdin, stdout=PIPE, stderr=PIPE
        )

    async def __call__(self, *words: str, code: int | None = None, seconds: float = 60, stdin: str = "") -> Done:
        process = await self.start(*words, stdin=PIPE if stdin else DEVNULL)
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin.encode() or None), seconds)
        finally:
            if process.returncode is None:
                process.kill()
        done = Done(process.returncode or 0, out.decode(), err.decode())
        assert code is None or done.code == code, f"forge {' '.join(words)}: {done}"
        return done


class Team:
    """A server of a project that somebody has at hand as well, and both ways to ask it."""

    def __init__(self, asked: Asked, folder: Path) -> None:
        url = str(asked.client.base_url)
        away = folder.parent / "elsewhere"
        away.mkdir()
        self.remote = Command(away, FORGE_SERVER=url, FORGE_TOKEN="forge_test")
        self.local = Command(folder)
        self.asked = asked


@pytest.fixture
async def team(tmp_path: Path) -> AsyncIterator[Team]:
    folder = tmp_path / "shop"
    (folder / "forge").mkdir(parents=True)
    (folder / "forge/pipeline.yaml").write_text(yaml.safe_dump(PIPELINE, sort_keys=False))
    async with listening(folder) as asked:
        await asked.site.workers.start()
        yield Team(asked, folder)


async def same(team: Team, *words: str) -> Done:
    """Ask both ways; the answers are the same, byte for byte."""
    here, there = await asyncio.gather(team.local(*words), team.remote(*words))
    assert (here.code, here.out) == (there.code, there.out), words
    return there


async def test_a_run_is_started_followed_approved_and_read_from_elsewhere(team):
    followed = await team.remote("run", "--yes", "--progress", "plain", code=0)
    assert "run-1 started by ann" in followed.err
    assert "part 3" in followed.err
    assert "approved by ann" in followed.err
    for words in (
        ("runs", "-o", "json"), ("runs", "-o", "name"), ("runs", "--state", "failed"), ("status", "1", "-o", "json"),
        ("status",), ("logs", "1"), ("logs", "1", "build", "make", "--tail", "1"), ("artifacts", "list", "1", "-o", "json"),
        ("audit", "log", "-o", "json"), ("audit", "log", "run-1"), ("audit", "verify"), ("env", "list", "-o", "json"),
    ):  # fmt: skip
        assert (await same(team, *words)).code == 0
    assert "part 1" in (await same(team, "logs", "-f", "run-1")).out
    await team.remote("artifacts", "get", "1", "out.txt", code=0)
    assert (team.remote.folder / "out.txt").read_text() == "made\n"
    assert "there already" in (await team.remote("artifacts", "get", "1", "out.txt", code=2)).err


async def test_gates_are_opened_by_others_and_watchers_see_it(team):
    waiting = await team.remote("run", "--no-input", code=8)
    assert "ship" in waiting.out
    watching = asyncio.create_task(team.remote("status", "1", "--wait", "--timeout", "30s"))
    approved = await team.remote("approve", "1", "-m", "fine", code=0)
    assert "ship of run-1 approved by ann\n" in approved.err
    await watching
    assert (await team.remote("status", "1", "--wait", code=0)).code == 0
    again = await team.remote("approve", "1", code=2)
    assert "waiting for approval: none" in again.err
    await team.remote("run", "-d", code=0)
    await team.remote("status", "2", "--wait", code=8)
    await team.remote("reject", "2", "-m", "no", code=0)
    await same(team, "status", "2")
    assert (await same(team, "status", "2", "-o", "name")).code == 3


async def test_what_failed_is_done_again_and_what_goes_on_is_cancelled(team):
    failed = await team.remote("run", "--yes", "-p", "bad=true", code=1)
    assert "failed" in failed.out
    assert (await team.remote("retry", "1", "--yes", code=1)).out.count("run-1") >= 1
    started = (await team.remote("run", "-d", code=0)).out.strip()
    await team.remote("status", started, "--wait", code=8)
    assert "cancelled" in (await team.remote("cancel", started, "-m", "enough", code=0)).err
    assert "over already: cancelled" in (await team.remote("cancel", started, code=2)).err
    assert (await same(team, "runs", "--state", "cancelled", "-o", "name")).out == f"{started}\n"


async def test_mistakes_are_told_as_at_home(team):
    await team.remote("run", "-d", code=0)
    for words in (
        ("status", "9"), ("logs", "1", "bild"), ("explain", "production-1"), ("env", "show", "prod"),
        ("artifacts", "get", "1", "nothing"), ("release", "get", "prod"), ("audit", "log", "run-9"),
        ("run", "-p", "versoin=2"), ("runs", "--state", "faild"), ("cancel", "run-9"), ("approve", "1", "shp"),
    ):  # fmt: skip
        here, there = await asyncio.gather(team.local(*words), team.remote(*words))
        assert (there.code, there.err) == (here.code, here.err)
        assert there.code == 2


@pytest.mark.parametrize(
    "words",
    [("resume",), ("env", "up", "production"), ("audit", "replay"), ("artifacts", "prune"), ("signals", "test", "x")],
)
async def test_what_needs_the_projects_machine_says_so(team, words):
    done = await team.remote(*words, code=2)
    assert "FORGE_SERVER" in done.err
    assert "hint" in done.err


async def test_who_is_not_logged_in_is_told_how_to(team):
    nobody = Command(team.remote.folder, FORGE_SERVER=team.remote.environ["FORGE_SERVER"])
    done = await nobody("runs", code=4)
    assert "forge login" in done.err
    assert (await team.remote("whoami", code=0)).out == "ann\n"
    assert (await team.local("whoami", code=0)).out == "ann\n"
    assert "-P" in (await team.local("-P", "shop", "runs", code=2)).err
    assert "did you mean `shop`" in (await team.remote("runs", "-P", "shp", code=2)).err
    assert (await team.remote("runs", "-P", "shop", code=0)).code == 0


async def test_a_server_that_is_away_is_a_dependency(tmp_path):
    done = await Command(tmp_path, FORGE_SERVER="http://127.0.0.1:9", FORGE_TOKEN="forge_x")("runs", code=5)
    assert "does not answer" in done.err
    assert done.out == ""
    done = await Command(tmp_path, FORGE_SERVER="http://forge.example.org", FORGE_TOKEN="forge_x")("runs", code=2)
    assert "in the clear" in done.err


async def test_stopping_to_watch_stops_nothing(team):
    watching = await team.remote.start("run", "--no-input", "--progress", "json", "-p", "version=v3")
    assert watching.stderr is not None
    async with asyncio.timeout(30):
        async for line in watching.stderr:
            if b'"log"' in line:
                break
    watching.send_signal(signal.SIGINT)
    _, err = await asyncio.wait_for(watching.communicate(), 20)
    if watching.returncode == 130:
        assert b"goes on on the server" in err
    else:  # it was at the gate before the signal came
        assert watching.returncode == 8
    await team.remote("status", "1", "--wait", code=8)


@pytest.mark.long
async def test_a_release_is_steered_from_elsewhere(tmp_path):
    folder = tmp_path / "shop"
    (folder / "forge").mkdir(parents=True)
    (folder / "service.py").write_text(SERVICE)
    command = [sys.executable, "-I", "-S", str(folder / "service.py")]
    target = {"command": command, "replicas": 1, "drain": "100ms", "ready": {"http": "/healthz", "interval": "50ms"}}
    deploy = {
        "environment": "production", "version": "${{ params.version }}", "keep_previous": "60s",
        "strategy": {"canary": {"steps": [{"weight": "50%"}, {"pause": "until_resumed"}]}},
        "target": {"env": {"POD_IP": "127.0.0.1", "VERSION": "${{ params.version }}"}},
    }  # fmt: skip
    pipeline = {
        "parameters": {"version": {"type": "string"}},
        "environments": {"production": {"target": {"local": target}}},
        "jobs": {"release": {"steps": [{"deploy": deploy}]}},
    }
    (folder / "forge/pipeline.yaml").write_text(yaml.safe_dump(pipeline, sort_keys=False))
    try:
        async with listening(folder) as asked:
            await asked.site.workers.start()
            team = Team(asked, folder)
            remote = team.remote
            assert "nothing was released" in (await same(team, "release", "get", "production")).err
            await remote("run", "-p", "version=v1", code=0)
            await remote("run", "-d", "-p", "version=v2", code=0)
            watched = await remote("release", "watch", "production", "--timeout", "40s", code=8)
            assert "v2" in watched.out
            assert (
                "no release" not in (await remote("release", "promote", "production", "--full", "--wait", code=0)).err
            )
            await remote("status", "2", "--wait", code=0)
            for words in (
                ("explain", "production-2"), ("explain", "production-2", "-o", "json"), ("env", "list"),
                ("audit", "log", "production", "--decisions", "-o", "json"), ("audit", "verify"), ("release", "get", "production"),
            ):  # fmt: skip
                assert (await same(team, *words)).code == 0
            assert "stable is v1" in (await remote("rollback", "production", code=0)).err
            refused = await remote("release", "promote", "production", code=2)
            assert "no release is under way" in refused.err
    finally:
        await shutdown(Project(folder).environment_folder("production"))


async def test_a_token_is_kept_tried_and_used_at_a_real_server(tmp_path):
    running = Server(make_project(tmp_path / "shop"))
    try:
        away = tmp_path / "elsewhere"
        away.mkdir()
        remote = Command(away, FORGE_SERVER=running.url)
        assert (await remote("runs", code=4)).out == ""
        for token, code in (("forge_nobody-has-this", 4), (running.token, 0)):
            done = await remote("login", code=code, stdin=f"{token}\n")
            assert token not in done.err + done.out
        name = (await remote("whoami", code=0)).out.strip()
        assert name
        followed = await remote("run", "--yes", "--progress", "plain", code=0)
        assert "compiling part 3" in followed.err
        assert f"approved by {name}" in followed.err
        listed = json.loads((await remote("runs", "-o", "json", code=0)).out)
        assert [(row["id"], row["state"], row["actor"]) for row in listed] == [("run-1", "succeeded", name)]
        assert (await remote("logout", code=0)).code == 0
        assert (await remote("runs", code=4)).out == ""
        bad = Command(away, FORGE_SERVER=running.url, FORGE_TOKEN="forge_nobody-has-this")
        assert "hint" in (await bad("runs", code=4)).err
    finally:
        running.stop()
