"""Where a job's commands run (`runner`), and a Kubernetes Job as a step (`job`)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    Count,
    Duration,
    InsidePath,
    Leaf,
    Name,
    Section,
    Text,
    TextList,
    choice,
    listed,
    plain,
    wrong,
)
from forge.model import configs
from forge.model.diagnostics import did_you_mean
from forge.model.migrations import Migration

RUNNERS = ("process", "kubernetes")
_TEXTS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise leaves.LeafError(f"must be a mapping of names to texts, not {leaves.kind_of(value)}")
    return {str(name): leaves.text(item) for name, item in value.items()}


def _absolute(value: Any) -> str:
    path = leaves.text(value)
    if not path.startswith("/") or ".." in path.split("/"):
        raise leaves.LeafError(f"must be an absolute path without `..`, not {leaves.shown(path)}")
    return path.rstrip("/") or "/"


Texts = Annotated[dict[str, str], Leaf(_texts, _TEXTS)]
AbsolutePath = Annotated[str, Leaf(_absolute, {"type": "string", "pattern": "^/"})]


class ResourcesModel(Section):
    """What a pod asks for and may use; `cpu` and `memory` by themselves are both."""

    title: ClassVar[str] = "resources"
    cpu: Text = ""
    memory: Text = ""
    requests: Texts = Field(default_factory=dict)
    limits: Texts = Field(default_factory=dict)

    def of(self, kind: str) -> dict[str, str]:
        """Return the requests or the limits."""
        both = {name: value for name, value in (("cpu", self.cpu), ("memory", self.memory)) if value}
        return {**both, **getattr(self, kind)}


class TolerationModel(Section):
    """Lets the pod run on nodes that keep others away; a bare text is the taint's key."""

    title: ClassVar[str] = "a toleration"
    short: ClassVar[str] = "key"
    key: Text = ""
    operator: Annotated[Any, choice("Exists", "Equal")] = ""
    value: Text = ""
    effect: Text = ""

    def toleration(self) -> configs.Toleration:
        """Return it as plain data: without a value, the key is enough."""
        return configs.Toleration(
            self.key, self.operator or ("Equal" if self.value else "Exists"), self.value, self.effect
        )


class EnvFromModel(Section):
    """Secrets and ConfigMaps of the cluster whose keys become environment variables."""

    title: ClassVar[str] = "env_from"
    secrets: TextList = ()
    config_maps: TextList = ()


class WorkspaceModel(Section):
    """How the pod shares the workspace with the worker."""

    title: ClassVar[str] = "workspace"
    claim: Text = ""
    host_path: AbsolutePath = ""
    root: AbsolutePath = ""
    mount: AbsolutePath = ""

    @model_validator(mode="after")
    def _one_way(self) -> WorkspaceModel:
        if self.claim and self.host_path:
            raise wrong("has both `claim` and `host_path`", "keep one of the two")
        if self.claim and not self.root:
            raise wrong("has a `claim` but no `root`", "name the folder where the worker's machine has it mounted")
        if self.root and not self.claim:
            raise wrong("has a `root` but no `claim`", "`root` is where the worker's machine has the claim mounted")
        return self


class KubernetesRunnerModel(Section):
    """Pods of a cluster; a bare text is the image."""

    title: ClassVar[str] = "the kubernetes runner"
    short: ClassVar[str] = "image"
    image: Text = ""
    kubeconfig: Text = ""
    context: Text = ""
    namespace: Text = ""
    resources: ResourcesModel = Field(default_factory=ResourcesModel)
    service_account: Text = ""
    node_selector: Texts = Field(default_factory=dict)
    tolerations: list[TolerationModel] = Field(default_factory=list)
    env_from: EnvFromModel = Field(default_factory=EnvFromModel)
    pull_secrets: TextList = ()
    labels: Texts = Field(default_factory=dict)
    annotations: Texts = Field(default_factory=dict)
    user: Count | None = None
    workspace: WorkspaceModel = Field(default_factory=WorkspaceModel)
    start_timeout: Duration = 600.0

    def given(self) -> dict[str, Any]:
        """Return what is given, under the names of `KubernetesRunnerConfig`, as plain data."""
        space = self.workspace
        every: dict[str, tuple[str, Any]] = {
            "image": ("image", self.image),
            "requests": ("resources", self.resources.of("requests")),
            "limits": ("resources", self.resources.of("limits")),
            "tolerations": ("tolerations", tuple(one.toleration() for one in self.tolerations)),
            "env_secrets": ("env_from", self.env_from.secrets),
            "env_config_maps": ("env_from", self.env_from.config_maps),
            "claim": ("workspace", space.claim),
            "host_path": ("workspace", space.host_path),
            "root": ("workspace", space.root),
            "mount": ("workspace", space.mount),
        }
        same = ("service_account", "node_selector", "pull_secrets", "labels", "annotations", "user", "start_timeout")
        every |= {name: (name, getattr(self, name)) for name in same}
        given = {name: value for name, (key, value) in every.items() if key in self.model_fields_set}
        access = {
            name: getattr(self, name)
            for name in ("kubeconfig", "context", "namespace")
            if name in self.model_fields_set
        }
        return plain({**given, **({"access": access} if access else {})})


