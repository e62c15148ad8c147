"""The validated configuration of each step kind and of the one-machine target.

`core/pipeline` makes these from YAML and stores them as plain data in the plan; the adapter of the same
name reads them back with `msgspec.convert(plan.config, RunConfig)`. Durations are seconds.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from forge.model.plan import Approval
from forge.model.strategy import Strategy, Threshold
from forge.model.traffic import Route


class CheckoutConfig(msgspec.Struct, frozen=True):
    """`checkout: .` is the run's own source; else `path` (a local folder) or `repository` (a git URL) at `ref`."""

    path: str = ""
    repository: str = ""
    ref: str = ""
    into: str = "."
    """Where it goes inside the workspace."""
    submodules: bool = False


class RunConfig(msgspec.Struct, frozen=True):
    """A command for the shell. The job's or the step's `shell` says which (default `bash -euo pipefail -c`,
    or `sh -eu -c` where there is no bash)."""

    script: str


class PublishConfig(msgspec.Struct, frozen=True):
    """`path` (default: the name itself, relative to cwd; a folder is packed) becomes the artifact `name`."""

    name: str
    path: str = ""


class DownloadConfig(msgspec.Struct, frozen=True):
    """The run's artifact `name` comes to `into` inside the workspace; `extract` unpacks tar, tar.gz and zip."""

    name: str
    into: str = "."
    extract: bool = False


class CacheConfig(msgspec.Struct, frozen=True):
    """Restores `paths` if an entry for `key` exists and saves them when the job succeeded.

    `key_files`: globs whose contents' hash is appended to `key`. `restore_keys`: prefixes to fall back to.
    """

    key: str
    paths: tuple[str, ...]
    key_files: tuple[str, ...] = ()
    restore_keys: tuple[str, ...] = ()


class QualityConfig(msgspec.Struct, frozen=True):
    """A quality gate: reads JUnit XML and Cobertura XML, fails below a threshold. Globs are relative to cwd."""

    junit: tuple[str, ...] = ()
    coverage: tuple[str, ...] = ()
    min_tests: int = 1
    max_failures: int = 0
    max_skipped: int | None = None
    min_line_coverage: float | None = None
    """Fraction."""
    min_branch_coverage: float | None = None


class DeployConfig(msgspec.Struct, frozen=True):
    """Starts a release of `version` (default: 12 hex digits of artifact and configuration) in `environment`.

    `wait` False returns as soon as the release is accepted, so that releases may overlap.
    `target` overrides the environment's target configuration for this version.
    """

    environment: str
    artifact: str = ""
    version: str = ""
    strategy: Strategy = Strategy()
    target: dict[str, Any] = {}
    routes: tuple[Route, ...] = ()
    wait: bool = True
    timeout: float | None = None
    fix: bool = False
    """It mends something: it may start while the error budget is empty."""


class KubernetesAccess(msgspec.Struct, frozen=True):
    """Which cluster, and where in it. Empty: the kubeconfig's own current context and its namespace.

    `kubeconfig`: a file; empty: KUBECONFIG, ~/.kube/config, or, in a pod, the pod's own service account.
    """

    kubeconfig: str = ""
    context: str = ""
    namespace: str = ""


class WorkloadConfig(msgspec.Struct, frozen=True):
    """A workload on a cluster that the pipeline deploys by itself: `name` is `Deployment/shop`.

    `query` is a PromQL whose answer is the part of requests that fail; above `above` (a fraction) it is too much.
    `http` is how Prometheus is reached (`HttpConfig`); the names of secrets, never their values, are in it.
    """

    name: str
    access: KubernetesAccess
    query: str = ""
    above: float = 0.05
    http: dict[str, Any] = {}


