"""Where an environment's files are, and how they are written so that no reader sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from forge.model.errors import DependencyFailed

_LONGEST_BASE = 60
"""The path of a socket has at most 107 bytes."""


@dataclass(frozen=True, slots=True)
class EnvironmentFolder:
    """The files of one environment: agent, proxy, versions, logs."""

    root: Path

    @property
    def lock(self) -> Path:
        """Held by the agent as long as it lives."""
        return self.root / "agent.lock"

    @property
    def agent_log(self) -> Path:
        """What the agent itself has to say."""
        return self.root / "agent.log"

    @property
    def state(self) -> Path:
        """The agent's saved state."""
        return self.root / "state.json"

    @property
    def envoy(self) -> Path:
        """The proxy's configuration and log."""
        return self.root / "envoy"

    @property
    def envoy_log(self) -> Path:
        """What the proxy has to say."""
        return self.envoy / "envoy.log"

    @property
    def versions(self) -> Path:
        """The unpacked files of all versions."""
        return self.root / "versions"

    def version(self, version: str) -> Path:
        """Everything that is unpacked of one version."""
        return self.versions / path_element(version)

    def working_directory(self, version: str) -> Path:
        """Where the version's replicas run."""
        return self.version(version) / "files"

    @property
    def logs(self) -> Path:
        """The output of all replicas."""
        return self.root / "logs"

    def log(self, version: str, replica: int) -> Path:
        """The output of one replica; `.1` after the name is what came before."""
        return self.logs / path_element(version) / f"{replica}.log"

    def runtime(self) -> Path:
        """Return the folder of the sockets: only ours, and with a path short enough for a socket's 108 bytes.

        Raises DependencyFailed if somebody else owns it.
        """
        record = self.root / "runtime"
        try:
            recorded, _, owner = record.read_text().strip().partition("\n")
            # A copied folder brings along the record of the one that it was copied from.
            if owner == str(self.root.resolve()):
                return _private(Path(recorded))
        except FileNotFoundError:
            pass
        name = hashlib.sha256(os.fsencode(self.root.resolve())).hexdigest()[:16]
        folder = _private(_private(_runtime_base()) / name)
        self.root.mkdir(parents=True, exist_ok=True)
        replace_file(record, f"{folder}\n{self.root.resolve()}\n")
        return folder


def _runtime_base() -> Path:
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    if given and len(given) < _LONGEST_BASE and os.access(given, os.W_OK):
        return Path(given) / "forge"
    return Path(f"/tmp/forge-{os.getuid()}")  # noqa: S108  _private checks whose it is


def _private(folder: Path) -> Path:
    """Return the folder, made if need be. Raises DependencyFailed unless it is a real folder, and ours alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        msg = f"{folder} is not a folder that only this user can open"
        raise DependencyFailed(msg, hint="remove it, or set XDG_RUNTIME_DIR to a folder of your own")
    return folder


def agent_socket(runtime: Path) -> Path:
    """Where the agent listens."""
    return runtime / "agent.sock"


def admin_socket(runtime: Path) -> Path:
    """Where the proxy's admin interface listens."""
    return runtime / "envoy.sock"


def path_element(name: str) -> str:
    """Return a name as one element of a path; different names stay different."""
    quoted = quote(name, safe="+=,@")
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def replace_file(path: Path, content: str | bytes, *, durable: bool = False, mode: int = 0o644) -> None:
    """Put `content` at `path` in one step, so that readers see the old or the new file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def replace_json(path: Path, data: dict[str, Any]) -> None:
    """Put `data` at `path` as JSON, in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(data, indent=1, sort_keys=True))
