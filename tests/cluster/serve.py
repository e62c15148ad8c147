"""A whole cluster as one program: control plane, nodes and gateway.

`python -m cluster.serve FOLDER` keeps one running until SIGTERM or SIGINT; with `--until-unused` it ends by itself
as soon as nobody uses it (see `sharing`). It writes `ready.json` into FOLDER once the cluster can run pods, or
`failed.txt` with the reason why it cannot. Logs stay in FOLDER/logs when it ends, everything else goes.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.access import Kubectl
from cluster.plane import ControlPlane, clean_up_after, obtain
from cluster.prometheus import PodScraper
from cluster.sharing import nobody_uses

POLL = 0.2
"""Seconds between two looks at who uses the cluster."""


class AlreadyRuns(Exception):
    """Another program serves a cluster in this folder."""


def serve(folder: Path, *, until_unused: bool = False, told: bool = False, prometheus: bool = False) -> None:
    """Run a cluster until asked to end. Raises PartDied when a part of it ends by itself."""
    asked = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: asked.set())
    plane = ControlPlane(folder, obtain().find())
    try:
        plane.start()
        plane.start_attendants()
        ready = {"pid": os.getpid(), "kubeconfig": str(plane.kubeconfig)}
        if prometheus:
            ready["prometheus"] = start_prometheus(plane)
        write_whole(folder / "ready.json", ready)
        if told:
            tell(plane, ready.get("prometheus"))
        while not asked.wait(POLL):
            plane.check()
            if until_unused and nobody_uses(folder):
                return
    except BaseException as error:
        (folder / "failed.txt").write_text(f"{type(error).__name__}: {error}")
        raise
    finally:
        plane.stop()
        keep_only_logs(folder)


def start_prometheus(plane: ControlPlane) -> str:
    """Start one for all pods that ask for it, as a part of the control plane; return its URL when it serves."""
    folder = plane.folder / "prometheus"
    folder.mkdir()
    scraper = PodScraper(plane.api(), folder)
    plane.run("prometheus", scraper.words, {})
    return scraper.ready(plane.check)


def tell(plane: ControlPlane, prometheus: str | None) -> None:
    """Print how to use and how to stop a developer's cluster."""
    nodes = len(json.loads(Kubectl(plane.kubeconfig).ok("get", "nodes", "-o", "json"))["items"])
    lines = [
        f"a Kubernetes cluster with {nodes} nodes runs on this machine",
        f"  export KUBECONFIG={plane.kubeconfig}",
        f"  export FORGE_TEST_KUBECONFIG={plane.kubeconfig}   # for tests to use it instead of one of their own",
        *([f"  Prometheus: {prometheus}"] if prometheus else []),
        f"  logs: {plane.logs}",
        f"  stop it: Ctrl-C here, or kill {os.getpid()}",
    ]
    print("\n".join(lines), flush=True)


@contextlib.contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Be the only one who serves a cluster in this folder; end what a killed one left. Raises AlreadyRuns."""
    with folder.with_suffix(".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise AlreadyRuns(f"one runs in {folder} already: KUBECONFIG={folder / 'admin.kubeconfig'}") from None
        clean_up_after(folder)
        folder.mkdir()
        yield


def write_whole(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    fresh.rename(path)


def keep_only_logs(folder: Path) -> None:
    """Remove keys, certificates and data."""
    for one in folder.iterdir():
        if one.name in {"logs", "failed.txt"}:
            continue
        if one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        else:
            one.unlink(missing_ok=True)


def main() -> int:
    """Serve; exit code 1 with one line on stderr when there is no control plane to be had."""
    parser = argparse.ArgumentParser(description="A Kubernetes cluster of processes on this machine, for tests.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--until-unused", action="store_true")
    parser.add_argument("--prometheus", action="store_true", help="and one that scrapes annotated pods")
    words = parser.parse_args()
    folder = words.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        if words.until_unused:
            serve(folder, until_unused=True)
            return 0
        with only_one(folder):
            serve(folder, told=True, prometheus=words.prometheus)
    except Exception as error:
        sys.stderr.write(f"forge: no cluster: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
