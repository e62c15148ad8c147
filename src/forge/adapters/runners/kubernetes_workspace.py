"""A workspace that pod and worker do not share: packed and sent before the command, fetched and unpacked after it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

from forge.adapters.archives import UnsafeArchive, pack_folder, unpack
from forge.adapters.kubernetes.connection import Cluster
from forge.adapters.kubernetes.streams import SLICE, Executed, execute
from forge.adapters.runners.base import StepFiles
from forge.adapters.runners.kubernetes_objects import DELIVER, DELIVERED, KEEP, TAKEN, Places
from forge.model.errors import DependencyFailed
from forge.model.units import format_size

PATIENCE = 1800.0
"""Seconds that a workspace may take on its way."""
_UNPACK = 'cd "$1" && head -c "$2" | tar -xzmof - && : > "$3"'
_PACK = 'cd "$1" && tar -czf - .'
_READ = 'if [ -e "$1" ]; then cat "$1"; fi'


class WorkspaceCarrier:
    """Carries one step's workspace to and from its pod. Every part may be done again after a crash."""

    def __init__(self, cluster: Cluster, files: StepFiles, places: Places, private: Path) -> None:
        self._cluster = cluster
        self._files = files
        self._places = places
        self._private = private

    async def deliver(self, pod: str) -> int:
        """Send the workspace into the pod and let its command begin; return how many bytes that were."""
        archive = self._private / "outgoing.tar.gz"
        try:
            await asyncio.to_thread(pack_folder, self._files.workspace, archive)
            size = archive.stat().st_size
            done = await self._execute(
                pod, DELIVER, _UNPACK, self._places.mount, str(size), DELIVERED, stdin=_slices(archive)
            )
            _check(done, "the workspace could not be unpacked in the pod")
            return size
        except OSError as error:
            raise DependencyFailed(f"the workspace could not be packed: {error}") from error
        finally:
            archive.unlink(missing_ok=True)

    async def fetch(self, pod: str) -> int:
        """Bring the workspace and the command's outputs back as they are in the pod; return how many bytes the
        workspace was."""
        archive = self._private / "incoming.tar.gz"
        try:
            for path in self._files.writes:
                with path.open("wb") as file:
                    done = await self._execute(pod, KEEP, _READ, f"{TAKEN}/{path.name}", stdout=file.write)
                _check(done, "the outputs could not be fetched from the pod")
            with archive.open("wb") as file:
                done = await self._execute(pod, KEEP, _PACK, self._places.mount, stdout=file.write)
            _check(done, "the workspace could not be packed in the pod")
            size = archive.stat().st_size
            await asyncio.to_thread(_replace, self._files.workspace, archive)
            return size
        except UnsafeArchive as error:
            raise DependencyFailed(f"the workspace that came back is not one: {error.message}") from error
        except OSError as error:
            raise DependencyFailed(f"the workspace could not be unpacked: {error}") from error
        finally:
            archive.unlink(missing_ok=True)

    async def _execute(self, pod: str, container: str, script: str, *arguments: str, **streams: object) -> Executed:
        command = ["sh", "-c", script, "sh", *arguments]
        return await execute(self._cluster, pod, container, command, timeout=PATIENCE, **streams)  # type: ignore[arg-type]


def _check(done: Executed, problem: str) -> None:
    if done.exit_code:
        hint = "the image needs `sh`, `tar`, `gzip` and `head`; or share a workspace by `claim` or `host_path`"
        words = f": {done.complaint}" if done.complaint else ""
        raise DependencyFailed(f"{problem} (exit code {done.exit_code}{words})", hint=hint)


def _slices(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(SLICE):
            yield chunk


def _replace(workspace: Path, archive: Path) -> None:
    """Put what came back in the workspace's place. What is there twice for a moment is never there not at all."""
    incoming = workspace.with_name(f"{workspace.name}.incoming")
    before = workspace.with_name(f"{workspace.name}.before")
    for folder in (incoming, before):
        shutil.rmtree(folder, ignore_errors=True)
    unpack(archive, incoming, any_links=True)
    workspace.rename(before)
    incoming.rename(workspace)
    shutil.rmtree(before, ignore_errors=True)


def told_size(size: int) -> str:
    """Return a size as logs tell it."""
    return format_size(size)
