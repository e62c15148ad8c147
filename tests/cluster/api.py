"""The apiserver as the agents of the test cluster see it: JSON over one connection pool, and watches that come back."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import yaml

Object = dict[str, Any]
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Api:
    """A client of a kubeconfig's only context. Raises httpx2's errors; `get` returns None for what is not there."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, login = config["clusters"][0]["cluster"], config["users"][0]["user"]
        context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        context.load_cert_chain(login["client-certificate"], login["client-key"])
        self._http = httpx2.AsyncClient(base_url=cluster["server"], verify=context, timeout=10, trust_env=False)

    async def get(self, path: str, **params: str) -> Object | None:
        answer = await self._http.get(path, params=params)
        return None if answer.status_code == 404 else self._checked(answer)

    async def create(self, path: str, item: Object) -> Object:
        return self._checked(await self._http.post(path, json=item)) or {}

    async def replace(self, path: str, item: Object) -> Object:
        return self._checked(await self._http.put(path, json=item)) or {}

    async def merge(self, path: str, change: Object) -> Object | None:
        """Merge a change into an object; None when it is gone."""
        answer = await self._http.patch(path, content=json.dumps(change), headers={"Content-Type": MERGE})
        return None if answer.status_code == 404 else self._checked(answer)

    async def strategic(self, path: str, change: Object) -> Object | None:
        """Merge a change into an object, and its lists by their keys; None when it is gone, or another one by now."""
        answer = await self._http.patch(path, content=json.dumps(change), headers={"Content-Type": STRATEGIC})
        return None if answer.status_code in {404, 409} else self._checked(answer)

    async def delete(self, path: str, options: Object | None = None) -> None:
        answer = await self._http.request("DELETE", path, content=json.dumps(options or {}),
                                          headers={"Content-Type": "application/json"})  # fmt: skip
        if answer.status_code not in {404, 409}:
            self._checked(answer)

    async def follow(self, path: str, **params: str) -> AsyncIterator[tuple[str, Object]]:
        """Yield (`SYNC`, list) and then each change, for ever: a watch that breaks begins with a list again."""
        while True:
            try:
                found = await self.get(path, **params) or {}
                yield "SYNC", found
                version = found.get("metadata", {}).get("resourceVersion", "")
                async for change in self._watch(path, {**params, "watch": "1", "resourceVersion": version}):
                    yield change
            except (httpx2.HTTPError, OSError):
                await asyncio.sleep(0.2)

    async def _watch(self, path: str, params: dict[str, str]) -> AsyncIterator[tuple[str, Object]]:
        async with self._http.stream("GET", path, params=params, timeout=httpx2.Timeout(10, read=None)) as answer:
            if answer.status_code != 200:
                return
            async for line in answer.aiter_lines():
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield event["type"], event["object"]

    async def close(self) -> None:
        await self._http.aclose()

    @staticmethod
    def _checked(answer: httpx2.Response) -> Object:
        answer.raise_for_status()
        found: Object = answer.json()
        return found
