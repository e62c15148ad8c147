"""Starting processes so that a crash of the agent at any moment leaves none behind that nobody knows of."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from forge.adapters.targets.local.processes import ProcessIdentity, identify

_GATE = 'read -r go || exit 0; exec "$@" </dev/null'
"""Waits for a line on stdin; at its end (the agent is gone) leaves without running the command."""

_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "USER", "LOGNAME", "SSL_CERT_FILE")


def clean_environment() -> dict[str, str]:
    """Return what of our own environment is passed on: nothing of Forge, no secrets of whoever called."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {"PATH": os.defpath, **kept}


@dataclass
class Gated:
    """A process that waits at the gate: `go` lets it run its command, `drop` lets it leave."""

    process: subprocess.Popen[bytes]
    identity: ProcessIdentity

    def go(self) -> None:
        """Let it run its command, now that it is on record."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(b"go\n")
            self.process.stdin.close()
        except BrokenPipeError:
            return

    def drop(self) -> None:
        """Let it leave without having run its command."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def start_gated(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path) -> Gated:
    """Start a session of its own for `command`, waiting at the gate. Raises OSError."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GATE, "sh", *command],
            env=dict(env), cwd=cwd, stdin=subprocess.PIPE, stdout=descriptor, stderr=descriptor,
            start_new_session=True, bufsize=0,
        )  # fmt: skip
    finally:
        os.close(descriptor)
    identity = identify(process.pid)
    if identity is None:
        process.kill()
        process.wait()
        raise OSError(errno.ECHILD, "the process was gone at once")
    return Gated(process, identity)


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether something could listen there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def choose_port(avoid: set[int], host: str = "127.0.0.1") -> int:
    """Return a port that is free now and not in `avoid`. Raises OSError when there is none."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(100):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
            port: int = probe.getsockname()[1]
        if port not in avoid:
            return port
    raise OSError(errno.EADDRINUSE, "no free port was found")


def describe_exit(status: int | None) -> str:
    """Return an exit status as people say it; None: it was not our child, so nobody told us."""
    if status is None:
        return "ended (its exit code is not known: an earlier agent had started it)"
    if status < 0:
        try:
            return f"was killed by {signal.Signals(-status).name}"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"exited with code {status}"