class ProcessRunnerModel(Section):
    """The worker's own machine."""

    title: ClassVar[str] = "the process runner"


class RunnerModel(Section):
    """Where a job's commands run: `process`, `kubernetes`, or `kubernetes:` with its settings."""

    title: ClassVar[str] = "runner"
    short: ClassVar[str] = "name"
    short_schema: ClassVar[dict[str, Any]] = {"enum": list(RUNNERS)}
    process: ProcessRunnerModel | None = None
    kubernetes: KubernetesRunnerModel | None = None

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """A name alone is the runner with what `defaults` say of it."""
        if not isinstance(value, str):
            raise wrong(f"must be a name or a mapping, not {leaves.kind_of(value)}")
        if value not in RUNNERS:
            raise wrong(f"cannot be {leaves.shown(value)}", did_you_mean(value, RUNNERS) or f"it is {listed(RUNNERS)}")
        return {value: {}}

    @model_validator(mode="after")
    def _one(self) -> RunnerModel:
        if (self.process is None) == (self.kubernetes is None):
            raise wrong("must be one runner", f"it is one of {listed(RUNNERS)}")
        return self

    @property
    def name(self) -> str:
        """Which runner it is."""
        return "process" if self.kubernetes is None else "kubernetes"

    def given(self) -> dict[str, Any]:
        """Return the settings that are given."""
        return {} if self.kubernetes is None else self.kubernetes.given()


class JobStepModel(Section):
    """A Kubernetes Job from a manifest; a bare text is the manifest."""

    title: ClassVar[str] = "job"
    short: ClassVar[str] = "manifest"
    manifest: InsidePath
    environment: Name = ""
    kubeconfig: Text = ""
    context: Text = ""
    namespace: Text = ""
    keep: Annotated[Any, choice("never", "failed", "always")] = "failed"
    start_timeout: Duration = 600.0

    @model_validator(mode="after")
    def _one_place(self) -> JobStepModel:
        if self.environment and (self.context or self.kubeconfig):
            raise wrong("has both `environment` and a cluster of its own", "an environment names its cluster; keep one")
        return self

    def config(self) -> configs.JobStepConfig:
        """Return it as plain data."""
        access = configs.KubernetesAccess(self.kubeconfig, self.context, self.namespace)
        return configs.JobStepConfig(self.manifest, self.environment, access, self.keep, self.start_timeout)


class ContractModel(Section):
    """Takes away what older versions need; a bare text is the oldest version that still runs."""

    title: ClassVar[str] = "contract"
    short: ClassVar[str] = "since"
    since: Text


class ExpandModel(Section):
    """Only adds; every version goes on running."""

    title: ClassVar[str] = "expand"


class MigrationModel(Section):
    """What a step does to what the versions of an environment share."""

    title: ClassVar[str] = "migration"
    short: ClassVar[str] = "kind"
    short_schema: ClassVar[dict[str, Any]] = {"enum": ["expand"]}
    expand: ExpandModel | None = None
    contract: ContractModel | None = None
    environment: Name = ""

    @classmethod
    def from_short(cls, value: Any) -> dict[str, Any]:
        """`expand` needs nothing more; a contract has to say which versions still run."""
        if value == "contract":
            raise wrong("is a `contract` without `since`", 'write `migration: {contract: {since: "1.4"}}`')
        if value != "expand":
            raise wrong(f"cannot be {leaves.shown(value)}", "it is `expand`, or a mapping with `contract`")
        return {"expand": {}}

    @model_validator(mode="after")
    def _one(self) -> MigrationModel:
        if (self.expand is None) == (self.contract is None):
            raise wrong("must be either `expand` or `contract`", 'write `migration: {contract: {since: "1.4"}}`')
        return self

    def migration(self) -> Migration:
        """Return it as plain data."""
        if self.contract is None:
            return Migration("expand", self.environment)
        return Migration("contract", self.environment, self.contract.since)
