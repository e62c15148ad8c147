"""Secrets: fetched at the moment they are needed, kept in memory only."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path

from forge.model.errors import DependencyFailed
from forge.model.plan import SecretReference

COMMAND_TIMEOUT = 60.0
LARGEST = 64 * 1024
"""Bytes. A larger value does not fit an environment variable of every system."""


async def resolve(
    secrets: tuple[SecretReference, ...], root: Path, environ: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the values by name. Files are relative to `root`, commands run in it; one last newline is dropped.

    Raises DependencyFailed, which names the secret and where it was looked for, never its value.
    """
    values = await asyncio.gather(
        *(_value(secret, root, os.environ if environ is None else environ) for secret in secrets)
    )
    return {secret.name: value for secret, value in zip(secrets, values, strict=True)}


async def resolve_one(secret: SecretReference, root: Path) -> str:
    """Return the value of one secret. See resolve."""
    return await _value(secret, root, os.environ)


async def _value(secret: SecretReference, root: Path, environ: Mapping[str, str]) -> str:
    if secret.env:
        value = environ.get(secret.env)
        if value is None:
            raise DependencyFailed(
                f"secret `{secret.name}`: the environment variable `{secret.env}` is not set",
                hint=f"set {secret.env} where the worker runs",
            )
    elif secret.file:
        value = _without_newline(_read(secret, root))
    else:
        value = _without_newline(await _output(secret, root))
    if "\0" in value or len(value) > LARGEST:
        raise DependencyFailed(f"secret `{secret.name}` does not fit an environment variable")
    return value


def _read(secret: SecretReference, root: Path) -> bytes:
    try:
        with (root / secret.file).open("rb") as file:
            return file.read(LARGEST + 2)
    except OSError as error:
        raise DependencyFailed(f"secret `{secret.name}`: {secret.file}: {error.strerror or error}") from error


async def _output(secret: SecretReference, root: Path) -> bytes:
    """Return what the secret's command prints; what it says on stderr is not kept, it may tell the value."""
    try:
        process = await asyncio.create_subprocess_exec(
            *secret.command,
            cwd=root,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        raise DependencyFailed(f"secret `{secret.name}`: its command cannot be started: {error}") from error
    try:
        async with asyncio.timeout(COMMAND_TIMEOUT):
            printed, _ = await process.communicate()
    except TimeoutError:
        raise DependencyFailed(f"secret `{secret.name}`: its command took over {COMMAND_TIMEOUT:.0f}s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise DependencyFailed(
            f"secret `{secret.name}`: its command ended with exit code {process.returncode}",
            hint="run it by hand to see why",
        )
    return printed


def _without_newline(value: bytes) -> str:
    text = value.decode(errors="surrogateescape")
    return text.removesuffix("\n").removesuffix("\r")
