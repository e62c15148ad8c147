"""What a control plane needs around it to be a cluster, in one process: the nodes, and the gateway's controller.

`python -m cluster.attendants FOLDER` attends the control plane in FOLDER until SIGTERM; it writes
`attendants.json` there once nodes are ready, or `attendants.failed` with the reason why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import traceback
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from cluster import api as agents
from cluster.access import Api, Kubectl, until
from cluster.gateway import Gateway
from cluster.node import NodeAgent

DEFINITIONS = Path(__file__).with_name("crds")
NODES = ("node-1", "node-2")
ENDING = 10.0
"""Seconds for the nodes to end their pods' processes."""


def apply_definitions(kubeconfig: Path) -> None:
    """Install the custom resource definitions, and wait until they are served."""
    files = sorted(DEFINITIONS.glob("*.yaml"))
    if not files:
        return
    words = ("apply", "--server-side", "--force-conflicts", *(f"--filename={file}" for file in files))
    Kubectl(kubeconfig).ok(*words)
    api = Api(kubeconfig)
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    until(lambda: all(established(one) for one in api("GET", path)["items"]), "the definitions to be served")


def established(definition: dict[str, Any]) -> bool:
    """Whether what it defines is served."""
    told = {one["type"]: one["status"] for one in definition.get("status", {}).get("conditions") or []}
    return told.get("Established") == "True"


async def attend(folder: Path) -> None:
    """Run nodes and gateway until SIGTERM or SIGINT. Raises what ended them earlier."""
    asked = asyncio.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, asked.set)
    async with running_nodes(folder) as nodes, running_gateway(folder):
        mark = folder / "attendants.json.new"
        mark.write_text(json.dumps({"pid": os.getpid()}))
        mark.rename(folder / "attendants.json")
        ended = asyncio.create_task(asked.wait())
        await asyncio.wait([ended, nodes], return_when=asyncio.FIRST_COMPLETED)
        if nodes.done():
            nodes.result()


@contextlib.asynccontextmanager
async def running_nodes(folder: Path) -> AsyncIterator[asyncio.Task[None]]:
    """Run the nodes; the block begins when they are registered and the custom definitions are served."""
    own, pki = folder / "nodes", folder / "pki"
    own.mkdir()
    api = agents.Api(folder / "attendants.kubeconfig")
    agent = NodeAgent(api, own, pki / "kubelet.crt", pki / "kubelet.key", list(NODES))
    nodes = asyncio.create_task(agent.run())
    try:
        definitions = asyncio.to_thread(apply_definitions, folder / "admin.kubeconfig")
        await asyncio.gather(definitions, registered(nodes, own / "ready"))
        yield nodes
    finally:
        nodes.cancel()
        await asyncio.wait([nodes], timeout=ENDING)


async def registered(nodes: asyncio.Task[None], mark: Path) -> None:
    """Return when the nodes are registered. Raises what ended them before that."""
    while not mark.exists():
        if nodes.done():
            raise RuntimeError("the nodes ended before they were registered") from nodes.exception()
        await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def running_gateway(folder: Path) -> AsyncIterator[None]:
    """Run the gateway; the block begins when it serves."""
    gateway = Gateway(folder / "attendants.kubeconfig", folder / "gateway")
    try:
        await gateway.start()
        yield
    finally:
        await gateway.stop()


def main() -> None:
    """Attend the control plane whose folder is the only argument."""
    folder = Path(sys.argv[1])
    try:
        asyncio.run(attend(folder))
    except BaseException:
        (folder / "attendants.failed").write_text(traceback.format_exc())
        raise


if __name__ == "__main__":
    main()
