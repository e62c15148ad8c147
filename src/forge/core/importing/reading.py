"""Reading a manifest so that nothing of it is lost: whatever nobody took is reported with its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from forge.model.diagnostics import Diagnostic

Path = tuple[str | int, ...]


class Manifest(Protocol):
    """One object of a file, with the place of everything in it."""

    @property
    def file(self) -> str:
        """The file's name."""

    @property
    def data(self) -> Any:
        """The object as plain data."""

    def problem(self, code: str, message: str, path: Path = (), *, hint: str = "", warning: bool = False) -> Diagnostic:
        """Return a diagnostic that points at `path`."""


class Reader:
    """Hands out parts of a manifest and remembers which; `finish` reports the rest."""

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.lost: list[Diagnostic] = []
        self._seen: set[Path] = set()

    def take(self, *path: str | int, default: Any = None) -> Any:
        """Return what stands at a path, which counts as translated with all that is in it."""
        found = self.peek(*path)
        if found is None:
            return default
        self._seen.add(path)
        return found

    def peek(self, *path: str | int) -> Any:
        """Return what stands at a path without counting it; None where there is nothing."""
        here: Any = self.manifest.data
        for step in path:
            if isinstance(here, list) and isinstance(step, int):
                here = here[step] if step < len(here) else None
            else:
                here = here.get(step) if isinstance(here, dict) else None
        return here

    def mapping(self, *path: str | int) -> dict[str, Any]:
        """Return the mapping at a path without counting it; an empty one for anything else."""
        found = self.peek(*path)
        return found if isinstance(found, dict) else {}

    def items(self, *path: str | int) -> range:
        """Return the indexes of the list at a path; none for anything else."""
        found = self.peek(*path)
        return range(len(found)) if isinstance(found, list) else range(0)

    def needless(self, *path: str | int) -> None:
        """Count a path as dealt with: Forge does this by itself."""
        self._seen.add(path)

    def report(self, path: Path, message: str, hint: str) -> None:
        """Say that what stands at a path was not translated, why, and what to do instead."""
        if self.peek(*path) is not None:
            self.lost.append(self.manifest.problem("not-translated", message, path, hint=hint, warning=True))
            self._seen.add(path)

    def finish(self) -> list[Diagnostic]:
        """Return everything that was not translated, also what nobody looked at, in the order of the file."""
        for path in self._unseen((), self.manifest.data):
            name = ".".join(map(str, path))
            self.lost.append(
                self.manifest.problem(
                    "not-translated", f"`{name}` has no counterpart that is known", path,
                    hint="look for it in docs/kubernetes/reference.md", warning=True,
                )
            )  # fmt: skip
        return sorted(self.lost, key=lambda problem: (problem.line, problem.column))

    def _unseen(self, path: Path, here: Any) -> Iterator[Path]:
        """Yield the topmost paths of which nothing was taken, and, elsewhere, the leaves that were not."""
        if any(path[: len(seen)] == seen for seen in self._seen):
            return
        inside = [seen for seen in self._seen if seen[: len(path)] == path]
        if not inside or not isinstance(here, (dict, list)):
            if here not in ({}, [], None):
                yield path
            return
        steps = here if isinstance(here, dict) else range(len(here))
        for step in steps:
            yield from self._unseen((*path, step), here[step])
