"""Secrets come from where they are declared, and errors never tell them."""

from __future__ import annotations

import asyncio
import sys

import pytest

from forge.engine import secrets
from forge.model.errors import DependencyFailed
from forge.model.plan import SecretReference


async def value_of(root, environ=None, **fields) -> str:
    return (await secrets.resolve((SecretReference("TOKEN", **fields),), root, environ or {}))["TOKEN"]


async def test_from_the_environment_of_the_worker(tmp_path):
    assert await value_of(tmp_path, {"VAULT": "x y\n"}, env="VAULT") == "x y\n"


@pytest.mark.parametrize(
    ("written", "value"), [("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), ("a\nb\n\n", "a\nb\n"), ("", "")]
)
async def test_from_a_file_without_its_last_newline(tmp_path, written, value):
    (tmp_path / "token").write_bytes(written.encode())
    assert await value_of(tmp_path, file="token") == value


async def test_from_a_command_in_the_projects_folder(tmp_path):
    (tmp_path / "token").write_text("from-command\n")
    assert await value_of(tmp_path, command=("cat", "token")) == "from-command"


async def test_several_are_fetched_at_the_same_time(tmp_path):
    slow = (
        SecretReference("A", command=("sh", "-c", "sleep 1; echo a")),
        SecretReference("B", command=("sh", "-c", "sleep 1; echo b")),
    )
    async with asyncio.timeout(1.9):
        assert await secrets.resolve(slow, tmp_path, {}) == {"A": "a", "B": "b"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"env": "NOWHERE"}, "`NOWHERE` is not set"),
        ({"file": "nowhere"}, "nowhere: No such file"),
        ({"command": ("no-such-command-anywhere",)}, "cannot be started"),
        ({"command": ("sh", "-c", "echo s3cret; echo s3cret >&2; exit 4")}, "exit code 4"),
        ({"command": (sys.executable, "-c", "print('x' * 100_000)")}, "does not fit"),
        ({"command": ("printf", "a\\000b")}, "does not fit"),
    ],
)  # fmt: skip
async def test_an_error_names_the_secret_and_never_its_value(tmp_path, fields, words):
    with pytest.raises(DependencyFailed) as failed:
        await value_of(tmp_path, **fields)
    told = f"{failed.value.message} {failed.value.hint}"
    assert "`TOKEN`" in told
    assert words in told
    assert "s3cret" not in told


async def test_a_command_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(secrets, "COMMAND_TIMEOUT", 0.2)
    with pytest.raises(DependencyFailed, match="took over"):
        await value_of(tmp_path, command=("sleep", "60"))


async def test_cancelling_ends_the_command(tmp_path):
    mark = tmp_path / "pid"
    asking = asyncio.create_task(value_of(tmp_path, command=("sh", "-c", f"echo $$ > {mark}; exec sleep 60")))
    async with asyncio.timeout(10):
        while not mark.exists() or not mark.read_text().strip():
            await asyncio.sleep(0.01)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    import psutil

    assert not psutil.pid_exists(int(mark.read_text()))
