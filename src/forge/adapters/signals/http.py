"""Asking a store over HTTP: bounded in time and size, TLS verified, no redirect to another host, errors in words."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import msgspec

from forge.adapters.signals.base import SecretReader
from forge.model.errors import DependencyFailed

LARGEST_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer, after which it is not read any further."""
SHOWN = 200
"""Characters of a store's own words that an error shows."""
REDIRECTS = 3


class HttpConfig(msgspec.Struct, frozen=True):
    """How a store is reached. The names of secrets, never their values, are in it."""

    url: str
    """Scheme, host and base path, without a `/` at the end."""
    bearer: str = ""
    """Name of the secret that is sent as `Authorization: Bearer ...`."""
    scheme: str = "Bearer"
    """The word before it, for stores that have another one (`ApiKey`)."""
    user: str = ""
    password: str = ""
    """Name of the secret of basic authentication."""
    headers: dict[str, str] = {}
    secret_headers: dict[str, str] = {}
    """Header -> name of the secret that is its value."""
    ca_file: str = ""
    """PEM file of the authorities that are trusted instead of the system's."""
    timeout: float = 4.0
    """Seconds for one whole answer."""


class StoreRefused(DependencyFailed):
    """The store answered, and not with success: `status` is HTTP's."""

    status = 0


class StoreClient:
    """Asks one store for JSON. Every failure is a DependencyFailed that names the store, and never a secret."""

    def __init__(self, name: str, config: HttpConfig, secrets: SecretReader) -> None:
        self.name = name
        self.config = config
        self._secrets = secrets
        self._client: httpx.AsyncClient | None = None
        self._credentials: dict[str, str] | None = None
        self._secret_values: set[str] = set()

    async def json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Return the decoded JSON answer of a request below the configured URL."""
        status, kind, content = await self.ask(
            method, path, params=params, form=form, body=body, headers=headers, accept="application/json"
        )
        try:
            answer = msgspec.json.decode(content)
        except (msgspec.DecodeError, RecursionError):
            told = f" ({kind})" if kind else ""
            raise self.failed(
                f"answered {status} with something that is not JSON{told}: {_shown(content)}",
                "is the URL that of the API, and not of a page or a login?",
            ) from None
        return answer

    async def ask(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        accept: str = "*/*",
    ) -> tuple[int, str, bytes]:
        """Return status, content type and body of a successful answer (2xx)."""
        import asyncio

        try:
            async with asyncio.timeout(self.config.timeout):
                return await self._ask(method, path, params, form, body, {"Accept": accept, **(headers or {})})
        except TimeoutError:
            raise self.failed(f"gave no whole answer within {self.config.timeout:g} s") from None
        except httpx.HTTPError as error:
            raise self.failed(f"cannot be asked: {error or type(error).__name__}") from None
        except httpx.InvalidURL as error:
            raise self.failed(f"cannot be asked: {error}") from None
        except UnicodeError:
            raise self.failed("cannot be asked: a header, or a secret in one, has characters beyond ASCII") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def failed(self, words: str, hint: str = "") -> DependencyFailed:
        """Return the error that says it of this store."""
        for value in self._secret_values:
            words = words.replace(value, "***")  # a store may repeat what it was sent
        return DependencyFailed(f"{self.name} at {_without_user(self.config.url)} {words}", hint=hint)

    async def _ask(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        form: Mapping[str, str] | None,
        body: Any,
        headers: dict[str, str],
    ) -> tuple[int, str, bytes]:
        client = self._opened()
        sent = {**self.config.headers, **await self._authorized(), **headers}
        content: bytes | None = None
        if body is not None:
            content = body if isinstance(body, bytes) else msgspec.json.encode(body)
            sent.setdefault("Content-Type", "application/json")
        url = self.config.url.rstrip("/") + path
        for _ in range(REDIRECTS + 1):
            async with client.stream(
                method, url, params=params, data=form, content=content, headers=sent
            ) as answer:  # fmt: skip
                if answer.is_redirect:
                    url, params = self._followed(url, answer.headers.get("location", "")), None
                    continue
                whole = await self._body(answer)
                self._check(answer.status_code, whole, answer.headers)
                return answer.status_code, answer.headers.get("content-type", ""), whole
        raise self.failed(f"redirects more than {REDIRECTS} times")

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            import ssl

            verify: ssl.SSLContext | bool = True
            if self.config.ca_file:
                try:
                    verify = ssl.create_default_context(cafile=self.config.ca_file)
                except OSError as error:
                    raise self.failed(f"`ca_file` {self.config.ca_file}: {error}") from None
            limits = httpx.Limits(max_connections=8, max_keepalive_connections=4)
            self._client = httpx.AsyncClient(
                verify=verify, timeout=self.config.timeout, limits=limits, follow_redirects=False, trust_env=True
            )
        return self._client

    async def _authorized(self) -> dict[str, str]:
        if self._credentials is None:
            config, found = self.config, {}
            if config.bearer:
                found["Authorization"] = f"{config.scheme} {await self._secret(config.bearer)}"
            elif config.user:
                password = await self._secret(config.password) if config.password else ""
                encoded = base64.b64encode(f"{config.user}:{password}".encode()).decode()
                self._secret_values.add(encoded)
                found["Authorization"] = f"Basic {encoded}"
            for header, secret in config.secret_headers.items():
                found[header] = await self._secret(secret)
            self._credentials = found
        return self._credentials

    async def _secret(self, name: str) -> str:
        """Return a secret without the line end that files have; from now on no message shows it."""
        value = (await self._secrets(name)).strip()
        if value:
            self._secret_values |= {value, repr(value)[1:-1]}
        return value

    def _followed(self, url: str, location: str) -> str:
        """Return where a redirect leads; credentials are never taken to another host."""
        target = str(httpx.URL(url).join(location))
        old, new = urlsplit(url), urlsplit(target)
        if (old.scheme, old.netloc) != (new.scheme, new.netloc):
            raise self.failed(
                f"redirects to another host ({new.scheme}://{new.hostname}), which is not followed",
                "write the address that answers itself",
            )
        return target

    async def _body(self, answer: httpx.Response) -> bytes:
        whole = bytearray()
        async for part in answer.aiter_bytes():
            whole += part
            if len(whole) > LARGEST_ANSWER:
                raise self.failed(f"answered more than {LARGEST_ANSWER // 1024 // 1024} MB")
        return bytes(whole)

    def _check(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        if 200 <= status < 300:
            return
        words, hint = f"answered {status}: {_shown(content)}", ""
        if status in (401, 403):
            self._credentials = None
            words, hint = f"refused ({status}): {_shown(content)}", "check its credentials and what they may read"
        elif status == 429:
            wait = headers.get("retry-after", "")
            words = "says that it is asked too often (429)" + (f", again in {wait} s" if wait else "")
        told = self.failed(words, hint)
        refused = StoreRefused(told.message, hint=told.hint)
        refused.status = status
        raise refused


def _shown(content: bytes) -> str:
    text = " ".join(content[: SHOWN * 4].decode(errors="replace").split())
    return (text[:SHOWN] + "…" if len(text) > SHOWN else text) or "(nothing)"


def _without_user(url: str) -> str:
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}:{parts.port}" if parts.port else f"{parts.scheme}://{host}"
