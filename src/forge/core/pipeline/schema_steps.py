"""The steps of a job, and what each kind of step becomes in the plan."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    ArtifactName,
    Condition,
    Count,
    Env,
    Flag,
    Fraction,
    InsidePath,
    Name,
    Script,
    Section,
    Text,
    TextList,
    Timeout,
    Title,
    choice,
    listed,
    plain,
    wrong,
)
from forge.core.pipeline.schema_environment import TargetOverrides
from forge.core.pipeline.schema_gate import ApprovalModel, RetryModel
from forge.core.pipeline.schema_runner import JobStepModel, MigrationModel
from forge.core.pipeline.schema_strategy import PaceModel, RouteModel, StrategyModel, strategy
from forge.core.pipeline.schema_verify import RollbackModel, VerifyModel
from forge.model import configs

_REPOSITORY = re.compile(r"[a-z+]+://|[\w.-]+@[\w.-]+:")


class CheckoutModel(Section):
    """`.` is the run's own source; a URL is a repository; another path is a folder of this machine."""

    title: ClassVar[str] = "checkout"
    short: ClassVar[str] = "path"
    path: Text = ""
    repository: Text = ""
    ref: Text = ""
    into: InsidePath = "."
    submodules: Flag = False

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A URL stands for a repository."""
        if isinstance(value, str) and _REPOSITORY.match(value):
            return {"repository": value}
        return super().from_short(value)

    @model_validator(mode="after")
    def _one_origin(self) -> CheckoutModel:
        if self.path not in {"", "."} and self.repository:
            raise wrong("has both `path` and `repository`", "keep one of the two")
        return self

    def config(self) -> configs.CheckoutConfig:
        """Return it as plain data."""
        path = "" if self.path == "." else self.path
        return configs.CheckoutConfig(path, self.repository, self.ref, self.into, self.submodules)


class PublishModel(Section):
    """A bare text is both the artifact's name and its path."""

    title: ClassVar[str] = "publish"
    short: ClassVar[str] = "artifact"
    spellings: ClassVar[dict[str, str]] = {"artefact": "artifact"}
    artifact: ArtifactName
    path: Text = ""

    def config(self) -> configs.PublishConfig:
        """Return it as plain data."""
        return configs.PublishConfig(self.artifact, self.path)


class DownloadModel(Section):
    """A bare text is the artifact's name."""

    title: ClassVar[str] = "download"
    short: ClassVar[str] = "artifact"
    spellings: ClassVar[dict[str, str]] = {"artefact": "artifact"}
    artifact: ArtifactName
    into: InsidePath = "."
    extract: Flag = False

    def config(self) -> configs.DownloadConfig:
        """Return it as plain data."""
        return configs.DownloadConfig(self.artifact, self.into, self.extract)


class CacheModel(Section):
    """Folders kept from run to run."""

    title: ClassVar[str] = "cache"
    key: Text
    paths: TextList
    key_files: TextList = ()
    restore_keys: TextList = ()

    def config(self) -> configs.CacheConfig:
        """Return it as plain data."""
        return configs.CacheConfig(self.key, self.paths, self.key_files, self.restore_keys)


class QualityModel(Section):
    """A quality gate over test reports and coverage."""

    title: ClassVar[str] = "quality"
    junit: TextList = ()
    coverage: TextList = ()
    min_tests: Count = 1
    max_failures: Count = 0
    max_skipped: Count | None = None
    min_line_coverage: Fraction | None = None
    min_branch_coverage: Fraction | None = None

    @model_validator(mode="after")
    def _reads_something(self) -> QualityModel:
        if not self.junit and not self.coverage:
            raise wrong("reads nothing", "name report files: `junit: reports/*.xml`, `coverage: coverage.xml`")
        if not self.coverage and (self.min_line_coverage is not None or self.min_branch_coverage is not None):
            raise wrong("asks for coverage but reads none", "add `coverage: coverage.xml`")
        return self

    def config(self) -> configs.QualityConfig:
        """Return it as plain data."""
        return configs.QualityConfig(**{name: getattr(self, name) for name in QualityModel.model_fields})


