"""What `forge doctor` looks at: each check returns findings, never raises, and changes nothing."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Literal

import msgspec

from forge import __version__
from forge.engine.project import Project
from forge.model.units import format_size
from forge.store.contract import Store

Grade = Literal["ok", "warn", "fail"]
LOW_DISK = 1_000_000_000
NO_DISK = 100_000_000
PATIENCE = 10.0


class Finding(msgspec.Struct, frozen=True):
    """One line: what was looked at, how it is, and what to do when it is not well."""

    check: str
    state: Grade
    message: str
    hint: str = ""


async def examine(project: Project | None) -> AsyncIterator[Finding]:
    """Yield the findings; those about a project only where there is one."""
    yield Finding("forge", "ok", __version__)
    yield check_python()
    yield await check_program("git", ("git", "--version"), needed="for sources from git and for the commit's name")
    yield await check_program("envoy", (envoy_program(), "--version"), needed="for environments")
    if project is None:
        yield Finding("project", "warn", "no forge/pipeline.yaml here or above", "`forge init` writes one")
        return
    yield check_pipeline(project)
    yield check_disk(project)
    async for finding in check_database(project):
        yield finding
    yield await check_artifacts(project)
    async for finding in check_environments(project):
        yield finding


def check_python() -> Finding:
    """Python must be 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < (3, 11):  # noqa: UP036  the installer may have been forced
        return Finding("python", "fail", version, "Forge needs Python 3.11 or newer")
    return Finding("python", "ok", version)


def envoy_program() -> str:
    """Return where Envoy is: beside this Python (it comes as a package), else on the PATH."""
    beside = Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy") or "envoy"


async def check_program(name: str, command: tuple[str, ...], *, needed: str) -> Finding:
    """A program is well when it can say its version."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except OSError as error:
        return Finding(
            name, "fail", f"cannot be started: {error.strerror or error}", f"install it; it is needed {needed}"
        )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    except TimeoutError:
        process.kill()
        await process.wait()
        return Finding(name, "fail", f"did not say its version within {PATIENCE:g}s", f"it is needed {needed}")
    text = " ".join(output.decode("utf-8", "replace").split())[:80]
    if process.returncode != 0:
        return Finding(name, "fail", f"exit code {process.returncode}: {text}", f"it is needed {needed}")
    found = re.search(r"\d+\.\d+\.\d+", text)
    return Finding(name, "ok", found[0] if found else text)


def check_pipeline(project: Project) -> Finding:
    """The pipeline file must have no errors."""
    from forge.engine.planning import diagnose

    found = diagnose(project.pipeline)
    errors = sum(one.severity == "error" for one in found)
    if errors:
        return Finding("pipeline", "fail", f"{errors} problems in {project.pipeline}", "`forge lint` shows them")
    return Finding("pipeline", "ok", str(project.pipeline))


def check_disk(project: Project) -> Finding:
    """Nothing takes effect that cannot be written down, so there must be room to write."""
    folder = project.state if project.state.is_dir() else project.root
    free = shutil.disk_usage(folder).free
    text = f"{format_size(free)} free for {folder}"
    if not os.access(folder, os.W_OK):
        return Finding("disk", "fail", f"{folder} cannot be written to", "change its owner or mode")
    if free < NO_DISK:
        return Finding("disk", "fail", text, "make room; then `forge resume`")
    if free < LOW_DISK:
        return Finding("disk", "warn", text, "old runs under .forge/runs can be removed")
    return Finding("disk", "ok", text)


async def check_database(project: Project) -> AsyncIterator[Finding]:
    """The database must answer, and its log must be one unbroken chain."""
    from forge.store.database import open_store

    url = project.database_url
    shown = without_password(url)
    if url.startswith("sqlite") and not (project.state / "forge.db").exists() and "FORGE_DATABASE" not in os.environ:
        yield Finding("database", "ok", "none yet; the first run makes it")
        return
    try:
        store = await asyncio.wait_for(open_store(url), PATIENCE)
    except Exception as error:
        yield Finding("database", "fail", f"{shown}: {_words(error)}", "is it running, and is FORGE_DATABASE right?")
        return
    try:
        yield Finding("database", "ok", shown)
        for name, broken in (("log", await store.log.verify()), ("decisions", await store.decisions.verify())):
            if broken is None:
                yield Finding(name, "ok", "the hash chain is whole")
            else:
                hint = "somebody changed the database by hand; restore it from a backup"
                yield Finding(name, "fail", f"record {broken} does not fit the hash chain", hint)
        stranded = [
            record.id for record in await store.machines.newest("run", statuses=("queued", "running"), limit=100)
        ]
        async for finding in check_clusters(store):
            yield finding
        async for finding in check_left_steps(store, project):
            yield finding
        if stranded:
            yield Finding(
                "runs", "warn", f"unfinished: {', '.join(stranded)}", "if nothing works on them: `forge resume`"
            )
    except Exception as error:
        yield Finding("database", "fail", f"{shown}: {_words(error)}", "`forge doctor --debug` shows more")
    finally:
        await store.close()


async def check_clusters(store: Store) -> AsyncIterator[Finding]:
    """What is labelled as Forge's in a cluster should belong to an environment of this database."""
    if not await store.machines.newest("environment", limit=1):
        return
    from forge.engine.clusters import left_behind

    try:
        found = await asyncio.wait_for(left_behind(store), PATIENCE)
    except Exception as error:
        yield Finding("clusters", "warn", _words(error), "environments on a cluster cannot be looked at")
        return
    for each in found:
        hint = "`forge doctor --remove-orphans` removes it, if no other database's environment needs it"
        yield Finding("clusters", "warn", f"{each.title}: {each.orphan.why}", hint)


