"""What all stores of metrics and logs have in common in the user's file: their address and how Forge logs in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import TEXT_SCHEMA, Duration, Leaf, Section, Text, wrong

LONGEST = 4.0
"""Seconds: a source has to answer within one look at the world."""

SecretName = Annotated[str, Leaf(leaves.env_name, TEXT_SCHEMA)]
"""The name of a secret that the pipeline declares under `secrets:`."""


def _url(value: Any) -> str:
    text = leaves.text(value)
    try:
        parts = urlsplit(text)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError:
        port_is_fine = False
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_fine:
        raise leaves.LeafError(f"must be an http or https address, not {leaves.shown(text)}", "write `https://HOST`")
    if parts.username or parts.password:
        raise leaves.LeafError("has a user or a password in the address", "name secrets under `auth:`")
    if parts.query or parts.fragment:
        raise leaves.LeafError("has a `?` or a `#` in the address", "only scheme, host and path belong here")
    return text.rstrip("/")


Url = Annotated[str, Leaf(_url, {"type": "string", "format": "uri"})]


class AuthModel(Section):
    """How Forge logs in: `bearer`, or `user` and `password`. Secrets are named, never written."""

    title: ClassVar[str] = "auth"
    bearer: SecretName = ""
    user: Text = ""
    password: SecretName = ""

    @model_validator(mode="after")
    def _one(self) -> AuthModel:
        if bool(self.bearer) == bool(self.user):
            raise wrong("must have either `bearer` or `user`", "`bearer: NAME_OF_A_SECRET`")
        if self.password and not self.user:
            raise wrong("has a `password` without a `user`")
        return self


class HeaderModel(Section):
    """The value of a header: a text, or `secret: NAME`."""

    title: ClassVar[str] = "a header"
    short: ClassVar[str] = "value"
    value: Text = ""
    secret: SecretName = ""

    @model_validator(mode="after")
    def _one(self) -> HeaderModel:
        if bool(self.value) == bool(self.secret):
            raise wrong("must have either `value` or `secret`")
        return self


class SecretiveModel(Section):
    """A source that needs secrets."""

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path in this section, name) of each secret that it needs."""
        raise NotImplementedError


class StoreModel(SecretiveModel):
    """A store that is asked over HTTP. Kinds of stores inherit from it and add what they need."""

    url: Url
    auth: AuthModel | None = None
    headers: dict[str, HeaderModel] = Field(default_factory=dict)
    ca_file: Text = ""
    timeout: Duration = LONGEST

    @model_validator(mode="after")
    def _short_enough(self) -> StoreModel:
        if not 0 < self.timeout <= LONGEST:
            raise wrong(
                f"has a `timeout` of {self.timeout:g} s",
                f"a release cannot wait longer for one reading than {LONGEST:g} s",
                at="timeout",
            )
        return self

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield (path in this section, name) of each secret that it needs."""
        if self.auth is not None:
            for key in ("bearer", "password"):
                if getattr(self.auth, key):
                    yield ("auth", key), getattr(self.auth, key)
        for header, model in self.headers.items():
            if model.secret:
                yield ("headers", header, "secret"), model.secret

    def http(self) -> dict[str, Any]:
        """Return how it is reached, under the names of `adapters.signals.http.HttpConfig`."""
        auth = self.auth
        return {
            "url": self.url,
            "bearer": auth.bearer if auth else "",
            "user": auth.user if auth else "",
            "password": auth.password if auth else "",
            "headers": {name: model.value for name, model in self.headers.items() if not model.secret},
            "secret_headers": {name: model.secret for name, model in self.headers.items() if model.secret},
            "ca_file": self.ca_file,
            "timeout": self.timeout,
        }

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data, under the names of the adapter's own."""
        raise NotImplementedError
