"""A service that counts its answers; BAD is the part of them that are errors."""

import http.server
import os
import random
import threading

COUNTS = {"200": 0, "500": 0}
LOCK = threading.Lock()
BAD = float(os.environ.get("BAD", "0"))
VERSION = os.environ.get("VERSION", "")


def answer(path):
    """Return (code, body) of a request."""
    if path == "/metrics":
        return 200, "".join(f'http_requests_total{{code="{code}"}} {count}\n' for code, count in COUNTS.items())
    if path == "/healthz":
        return 200, "ok"
    code = 500 if random.random() < BAD else 200
    with LOCK:
        COUNTS[str(code)] += 1
    return code, VERSION


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        code, text = answer(self.path)
        body = text.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer((os.environ.get("POD_IP", ""), 8080), Service).serve_forever()
