"""`verify` and `rollback`: of an environment that Forge releases to, or of a workload that the pipeline deploys itself."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline.schema_base import Duration, Flag, Fraction, Name, Section, Text, Timeout, wrong
from forge.core.pipeline.schema_signals_store import StoreModel
from forge.core.pipeline.schema_strategy import CheckModel, thresholds
from forge.model import configs

_KINDS = frozenset({"deployment", "statefulset", "daemonset"})


class PlaceModel(Section):
    """An environment, or a workload with its cluster; a bare text is the environment."""

    short: ClassVar[str] = "environment"
    environment: Name = ""
    workload: Text = ""
    kubeconfig: Text = ""
    context: Text = ""
    namespace: Text = ""

    @model_validator(mode="after")
    def _one_place(self) -> PlaceModel:
        if bool(self.environment) == bool(self.workload):
            hint = (
                "an environment that Forge releases to, or `workload: Deployment/NAME` that the pipeline deploys itself"
            )
            raise wrong("must have either `environment` or `workload`", hint)
        kind, _, name = self.workload.partition("/")
        if self.workload and (kind.lower() not in _KINDS or not name):
            raise wrong(f"has a `workload` that is none: `{self.workload}`", "write `Deployment/NAME`", at="workload")
        return self

    def place(self) -> configs.WorkloadConfig | None:
        """Return the workload, None for an environment."""
        access = configs.KubernetesAccess(self.kubeconfig, self.context, self.namespace)
        return configs.WorkloadConfig(self.workload, access) if self.workload else None


class ErrorRateModel(StoreModel):
    """A query of Prometheus whose answer is the part of requests that fail."""

    title: ClassVar[str] = "prometheus"
    query: Text
    above: Fraction = 0.05

    def config(self) -> dict[str, Any]:
        """Return how Prometheus is reached, as plain data."""
        return self.http()


class VerifyModel(PlaceModel):
    """Waits for the rollout, then checks."""

    title: ClassVar[str] = "verify"
    prometheus: ErrorRateModel | None = None
    timeout: Timeout = 300.0
    interval: Duration = 15.0
    checks: list[CheckModel] | None = None
    for_: Duration = Field(0.0, alias="for")
    rollback: Flag = False

    @model_validator(mode="after")
    def _looks(self) -> VerifyModel:
        if self.interval <= 0:
            raise wrong("has an `interval` of 0", "write `interval: 15s`")
        if self.environment and self.prometheus is not None:
            raise wrong("has a `prometheus`, and its environment has `signals`", "it reads those", at="prometheus")
        if self.workload and self.checks is not None:
            hint = "write `prometheus: {url: ..., query: ..., above: 5%}`"
            raise wrong("has `checks` of a workload", hint, at="checks")
        return self

    def config(self) -> configs.VerifyConfig:
        """Return it as plain data."""
        workload, asked = self.place(), self.prometheus
        if workload is not None and asked is not None:
            workload = configs.WorkloadConfig(workload.name, workload.access, asked.query, asked.above, asked.config())
        return configs.VerifyConfig(
            self.environment, self.timeout, self.interval, thresholds(self.checks), self.for_, self.rollback, workload
        )


class RollbackModel(PlaceModel):
    """Back to the version, or the revision, before."""

    title: ClassVar[str] = "rollback"
    to: Text = ""

    @model_validator(mode="after")
    def _revision(self) -> RollbackModel:
        if self.workload and self.to and self.to != "previous" and not self.to.isdigit() and "${{" not in self.to:
            raise wrong(f"goes back to `{self.to}`", "write the number of a revision, or `previous`", at="to")
        return self

    def config(self) -> configs.RollbackConfig:
        """Return it as plain data."""
        return configs.RollbackConfig(self.environment, self.to, self.place())