class VerifyConfig(msgspec.Struct, frozen=True):
    """Waits until the environment's last release has settled, then checks its metrics for `for_seconds`.

    With `workload` it is that which is waited for and checked, and there is no environment.
    """

    environment: str
    timeout: float = 300.0
    interval: float = 15.0
    thresholds: tuple[Threshold, ...] = (Threshold("error_rate", 0.05, 300.0),)
    for_seconds: float = 0.0
    rollback: bool = False
    """Roll the environment back when a check fails."""
    workload: WorkloadConfig | None = None


class RollbackConfig(msgspec.Struct, frozen=True):
    """Goes back to `to`, or to the version that was stable before; with `workload` to one of its revisions."""

    environment: str
    to: str = ""
    workload: WorkloadConfig | None = None


class ApproveConfig(msgspec.Struct, frozen=True):
    """A gate in the middle of a job; handled by `core/pipeline/decide.py`, no adapter runs it."""

    approval: Approval = Approval()


class Readiness(msgspec.Struct, frozen=True):
    """A replica is ready when `http` (path, answers 2xx/3xx), `tcp`, or `command` (exit 0) says so."""

    http: str = ""
    tcp: bool = False
    command: tuple[str, ...] = ()
    interval: float = 0.25
    timeout: float = 2.0
    failures: int = 3
    """Consecutive failures after which a ready replica is not ready any more."""


class LocalTargetConfig(msgspec.Struct, frozen=True):
    """Replicas as processes of this machine. Each gets PORT and FORGE_VERSION, FORGE_REPLICA, FORGE_ENVIRONMENT.

    An artifact that is an archive is unpacked into the version's folder, which is the working directory.
    """

    command: tuple[str, ...]
    """argv; a string in YAML becomes `("sh", "-c", "exec <string>")`."""
    replicas: int = 2
    env: dict[str, str] = {}
    ready: Readiness = Readiness(tcp=True)
    live: Readiness | None = None
    """A replica that once answered this, and then fails it `failures` times in a row, is started anew; one of a
    version at a time. None: only a replica whose process ends is."""
    stop_grace: float = 10.0
    drain: float = 5.0
    """Longest wait for requests in flight between leaving the proxy and TERM."""
    restart_delay: float = 0.5
    restart_max_delay: float = 30.0


class EnvoyRouterConfig(msgspec.Struct, frozen=True):
    """The environment's proxy. `port` 0 lets Forge choose one and keep it."""

    listen: str = "127.0.0.1"
    port: int = 0
    sticky: bool = False
    """A client stays with the version that answered it first (cookie), as long as that version is there."""
    request_timeout: float = 60.0
    max_connections: int = 4096


class HelmChart(msgspec.Struct, frozen=True):
    """A chart that `helm template` renders: `chart` is a folder or a reference, `values` are files."""

    chart: str
    release: str = ""
    values: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    """Like `--set`."""


class KubernetesTargetConfig(msgspec.Struct, frozen=True):
    """Versions as workloads of a cluster, made from manifests. One of `manifests`, `kustomize` and `helm` is given.

    Paths are relative to where the deploy step works. What they came to is the version's artifact.
    """

    access: KubernetesAccess = KubernetesAccess()
    manifests: tuple[str, ...] = ()
    """Files and folders."""
    kustomize: str = ""
    helm: HelmChart | None = None
    workload: str = ""
    """`Deployment/shop`; empty: the only one there is."""
    service: str = ""
    """The Service that clients ask; empty: the only one that selects the workload's pods."""
    images: dict[str, str] = {}
    """Instead of the manifests' own, by container."""
    replicas: int = 0
    """Its full size; 0: what the manifest says, or a HorizontalPodAutoscaler."""
    adopt: bool = True
    """A workload of that name that is there already becomes the first stable version, without a restart."""
    progress_deadline: float = 600.0


class GatewayApiRouterConfig(msgspec.Struct, frozen=True):
    """An HTTPRoute (or GRPCRoute) whose rules point at the environment's Service. `namespace` empty: the target's."""

    route: str
    kind: Literal["HTTPRoute", "GRPCRoute"] = "HTTPRoute"
    namespace: str = ""
    address: str = ""
    """Where clients reach it; empty: the gateway's own first address."""


