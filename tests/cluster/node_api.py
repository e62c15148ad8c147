"""A small asynchronous client of the Kubernetes API for the programs that play a cluster's node and gateway.

It is not Forge's own client on purpose: what checks Forge should not share its mistakes.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import yaml

Object = dict[str, Any]
Key = tuple[str, str]
"""Namespace ("" for what has none) and name."""
WATCH_SECONDS = 240
log = logging.getLogger(__name__)


class Refused(Exception):
    """The apiserver answered with an error: `status` is HTTP's, `reason` Kubernetes' own word for it."""

    def __init__(self, status: int, body: bytes) -> None:
        try:
            told = msgspec.json.decode(body)
        except msgspec.DecodeError:
            told = {"message": body[:200].decode(errors="replace")}
        self.status, self.reason = status, str(told.get("reason", ""))
        super().__init__(str(told.get("message", "")))


class Api:
    """Speaks JSON with one apiserver, as the user of the kubeconfig's current context."""

    def __init__(self, kubeconfig: Path) -> None:
        self.server, context, token = login(kubeconfig)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        limits = httpx2.Limits(max_connections=64, max_keepalive_connections=64)
        self._client = httpx2.AsyncClient(
            base_url=self.server, verify=context, headers=headers, timeout=15, limits=limits, trust_env=False
        )

    async def ask(self, method: str, path: str, body: Any = None, *, kind: str = "json", **params: Any) -> Object:
        """Return the answer to one request. `kind`: json, merge-patch+json, strategic-merge-patch+json.

        Raises Refused, or httpx2.HTTPError when there was no answer.
        """
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": f"application/{kind}"}
        answer = await self._client.request(method, path, content=content, headers=headers, params=params)
        if answer.status_code >= 400:
            raise Refused(answer.status_code, answer.content)
        return msgspec.json.decode(answer.content)

    async def get(self, path: str, **params: Any) -> Object:
        """Return an object or a list."""
        return await self.ask("GET", path, **params)

    async def find(self, path: str) -> Object | None:
        """Return an object, or None where there is none."""
        try:
            return await self.ask("GET", path)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    async def watch(self, path: str, since: str, **params: Any) -> AsyncIterator[Object]:
        """Yield the events of a collection after resourceVersion `since`, until the server ends the stream."""
        asked = {**params, "watch": "1", "resourceVersion": since, "allowWatchBookmarks": "true"}
        asked["timeoutSeconds"] = str(WATCH_SECONDS)
        timeout = httpx2.Timeout(15, read=WATCH_SECONDS + 30)
        async with self._client.stream("GET", path, params=asked, timeout=timeout) as answer:
            if answer.status_code >= 400:
                raise Refused(answer.status_code, await answer.aread())
            async for line in answer.aiter_lines():
                if line:
                    yield msgspec.json.decode(line.encode())

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def login(kubeconfig: Path) -> tuple[str, ssl.SSLContext, str]:
    """Return the server's URL, how to speak TLS with it, and a token ("" where a certificate is the login)."""
    document = yaml.safe_load(kubeconfig.read_text())
    named = {
        kind: {each["name"]: each[kind[:-1]] for each in document.get(kind, ())}
        for kind in ("contexts", "clusters", "users")
    }
    context = named["contexts"][document["current-context"]]
    cluster, user = named["clusters"][context["cluster"]], named["users"][context["user"]]
    trust = ssl.create_default_context(cadata=_pem(cluster, "certificate-authority", kubeconfig).decode())
    certificate = _pem(user, "client-certificate", kubeconfig)
    if certificate:
        with tempfile.NamedTemporaryFile() as pair:  # the ssl module reads certificates from files only
            pair.write(certificate + b"\n" + _pem(user, "client-key", kubeconfig))
            pair.flush()
            trust.load_cert_chain(pair.name)
    return cluster["server"], trust, user.get("token", "")


def _pem(section: dict[str, str], name: str, beside: Path) -> bytes:
    if data := section.get(f"{name}-data"):
        return base64.b64decode(data)
    return (beside.parent / section[name]).read_bytes() if name in section else b""


def key_of(thing: Object) -> Key:
    """Return an object's namespace and name."""
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]


class Mirror:
    """Keeps `objects` as the apiserver has them. `changed(key, before, after)` is called for each difference.

    A watch that ends is taken up where it ended; after 410 Gone, or an apiserver that was away, all is listed
    again and the differences are told. A collection that does not exist (no CRD yet) is empty.
    """

    def __init__(
        self, api: Api, path: str, changed: Callable[[Key, Object | None, Object | None], None], **params: Any
    ) -> None:
        self.objects: dict[Key, Object] = {}
        self.listed = asyncio.Event()
        self._api, self._path, self._changed, self._params = api, path, changed, params

    async def run(self) -> None:
        """Follow the collection until cancelled."""
        since = ""
        while True:
            try:
                since = since or await self._list()
                async for event in self._api.watch(self._path, since, **self._params):
                    if event["type"] == "ERROR":
                        since = ""
                        break
                    since = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])
            except Refused as refusal:
                if refusal.status == 404:
                    self._replace({})
                    self.listed.set()
                since = ""
                await asyncio.sleep(0.5)
            except httpx2.HTTPError as error:
                log.debug("watch of %s broke: %r", self._path, error)
                await asyncio.sleep(0.2)

    async def _list(self) -> str:
        page = await self._api.get(self._path, **self._params)
        self._replace({key_of(each): each for each in page["items"] or ()})
        self.listed.set()
        return str(page["metadata"]["resourceVersion"])

    def _replace(self, found: dict[Key, Object]) -> None:
        for key in self.objects.keys() - found.keys():
            self._take("DELETED", self.objects[key])
        for key, each in found.items():
            before = self.objects.get(key)
            version = each["metadata"]["resourceVersion"]
            if before is None or before["metadata"]["resourceVersion"] != version:
                if before is not None and before["metadata"]["uid"] != each["metadata"]["uid"]:
                    self._take("DELETED", before)  # deleted and made again while nobody looked
                self._take("MODIFIED", each)

    def _take(self, kind: str, thing: Object) -> None:
        if kind == "BOOKMARK":
            return
        key = key_of(thing)
        before = self.objects.get(key)
        after = None if kind == "DELETED" else thing
        if after is None:
            self.objects.pop(key, None)
        else:
            self.objects[key] = after
        self._changed(key, before, after)
