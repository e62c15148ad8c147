"""What a control plane needs around it to be a cluster, in one process: the nodes, and the gateway's controller.

`python -m cluster.attendants FOLDER` attends the control plane in FOLDER until SIGTERM; it writes
`attendants.json` there once nodes are ready, or `attendants.failed` with the reason why not.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from cluster import api as agents
from cluster.access import Api, Kubectl, until
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
    kubeconfig = folder / "attendants.kubeconfig"
    pki = folder / "pki"
    own = folder / "nodes"
    own.mkdir()
    agent = NodeAgent(agents.Api(kubeconfig), own, pki / "kubelet.crt", pki / "kubelet.key", list(NODES))
    nodes = asyncio.create_task(agent.run())
    gateway = None
    try:
        await asyncio.gather(
            asyncio.to_thread(apply_definitions, folder / "admin.kubeconfig"), ready(nodes, own / "ready")
        )
        gateway = await open_gateway(kubeconfig, folder / "gateway")
        fresh = folder / "attendants.json.new"
        fresh.write_text(json.dumps({"pid": os.getpid(), "gateway": getattr(gateway, "address", None)}))
        fresh.rename(folder / "attendants.json")
        ended = asyncio.create_task(asked.wait())
        await asyncio.wait([ended, nodes], return_when=asyncio.FIRST_COMPLETED)
        if nodes.done():
            nodes.result()
    finally:
        if gateway is not None:
            await gateway.stop()
        nodes.cancel()
        await asyncio.wait([nodes], timeout=ENDING)


async def ready(nodes: asyncio.Task[None], mark: Path) -> None:
    """Return when the nodes are registered. Raises what ended them before that."""
    while not mark.exists():
        if nodes.done():
            nodes.result()
        await asyncio.sleep(0.05)


async def open_gateway(kubeconfig: Path, folder: Path) -> Any:
    """Start the gateway's controller, if there is one."""
    if importlib.util.find_spec("cluster.gateway") is None:
        return None
    folder.mkdir()
    gateway = importlib.import_module("cluster.gateway").Gateway(kubeconfig, folder)
    try:
        await gateway.start()
    except BaseException:
        await gateway.stop()
        raise
    return gateway


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