class IstioRouterConfig(msgspec.Struct, frozen=True):
    """A VirtualService whose routes point at the environment's Service. `routes`: only those of its http routes."""

    virtual_service: str
    namespace: str = ""
    routes: tuple[str, ...] = ()
    propagation: float = 2.0
    """Seconds until every proxy has a change; istio does not tell."""
    address: str = ""


class IngressNginxRouterConfig(msgspec.Struct, frozen=True):
    """An Ingress of ingress-nginx whose paths point at the environment's Service; Forge keeps a canary beside it."""

    ingress: str
    namespace: str = ""
    propagation: float = 2.0
    """Seconds until the controller has a change; it does not tell."""
    address: str = ""


class ReplicasRouterConfig(msgspec.Struct, frozen=True):
    """No router: the Service spreads requests over all ready pods, so the split is that of the replicas."""

    address: str = ""


ROUTER_CAPABILITIES: dict[str, frozenset[str]] = {
    "envoy": frozenset({"weights", "header_routes", "cookie_routes", "sticky", "mirror"}),
    "gateway_api": frozenset({"weights", "header_routes", "mirror"}),
    "istio": frozenset({"weights", "header_routes", "cookie_routes", "mirror"}),
    "ingress_nginx": frozenset({"weights", "header_routes", "cookie_routes"}),
    "replicas": frozenset({"weights"}),
}
"""What each router can do; a plan that needs more is refused before anything starts."""
SPLIT_BY_REPLICAS: frozenset[str] = frozenset({"replicas"})
"""Routers that cannot keep a request from a replica that is ready: a version carries nothing when it has none."""
MOST_VERSIONS: dict[str, int] = {"ingress_nginx": 2}
"""How many versions, stable among them, a router can split traffic between; any number where it is not named."""
ROUTERS_OF: dict[str, frozenset[str]] = {
    "local": frozenset({"envoy"}),
    "kubernetes": frozenset({"gateway_api", "istio", "ingress_nginx", "replicas"}),
}
"""Which routers work with which target."""


class Toleration(msgspec.Struct, frozen=True):
    """Lets a pod run on nodes that keep others away. As Kubernetes calls it."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: str = ""


class KubernetesRunnerConfig(msgspec.Struct, frozen=True):
    """A job's `run` steps in pods of a cluster.

    The workspace is shared with the worker by `claim` (a PersistentVolumeClaim that is mounted at `root` where the
    worker runs) or `host_path` (a folder that worker and nodes share, for example by NFS). Without either it is
    packed, sent into the pod and fetched back.
    """

    image: str
    access: KubernetesAccess = KubernetesAccess()
    requests: dict[str, str] = {}
    limits: dict[str, str] = {}
    service_account: str = ""
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    env_secrets: tuple[str, ...] = ()
    """Secrets of the cluster whose keys become environment variables."""
    env_config_maps: tuple[str, ...] = ()
    pull_secrets: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    user: int | None = None
    """The numeric user and group that the commands run as; None: the image's."""
    claim: str = ""
    host_path: str = ""
    root: str = ""
    """Where `claim` is mounted on the worker's machine."""
    mount: str = ""
    """Where the workspace is in the pod; empty: where the worker has it."""
    start_timeout: float = 600.0
    """How long a pod may take until its command begins: queueing, a node, the image."""


class JobStepConfig(msgspec.Struct, frozen=True):
    """A Kubernetes Job from a manifest, in the cluster and namespace of `environment` or of `access`."""

    manifest: str
    """A file with one Job, relative to where the step works."""
    environment: str = ""
    access: KubernetesAccess = KubernetesAccess()
    keep: Literal["never", "failed", "always"] = "failed"
    """Whether the Job stays in the cluster, to be looked at, when it is over."""
    start_timeout: float = 600.0
