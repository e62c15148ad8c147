"""The process of `forge serve` and `forge worker`: sockets, signals, and an end that leaves nothing half done."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

import msgspec
import uvicorn
from fastapi import FastAPI

from forge.model.errors import UsageError
from forge.server.app import make_app
from forge.server.settings import Settings
from forge.server.site import Site, open_site
from forge.server.telemetry.traces import Tracing, provider_from, tracer_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

GRACE_SECONDS = 5.0
"""How long requests under way may take to end once the server is to stop."""


class Started(msgspec.Struct, frozen=True):
    """What whoever started a server wants to know. `link` logs in once, as administrator; empty: none was made."""

    url: str
    link: str
    projects: tuple[str, ...]
    works: bool


class HttpServer(uvicorn.Server):
    """Uvicorn, whose signals are ours to handle."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


async def serve(settings: Settings, announce: Callable[[Started], None]) -> None:
    """Serve until SIGTERM or Ctrl-C. `announce` is called once requests are answered.

    Raises UsageError for a port that is taken and for a host that others can reach without anybody having to log in,
    DependencyFailed when a database is away.
    """
    async with open_site(settings) as site:
        await refuse_open_house(site)
        listening = bind(settings)
        site.url = settings.public_url or address(settings, listening)
        async with _traced(site) as provider:
            await _answer(site, listening, provider, announce)


async def _answer(
    site: Site, listening: socket.socket, provider: TracerProvider | None, announce: Callable[[Started], None]
) -> None:
    settings = site.settings
    server = _http_server(make_app(site, provider), settings)
    with _on_signal(lambda: _end(site, server)):
        if settings.work:
            await site.workers.start()
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            while not server.started and not serving.done():
                await asyncio.sleep(0.01)
            announce(Started(site.url, await _link(site), tuple(site.projects), settings.work))
            await serving
        finally:
            _end(site, server)
            await asyncio.gather(serving, return_exceptions=True)


@contextlib.asynccontextmanager
async def _traced(site: Site) -> AsyncIterator[TracerProvider | None]:
    """Send traces where OTEL_EXPORTER_OTLP_ENDPOINT says; a process that works sends those of runs and releases."""
    provider = provider_from()
    if provider is None:
        yield None
        return
    tracing = Tracing(site, tracer_of(provider))
    if site.settings.work:
        tracing.start()
    try:
        yield provider
    finally:
        await tracing.stop()
        await asyncio.to_thread(provider.shutdown)


async def work(settings: Settings, announce: Callable[[Started], None]) -> None:
    """Be a worker of a site until SIGTERM or Ctrl-C. Raises DependencyFailed when a database is away."""
    async with open_site(settings) as site:
        if not site.projects:
            raise UsageError("there is no project to work on", hint="name one under `projects:` in forge-server.yaml")
        async with _traced(site):
            with _on_signal(site.closing.set):
                await site.workers.start()
                announce(Started("", "", tuple(site.projects), works=True))
                await site.closing.wait()


async def refuse_open_house(site: Site) -> None:
    """Raise UsageError when others could reach the server and nobody could log in, or everybody would be let in."""
    settings = site.settings
    if settings.loopback or await site.identity.configured():
        return
    raise UsageError(
        f"{settings.host} can be reached by others, and no authentication is configured",
        hint="make a user and a token first: `forge user add`, `forge token add`; or serve on 127.0.0.1",
    )


def bind(settings: Settings) -> socket.socket:
    """Return a socket that listens on the configured host and port. Raises UsageError when it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
        listening.listen(1024)
    except OSError as error:
        listening.close()
        raise UsageError(
            f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}",
            hint="another program has the port, or the address is not this machine's; `--port 0` takes a free one",
        ) from None
    return listening


def address(settings: Settings, listening: socket.socket) -> str:
    """Return the URL that the socket answers at, as seen from this machine."""
    host, port = listening.getsockname()[:2]
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - only compared with
        host = socket.gethostname()
    elif settings.host == "localhost":
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _link(site: Site) -> str:
    """Return a link that logs in once; only for people on this machine, who could read the database too."""
    if not site.settings.loopback:
        return ""
    return site.url + await site.identity.one_time_link()


def _http_server(app: FastAPI, settings: Settings) -> HttpServer:
    return HttpServer(
        uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            http="h11",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=int(GRACE_SECONDS),
        )
    )


def _end(site: Site, server: HttpServer) -> None:
    """Begin to end: streams first, as they would never end by themselves."""
    site.closing.set()
    server.should_exit = True


@contextlib.contextmanager
def _on_signal(act: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for one in signals:
        loop.add_signal_handler(one, act)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)