class DeployModel(PaceModel):
    """A release; a bare text is the environment."""

    title: ClassVar[str] = "deploy"
    short: ClassVar[str] = "environment"
    spellings: ClassVar[dict[str, str]] = {"artefact": "artifact"}
    environment: Name
    artifact: ArtifactName = ""
    version: Text = ""
    strategy: StrategyModel | None = None
    target: TargetOverrides | None = None
    routes: list[RouteModel] = Field(default_factory=list)
    wait: Flag = True
    timeout: Timeout | None = None
    fix: Flag = False

    @model_validator(mode="after")
    def _can_move(self) -> DeployModel:
        strategy(self.strategy, self)
        return self

    def config(self) -> configs.DeployConfig:
        """Return it as plain data."""
        return configs.DeployConfig(
            environment=self.environment,
            artifact=self.artifact,
            version=self.version,
            strategy=strategy(self.strategy, self),
            target=self.target.overrides() if self.target else {},
            routes=tuple(route.route() for route in self.routes),
            wait=self.wait,
            timeout=self.timeout,
            fix=self.fix,
        )


KINDS = (
    "checkout", "run", "publish", "download", "cache", "quality", "job", "deploy", "verify", "rollback", "approve",
)  # fmt: skip
MIGRATING = ("run", "job")
"""Kinds of steps that may change what the versions of an environment share."""


class StepModel(Section):
    """Exactly one kind of step, and what changes how it runs."""

    title: ClassVar[str] = "a step"
    editor_schema: ClassVar[dict[str, Any]] = {"oneOf": [{"required": [kind]} for kind in KINDS]}
    checkout: CheckoutModel | None = None
    run: Script | None = None
    publish: PublishModel | None = None
    download: DownloadModel | None = None
    cache: CacheModel | None = None
    quality: QualityModel | None = None
    job: JobStepModel | None = None
    deploy: DeployModel | None = None
    verify: VerifyModel | None = None
    rollback: RollbackModel | None = None
    approve: ApprovalModel | None = None
    name: Title = ""
    id: Name = ""
    when: Condition = ""
    env: Env = Field(default_factory=dict)
    timeout: Timeout | None = None
    retry: RetryModel | None = None
    working_directory: InsidePath = ""
    shell: Text = ""
    on_crash: Annotated[Any, choice("rerun", "report")] = "rerun"
    migration: MigrationModel | None = None

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A bare text is most likely a command."""
        if isinstance(value, str):
            raise wrong("must be a mapping, not text", f"for a command write `- run: {value[:40]}`")
        return super().from_short(value)

    @model_validator(mode="after")
    def _one_kind(self) -> StepModel:
        given = self.kinds()
        if not given:
            raise wrong("does nothing", f"give it one of {listed(KINDS)}", "step-kind")
        if len(given) > 1:
            raise wrong(f"does several things: {listed(tuple(given))}", "make each a step of its own", "step-kind")
        if self.migration is not None and given[0] not in MIGRATING:
            raise wrong(f"has a `migration` but is a `{given[0]}`", f"only {listed(MIGRATING)} steps can be migrations")
        if self.id and not leaves.ENV_NAME.fullmatch(self.id):
            raise wrong(f"has an `id` that expressions cannot name: `{self.id}`", "use letters, digits and `_`")
        return self

    def kinds(self) -> list[str]:
        """Return the kinds that are given."""
        return [kind for kind in KINDS if getattr(self, kind) is not None]

    @property
    def kind(self) -> str:
        """What the step does."""
        return self.kinds()[0]

    def config(self) -> dict[str, Any]:
        """Return the kind's own configuration as plain data."""
        if self.run is not None:
            config: Any = configs.RunConfig(self.run)
        elif self.approve is not None:
            config = configs.ApproveConfig(self.approve.approval())
        else:
            config = getattr(self, self.kind).config()
        return plain(config)
