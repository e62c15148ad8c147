"""One cluster: plain objects in and out over the API that every cluster speaks.

The kubeconfig, logging in and TLS are lightkube's. Objects stay the mappings that the apiserver sends: a manifest may
hold any kind, and what Forge does not know of an object it must not lose.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from forge.adapters.kubernetes import errors
from forge.adapters.kubernetes.kinds import Kind, kind_in, known_kind
from forge.adapters.kubernetes.naming import MANAGER, title
from forge.model.configs import KubernetesAccess
from forge.model.diagnostics import did_you_mean
from forge.model.errors import DependencyFailed, UsageError

if TYPE_CHECKING:
    import httpx2

SECONDS = 10.0
"""How long one request may take."""
ATTEMPTS = 3
BUSY = frozenset({429, 500, 502, 503, 504})
LONGEST_PAUSE = 2.0
"""Seconds that a busy apiserver may ask for before the next attempt; more than that is left to the next tick."""
_PAGE = 500
_EXEC_V1 = "client.authentication.k8s.io/v1"
_EXEC_V1BETA1 = "client.authentication.k8s.io/v1beta1"
Propagation = Literal["Background", "Foreground", "Orphan"]
_PATCHES = {
    "apply": "application/apply-patch+yaml",
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
}


class Cluster:
    """A connection that is made when it is first used. Every call raises DependencyFailed for what the cluster did
    (see `errors.py`), UsageError for a context or kubeconfig that is not there."""

    def __init__(self, access: KubernetesAccess, *, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._access = access
        self._transport = transport
        self._http: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._namespace = access.namespace
        self._name = access.context or "the cluster"
        self._discovered: dict[tuple[str, str], Kind] = {}

    @property
    def namespace(self) -> str:
        """Where objects without a namespace of their own are."""
        self._client()
        return self._namespace

    @property
    def name(self) -> str:
        """How messages call it."""
        return self._name

    async def get(self, kind: Kind, name: str, namespace: str = "") -> dict[str, Any] | None:
        """Return an object, None when it is not there."""
        try:
            return await self._json("GET", self._path(kind, namespace, name), f"get {kind.name} {name}")
        except errors.NotThere:
            return None

    async def objects(
        self, kind: Kind, *, labels: str = "", fields: str = "", namespace: str = ""
    ) -> tuple[list[dict[str, Any]], str]:
        """Return the objects that the selectors find, and the resource version to watch from."""
        params = {"labelSelector": labels, "fieldSelector": fields, "limit": str(_PAGE)}
        found: list[dict[str, Any]] = []
        while True:
            page = await self._json("GET", self._path(kind, namespace), f"list {kind.plural}", params=params)
            found += [{**item, "apiVersion": kind.api_version, "kind": kind.name} for item in page.get("items") or ()]
            going_on = (page.get("metadata") or {}).get("continue", "")
            if not going_on:
                return found, str((page.get("metadata") or {}).get("resourceVersion", ""))
            params["continue"] = going_on

    async def create(self, item: Mapping[str, Any], *, dry_run: bool = False) -> dict[str, Any]:
        """Create an object. Raises Conflict when it exists, Refused when it is not taken."""
        kind = await self.kind_of(item)
        path = self._path(kind, _namespace(item))
        return await self._json("POST", path, f"create {title(item)}", params=_written(dry_run), body=item)

    async def replace(self, item: Mapping[str, Any], *, strict: bool = False) -> dict[str, Any]:
        """Write a whole object; with its resourceVersion only if nobody did in between (Conflict).

        `strict`: a field that the cluster does not know is Refused, where it would be dropped without a word.
        """
        kind = await self.kind_of(item)
        path = self._path(kind, _namespace(item), item["metadata"]["name"])
        params = {**_written(dry_run=False), **({"fieldValidation": "Strict"} if strict else {})}
        return await self._json("PUT", path, f"update {title(item)}", params=params, body=item)

    async def apply(
        self, item: Mapping[str, Any], *, force: bool = True, dry_run: bool = False, manager: str = MANAGER
    ) -> dict[str, Any]:
        """Server-side apply. Without `force`, Conflict names who else manages the same fields."""
        kind = await self.kind_of(item)
        path = self._path(kind, _namespace(item), item["metadata"]["name"])
        params = {**_written(dry_run), "fieldManager": manager, "force": str(force).lower()}
        asked = f"apply {title(item)}"
        return await self._json("PATCH", path, asked, params=params, body=item, content=_PATCHES["apply"])

    async def patch(
        self, kind: Kind, name: str, change: Mapping[str, Any] | list[dict[str, Any]], *, namespace: str = "",
        sub: str = "",
    ) -> dict[str, Any]:  # fmt: skip
        """Merge `change` into an object; a list is a JSON patch."""
        content = _PATCHES["json" if isinstance(change, list) else "merge"]
        path = self._path(kind, namespace, name, sub)
        params = _written(dry_run=False)
        return await self._json("PATCH", path, f"patch {kind.name} {name}", params=params, body=change, content=content)

    async def delete(
        self, kind: Kind, name: str, *, namespace: str = "", uid: str = "", propagation: Propagation = "Background"
    ) -> bool:
        """Delete an object; False when it was not there. With `uid` only that very one."""
        body: dict[str, Any] = {"propagationPolicy": propagation}
        if uid:
            body["preconditions"] = {"uid": uid}
        path = self._path(kind, namespace, name)
        try:
            await self._json("DELETE", path, f"delete {kind.name} {name}", body=body)
        except errors.NotThere:
            return False
        return True

    async def lines(
        self, path: str, params: Mapping[str, str], asked: str, *, silence: float | None = None
    ) -> AsyncIterator[str]:
        """Yield the lines of an answer that goes on: a watch, a log. `silence`: seconds without any after which the
        connection counts as lost; None: for ever."""
        import httpx2

        client = self._client()
        timeout = httpx2.Timeout(SECONDS, read=silence)
        try:
            async with client.stream("GET", path, params=dict(params), timeout=timeout) as response:
                if response.status_code >= 400:
                    body = await response.aread()
                    raise errors.failure(response.status_code, body, asked, self._name)
                async for line in response.aiter_lines():
                    yield line
        except (httpx2.HTTPError, OSError) as error:
            raise DependencyFailed(f"{self._name}: {asked}: {_reason(error)}") from error
        except _login_failures() as error:
            raise self._no_login(asked, error) from error

    async def kind_of(self, item: Mapping[str, Any]) -> Kind:
        """Return the kind of an object. Raises NotThere, with what to install, for one that the cluster has not."""
        return await self.kind(str(item.get("apiVersion", "")), str(item.get("kind", "")))

    async def kind(self, api_version: str, name: str) -> Kind:
        """Return a kind by its API version and name. Raises NotThere."""
        known = known_kind(api_version, name) or self._discovered.get((api_version, name))
        if known is not None:
            return known
        root = "/api" if "/" not in api_version else "/apis"
        self._client()
        missing = f"{self._name} has no {name} of {api_version}"
        try:
            resources = await self._json("GET", f"{root}/{api_version}", f"look up {name}")
        except errors.NotThere:
            raise errors.NotThere(missing, hint="install its CustomResourceDefinition first") from None
        found = kind_in(api_version, name, resources)
        if found is None:
            names = sorted({str(each.get("kind")) for each in resources.get("resources") or ()})
            raise errors.NotThere(missing, hint=did_you_mean(name, names) or "install its CustomResourceDefinition")
        self._discovered[api_version, name] = found
        return found

    async def kind_in_group(self, group: str, name: str) -> Kind:
        """Return a kind by its API group and name, of the version that the cluster prefers. Raises NotThere."""
        if not group:
            return await self.kind("v1", name)
        known = await self._json("GET", f"/apis/{group}", f"look up {name}")
        return await self.kind(str((known.get("preferredVersion") or {}).get("groupVersion", "")), name)

    async def version(self) -> str:
        """Return the cluster's version, such as `v1.36.3`."""
        return str((await self._json("GET", "/version", "ask its version")).get("gitVersion", ""))

    def http(self) -> httpx2.AsyncClient:
        """Return the connection itself, for what is no JSON: the bytes of a log, commands in a container."""
        return self._client()

    async def close(self) -> None:
        """Let go of connections; the next call makes new ones."""
        client, self._http = self._http, None
        if client is not None:
            await client.aclose()

    def _path(self, kind: Kind, namespace: str, name: str = "", sub: str = "") -> str:
        self._client()
        return kind.path(namespace or self._namespace, name, sub)

    async def _json(
        self, method: str, path: str, asked: str, *, params: Mapping[str, str] | None = None, body: Any = None,
        content: str = "application/json",
    ) -> dict[str, Any]:  # fmt: skip
        raw = await self._ask(method, path, asked, params or {}, body, content)
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError):
            raise DependencyFailed(f"{self._name}: {asked}: it did not answer with JSON") from None

    async def _ask(
        self, method: str, path: str, asked: str, params: Mapping[str, str], body: Any, content: str
    ) -> bytes:
        """Ask, and ask again while it is busy: also writes, which say what to have and not what to add."""
        import httpx2

        client = self._client()
        data = None if body is None else msgspec.json.encode(body)
        headers = {} if body is None else {"Content-Type": content}
        chosen = {name: value for name, value in params.items() if value}
        known = True
        for attempt in range(1, ATTEMPTS + 1):
            try:
                answer = await client.request(method, path, params=chosen, content=data, headers=headers)
            except (httpx2.HTTPError, OSError) as error:
                if attempt == ATTEMPTS or isinstance(error, httpx2.TimeoutException):
                    raise DependencyFailed(f"{self._name}: {asked}: {_reason(error)}") from error
                pause = 0.2 * attempt
            except _login_failures() as error:
                raise self._no_login(asked, error) from error
            else:
                if answer.status_code < 400:
                    return answer.content
                if answer.status_code == 401 and known:
                    # Credentials are renewed in the kubeconfig from time to time: read it again, once.
                    known, self._http = False, None
                    client = self._client()
                    continue
                problem = errors.failure(answer.status_code, answer.content, asked, self._name)
                pause = _pause(answer.headers.get("Retry-After", ""), attempt)
                if answer.status_code not in BUSY or attempt == ATTEMPTS or pause > LONGEST_PAUSE:
                    raise problem
            await asyncio.sleep(pause)
        raise AssertionError("unreachable")

    def _no_login(self, asked: str, error: Exception) -> DependencyFailed:
        return DependencyFailed(f"{self._name}: {asked}: the kubeconfig's login failed: {error}",
                                hint="log in to the cluster again")  # fmt: skip

    def _client(self) -> httpx2.AsyncClient:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not None and self._loop is not loop:
            # Connections belong to the loop that made them: one that ended took them along.
            self._http, self._loop = (None if self._loop is not None else self._http), loop
        if self._http is None:
            self._http = self._connected()
        return self._http

    def _connected(self) -> httpx2.AsyncClient:
        import httpx2
        from lightkube.config.client_adapter import ConnectionParams
        from lightkube.config.models import User
        from lightkube.core.exceptions import ConfigError

        config = _config(self._access)
        if config.user is None:  # lightkube takes a cluster that asks for no login only with an empty user
            config = config._replace(user=User())
        if config.user.exec is not None and config.user.exec.apiVersion == _EXEC_V1:
            # The same exchange under a newer name, which lightkube does not know yet.
            login = msgspec.structs.replace(config.user.exec, apiVersion=_EXEC_V1BETA1)
            config = config._replace(user=msgspec.structs.replace(config.user, exec=login))
        self._namespace = self._access.namespace or config.namespace
        self._name = f"cluster {config.context_name}"
        parameters = ConnectionParams(timeout=httpx2.Timeout(SECONDS))
        if self._transport is not None:
            parameters.transport = self._transport  # type: ignore[assignment]
        try:
            # A watch holds its connection: many environments must not wait for each other's.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
            return httpx2.AsyncClient(**parameters.httpx_params(config), limits=limits)
        except (ConfigError, OSError, ValueError) as error:
            raise UsageError(f"the kubeconfig's context {config.context_name} cannot be used: {error}") from error


