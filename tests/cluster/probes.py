"""Probes and hooks of containers, really carried out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import ssl

from cluster.api import Object
from cluster.container import Container, mounted


async def probed(probe: Object, ip: str, container: Container) -> str:
    """Return "" when a probe passes (HTTP below 400, an open port, a command that ends with 0), else why not."""
    timeout = float(probe.get("timeoutSeconds", 1))
    try:
        async with asyncio.timeout(timeout):
            if "httpGet" in probe:
                return await _http(probe["httpGet"], ip, container.spec)
            if "tcpSocket" in probe:
                _, writer = await asyncio.open_connection(ip, port_of(probe["tcpSocket"]["port"], container.spec))
                writer.close()
                return ""
            if "exec" in probe:
                code = await _command(probe["exec"]["command"], container)
                return f"command exited with {code}" if code else ""
            return f"this node cannot probe by {', '.join(probe.keys() - {'timeoutSeconds'})}"
    except TimeoutError:
        return f"no answer within {timeout:g}s"
    except (OSError, asyncio.IncompleteReadError, ValueError) as error:
        return str(error)


def port_of(port: object, spec: Object) -> int:
    """Return a port's number by its number or its name."""
    if isinstance(port, int) or str(port).isdigit():
        return int(str(port))
    for each in spec.get("ports", ()):
        if each.get("name") == port:
            return int(each["containerPort"])
    raise ValueError(f"the container has no port {port}")


async def _http(asked: Object, ip: str, spec: Object) -> str:
    port = port_of(asked["port"], spec)
    host = asked.get("host") or ip
    secure = None
    if asked.get("scheme") == "HTTPS":
        secure = ssl.create_default_context()
        secure.check_hostname, secure.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=secure)
    try:
        headers = "".join(f"{each['name']}: {each['value']}\r\n" for each in asked.get("httpHeaders", ()))
        head = f"GET {asked.get('path', '/')} HTTP/1.1\r\nHost: {host}:{port}\r\nUser-Agent: kube-probe\r\n"
        writer.write(f"{head}{headers}Connection: close\r\n\r\n".encode())
        line = await reader.readline()
        code = int(line.split()[1])
        return "" if 200 <= code < 400 else f"HTTP probe failed with statuscode: {code}"
    except IndexError:
        return "the connection was closed without an answer"
    finally:
        writer.close()


async def _command(words: list[str], container: Container) -> int:
    process = await asyncio.create_subprocess_exec(
        *mounted(words, container.mounts, container.cwd), env=container.env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        return await process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
