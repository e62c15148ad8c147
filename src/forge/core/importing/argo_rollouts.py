"""Argo Rollouts: a Rollout, with its AnalysisTemplates, as a release of Forge.

Source of the fields: the Rollout and AnalysisTemplate specifications of Argo Rollouts, argoproj.io/v1alpha1.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from forge.core.importing.draft import ReleaseDraft, Translation
from forge.core.importing.metrics import VERSION, filled, limit_of, unfilled, value_check
from forge.core.importing.reading import Manifest, Path, Reader

GATEWAY_PLUGIN = "argoproj-labs/gatewayAPI"
_CANARY: Path = ("spec", "strategy", "canary")
_BLUE_GREEN: Path = ("spec", "strategy", "blueGreen")
_SIZES = "Forge sizes the new version by its weight"


def translate_rollout(rollout: Manifest, templates: Sequence[Manifest]) -> Translation:
    """Return the release that a Rollout describes. `templates`: the AnalysisTemplates that were read with it."""
    read = Reader(rollout)
    draft = _begin(read)
    _workload(read, draft)
    known = {str(each.data.get("metadata", {}).get("name")) for each in templates}
    if read.peek(*_CANARY) is not None:
        _canary(read, draft, known)
    elif read.peek(*_BLUE_GREEN) is not None:
        _blue_green(read, draft)
    lost = read.finish()
    used = _template_names(rollout)
    for template in templates:
        if template.data.get("metadata", {}).get("name") in used:
            lost += _analysis(template, read, draft)
    return Translation(draft, tuple(lost))


def _begin(read: Reader) -> ReleaseDraft:
    for path in (("apiVersion",), ("kind",), ("metadata",)):
        read.needless(*path)
    name = str(read.peek("metadata", "name") or "service")
    draft = ReleaseDraft(name, str(read.peek("metadata", "namespace") or ""))
    draft.target = {"manifests": "k8s", "workload": f"Deployment/{name}"}
    return draft


def _workload(read: Reader, draft: ReleaseDraft) -> None:
    replicas = read.take("spec", "replicas")
    if isinstance(replicas, int):
        draft.target["replicas"] = replicas
    deadline = read.take("spec", "progressDeadlineSeconds")
    if deadline:
        draft.target["progress_deadline"] = f"{deadline}s"
    read.needless("spec", "revisionHistoryLimit")
    read.needless("spec", "progressDeadlineAbort")  # Forge always goes back then
    referred = read.take("spec", "workloadRef", "name")
    if referred:
        read.needless("spec", "workloadRef")
        draft.target["workload"] = f"Deployment/{referred}"
        draft.comments.append(f"Deployment {referred} stays as it is; delete the Rollout once Forge has adopted it")
        return
    spec = {
        key: read.take("spec", key) for key in ("selector", "template", "minReadySeconds") if read.peek("spec", key)
    }
    metadata = {key: value for key, value in read.mapping("metadata").items() if key in {"name", "namespace", "labels"}}
    if isinstance(replicas, int):
        spec["replicas"] = replicas
    draft.manifests.append({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec})
    draft.comments.append("the Rollout becomes a Deployment: `--manifests FILE` writes it; put it into k8s/")


def _canary(read: Reader, draft: ReleaseDraft, known: Collection[str]) -> None:
    service = read.take(*_CANARY, "stableService")
    if service:
        draft.target["service"] = service
    read.report(
        (*_CANARY, "canaryService"), "every version gets a Service of its own, made by Forge",
        "delete the canary Service once the Rollout is gone",
    )  # fmt: skip
    for key, name in (("maxSurge", "max_surge"), ("maxUnavailable", "max_unavailable")):
        value = read.peek(*_CANARY, key)
        if isinstance(value, int):
            draft.deploy[name] = read.take(*_CANARY, key)
        read.report(
            (*_CANARY, key), f"`{key}` is a number of replicas in Forge, not a share", f"write `{name}: 1`"
        ) if (value is not None and not isinstance(value, int)) else None
    for key in ("abortScaleDownDelaySeconds", "scaleDownDelaySeconds"):
        seconds = read.take(*_CANARY, key)
        if seconds is not None:
            draft.deploy["keep_previous"] = f"{seconds}s"
    read.needless(*_CANARY, "dynamicStableScale")
    _router(read, draft)
    steps: list[Any] = []
    for index in read.items(*_CANARY, "steps"):
        _step(read, (*_CANARY, "steps", index), draft, steps)
    if read.peek(*_CANARY, "steps") == []:
        read.needless(*_CANARY, "steps")
    draft.strategy = {"canary": {"steps": steps}} if any("weight" in step for step in steps) else "canary"
    _background(read, known)


def _router(read: Reader, draft: ReleaseDraft) -> None:
    path = (*_CANARY, "trafficRouting")
    if read.peek(*path) is None:
        draft.router = "replicas"
        return
    if (ingress := read.take(*path, "nginx", "stableIngress")) is not None:
        draft.router = {"ingress_nginx": {"ingress": ingress}}
    services: tuple[Path, ...] = (("virtualService",), ("virtualServices", 0))
    for form in services:
        if (name := read.take(*path, "istio", *form, "name")) is not None:
            settings: dict[str, Any] = {"virtual_service": str(name).partition(".")[0]}
            if routes := read.take(*path, "istio", *form, "routes"):
                settings["routes"] = routes
            draft.router = {"istio": settings}
    read.report(
        (*path, "istio", "destinationRule"), "versions have Services of their own, so subsets are not needed",
        "take the subsets of the canary out of the DestinationRule",
    )  # fmt: skip
    plugin = (*path, "plugins", GATEWAY_PLUGIN)
    forms: tuple[Path, ...] = (("httpRoute",), ("httpRoutes", 0, "name"))
    for form in forms:
        if (name := read.take(*plugin, *form)) is not None:
            draft.router = {"gateway_api": {"route": name}}
            read.needless(*plugin, "namespace")
            read.needless(*plugin, "httpRoutes", 0, "useHeaderRoutes")
    read.needless(*path, "managedRoutes")
    for other in sorted(read.mapping(*path).keys() - {"nginx", "istio", "plugins", "managedRoutes"}):
        read.report(
            (*path, other), f"Forge does not route by `{other}`",
            "use `router: {gateway_api: {route: NAME}}`, `istio` or `ingress_nginx`; without one replicas make the split",
        )  # fmt: skip
    if draft.router is None:
        draft.router = "replicas"


def _step(read: Reader, path: Path, draft: ReleaseDraft, steps: list[Any]) -> None:
    kind = next(iter(read.mapping(*path)), "")
    if kind == "setWeight":
        steps.append({"weight": f"{read.take(*path, kind)}%"})
    elif kind == "pause":
        length = read.peek(*path, "pause", "duration")
        read.needless(*path)
        steps.append({"pause": "until_resumed" if length is None else _duration(length)})
    elif kind in {"setHeaderRoute", "setMirrorRoute"}:
        _routed(read, (*path, kind), draft)
    elif kind == "analysis":
        read.report(path, "Forge judges all the time, not in a step",
                    "give the step before it a `pause` as long as the analysis")  # fmt: skip
        steps.append({"pause": "5m"})
    elif kind == "setCanaryScale":
        read.report(path, f"{_SIZES}: there is no step for its replicas", "leave it out")
    else:
        read.report(path, f"there is no step `{kind}`", "a step of the pipeline before or after the deploy can do it")


def _routed(read: Reader, path: Path, draft: ReleaseDraft) -> None:
    if (share := read.take(*path, "percentage")) is not None:
        draft.routes.append({"mirror": f"{share}%"})
    for index in read.items(*path, "match"):
        name = read.peek(*path, "match", index, "headerName")
        value = read.peek(*path, "match", index, "headerValue", "exact")
        if name is not None and value is not None:
            read.needless(*path, "match", index)
            draft.routes.append({"header": name, "value": value})
        else:
            read.report((*path, "match", index), "a route compares the whole value of one header",
                        "write `routes: [{header: NAME, value: VALUE}]`")  # fmt: skip
    read.needless(*path, "name")


def _blue_green(read: Reader, draft: ReleaseDraft) -> None:
    draft.strategy = "blue_green"
    draft.router = "replicas"
    if service := read.take(*_BLUE_GREEN, "activeService"):
        draft.target["service"] = service
    read.report((*_BLUE_GREEN, "previewService"), "every version gets a Service of its own, made by Forge",
                "`forge env show ENV` names the version's Service")  # fmt: skip
    if read.take(*_BLUE_GREEN, "autoPromotionEnabled") is False:
        draft.deploy["auto_promote"] = False
    if (delay := read.take(*_BLUE_GREEN, "scaleDownDelaySeconds")) is not None:
        draft.deploy["keep_previous"] = f"{delay}s"
    if (delay := read.take(*_BLUE_GREEN, "autoPromotionSeconds")) is not None:
        draft.deploy["bake"] = f"{delay}s"
    draft.comments.append("a blue-green release needs a router that turns everything at once: gateway_api or istio")
    for key in ("prePromotionAnalysis", "postPromotionAnalysis"):
        read.report(
            (*_BLUE_GREEN, key), "Forge judges all the time, not at one moment", "give it a `bake` to be judged in"
        )


def _background(read: Reader, known: Collection[str]) -> None:
    path = (*_CANARY, "analysis")
    for index in read.items(*path, "templates"):
        name = str(read.peek(*path, "templates", index, "templateName"))
        if name in known:
            read.needless(*path, "templates", index)
        else:
            read.report((*path, "templates", index), f"the AnalysisTemplate {name} was not read",
                        "name its file too: `forge import rollout.yaml templates.yaml`")  # fmt: skip
    read.needless(*path, "args")
    read.report((*path, "startingStep"), "Forge judges from the first request on", "leave it out")


def _template_names(rollout: Manifest) -> set[str]:
    text = json.dumps(rollout.data.get("spec", {}).get("strategy", {}))
    found: set[str] = set()

    def walk(here: Any) -> None:
        if isinstance(here, dict):
            if isinstance(here.get("templateName"), str):
                found.add(here["templateName"])
            for value in here.values():
                walk(value)
        elif isinstance(here, list):
            for value in here:
                walk(value)

    walk(json.loads(text))
    return found


def _analysis(template: Manifest, rollout: Reader, draft: ReleaseDraft) -> list[Any]:
    read = Reader(template)
    for path in (("apiVersion",), ("kind",), ("metadata",)):
        read.needless(*path)
    arguments = _arguments(read, rollout, draft)
    judge: dict[str, Any] = {}
    for index in read.items("spec", "metrics"):
        _metric(read, ("spec", "metrics", index), arguments, draft, judge)
    if judge and draft.checks:
        draft.judge = {"failure_limit": judge}
        draft.comments.append("without `judge:` Forge's own judge decides, with a stated bound on false alarms")
    return read.finish()


def _arguments(read: Reader, rollout: Reader, draft: ReleaseDraft) -> Mapping[str, str]:
    """Return the values of a template's arguments; what names the canary names every version."""
    values: dict[str, str] = {}
    canary = rollout.peek(*_CANARY, "canaryService")
    given = [rollout.peek(*_CANARY, "analysis", "args", index) for index in rollout.items(*_CANARY, "analysis", "args")]
    own = [read.take("spec", "args", index) for index in read.items("spec", "args")]
    for each in [*own, *given]:
        if not isinstance(each, dict) or "name" not in each:
            continue
        if "value" in each:
            text = str(each["value"])
            named = canary is not None and text.partition(".")[0] == canary
            values[each["name"]] = f"{draft.target.get('service', draft.name)}-{VERSION}" if named else text
        elif (each.get("valueFrom") or {}).get("podTemplateHashValue") == "Latest":
            values[each["name"]] = VERSION
    return values


