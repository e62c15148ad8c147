"""OpenTelemetry metrics that are pushed to Forge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import Count, Leaf, Section, Text, TextList, wrong
from forge.core.pipeline.schema_signals_store import SecretiveModel, SecretName

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _limit(value: Any) -> float | None:
    return None if value is None else leaves.number(value)


class PushAuthModel(Section):
    """What exporters must know."""

    title: ClassVar[str] = "auth"
    bearer: SecretName


class OtlpModel(SecretiveModel):
    """Where exporters push to, and which metric counts."""

    title: ClassVar[str] = "otlp"
    listen: Text = "127.0.0.1"
    port: Count = 4318
    service: Text = ""
    version: Text = "service.version"
    duration: TextList = ("http.server.request.duration", "http.server.duration")
    gauges: dict[str, Annotated[float | None, Leaf(_limit, {"type": ["number", "null"]})]] = Field(default_factory=dict)
    auth: PushAuthModel | None = None

    @model_validator(mode="after")
    def _known(self) -> OtlpModel:
        if self.port > 65535:
            raise wrong(f"has a port that does not exist: {self.port}", "ports end at 65535", at="port")
        if self.listen not in LOOPBACK and self.auth is None:
            raise wrong(
                f"listens on {self.listen}, where anybody could push",
                "add `auth: {bearer: NAME_OF_A_SECRET}`, or listen on 127.0.0.1",
                at="listen",
            )
        return self

    def secret_names(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the token's name. See SecretiveModel."""
        if self.auth is not None:
            yield ("auth", "bearer"), self.auth.bearer

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data."""
        return {
            "listen": self.listen,
            "port": self.port,
            "service": self.service,
            "version": self.version,
            "duration": list(self.duration),
            "gauges": dict(self.gauges),
            "bearer": self.auth.bearer if self.auth else "",
        }
