"""Checks every expression of a job: it compiles, names only what is there, and cannot inject code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from forge.core.pipeline import expressions
from forge.core.pipeline.draft import JobDraft, Place, draft_steps
from forge.core.pipeline.schema_pipeline import TemplateModel
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.plan import Parameter, StepPlan

RUN_FIELDS = ("id", "actor", "commit", "ref", "attempt")
RESULT_FIELDS = ("status", "outputs")
_FROM_OUTSIDE = {("run", "ref"), ("run", "actor")}
"""Chosen by whoever pushes or starts; a branch may be named `$(reboot)`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What the expressions of one job may name."""

    params: Mapping[str, Parameter]
    env: frozenset[str]
    matrix: frozenset[str]
    inputs: Mapping[str, Parameter]
    jobs: frozenset[str]
    """All jobs of the pipeline."""
    upstream: frozenset[str]
    """The ones that are done when this one begins."""
    steps: frozenset[str] = field(default_factory=frozenset)


def check_job(draft: JobDraft, scope: Scope) -> Iterator[Diagnostic]:
    """Yield what is wrong with the expressions of a job and its steps."""
    frame = msgspec.structs.replace(draft.plan, steps=())
    if draft.plan.when:
        yield from _expression(draft.plan.when, scope, draft.place / "when")
    for text in texts({**msgspec.to_builtins(frame), "when": "", "name": "", "base": ""}):
        yield from _text(text, scope, draft.place)
    if "${{" in draft.plan.shell:
        yield _shell(draft.place)
    done: set[str] = set()
    for step, place in zip(draft.plan.steps, draft.steps, strict=True):
        yield from _step(step, place, replace(scope, steps=frozenset(done)))
        done |= {step.id, step.name}


def check_template(template: TemplateModel, place: Place) -> Iterator[Diagnostic]:
    """Yield what is wrong with a template whoever uses it: expressions, and parameters that it does not declare."""
    known = tuple(template.parameters)
    steps, places, _ = draft_steps(template, place)
    for step, where in zip(steps, places, strict=True):
        for expression in _step_expressions(step):
            problem = expressions.check(expression)
            if problem:
                yield where.problem_at(expression, "expression", problem, hint=_hint_for(expression))
                continue
            for path in expressions.references(expression):
                if path[0] == "params" and len(path) > 1 and path[1] not in known:
                    hint = did_you_mean(path[1], known) or "declare it under the template's `parameters:`"
                    yield where.problem_at(".".join(path), "unknown-name", f"there is no `{'.'.join(path)}`", hint=hint)


def _step_expressions(step: StepPlan) -> Iterator[str]:
    if step.when:
        yield step.when
    for text in texts({**msgspec.to_builtins(step), "name": "", "when": ""}):
        try:
            yield from expressions.fragments(text)
        except expressions.ExpressionError:
            continue  # told where the template is used, and by its own name otherwise


def _step(step: StepPlan, place: Place, scope: Scope) -> Iterator[Diagnostic]:
    scope = replace(scope, env=scope.env | step.env.keys())
    if step.when:
        yield from _expression(step.when, scope, place / "when")
    data = msgspec.to_builtins(step)
    for key in ("when", "name" if step.kind == "run" else "when"):
        data[key] = ""
    for text in texts(data):
        yield from _text(text, scope, place)
    if "${{" in step.shell:
        yield _shell(place)
    if step.kind == "run":
        yield from _injections(step.config["script"], scope, place)


def texts(value: Any) -> Iterator[str]:
    """Yield every text inside plain data that may hold an expression."""
    if isinstance(value, str):
        if "${{" in value:
            yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from texts(item)


def _shell(place: Place) -> Diagnostic:
    hint = "choose between steps with `when`"
    return place.problem_at("shell", "expression", "`shell` cannot have expressions", hint=hint)


def _text(text: str, scope: Scope, place: Place) -> Iterator[Diagnostic]:
    try:
        found = expressions.fragments(text)
    except expressions.ExpressionError as error:
        hint = "write `$${{` for the characters themselves"
        yield place.problem_at("${{", "expression", str(error), hint=hint)
        return
    for fragment in found:
        yield from _expression(fragment, scope, place, fragment or " ")


def _expression(expression: str, scope: Scope, place: Place, fragment: str = "") -> Iterator[Diagnostic]:
    problem = expressions.check(expression) if fragment else expressions.check_condition(expression)
    if problem:
        hint = _hint_for(expression)
        at = expression.strip() or "${{"
        yield place.problem_at(at, "expression", problem, hint=hint)
        return
    for path in expressions.references(expression):
        told = _reference(path, scope)
        if told:
            yield place.problem_at(".".join(path), "unknown-name", told[0], hint=told[1])


def _hint_for(expression: str) -> str:
    if "secrets." in expression:
        return 'declare it under `secrets:` and use "$NAME" in the script'
    if "=" in expression and "==" not in expression and not any(sign in expression for sign in ("<=", ">=", "!=")):
        return "compare with `==`"
    if " and " in expression or " or " in expression:
        return "write `&&` for and, `||` for or, `!` for not"
    return ""


def _reference(path: tuple[str, ...], scope: Scope) -> tuple[str, str] | None:
    """Return (message, hint) when a name leads nowhere."""
    root = path[0]
    if len(path) == 1:
        return None
    name = path[1]
    flat: dict[str, Iterable[str]] = {
        "params": scope.params,
        "env": scope.env,
        "matrix": scope.matrix,
        "inputs": scope.inputs,
        "run": RUN_FIELDS,
    }
    if root in flat:
        known = tuple(flat[root])
        if name in known or (root == "env" and name.startswith("FORGE_")):
            return None
        return f"there is no `{root}.{name}`", did_you_mean(name, known) or _nothing(root)
    if root == "jobs":
        if name not in scope.jobs:
            return f"there is no job `{name}`", did_you_mean(name, tuple(scope.jobs))
        if name not in scope.upstream:
            return f"the job `{name}` may not be done yet", "add it to `depends_on` to use what it gives"
    elif name not in scope.steps:
        return f"no step before this one is called `{name}`", did_you_mean(
            name, tuple(scope.steps)
        ) or "give one an `id`"
    if len(path) > 2 and path[2] not in RESULT_FIELDS:
        return f"`{'.'.join(path[:2])}` has no `{path[2]}`", did_you_mean(path[2], RESULT_FIELDS)
    return None


def _nothing(root: str) -> str:
    return {
        "params": "declare it under `parameters:`",
        "env": "only variables from `env:` are known here; a script sees all of them",
        "matrix": "the job has no such axis",
        "inputs": "declare it under `trigger: {manual: {inputs: ...}}`",
    }.get(root, "")


def _injections(script: str, scope: Scope, place: Place) -> Iterator[Diagnostic]:
    """A value that somebody types would be run as code: it must come as an environment variable."""
    try:
        found = expressions.fragments(script)
    except expressions.ExpressionError:
        return
    for fragment in found:
        for path in expressions.references(fragment):
            declared = {"params": scope.params, "inputs": scope.inputs}.get(path[0], {})
            parameter = declared.get(path[1]) if len(path) > 1 else None
            if parameter is not None and parameter.type == "string":
                prefix = "FORGE_PARAM_" if path[0] == "params" else "FORGE_INPUT_"
                message = f"`{'.'.join(path)}` is text that somebody types; in a script it would be run as code"
                hint = f'use the environment variable: "${prefix}{path[1].upper()}"'
                yield place.problem_at(fragment, "script-injection", message, hint=hint)
            elif path[:2] in _FROM_OUTSIDE or (path[0] in {"jobs", "steps"} and path[2:3] == ("outputs",)):
                message = f"`{'.'.join(path)}` comes from outside the file; in a script it would be run as code"
                hint = f'set `env: {{VALUE: "${{{{ {fragment} }}}}"}}` and use "$VALUE"'
                yield place.problem_at(fragment, "script-injection", message, hint=hint, warning=True)
