"""How the tests themselves reach a cluster: a kubeconfig, plain calls to the API, and kubectl."""

from __future__ import annotations

import base64
import json
import os
import re
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

T = TypeVar("T")
KUBECTL = Path(sys.executable).parent / "kubectl"
PATIENCE = 60.0
"""Seconds for one kubectl command, or for one thing to become true, unless told otherwise."""
NOT_YET = (404, 409, 429, 500, 503, 504)
"""Answers of a server that is about to be ready."""


class Refused(Exception):
    """The server answered with an error; `code` is HTTP's, `status` what it said (a Status object)."""

    def __init__(self, code: int, status: dict[str, Any]) -> None:
        super().__init__(f"{code}: {status.get('message')}")
        self.code = code
        self.status = status


class Kubectl:
    """Runs kubectl with one kubeconfig in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str = "default") -> None:
        self.kubeconfig = kubeconfig
        self.namespace = namespace

    def __call__(
        self, *words: object, stdin: object = None, timeout: float = PATIENCE
    ) -> subprocess.CompletedProcess[str]:
        """Run it; `stdin` that is no text is handed over as YAML (a list: as several documents)."""
        if stdin is not None and not isinstance(stdin, str):
            stdin = yaml.safe_dump_all(stdin if isinstance(stdin, list) else [stdin])
        return subprocess.run(
            [str(KUBECTL), "--namespace", self.namespace, *map(str, words)], env=self.environment,
            input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, capture_output=True, text=True,
            timeout=timeout,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """What the command sees: no proxy, and no cache of another cluster's API."""
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        own = {name: value for name, value in os.environ.items() if name.lower() not in proxies}
        return {
            **own,
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": str(self.kubeconfig.parent / "kubectl-cache"),
        }

    def ok(self, *words: object, stdin: object = None, timeout: float = PATIENCE) -> str:
        """Return its stdout; fails with all that it said unless it exits with 0."""
        done = self(*words, stdin=stdin, timeout=timeout)
        assert done.returncode == 0, f"kubectl {' '.join(map(str, words))}: {done.stdout}{done.stderr}"
        return done.stdout

    def json(self, *words: object) -> Any:
        """Return what it prints as JSON."""
        return json.loads(self.ok(*words, "-o", "json"))

    def rolled_out(self, what: str, patience: int = 60) -> None:
        """Wait until a rollout is complete; fails with what the namespace's pods and events tell unless it is."""
        done = self("rollout", "status", what, f"--timeout={patience}s", timeout=patience + 20)
        if done.returncode:
            told = self("get", "pods,events", "-o", "wide").stdout
            raise AssertionError(f"{what} is not rolled out after {patience} s: {done.stderr}\n{told}")

    def apply(self, *objects: object) -> str:
        """Apply objects as a user does (client side)."""
        return self.ok("apply", "-f", "-", stdin=list(objects))


class Api:
    """Plain calls to a cluster's API: `api("GET", "/api/v1/namespaces")`."""

    def __init__(self, kubeconfig: Path, timeout: float = 20.0) -> None:
        self.kubeconfig = kubeconfig
        self.timeout = timeout
        cluster, user = _parts(kubeconfig)
        self.server: str = cluster["server"]
        self.authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        context = ssl.create_default_context(cadata=self.authority)
        if "client-certificate-data" in user:
            with tempfile.NamedTemporaryFile() as pair:  # Python's ssl takes a client's key from files only
                pair.write(b"\n".join(base64.b64decode(user[f"client-{half}-data"]) for half in ("certificate", "key")))
                pair.flush()
                context.load_cert_chain(pair.name)
        secure = urllib.request.HTTPSHandler(context=context)
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), secure)

    def __call__(self, verb: str, path: str, body: object = None, kind: str = "application/json") -> Any:
        """Return the decoded answer. Raises Refused, or OSError when there is no server."""
        text = self.text(verb, path, None if body is None else json.dumps(body).encode(), kind)
        return json.loads(text)

    def text(self, verb: str, path: str, body: bytes | None = None, kind: str = "application/json") -> str:
        """Return the answer as it came. Raises Refused, or OSError when there is no server."""
        headers = {**self.headers, "Content-Type": kind}
        request = urllib.request.Request(self.server + path, data=body, method=verb, headers=headers)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return str(answer.read().decode())
        except urllib.error.HTTPError as error:
            raise Refused(error.code, _status(error.read().decode())) from None

    def found(self, path: str) -> Any:
        """Return what is there, or None while there is nothing or no server that could say."""
        try:
            return self("GET", path)
        except Refused as error:
            if error.code in NOT_YET:
                return None
            raise
        except OSError:
            return None


