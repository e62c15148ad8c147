"""What the test cluster runs for a container that leaves it to its image: a web server on the container's ports.

It answers with the pod's name, at the address of the pod, and goes on doing so for `DRAIN` seconds (0.5) after SIGTERM.
`BAD` is the part of the answers that are errors (0), and `/metrics` counts them by code.
"""

import http.server
import json
import os
import random
import signal
import sys
import threading
import time

COUNTS = {"200": 0, "500": 0}
LOCK = threading.Lock()


class Answer(http.server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with the pod's name, or with what was counted."""
        body, code = f"{os.environ.get('HOSTNAME', '')}\n", 200
        if self.path == "/metrics":
            body = "".join(f'http_requests_total{{code="{code}"}} {count}\n' for code, count in COUNTS.items())
        else:
            code = 500 if random.random() < float(os.environ.get("BAD", "0")) else 200
            with LOCK:
                COUNTS[str(code)] += 1
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(http.server.ThreadingHTTPServer):
    """One port."""

    request_queue_size = 128
    daemon_threads = True


def main() -> None:
    """Serve the ports that are the first argument, a container's `ports` as JSON, until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    address = os.environ.get("FORGE_TEST_POD_IP", "127.0.0.1")
    servers = [Server((address, port["containerPort"]), Answer) for port in json.loads(sys.argv[1])]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"serving {len(servers)} ports", flush=True)
    ended.wait()
    time.sleep(float(os.environ.get("DRAIN", "0.5")))


if __name__ == "__main__":
    main()
