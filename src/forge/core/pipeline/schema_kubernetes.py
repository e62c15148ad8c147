"""Environments on a Kubernetes cluster: where the manifests of a version are, and how the cluster splits traffic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from forge.core.pipeline import leaves
from forge.core.pipeline.schema_base import (
    LIST_SCHEMA,
    Duration,
    Flag,
    InsidePath,
    Leaf,
    Positive,
    Section,
    Text,
    TextList,
    Timeout,
    choice,
    listed,
    plain,
    wrong,
)
from forge.core.pipeline.variables import has_expression
from forge.model import configs
from forge.model.diagnostics import did_you_mean

WORKLOAD_KINDS = ("Deployment", "StatefulSet", "DaemonSet")
SOURCES = ("manifests", "kustomize", "helm")
"""Where the objects of a version come from; one of them is given."""
_OBJECT_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_WORKLOAD_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]*")
_TEXTS_SCHEMA = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}


def _object_name(value: Any) -> str:
    text = leaves.text(value)
    if not _OBJECT_NAME.fullmatch(text):
        raise leaves.LeafError(f"is not the name of an object: {leaves.shown(text)}", "use `a-z`, `0-9`, `-` and `.`")
    return text


def _workload(value: Any) -> str:
    text = leaves.text(value)
    kind, slash, name = text.rpartition("/")
    if slash and kind not in WORKLOAD_KINDS:
        hint = did_you_mean(kind, WORKLOAD_KINDS) or "write `Deployment/NAME`"
        raise leaves.LeafError(f"names a kind that cannot carry versions: {leaves.shown(kind)}", hint)
    if not _WORKLOAD_NAME.fullmatch(name):
        raise leaves.LeafError(f"is not the name of a workload: {leaves.shown(text)}", "write `Deployment/NAME`")
    return text


def _paths(value: Any) -> tuple[str, ...]:
    paths = tuple(leaves.inside_path(path) for path in (value if isinstance(value, list) else [value]))
    if not paths:
        raise leaves.LeafError("names no files", "name files or folders: `manifests: k8s/`")
    return paths


def _named_texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise leaves.LeafError(f"must be a mapping of names to texts, not {leaves.kind_of(value)}")
    return {str(name): leaves.env_value(item) for name, item in value.items()}


def _images(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        hint = "write the container's name: `images: {shop: registry.example/shop:1.2}`"
        raise leaves.LeafError(f"must be a mapping of containers to images, not {leaves.kind_of(value)}", hint)
    for name, item in value.items():
        image = leaves.text(item)
        if "${{" not in image and not _IMAGE.fullmatch(image):
            hint = "write it like `registry.example/shop:1.2`"
            raise leaves.LeafError(f"has no image for `{name}`: {leaves.shown(image)}", hint, at=str(name))
    return {str(name): leaves.text(item) for name, item in value.items()}


ObjectName = Annotated[str, Leaf(_object_name, {"type": "string", "pattern": f"^{_OBJECT_NAME.pattern}$"})]
Workload = Annotated[str, Leaf(_workload, {"type": "string", "examples": ["Deployment/shop"]})]
Paths = Annotated[tuple[str, ...], Leaf(_paths, LIST_SCHEMA)]
NamedTexts = Annotated[dict[str, str], Leaf(_named_texts, _TEXTS_SCHEMA)]
Images = Annotated[dict[str, str], Leaf(_images, {"type": "object", "additionalProperties": {"type": "string"}})]


class HelmModel(Section):
    """A chart that helm renders; a bare text is the chart."""

    title: ClassVar[str] = "helm"
    short: ClassVar[str] = "chart"
    chart: Text
    release: ObjectName = ""
    values: Paths = ()
    settings: NamedTexts = Field(default_factory=dict, alias="set")

    @model_validator(mode="after")
    def _no_option(self) -> HelmModel:
        # A chart is handed to helm as an argument; one that begins with a dash would be an option.
        if not self.chart or self.chart.startswith("-"):
            raise wrong("has a `chart` that is none", "write its folder: `chart: charts/shop`", at="chart")
        return self

    def config(self) -> configs.HelmChart:
        """Return it as plain data."""
        return configs.HelmChart(self.chart, self.release, self.values, self.settings)


class KubernetesOverrides(Section):
    """What one version on a cluster may have otherwise than its environment says."""

    title: ClassVar[str] = "target"
    manifests: Paths = ()
    kustomize: InsidePath = ""
    helm: HelmModel | None = None
    images: Images = Field(default_factory=dict)
    replicas: Positive | None = None
    progress_deadline: Timeout | None = None

    @model_validator(mode="after")
    def _one_source(self) -> KubernetesOverrides:
        given = [name for name in SOURCES if getattr(self, name)]
        if len(given) > 1:
            hint = "keep one of them; Kustomize and charts can include plain manifests"
            raise wrong(f"takes its manifests from {listed(tuple(given))}", hint, at=given[1])
        return self

    def kubernetes_overrides(self) -> dict[str, Any]:
        """Return what is given, under the names of `KubernetesTargetConfig`; one source empties the others."""
        given: dict[str, Any] = {
            name: getattr(self, name) for name in ("images", "replicas", "progress_deadline") if getattr(self, name)
        }
        if any(getattr(self, name) for name in SOURCES):
            helm = self.helm.config() if self.helm else None
            given |= {"manifests": self.manifests, "kustomize": self.kustomize, "helm": helm}
        return plain(given)


class KubernetesTargetModel(KubernetesOverrides):
    """Versions as workloads of one namespace of a cluster."""

    title: ClassVar[str] = "the kubernetes target"
    kubeconfig: Text = ""
    context: Text = ""
    namespace: ObjectName = ""
    workload: Workload = ""
    service: ObjectName = ""
    adopt: Flag = True

    @model_validator(mode="after")
    def _something(self) -> KubernetesTargetModel:
        if not self.workload and not any(getattr(self, name) for name in SOURCES):
            hint = "write `manifests: k8s/`; or `workload: Deployment/NAME` for one that is deployed otherwise"
            raise wrong(f"needs one of {listed(SOURCES)}", hint)
        return self

    def config(self) -> dict[str, Any]:
        """Return the whole configuration as plain data, without what only a run knows (`expressions`)."""
        given = self.kubernetes_overrides()
        given["images"] = {name: image for name, image in self.images.items() if not has_expression(image)}
        if given.get("helm"):
            given["helm"] = {**given["helm"], "settings": _constant(given["helm"]["settings"])}
        access = configs.KubernetesAccess(self.kubeconfig, self.context, self.namespace)
        return plain(
            {
                **plain(configs.KubernetesTargetConfig()),
                **given,
                "access": access,
                "workload": self.workload,
                "service": self.service,
                "adopt": self.adopt,
            }
        )

    def for_step(self, target: dict[str, Any]) -> dict[str, Any]:
        """Return what a deploy step sets of the target, with the images and chart settings that only its run knows.

        The step's own images go over the environment's, container by container.
        """
        images, told = target.get("images"), self.expressions()
        if images or "images" in told:
            target = {**target, "images": {**self.images, **(images or {})}}
        if "settings" in told and self.helm and not any(name in target for name in SOURCES):
            target = {**target, "manifests": [], "kustomize": "", "helm": plain(self.helm.config())}
        return target

    def expressions(self) -> dict[str, dict[str, str]]:
        """Return the images and chart settings that hold expressions: each deploy step fills them in for itself."""
        settings = self.helm.settings if self.helm else {}
        found = {
            "images": {name: text for name, text in self.images.items() if has_expression(text)},
            "settings": {name: text for name, text in settings.items() if has_expression(text)},
        }
        return {key: texts for key, texts in found.items() if texts}


def _constant(texts: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in texts.items() if not has_expression(text)}


class ClusterRouterModel(Section):
    """What the routers of a cluster have in common."""

    @classmethod
    def respell(cls, value: dict[str, Any]) -> dict[str, Any]:
        """A router that cannot keep clients with their version says so, rather than that it knows no such key."""
        if "sticky" in value and "sticky" not in cls.model_fields:
            able = [name for name, known in configs.ROUTER_CAPABILITIES.items() if "sticky" in known]
            raise wrong("cannot keep a client with its version", f"{listed(tuple(able))} can", at="sticky")
        return super().respell(value)


class GatewayApiModel(ClusterRouterModel):
    """A route of the Gateway API; a bare text is the route."""

    title: ClassVar[str] = "gateway_api"
    short: ClassVar[str] = "route"
    route: ObjectName
    kind: Annotated[Any, choice("HTTPRoute", "GRPCRoute")] = "HTTPRoute"
    namespace: ObjectName = ""
    address: Text = ""

    def config(self) -> dict[str, Any]:
        """Return it as plain data."""
        return plain(configs.GatewayApiRouterConfig(self.route, self.kind, self.namespace, self.address))


class IstioModel(ClusterRouterModel):
    """A VirtualService; a bare text is its name."""

    title: ClassVar[str] = "istio"
    short: ClassVar[str] = "virtual_service"
    virtual_service: ObjectName
    namespace: ObjectName = ""
    routes: TextList = ()
    propagation: Duration = 2.0
    address: Text = ""

    def config(self) -> dict[str, Any]:
        """Return it as plain data."""
        return plain(
            configs.IstioRouterConfig(self.virtual_service, self.namespace, self.routes, self.propagation, self.address)
        )


class IngressNginxModel(ClusterRouterModel):
    """An Ingress of ingress-nginx; a bare text is its name."""

    title: ClassVar[str] = "ingress_nginx"
    short: ClassVar[str] = "ingress"
    ingress: ObjectName
    namespace: ObjectName = ""
    propagation: Duration = 2.0
    address: Text = ""

    def config(self) -> dict[str, Any]:
        """Return it as plain data."""
        return plain(configs.IngressNginxRouterConfig(self.ingress, self.namespace, self.propagation, self.address))


class ReplicasModel(ClusterRouterModel):
    """No router: the split is that of the replicas."""

    title: ClassVar[str] = "replicas"
    address: Text = ""

    def config(self) -> dict[str, Any]:
        """Return it as plain data."""
        return plain(configs.ReplicasRouterConfig(self.address))


__all__ = [
    "SOURCES", "GatewayApiModel", "IngressNginxModel", "IstioModel", "KubernetesOverrides",
    "KubernetesTargetModel", "ReplicasModel",
]  # fmt: skip
