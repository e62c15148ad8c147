"""Which files belong to a project's working tree, and what git says about it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pathspec

_NEVER = {".git", ".forge"}
_PATIENCE = 120.0


def files(root: Path) -> list[str]:
    """Return the names, relative to `root`, of all files and links that are tracked or not ignored.

    Asks git where `root` belongs to a git checkout, else follows `.gitignore` files itself. Raises OSError.
    """
    listed = _listed_by_git(root)
    names = listed if listed is not None else list(_walk(root, PurePosixPath(), ()))
    return [name for name in names if not _NEVER.intersection(PurePosixPath(name).parts)]


def describe(root: Path) -> tuple[str, str, bool]:
    """Return (commit, ref, whether anything differs from the commit); empty where there is no git checkout."""
    commit = _git(root, "rev-parse", "--verify", "-q", "HEAD^{commit}")
    if commit is None:
        return "", "", False
    ref = (
        _git(root, "symbolic-ref", "-q", "--short", "HEAD") or _git(root, "describe", "--tags", "--exact-match") or b""
    )
    changes = _git(root, "status", "--porcelain", "-z", "--", ".")
    return commit.decode().strip(), ref.decode(errors="replace").strip(), bool(changes)


def _listed_by_git(root: Path) -> list[str] | None:
    # A folder that the repository around it ignores is a project of its own, not an empty one.
    if _git(root, "rev-parse", "--show-toplevel") is None or _git(root, "check-ignore", "-q", ".") is not None:
        return None
    listed = _git(root, "ls-files", "--cached", "--others", "--exclude-standard", "--deduplicate", "-z")
    if listed is None:
        return None
    names: list[str] = []
    for raw in filter(None, listed.split(b"\0")):
        name = os.fsdecode(raw).rstrip("/")
        path = root / name
        if path.is_dir() and not path.is_symlink():  # a submodule, or a repository inside of this one
            names += (f"{name}/{inner}" for inner in files(path))
        elif path.is_symlink() or path.exists():
            names.append(name)
    return names


def _git(root: Path, *arguments: str) -> bytes | None:
    """Return what git prints, or None if it fails or is not installed."""
    env = {**os.environ, "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    # These name another repository when Forge is started by a git hook.
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"):
        env.pop(name, None)
    try:
        done = subprocess.run(
            ["git", "-c", "core.fsmonitor=false", *arguments],
            cwd=root, env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _walk(
    root: Path, folder: PurePosixPath, rules: tuple[tuple[PurePosixPath, pathspec.GitIgnoreSpec], ...]
) -> Iterator[str]:
    here = root / folder
    if (here / ".gitignore").is_file():
        lines = (here / ".gitignore").read_text(errors="replace").splitlines()
        rules = (*rules, (folder, pathspec.GitIgnoreSpec.from_lines(lines)))
    with os.scandir(here) as entries:
        ordered = sorted(entries, key=lambda entry: entry.name)
    for entry in ordered:
        path = folder / entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name in _NEVER or _ignored(path, is_folder, rules):
            continue
        if is_folder:
            yield from _walk(root, path, rules)
        else:
            yield str(path)


def _ignored(
    path: PurePosixPath, is_folder: bool, rules: tuple[tuple[PurePosixPath, pathspec.GitIgnoreSpec], ...]
) -> bool:
    """The nearest .gitignore that says anything about a path decides, and in it the last rule that does."""
    for folder, spec in reversed(rules):
        name = str(path.relative_to(folder)) + ("/" if is_folder else "")
        for rule in reversed(list(spec.patterns)):
            if rule.include is not None and _names(rule, name):
                return bool(rule.include)
    return False


def _names(rule: pathspec.Pattern, name: str) -> bool:
    """Tell whether a rule names this very entry. The library also matches what is below a named folder, which
    git does not: a rule that brings a folder back says nothing about the files in it."""
    regex = getattr(rule, "regex", None)
    if regex is None:
        return False
    below = "ps_d" in regex.groupindex
    return any(not below or found["ps_d"] is None or found.end("ps_d") == len(name) for found in regex.finditer(name))
