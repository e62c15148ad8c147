"""An admission webhook on loopback: a real HTTPS server that the apiserver asks before it takes an object."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.access import Api, Refused, until
from cluster.certificates import Authority
from cluster.plane import LOOPBACK

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
Verdict = Callable[[dict[str, Any]], str | None]
"""Takes an object as it would be stored; returns why it is refused, or None."""


class AdmissionWebhook:
    """Answers for the objects of one namespace and one kind, as long as it runs; `seen` counts the questions.

    `delay` is how many seconds it thinks first: more than `patience` is a webhook that times out.
    """

    def __init__(self, api: Api, folder: Path, namespace: str, rule: dict[str, Any], verdict: Verdict) -> None:
        self.api = api
        self.namespace = namespace
        self.rule = rule
        self.verdict = verdict
        self.delay = 0.0
        self.seen = 0
        self.name = f"forge-test-{namespace}"
        self._authority = Authority(folder / "admission")
        own = self._authority.issue("webhook", "webhook", hosts=(LOOPBACK,))
        self._server = http.server.ThreadingHTTPServer((LOOPBACK, 0), _answers(self))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(own.certificate, own.key)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True, name="admission-webhook")

    def start(self, patience: int = 5) -> None:
        """Register it, and return once the apiserver asks it: it learns of webhooks by watching."""
        self._thread.start()
        authority = self._authority.pair.certificate.read_bytes()
        hook = {
            "name": "refusing.forge.test",
            "clientConfig": {
                "url": f"https://{LOOPBACK}:{self._server.server_address[1]}/",
                "caBundle": base64.b64encode(authority).decode(),
            },
            "rules": [{"operations": ["CREATE", "UPDATE"], "scope": "Namespaced", **self.rule}, _PROBE],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.namespace}},
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": patience,
            "failurePolicy": "Fail",
        }
        self.api("POST", HOOKS, {"metadata": {"name": self.name}, "webhooks": [hook]})
        until(self._is_asked, "the apiserver to know the webhook", 20)
        self.seen = 0

    def _is_asked(self) -> bool:
        """Try to make an object that is never kept, and see whether the server was asked."""
        path = f"/api/v1/namespaces/{self.namespace}/podtemplates?dryRun=All"
        with contextlib.suppress(Refused):
            self.api("POST", path, {"metadata": {"name": "asked"}, "template": _TEMPLATE})
        return self.seen > 0

    def stop(self) -> None:
        """Unregister it and end the server."""
        try:
            self.api("DELETE", f"{HOOKS}/{self.name}")
        finally:
            self._server.shutdown()
            self._server.server_close()


_PROBE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["podtemplates"]}
_TEMPLATE = {"spec": {"containers": [{"name": "none", "image": "none"}]}}


def _answers(hook: AdmissionWebhook) -> type[http.server.BaseHTTPRequestHandler]:
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            hook.seen += 1
            time.sleep(hook.delay)
            problem = hook.verdict(asked["request"]["object"])
            told: dict[str, Any] = {"uid": asked["request"]["uid"], "allowed": problem is None}
            if problem is not None:
                told["status"] = {"code": 403, "message": problem}
            review = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": told}
            body = json.dumps(review).encode()
            try:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                return  # the apiserver had no more patience

        def log_message(self, *_: object) -> None:
            """The test tells what it saw."""

    return Answers
