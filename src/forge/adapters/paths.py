"""Keeps paths that users or archives name inside the folder that they belong to."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

_ENOUGH = 5_000
"""Files that are looked at for a name that is near; a hint is not worth a walk through everything."""


def inside(root: Path, relative: str, base: Path | None = None) -> Path:
    """Return `base / relative` (`base` is `root` or a folder in it). Raises UsageError if that is, or leads by a
    symbolic link, outside of `root`."""
    if "\0" in relative:
        raise UsageError("a path cannot contain a NUL character")
    path = Path(os.path.normpath((base or root) / relative))
    if not path.is_relative_to(root) or not path.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"`{relative}` leads out of the workspace", hint="name a path inside of it")
    return path


def member(name: str) -> PurePosixPath | None:
    """Return an archive member's name as a relative path without `..`, or None if it is not one."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        return None
    return path


def stays_inside(link: PurePosixPath, target: str) -> bool:
    """Tell whether a symbolic link at `link` can only lead inside of the root.

    `..` is accepted at the beginning of a target alone: behind another link it would lead elsewhere than it says.
    """
    path = PurePosixPath(target)
    ups = 0
    while ups < len(path.parts) and path.parts[ups] == "..":
        ups += 1
    return not path.is_absolute() and ".." not in path.parts[ups:] and ups < len(link.parts) and "\0" not in target


def empty(folder: Path) -> None:
    """Make `folder` exist with nothing in it; the folder itself stays, as it may be someone's working folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_tree(Path(entry.path))
            else:
                Path(entry.path).unlink()


def near_names(root: Path, wanted: str) -> str:
    """Return a hint that names a file below `root` which may be meant, or nothing."""
    names = list(_files(root))
    same = [name for name in names if PurePosixPath(name).name == PurePosixPath(wanted).name]
    if same:
        return f"there is `{min(same, key=len)}`"
    hint = did_you_mean(wanted, names)
    return hint if hint.startswith("did you mean") else ""


def _files(root: Path) -> Iterator[str]:
    count = 0
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in {".git", ".forge"})
        for name in sorted(files):
            yield os.path.relpath(Path(folder, name), root)
            count += 1
            if count >= _ENOUGH:
                return


def _remove_tree(path: Path) -> None:
    def unlock(_function: object, name: str, _error: object) -> None:
        # Some tools (Go's module cache) write folders that forbid removing what is in them.
        Path(name).parent.chmod(0o700)
        if Path(name).is_dir() and not Path(name).is_symlink():
            Path(name).chmod(0o700)
            shutil.rmtree(name)
        else:
            Path(name).unlink()

    shutil.rmtree(path, onerror=unlock)
