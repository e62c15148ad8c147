"""The shop's HTTP service: `/` the prices, `/version` which build answers, `/healthz` whether it lives."""

import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop.catalogue import Catalogue, PriceLookupFailed
from shop.settings import Settings


class Server(ThreadingHTTPServer):
    """One thread a connection; a proxy keeps few connections and uses them again and again."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, address: tuple[str, int], settings: Settings) -> None:
        super().__init__(address, Handler)
        self.settings = settings
        self.catalogue = Catalogue(settings)


class Handler(BaseHTTPRequestHandler):
    """Answers every request with JSON."""

    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a request."""
        if self.path == "/healthz":
            self._answer(200, {"healthy": True})
        elif self.path == "/version":
            self._answer(200, {"version": self.server.settings.version})
        elif self.path == "/":
            self._prices()
        else:
            self._answer(404, {"error": "there is no such page"})

    def _prices(self) -> None:
        settings = self.server.settings
        try:
            prices = self.server.catalogue.prices()
        except PriceLookupFailed as problem:
            self._answer(500, {"version": settings.version, "error": str(problem)})
        else:
            self._answer(200, {"version": settings.version, "currency": settings.currency, "prices": prices})

    def _answer(self, status: int, content: dict) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Log only what went wrong; the proxy counts the rest."""
        if len(args) > 1 and str(args[1]) >= "500":
            super().log_message(format, *args)


def serve(port: int, settings: Settings) -> None:
    """Answer on the loopback address until TERM or Ctrl-C comes."""
    server = Server(("127.0.0.1", port), settings)

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    print(f"shop {settings.version} answers on port {server.server_port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