def _parts(kubeconfig: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the cluster and the user of the current context."""
    config = yaml.safe_load(kubeconfig.read_text())
    named = {kind: {one["name"]: one for one in config[kind]} for kind in ("clusters", "users", "contexts")}
    context = named["contexts"][config["current-context"]]["context"]
    return named["clusters"][context["cluster"]]["cluster"], named["users"][context["user"]]["user"]


def _status(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        return {"message": text}


def until(question: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """Ask until the answer is true, and return it. Raises TimeoutError saying what was waited for."""
    deadline = time.monotonic() + patience
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience:.0f} s for {what}")
        time.sleep(0.05)


def write_kubeconfig(path: Path, server: str, authority: str, user: dict[str, str], namespace: str = "default") -> Path:
    """Write a kubeconfig with one context, `forge-tests`, that only its owner may read; JSON is YAML."""
    cluster = {"server": server, "certificate-authority-data": base64.b64encode(authority.encode()).decode()}
    context = {"cluster": "forge-tests", "user": "forge-tests", "namespace": namespace}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "forge-tests",
        "clusters": [{"name": "forge-tests", "cluster": cluster}],
        "users": [{"name": "forge-tests", "user": user}],
        "contexts": [{"name": "forge-tests", "context": context}],
    }
    return write_secret(path, json.dumps(config, indent=2))


def write_file_kubeconfig(path: Path, server: str, authority: Path, certificate: Path, key: Path) -> Path:
    """Write a kubeconfig that names files instead of holding their text."""
    cluster = {"server": server, "certificate-authority": str(authority)}
    user = {"client-certificate": str(certificate), "client-key": str(key)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "attendants",
        "clusters": [{"name": "attendants", "cluster": cluster}],
        "users": [{"name": "attendants", "user": user}],
        "contexts": [{"name": "attendants", "context": {"cluster": "attendants", "user": "attendants"}}],
    }
    return write_secret(path, json.dumps(config, indent=2))


def write_secret(path: Path, text: str) -> Path:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def service_account_kubeconfig(
    api: Api, folder: Path, namespace: str, rules: list[dict[str, Any]], name: str = "forge"
) -> Path:
    """Make a ServiceAccount that may do what `rules` (a Role's) say in its namespace and nothing else; return its
    kubeconfig, which works as soon as this returns."""
    if not re.fullmatch(r"[a-z0-9-]+", name):
        raise ValueError(f"no name for an account: {name!r}")
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    api("POST", accounts, {"metadata": {"name": name}})
    api("POST", f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
    binding = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }
    api("POST", f"{rbac}/rolebindings", binding)
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}}
    token = api("POST", f"{accounts}/{name}/token", wanted)["status"]["token"]
    path = folder / f"{namespace}-{name}.kubeconfig"
    write_kubeconfig(path, api.server, api.authority, {"token": token}, namespace)
    if rules:
        until(lambda: _allowed(api, namespace, name, rules[0]), f"the rules of {name} to take effect")
    return path


def _allowed(api: Api, namespace: str, name: str, rule: dict[str, Any]) -> bool:
    """Whether the authorizer has learnt of the binding: it watches, so it is a moment behind."""
    resource, _, part = rule["resources"][0].partition("/")
    asked = {
        "namespace": namespace,
        "verb": rule["verbs"][0],
        "group": rule["apiGroups"][0],
        "resource": resource,
        "subresource": part,
        "name": rule.get("resourceNames", [""])[0],
    }
    spec = {"user": f"system:serviceaccount:{namespace}:{name}", "resourceAttributes": asked}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
    return bool(api("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", body)["status"]["allowed"])
