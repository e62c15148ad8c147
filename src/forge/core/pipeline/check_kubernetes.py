"""Deploys to a cluster: what only a run knows is filled in, and what target or router cannot do is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from forge.core.pipeline import expressions
from forge.core.pipeline.assemble import Assembly
from forge.core.pipeline.check_words import RUN_FIELDS
from forge.core.pipeline.draft import Place
from forge.core.pipeline.instances import Instance
from forge.core.pipeline.schema_base import listed
from forge.core.pipeline.schema_environment import OVERRIDES, EnvironmentModel
from forge.core.pipeline.schema_kubernetes import SOURCES
from forge.model.configs import ROUTER_CAPABILITIES, ROUTERS_OF
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.plan import JobPlan, StepPlan

WORDS = ("params", "run")
"""What expressions of an environment may name: it is the same for every job that deploys to it."""
_PRESETS = {"gateway_api": "envoy_gateway", "istio": "istio", "ingress_nginx": "ingress_nginx"}
"""What counts the requests where a router splits them."""
_STRATEGIES = {"canary": "canary", "blue_green": "blue-green"}


def with_environment_words(row: Instance, assembly: Assembly) -> Instance:
    """Return a job whose deploy steps have the images and chart settings of their environment that hold expressions."""
    steps = tuple(_with_words(step, assembly) for step in row.plan.steps)
    if all(new is old for new, old in zip(steps, row.plan.steps, strict=True)):
        return row
    plan: JobPlan = msgspec.structs.replace(row.plan, steps=steps)
    return Instance(plan, row.draft)


def _with_words(step: StepPlan, assembly: Assembly) -> StepPlan:
    environment = _environment(step, assembly)
    if environment is None or environment.target.kubernetes is None:
        return step
    target = environment.target.kubernetes.for_step(step.config["target"])
    if target is step.config["target"]:
        return step
    return msgspec.structs.replace(step, config={**step.config, "target": target})


def _environment(step: StepPlan, assembly: Assembly) -> EnvironmentModel | None:
    if step.kind != "deploy" or step.config["environment"] not in assembly.environments:
        return None
    return assembly.environments[step.config["environment"]][0]


def check_environment_words(assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield what is wrong with the expressions that environments on a cluster may have."""
    for model, place in assembly.environments.values():
        if model.target.kubernetes is None:
            continue
        for texts in model.target.kubernetes.expressions().values():
            for text in texts.values():
                yield from _words(text, assembly, place)


def _words(text: str, assembly: Assembly, place: Place) -> Iterator[Diagnostic]:
    try:
        fragments = expressions.fragments(text)
    except expressions.ExpressionError as error:
        hint = "write `$${{` for the characters themselves"
        yield place.problem_at(text[text.index("${{") :], "expression", str(error), hint=hint)
        return
    for fragment in fragments:
        problem = expressions.check(fragment)
        if problem:
            yield place.problem_at(fragment, "expression", problem)
            continue
        for path in expressions.references(fragment):
            if path[0] not in WORDS:
                message = f"an environment cannot name `{path[0]}`: it is the same for every job"
                hint = "name `params` or `run` here, or set it under `target:` of the deploy step"
                yield place.problem_at(".".join(path), "expression", message, hint=hint)
                continue
            known = tuple(assembly.parameters) if path[0] == "params" else RUN_FIELDS
            if len(path) > 1 and path[1] not in known and (path[0] == "run" or assembly.whole):
                hint = did_you_mean(path[1], known) or "declare it under `parameters:`"
                message = f"there is no `{'.'.join(path)}`"
                yield place.problem_at(".".join(path), "unknown-name", message, hint=hint)


def check_targets(row: Instance, assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield what deploy steps want of their environment's target and router that these cannot do."""
    for step, place in zip(row.plan.steps, row.draft.steps, strict=True):
        environment = _environment(step, assembly)
        if environment is None:
            continue
        where = place / "deploy"
        yield from _overrides(step.config, environment, where)
        yield from _routes(step.config["routes"], environment, where)
        if environment.target.kubernetes is not None:
            yield from _cluster(step.config, environment, where)
            if assembly.whole and not environment.measured:
                yield _unmeasured(step.config["environment"], environment, where)


def _overrides(config: dict[str, Any], environment: EnvironmentModel, place: Place) -> Iterator[Diagnostic]:
    target = environment.target.name
    for key in config["target"]:
        if key not in OVERRIDES[target] and config["target"][key]:
            message = f"the target of `{config['environment']}` is `{target}`, which has no `{key}`"
            hint = did_you_mean(key, tuple(sorted(OVERRIDES[target])))
            yield (place / "target" / key).problem("target", message, key=True, hint=hint)


def _routes(routes: list[dict[str, Any]], environment: EnvironmentModel, place: Place) -> Iterator[Diagnostic]:
    target = environment.target.name
    router = environment.router.name_for(target)
    needs = {"header": "header_routes", "cookie": "cookie_routes", "mirror": "mirror"}
    words = {
        "header": "send requests to a version by a header",
        "cookie": "send requests to a version by a cookie",
        "mirror": "mirror requests to a version",
    }
    for index, route in enumerate(routes):
        for key, capability in needs.items():
            if route[key] and capability not in ROUTER_CAPABILITIES[router]:
                able = tuple(name for name in sorted(ROUTERS_OF[target]) if capability in ROUTER_CAPABILITIES[name])
                hint = f"with the target `{target}`, {listed(able)} can" if able else ""
                where = place / "routes" / index / key
                yield where.problem("capability", f"the router `{router}` cannot {words[key]}", key=True, hint=hint)


def _cluster(config: dict[str, Any], environment: EnvironmentModel, place: Place) -> Iterator[Diagnostic]:
    model = environment.target.kubernetes
    assert model is not None
    name, strategy = config["environment"], config["strategy"]
    if not any(config["target"].get(key) or getattr(model, key) for key in SOURCES) and not config["artifact"]:
        message = f"there are no manifests to deploy to `{name}`"
        hint = "add `manifests: k8s/` to its target, or to `target:` of this step"
        yield place.problem("target", message, hint=hint, key=True)
    kind = model.workload.rpartition("/")[0]
    if kind in {"StatefulSet", "DaemonSet"} and strategy["name"] in _STRATEGIES:
        message = f"a {kind} cannot run two versions beside each other, which `{_STRATEGIES[strategy['name']]}` needs"
        hint = "write `strategy: rolling`: it goes pod by pod, and pauses at a partition"
        yield place.problem_at("strategy", "capability", message, hint=hint)


def _unmeasured(name: str, environment: EnvironmentModel, place: Place) -> Diagnostic:
    preset = _PRESETS.get(environment.router.name_for(environment.target.name), "plain")
    message = f"nothing measures what runs in `{name}`: a release goes as far as its replicas are ready"
    hint = f"add `signals: [{{prometheus: {{url: https://HOST, preset: {preset}}}}}]` to the environment"
    return place.problem("no-checks", message, hint=hint, key=True, warning=True)
