"""What comes out of a translation: an environment, how it is released, and the manifests that change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from forge.model.diagnostics import Diagnostic


@dataclass(slots=True)
class ReleaseDraft:
    """The pipeline of one service, as it is put together; everything under the names of `forge/pipeline.yaml`."""

    name: str
    namespace: str = ""
    target: dict[str, Any] = field(default_factory=dict)
    router: Any = None
    prometheus: dict[str, Any] = field(default_factory=dict)
    judge: Any = None
    strategy: Any = "rolling"
    checks: list[Any] = field(default_factory=list)
    routes: list[Any] = field(default_factory=list)
    deploy: dict[str, Any] = field(default_factory=dict)
    manifests: list[dict[str, Any]] = field(default_factory=list)
    """Objects that are to be applied instead of those that were read."""
    comments: list[str] = field(default_factory=list)

    def pipeline(self, environment: str) -> dict[str, Any]:
        """Return the whole pipeline as plain data."""
        target = {key: value for key, value in {"namespace": self.namespace, **self.target}.items() if value}
        around: dict[str, Any] = {"target": {"kubernetes": target}}
        if self.router is not None:
            around["router"] = self.router
        if self.prometheus:
            around["signals"] = {"prometheus": self.prometheus}
            if self.judge is not None:
                around["judge"] = self.judge
        deploy: dict[str, Any] = {
            "environment": environment,
            "version": "${{ params.version }}",
            "strategy": self.strategy,
        }
        if self.checks and self.prometheus:
            deploy["checks"] = self.checks
        if self.routes:
            deploy["routes"] = self.routes
        return {
            "parameters": {"version": {"type": "string"}},
            "environments": {environment: around},
            "jobs": {"release": {"steps": [{"checkout": "."}, {"deploy": {**deploy, **self.deploy}}]}},
        }


@dataclass(frozen=True, slots=True)
class Translation:
    """The result for one service: `lost` says what is not in it, each with its place and what to do."""

    draft: ReleaseDraft
    lost: tuple[Diagnostic, ...]
