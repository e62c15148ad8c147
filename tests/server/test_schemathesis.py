"""The API does what its description says, for requests that fit it and for those that do not."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.running import Server, make_project

CONFIGURATION = """\
[checks.positive_data_acceptance]
# What parameters a pipeline takes, no description of the API can say; requests whose credentials are made up are
# held back (429) after some.
expected-statuses = ["2xx", "400", "401", "403", "404", "409", "422", "429"]
"""
SECONDS = 110


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a run that waits at its gate."""
    running = Server(make_project(tmp_path_factory.mktemp("site") / "shop"))
    with running.client() as client:
        client.post("/api/v1/projects/shop/runs").raise_for_status()
        deadline = time.monotonic() + 30
        while client.get("/api/v1/projects/shop/runs/run-1").json()["state"] != "waiting":
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield running
    running.stop()


def explore(server: Server, folder: Path, *words: str) -> str:
    """Run schemathesis with a token of an administrator; return what it says. Fails with it when it found a fault."""
    (folder / "schemathesis.toml").write_text(CONFIGURATION)
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json",
        "-H", f"Authorization: Bearer {server.token}", "--seed", "1", "--generation-deterministic", "--no-shrink",
        "--no-color", "--suppress-health-check", "all", "--request-timeout", "10", "--warnings", "off", *words,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


def operations(told: str) -> tuple[int, int]:
    """Return how many operations were tested, and of how many."""
    selected = re.search(r"Selected: (\d+)/(\d+)", told)
    tested = re.search(r"Tested: (\d+)", told)
    assert selected is not None
    assert tested is not None, told[-2000:]
    return int(tested[1]), int(selected[2])


# A token that revokes itself, or takes the rights of its owner, would make all that follows a 403.
TAKES_AWAY = ("--exclude-method", "DELETE", "--exclude-operation-id", "add_user")


@pytest.mark.long
def test_what_fits_and_what_does_not_is_answered_as_described(server, tmp_path):
    told = explore(
        server, tmp_path, "--checks", "all", "--exclude-checks", "ignored_auth", "--phases", "examples,coverage",
        "--workers", "2", *TAKES_AWAY,
    )  # fmt: skip
    tested, there_are = operations(told)
    assert there_are >= tested >= 40


@pytest.mark.long
def test_any_values_are_taken_or_refused_in_words(server, tmp_path):
    told = explore(
        server, tmp_path, "--checks", "all", "--exclude-checks", "ignored_auth", "--phases", "fuzzing",
        "--max-examples", "5", "--workers", "2", *TAKES_AWAY,
    )  # fmt: skip
    assert operations(told)[0] >= 40


OPEN = {"/healthz", "/readyz", "/metrics"}


def test_nothing_is_told_to_whom_is_not_logged_in(server):
    """Every operation that the description names; its own check would be held back for trying so many tokens."""
    with server.client("") as client:
        paths = client.get("/openapi.json").json()["paths"]
        asked = 0
        for path, methods in paths.items():
            if path in OPEN or path.startswith("/hooks/"):
                continue
            real = re.sub(r"{(\w+)}", lambda match: EXAMPLES.get(match[1], "x"), path)
            for method in methods:
                answer = client.request(method, real)
                assert answer.status_code == 401, (method, path, answer.text)
                assert answer.headers["content-type"] == "application/problem+json"
                asked += 1
    assert asked >= 40


EXAMPLES = {"project": "shop", "run": "run-1", "attempt": "1", "command": "1", "environment": "production"}


@pytest.mark.long
def test_after_all_that_the_server_is_well(server):
    with server.client() as client:
        assert client.get("/readyz").status_code == 200
        assert client.get("/api/v1/projects/shop/audit/verify").json()["events"]["first_wrong"] is None
        assert client.get("/api/v1/projects/shop/runs").json()["items"]


@pytest.mark.long
def test_what_takes_away_is_answered_as_described_too(server, tmp_path):
    told = explore(
        server, tmp_path, "--checks", "all", "--exclude-checks", "ignored_auth", "--phases", "examples,coverage",
        "--include-method", "DELETE",
    )  # fmt: skip
    assert operations(told)[0] >= 1
