"""One cluster for all test processes of this user: the first starts it, and it ends when the last lets go.

Each user of a cluster holds a lock on a file in the cluster's `users/`; the system lets go of it when a process
dies, however it dies, so a killed test run leaves no cluster behind for long. One lock on the whole folder is held
for every step that looks at who uses what and acts on it.
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cluster.access import Api, Kubectl
from cluster.plane import ROOT, clean_up_after, start_time

PATIENCE = 100.0
"""Seconds until a cluster that was started can run pods."""
END = 30.0
"""Seconds in which a cluster that nobody uses is gone."""
SERVER = "server.json"
"""In a cluster's folder: the process that answers for it, and when that began."""
KEPT_LOGS = 3
"""How many ended clusters' logs stay."""


class NoCluster(Exception):
    """The cluster could not be started; the message has the reason."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster; `folder` is where its kubeconfig and its logs lie."""

    kubeconfig: Path
    folder: Path

    @property
    def api(self) -> Api:
        """Plain calls as the administrator."""
        return Api(self.kubeconfig)

    def kubectl(self, namespace: str = "default") -> Kubectl:
        """kubectl as the administrator."""
        return Kubectl(self.kubeconfig, namespace)


def base_folder() -> Path:
    """Return where this user's clusters live; short, because sockets may live in it."""
    return Path(tempfile.gettempdir()) / f"forge-clusters-{getpass.getuser()}"


@contextlib.contextmanager
def shared_cluster(base: Path | None = None) -> Iterator[Cluster]:
    """Use the one cluster while the block runs, starting it if there is none. Raises NoCluster."""
    base = base or base_folder()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(base):
        folder = running(base) or begin(base)
        held = hold(folder)
    try:
        yield cluster_in(folder)
    finally:
        with locked(base):
            held.close()
            last = nobody_holds(folder)
        if last:
            wait_for_end(folder)


@contextlib.contextmanager
def locked(base: Path) -> Iterator[None]:
    """Be the only one who starts, joins, leaves or ends a cluster under `base`."""
    with (base / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def running(base: Path) -> Path | None:
    """Return the folder of the cluster that runs, if one does."""
    clean_up(base)
    found = [one for one in sorted(base.glob("cluster-*")) if alive(one) and (one / "ready.json").exists()]
    return found[-1] if found else None


def clean_up(base: Path) -> None:
    """End what killed programs left running. Call it under the lock."""
    for folder in [*base.glob("cluster-*"), *base.glob("own-*")]:
        if (folder / SERVER).exists() and not alive(folder):
            left = clean_up_after(folder)
            if left:
                sys.stderr.write(f"forge: ended what a killed cluster left running: {', '.join(left)}\n")


@contextlib.contextmanager
def own_folder(base: Path | None = None) -> Iterator[Path]:
    """Return a folder for a control plane that this process runs itself: should it be killed, the next one to
    start a cluster cleans up."""
    base = base or base_folder()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(base):
        clean_up(base)
        folder = Path(tempfile.mkdtemp(prefix="own-", dir=base))
        note_server(folder, os.getpid())
    try:
        yield folder
    finally:
        clean_up_after(folder)


def note_server(folder: Path, pid: int) -> None:
    """Write down which process answers for the cluster in `folder`."""
    (folder / SERVER).write_text(json.dumps((pid, start_time(pid))))


def alive(folder: Path) -> bool:
    """Whether the program that serves the cluster in `folder` runs."""
    try:
        pid, began = json.loads((folder / SERVER).read_text())
    except (OSError, ValueError):
        return False
    return began is not None and start_time(pid) == began


def begin(base: Path) -> Path:
    """Start a cluster and return its folder when it can run pods. Raises NoCluster. Call it under the lock."""
    forget_old_logs(base)
    folder = Path(tempfile.mkdtemp(prefix=f"cluster-{int(time.time())}-", dir=base))
    (folder / "logs").mkdir()
    (folder / "users").mkdir()
    held = hold(folder)  # nobody else can be in there yet, and without a user it would end at once
    words = [sys.executable, "-m", "cluster.serve", str(folder), "--until-unused"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "tests"))
    with (folder / "logs" / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    note_server(folder, server.pid)
    deadline = time.monotonic() + PATIENCE
    while not (folder / "ready.json").exists():
        if server.poll() is not None or time.monotonic() > deadline:
            server.terminate()
            said = (folder / "logs" / "serve.log").read_text(errors="replace").strip().splitlines()
            raise NoCluster(f"{said[-1] if said else 'it said nothing'} (logs: {folder / 'logs'})")
        time.sleep(0.05)
    held.close()
    return folder


def hold(folder: Path) -> IO[str]:
    """Be one of those who use the cluster until the returned file is closed, or this process dies."""
    held = tempfile.NamedTemporaryFile("w", dir=folder / "users", prefix=f"{os.getpid()}-", delete=False)  # noqa: SIM115
    fcntl.flock(held.file, fcntl.LOCK_EX)  # type: ignore[attr-defined]
    return held  # type: ignore[return-value]


def cluster_in(folder: Path) -> Cluster:
    """Return the cluster that runs in `folder`."""
    told = json.loads((folder / "ready.json").read_text())
    return Cluster(Path(told["kubeconfig"]), folder)


def nobody_holds(folder: Path) -> bool:
    """Whether no living process uses the cluster. Call it under the lock."""
    for one in (folder / "users").glob("*"):
        with contextlib.suppress(FileNotFoundError), one.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
    return True


def nobody_uses(folder: Path) -> bool:
    """Whether the cluster's program has to end; from then on nobody can join it any more."""
    with locked(folder.parent):
        if not nobody_holds(folder):
            return False
        (folder / "ready.json").unlink(missing_ok=True)
        return True


def wait_for_end(folder: Path) -> None:
    """Return when the cluster that nobody uses is gone. Raises NoCluster if it does not go."""
    deadline = time.monotonic() + END
    while alive(folder):
        if time.monotonic() > deadline:
            raise NoCluster(f"the cluster in {folder} does not end")
        time.sleep(0.05)


def forget_old_logs(base: Path) -> None:
    """Remove all but the newest logs of clusters that have ended."""
    ended = [one for one in sorted(base.glob("cluster-*")) if not alive(one)]
    for one in ended[:-KEPT_LOGS]:
        clean_up_after(one)
