"""The output of replicas: files of bounded size, their last lines, and following them."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import unquote

from forge.adapters.targets.local.folders import EnvironmentFolder, path_element

LIMIT = 16 * 1024 * 1024
"""A log that grew past this many bytes becomes `.1`, in the place of the one before."""

KEPT_VERSIONS = 20
"""So many versions that are gone keep their logs."""


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Copy a log that is too big aside and empty it; return whether it was.

    The writer keeps its descriptor and never notices: it was opened to append, so it goes on at the new end.
    """
    try:
        if path.stat().st_size <= limit:
            return False
        coming = path.with_name(f"{path.name}.new")
        shutil.copyfile(path, coming)
        os.truncate(path, 0)
        coming.rename(path.with_name(f"{path.name}.1"))
    except OSError:
        return False
    return True


def rotate_all(folder: EnvironmentFolder, limit: int = LIMIT) -> None:
    """Bound the size of all logs of an environment."""
    for path in (*folder.logs.glob("*/*.log"), folder.envoy_log, folder.agent_log):
        rotate(path, limit)


def prune(folder: EnvironmentFolder, current: set[str], keep: int = KEPT_VERSIONS) -> None:
    """Remove the logs of versions that are long gone, the oldest first."""
    names = {path_element(version) for version in current}
    if not folder.logs.is_dir():
        return
    gone = [path for path in folder.logs.iterdir() if path.is_dir() and path.name not in names]
    gone.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    for path in gone[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def last_lines(path: Path, count: int, *, budget: int = 1024 * 1024) -> list[str]:
    """Return the last `count` lines of a log, reading at most `budget` bytes of each of its two files."""
    lines: list[str] = []
    for part in (path, path.with_name(f"{path.name}.1")):
        if len(lines) >= count:
            break
        lines = _tail_of(part, budget) + lines
    return lines[-count:] if count > 0 else []


def _tail_of(path: Path, budget: int) -> list[str]:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - budget))
            data = file.read(budget)
    except OSError:
        return []
    lines = data.decode(errors="replace").splitlines()
    return lines[1:] if size > budget else lines


class _Follower:
    """Reads what is added to one log."""

    def __init__(self, path: Path, label: str, position: int) -> None:
        self.path = path
        self.label = label
        self.position = position
        self.rest = b""
        self.aside = path.with_name(f"{path.name}.1")
        self.rotated_at = self._rotation()

    def _rotation(self) -> int:
        try:
            return self.aside.stat().st_mtime_ns
        except OSError:
            return 0

    def read(self) -> list[str]:
        try:
            # A log that was rotated is read to its end where it is now, then from its beginning.
            moved = self._rotation()
            data = b""
            if moved != self.rotated_at:
                data = _from(self.aside, self.position)
                self.rotated_at, self.position = moved, 0
            added = _from(self.path, self.position)
        except OSError:
            return []
        self.position += len(added)
        data += added
        *whole, self.rest = (self.rest + data).split(b"\n")
        if len(self.rest) > 256 * 1024:
            whole, self.rest = [*whole, self.rest], b""
        return [f"{self.label}: {line.decode(errors='replace')}" for line in whole]


def _from(path: Path, position: int) -> bytes:
    with path.open("rb") as file:
        file.seek(position)
        return file.read(LIMIT)


async def read_logs(
    folder: EnvironmentFolder, version: str | None, *, follow: bool, tail: int, interval: float = 0.2
) -> AsyncIterator[str]:
    """Yield the last `tail` lines of each replica's log, then, with `follow`, what is added, for ever."""
    followers: dict[Path, _Follower] = {}
    for path, label in _logs(folder, version):
        position = path.stat().st_size if path.exists() else 0
        for line in last_lines(path, tail):
            yield f"{label}: {line}"
        followers[path] = _Follower(path, label, position)
    while follow:
        for path, label in _logs(folder, version):
            follower = followers.setdefault(path, _Follower(path, label, 0))
            for line in follower.read():
                yield line
        await asyncio.sleep(interval)


def _logs(folder: EnvironmentFolder, version: str | None) -> list[tuple[Path, str]]:
    paths = folder.logs.glob(f"{'*' if version is None else path_element(version)}/*.log")
    return [(path, f"{unquote(path.parent.name)}/{path.stem}") for path in sorted(paths, key=_order)]


def _order(path: Path) -> tuple[str, int]:
    return path.parent.name, int(path.stem) if path.stem.isdigit() else 0