async def check_left_steps(store: Store, project: Project) -> AsyncIterator[Finding]:
    """A pod of a step should not go on when its run is over."""
    runs = await store.machines.newest("run", limit=1)
    if not runs:
        return
    from forge.engine.left_steps import left_steps

    try:
        found = await asyncio.wait_for(left_steps(store, str(project.root)), PATIENCE)
    except Exception as error:
        yield Finding("pods", "warn", _words(error), "pods of earlier runs cannot be looked at")
        return
    for each in found:
        job = each.orphan
        where = f"--namespace {job.namespace} " if job.namespace else ""
        message = f"Job {job.name} of {job.run} goes on in {each.cluster}, though its run is over"
        yield Finding("pods", "warn", message, f"`kubectl {where}delete job {job.name}` ends it")


def without_password(url: str) -> str:
    """Return a database's URL without its password."""
    scheme, separator, rest = url.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{credentials.partition(':')[0]}{at}{host}" if at else url


async def check_artifacts(project: Project) -> Finding:
    """The artifact store must answer."""
    from forge.adapters.artifacts.open import open_artifacts

    try:
        await asyncio.wait_for(open_artifacts(project.artifacts_url).has("0" * 64), PATIENCE)
    except Exception as error:
        return Finding("artifacts", "fail", f"{project.artifacts_url}: {_words(error)}", "is FORGE_ARTIFACTS right?")
    return Finding("artifacts", "ok", project.artifacts_url)


async def check_environments(project: Project) -> AsyncIterator[Finding]:
    """An environment of this machine whose agent is gone keeps serving, but nothing restarts what crashes."""
    from forge.adapters.targets.local.client import AgentClient
    from forge.adapters.targets.local.folders import EnvironmentFolder
    from forge.model.configs import EnvoyRouterConfig

    folders = project.state / "environments"
    for root in sorted(folders.iterdir()) if folders.is_dir() else ():
        folder = EnvironmentFolder(root)
        if not folder.state.exists():
            continue
        if await AgentClient(folder, root.name, EnvoyRouterConfig()).is_alive():
            yield Finding(f"environment {root.name}", "ok", "its agent answers")
        else:
            hint = f"`forge env up {root.name}` starts it again, if it is to run"
            yield Finding(f"environment {root.name}", "warn", "its agent does not run", hint)


def _words(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