def _login_failures() -> tuple[type[Exception], ...]:
    """What a login command raises that fails, or that answers with anything but a token."""
    from lightkube.core.exceptions import ConfigError

    return ConfigError, KeyError, ValueError


def _config(access: KubernetesAccess) -> Any:
    """Return lightkube's SingleConfig: of the file and context that are named, else as kubectl would choose."""
    import yaml
    from lightkube.config.kubeconfig import KubeConfig
    from lightkube.core.exceptions import ConfigError

    try:
        known = KubeConfig.from_file(Path(access.kubeconfig).expanduser()) if access.kubeconfig else _from_environment()
        if access.context and access.context not in known.contexts:
            raise UsageError(
                f"the kubeconfig has no context `{access.context}`",
                hint=did_you_mean(access.context, [*known.contexts]) or "`kubectl config get-contexts` lists them",
            )
        return known.get(access.context or None)
    except (
        ConfigError,
        KeyError,
        TypeError,
        AttributeError,
        yaml.YAMLError,
        OSError,
        msgspec.ValidationError,
    ) as error:
        hint = "name a `kubeconfig:`, set KUBECONFIG, or run where a service account is mounted"
        raise UsageError(f"no cluster to talk to: {error}", hint=hint) from error


def _from_environment() -> Any:
    """A kubeconfig that somebody names goes before the pod's own account, as with kubectl."""
    import os

    from lightkube.config.kubeconfig import KubeConfig

    named = os.environ.get("KUBECONFIG", "")
    for each in filter(None, named.split(os.pathsep)):
        with contextlib.suppress(OSError):
            if Path(each).expanduser().is_file():
                return KubeConfig.from_file(each)
    return KubeConfig.from_env()


def _namespace(item: Mapping[str, Any]) -> str:
    return str((item.get("metadata") or {}).get("namespace") or "")


def _written(dry_run: bool) -> dict[str, str]:
    return {"fieldManager": MANAGER, **({"dryRun": "All"} if dry_run else {})}


def _pause(asked: str, attempt: int) -> float:
    return float(asked) if asked.isdigit() else 0.2 * attempt


def _reason(error: BaseException) -> str:
    words = str(error) or type(error).__name__
    return f"no answer within {SECONDS:g} s" if "Timeout" in type(error).__name__ else words
