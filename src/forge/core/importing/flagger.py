"""Flagger: a Canary, with its MetricTemplates, as a release of Forge.

Source of the fields: the Canary and MetricTemplate specifications of Flagger, flagger.app/v1beta1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from forge.core.importing.draft import ReleaseDraft, Translation
from forge.core.importing.metrics import VERSION, Limit, at_least, filled, unfilled, value_check
from forge.core.importing.reading import Manifest, Path, Reader

_ANALYSIS: Path = ("spec", "analysis")
_MOST_STEPS = 50
_HOOKS = {
    "load-test": "run the load in a `run:` step beside the deploy, or let users do it",
    "confirm-rollout": "put `approve:` before the deploy", "confirm-promotion": "put `approve:` among the steps",
    "confirm-traffic-increase": "put `approve:` among the steps", "rollback": "`forge rollback ENV` does it at any time",
    "pre-rollout": "put a `run:` step before the deploy", "post-rollout": "put a `run:` step after the deploy",
    "rollout": "write it as one of `values:` and hold it in `checks:`", "event": "`notify:` tells Grafana of each step",
}  # fmt: skip


def translate_canary(canary: Manifest, templates: Sequence[Manifest]) -> Translation:
    """Return the release that a Canary describes. `templates`: the MetricTemplates that were read with it."""
    read = Reader(canary)
    for path in (("apiVersion",), ("kind",), ("metadata",), ("status",)):
        read.needless(*path)
    name = str(read.take("spec", "targetRef", "name", default=read.peek("metadata", "name") or "service"))
    kind = str(read.take("spec", "targetRef", "kind", default="Deployment"))
    read.needless("spec", "targetRef", "apiVersion")
    draft = ReleaseDraft(name, str(read.peek("metadata", "namespace") or ""))
    draft.target = {"manifests": "k8s", "workload": f"{kind}/{name}"}
    draft.comments.append(
        f"delete the Canary first (it gives {kind} {name} its pods back); Forge adopts what runs then"
    )
    deadline = read.take("spec", "progressDeadlineSeconds")
    if deadline:
        draft.target["progress_deadline"] = f"{deadline}s"
    read.needless("spec", "autoscalerRef")  # the manifests' own autoscaler is followed
    read.needless("spec", "revertOnDeletion")
    _service(read, draft)
    _router(read, draft)
    if read.take("spec", "skipAnalysis") is True:
        draft.judge = "none"
    _steps(read, draft)
    used: set[str] = set()
    for index in read.items(*_ANALYSIS, "metrics"):
        _metric(read, (*_ANALYSIS, "metrics", index), draft, templates, used)
    for index in read.items(*_ANALYSIS, "webhooks"):
        kind = str(read.peek(*_ANALYSIS, "webhooks", index, "type") or "rollout")
        read.report(
            (*_ANALYSIS, "webhooks", index),
            f"Forge calls no webhook for `{kind}`",
            _HOOKS.get(kind, "use a `run:` step"),
        )
    read.report(
        (*_ANALYSIS, "alerts"), "Forge tells Grafana, and leaves other messages to the pipeline", "use `notify:`"
    )
    lost = read.finish()
    for template in templates:
        if template.data.get("metadata", {}).get("name") in used:
            lost += _rest(template)
    return Translation(draft, tuple(lost))


def _service(read: Reader, draft: ReleaseDraft) -> None:
    name = read.take("spec", "service", "name")
    draft.target["service"] = str(name or draft.name)
    port = read.peek("spec", "service", "port")
    for key in ("port", "targetPort", "portName", "portDiscovery", "appProtocol", "apex", "primary", "canary"):
        read.needless("spec", "service", key)
    draft.comments.append(
        f"k8s/ needs the Service {draft.target['service']} (port {port}), which Flagger made by itself"
    )
    for key in ("gatewayRefs", "hosts", "gateways", "match", "rewrite", "retries", "timeout", "headers", "corsPolicy"):
        read.report(("spec", "service", key), f"`{key}` belongs to a route, which Forge does not make",
                    "write it into the HTTPRoute or VirtualService in k8s/")  # fmt: skip
    read.report(("spec", "service", "trafficPolicy"), "versions have Services of their own",
                "write a DestinationRule for the Service")  # fmt: skip


def _router(read: Reader, draft: ReleaseDraft) -> None:
    provider = str(read.take("spec", "provider", default="kubernetes"))
    ingress = read.take("spec", "ingressRef", "name")
    read.needless("spec", "ingressRef")
    if provider.startswith("gatewayapi"):
        draft.router = {"gateway_api": {"route": draft.name}}
        draft.comments.append(
            f"k8s/ needs the HTTPRoute {draft.name} that points at the Service, which Flagger made by itself"
        )
    elif provider == "istio":
        draft.router = {"istio": {"virtual_service": draft.name}}
        draft.comments.append(f"k8s/ needs the VirtualService {draft.name}, which Flagger made by itself")
    elif provider == "nginx" and ingress:
        draft.router = {"ingress_nginx": {"ingress": ingress}}
    else:
        draft.router = "replicas"
        if provider != "kubernetes":
            read.report(("spec", "provider"), f"Forge does not route by `{provider}`",
                        "use gateway_api, istio or ingress_nginx; without one replicas make the split")  # fmt: skip


def _steps(read: Reader, draft: ReleaseDraft) -> None:
    interval = str(read.take(*_ANALYSIS, "interval", default="1m"))
    iterations = read.take(*_ANALYSIS, "iterations")
    threshold = read.take(*_ANALYSIS, "threshold")
    if isinstance(threshold, int) and draft.judge is None:
        draft.judge = {"failure_limit": {"interval": interval, "failure_limit": max(0, threshold - 1)}}
        draft.comments.append("without `judge:` Forge's own judge decides, with a stated bound on false alarms")
    for index in read.items(*_ANALYSIS, "match"):
        _match(read, (*_ANALYSIS, "match", index), draft)
    if read.take(*_ANALYSIS, "mirror") is True:
        weight = read.take(*_ANALYSIS, "mirrorWeight", default=100)
        draft.routes.append({"mirror": f"{weight}%"})
    weights = read.take(*_ANALYSIS, "stepWeights")
    step, most = read.take(*_ANALYSIS, "stepWeight"), read.take(*_ANALYSIS, "maxWeight", default=50)
    if weights is None and isinstance(step, int) and step > 0:
        weights = list(range(step, int(most) + 1, step))[:_MOST_STEPS]
    read.report((*_ANALYSIS, "stepWeightPromotion"), "after the last step everything goes over", "add steps instead")
    read.report((*_ANALYSIS, "primaryReadyThreshold"), "all replicas must be ready", "leave it out")
    read.report((*_ANALYSIS, "canaryReadyThreshold"), "all replicas must be ready", "leave it out")
    if weights:
        draft.strategy = {
            "canary": {
                "steps": [each for weight in weights for each in ({"weight": f"{weight}%"}, {"pause": interval})]
            }
        }
    elif iterations:
        draft.strategy = "blue_green"
        draft.comments.append(
            f"Flagger tested the new version {iterations} times before it turned; Forge judges it with traffic"
        )
        draft.deploy["bake"] = interval
    else:
        draft.strategy = "canary"


def _match(read: Reader, path: Path, draft: ReleaseDraft) -> None:
    for name in read.mapping(*path, "headers"):
        exact = read.peek(*path, "headers", name, "exact")
        if exact is not None:
            read.needless(*path, "headers", name)
            draft.routes.append({"header": name, "value": exact})
        else:
            read.report((*path, "headers", name), "a route compares the whole value of one header",
                        "write `routes: [{header: NAME, value: VALUE}]`, or `cookie:`")  # fmt: skip


def _metric(read: Reader, path: Path, draft: ReleaseDraft, templates: Sequence[Manifest], used: set[str]) -> None:
    name = str(read.take(*path, "name", default="metric"))
    over = str(read.take(*path, "interval", default="1m"))
    least, most = read.peek(*path, "thresholdRange", "min"), read.peek(*path, "thresholdRange", "max")
    old = read.peek(*path, "threshold")
    reference = read.take(*path, "templateRef", "name")
    read.needless(*path, "templateRef", "namespace")
    variables = read.take(*path, "templateVariables", default={})
    if reference is None and name == "request-success-rate" and (least if least is not None else old) is not None:
        share = float(least if least is not None else old)
        draft.checks.append({"error_rate": {"above": f"{round(100 - share, 6):g}%", "over": over}})
    elif reference is None and name == "request-duration" and (most if most is not None else old) is not None:
        limit = f"{most if most is not None else old}ms"
        draft.checks.append({"latency": {"above": limit, "quantile": 0.99, "over": over}})
    elif reference is None:
        read.report(
            path, f"`{name}` is no metric that is built in", "write it as one of `values:` and hold it in `checks:`"
        )
        return
    elif not _from_template(read, path, name, over, str(reference), variables, draft, templates, used):
        return
    for key in ("thresholdRange", "threshold"):
        read.needless(*path, key)
    draft.prometheus.setdefault("url", "http://prometheus:9090")
    draft.prometheus.setdefault("preset", _preset(draft))


def _from_template(
    read: Reader, path: Path, name: str, over: str, reference: str, variables: Mapping[str, Any], draft: ReleaseDraft,
    templates: Sequence[Manifest], used: set[str],
) -> bool:  # fmt: skip
    """Make a value of a template's query; return whether that was possible."""
    template = next((each for each in templates if each.data.get("metadata", {}).get("name") == reference), None)
    if template is None:
        read.report((*path, "thresholdRange"), f"the MetricTemplate {reference} was not read",
                    "name its file too: `forge import canary.yaml templates.yaml`")  # fmt: skip
        return False
    source = template.data.get("spec", {})
    known = {"target": f"{draft.name}-{VERSION}", "namespace": draft.namespace, "interval": over,
             **{key: str(value) for key, value in variables.items()}}  # fmt: skip
    query = filled(str(source.get("query", "")), known)
    kind = (source.get("provider") or {}).get("type")
    if kind != "prometheus" or VERSION not in query or unfilled(query):
        why = f"comes from `{kind}`" if kind != "prometheus" else "does not say which version it asks for"
        read.report((*path, "thresholdRange"), f"the query of `{reference}` {why}",
                    f"write it as one of `values:`, with `{VERSION}` where it names the version")  # fmt: skip
        return False
    used.add(reference)
    least, most = read.peek(*path, "thresholdRange", "min"), read.peek(*path, "thresholdRange", "max")
    limits = [Limit(query, float(most))] if most is not None else []
    limits += [at_least(query, float(least))] if least is not None else []
    if address := (source.get("provider") or {}).get("address"):
        draft.prometheus["url"] = address
    for number, limit in enumerate(limits):
        own = name if number == 0 else f"{name}-least"
        draft.prometheus.setdefault("values", {})[own] = limit.query
        draft.checks.append(value_check(own, limit, over))
    return bool(limits)


def _rest(template: Manifest) -> list[Any]:
    read = Reader(template)
    for path in (("apiVersion",), ("kind",), ("metadata",), ("spec", "query"), ("spec", "provider", "type"),
                 ("spec", "provider", "address")):  # fmt: skip
        read.needless(*path)
    read.report(("spec", "provider", "secretRef"), "a login is not read from the cluster",
                "name a secret of the pipeline: `auth: {bearer: NAME}`")  # fmt: skip
    return read.finish()


def _preset(draft: ReleaseDraft) -> str:
    kind = next(iter(draft.router)) if isinstance(draft.router, dict) else ""
    return {"istio": "istio", "ingress_nginx": "ingress_nginx", "gateway_api": "envoy_gateway"}.get(kind, "plain")