def _metric(read: Reader, path: Path, values: Mapping[str, str], draft: ReleaseDraft, judge: dict[str, Any]) -> None:
    name = str(read.take(*path, "name", default="metric"))
    interval = str(read.take(*path, "interval", default="1m"))
    for key, ours in (("count", "count"), ("failureLimit", "failure_limit"), ("inconclusiveLimit", "inconclusive_limit"),
                      ("consecutiveErrorLimit", "consecutive_error_limit")):  # fmt: skip
        if isinstance(number := read.take(*path, key), int):
            judge[ours] = number
    if (delay := read.take(*path, "initialDelay")) is not None:
        judge["initial_delay"] = _duration(delay)
    judge["interval"] = _duration(interval)
    query, address = (
        read.peek(*path, "provider", "prometheus", "query"),
        read.take(*path, "provider", "prometheus", "address"),
    )
    success, failure = read.peek(*path, "successCondition"), read.peek(*path, "failureCondition")
    whole = filled(str(query or ""), values)
    limit = limit_of(whole, str(success or "")) if success else None
    hint = f"write it as one of `values:` of a `prometheus:` source, with `{VERSION}` where it names the version"
    if query is None:
        read.report(
            (*path, "provider"), f"`{name}` does not come from Prometheus", "docs/signals has the other sources"
        )
        read.report((*path, "successCondition"), f"`{name}` is not asked for", "see above")
    elif VERSION not in whole or unfilled(whole):
        read.report((*path, "provider"), f"it is not known which version the query of `{name}` asks for", hint)
        read.report((*path, "successCondition"), f"`{name}` is not asked for", "see above")
    elif limit is None:
        read.report((*path, "provider"), f"the condition of `{name}` is more than a comparison", hint)
        read.report(
            (*path, "successCondition"), "a check holds one value against one limit", "write `checks:` yourself"
        )
    else:
        read.needless(*path, "provider")
        read.needless(*path, "successCondition")
        draft.prometheus.setdefault("url", address or "http://prometheus:9090")
        draft.prometheus.setdefault("preset", "plain")
        draft.prometheus.setdefault("values", {})[name] = limit.query
        draft.checks.append(value_check(name, limit, judge["interval"]))
    if failure is not None:
        read.report((*path, "failureCondition"), "a check has one limit, not one for success and one for failure",
                    "keep the one that must roll back")  # fmt: skip


def _duration(value: Any) -> str:
    text = str(value)
    return f"{text}s" if text.isdigit() else text
