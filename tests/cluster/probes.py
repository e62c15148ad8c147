"""Probes and hooks of containers, really carried out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

from cluster.api import Object
from cluster.container import Container, mounted


async def probed(probe: Object, ip: str, container: Container) -> bool:
    """Return whether a probe passes: HTTP below 400, an open port, or a command that ends with 0."""
    timeout = float(probe.get("timeoutSeconds", 1))
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], ip, container.spec)
            if "tcpSocket" in probe:
                _, writer = await asyncio.open_connection(ip, port_of(probe["tcpSocket"]["port"], container.spec))
                writer.close()
                return True
            return await _command(probe["exec"]["command"], container) == 0
    except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        return False


def port_of(port: object, spec: Object) -> int:
    """Return a port's number by its number or its name."""
    if isinstance(port, int) or str(port).isdigit():
        return int(str(port))
    for each in spec.get("ports", ()):
        if each.get("name") == port:
            return int(each["containerPort"])
    raise ValueError(f"the container has no port {port}")


async def _http(asked: Object, ip: str, spec: Object) -> bool:
    port = port_of(asked["port"], spec)
    host = asked.get("host") or ip
    reader, writer = await asyncio.open_connection(host, port)
    try:
        headers = "".join(f"{each['name']}: {each['value']}\r\n" for each in asked.get("httpHeaders", ()))
        path = asked.get("path", "/")
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe\r\n{headers}Connection: close\r\n\r\n".encode())
        line = await reader.readline()
        return 200 <= int(line.split()[1]) < 400
    except IndexError:
        return False
    finally:
        writer.close()


async def _command(words: list[str], container: Container) -> int:
    process = await asyncio.create_subprocess_exec(
        *mounted(words, container.mounts), env=container.env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
