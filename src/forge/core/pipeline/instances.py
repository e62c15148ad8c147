"""Drafts become jobs: matrices are expanded, and names that others refer to are resolved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from forge.core.pipeline import expressions, leaves
from forge.core.pipeline.draft import JobDraft, Place
from forge.core.pipeline.matrix import expand, instance_name
from forge.model.diagnostics import Diagnostic
from forge.model.plan import JobPlan, Scalar, StepPlan


@dataclass(frozen=True, slots=True)
class Instance:
    """One job of the plan and the draft that it came from."""

    plan: JobPlan
    draft: JobDraft


IDENTITIES: Mapping[str, tuple[str, ...]] = {
    "publish": ("name",),
    "download": ("name",),
    "deploy": ("environment", "artifact"),
    "verify": ("environment",),
    "rollback": ("environment",),
}
"""What other jobs, or environments, are found by; it is known before the run starts."""


def instances(draft: JobDraft, parameters: Mapping[str, Scalar], problems: list[Diagnostic]) -> list[Instance]:
    """Return a draft's instances; `depends_on` still holds names of the file."""
    expansion = expand(draft.matrix)
    if expansion.problem:
        message = f"the matrix of `{draft.name}` {expansion.problem}"
        problems.append(draft.matrix_place.problem("matrix", message, hint=expansion.hint, key=True))
        return []
    for index in expansion.unused:
        place = draft.matrix_place / "exclude" / index
        problems.append(place.problem("matrix", "this `exclude` matches nothing", warning=True))
    told: set[tuple[str, int]] = set()
    return [
        Instance(_instance(draft, combination, parameters, problems, told), draft)
        for combination in expansion.combinations
    ]


def _instance(
    draft: JobDraft,
    combination: Mapping[str, Scalar],
    parameters: Mapping[str, Scalar],
    problems: list[Diagnostic],
    told: set[tuple[str, int]],
) -> JobPlan:
    resolver = _Resolver({"params": parameters, "matrix": combination}, problems, told)
    steps = tuple(resolver.step(step, place) for step, place in zip(draft.plan.steps, draft.steps, strict=True))
    changes: dict[str, Any] = {"steps": steps, "matrix": dict(combination)}
    changes["name"] = instance_name(draft.name, dict(combination))
    if draft.plan.environment:
        changes["environment"] = resolver.text(draft.plan.environment, draft.place / "environment", leaves.name)
    if draft.plan.concurrency and resolver.knows(draft.plan.concurrency.group):
        group = resolver.text(draft.plan.concurrency.group, draft.place / "concurrency", leaves.text)
        changes["concurrency"] = msgspec.structs.replace(draft.plan.concurrency, group=group)
    return msgspec.structs.replace(draft.plan, **changes)


class _Resolver:
    """Puts parameters and matrix values into names, and tells each problem of a place once."""

    def __init__(self, variables: Mapping[str, Any], problems: list[Diagnostic], told: set[tuple[str, int]]) -> None:
        self.variables = variables
        self.problems = problems
        self.told = told

    def step(self, step: StepPlan, place: Place) -> StepPlan:
        """Return the step with its names resolved."""
        changed = dict(step.config)
        for key in IDENTITIES.get(step.kind, ()):
            reader = leaves.name if key == "environment" else leaves.artifact_name
            changed[key] = self.text(changed[key], place, reader)
        if changed == step.config:
            return step
        name = step.name
        for key in IDENTITIES.get(step.kind, ()):
            if step.config[key]:
                name = name.replace(step.config[key], changed[key])
        return msgspec.structs.replace(step, config=changed, name=name)

    def knows(self, text: str) -> bool:
        """Return whether a text needs nothing that only the run knows."""
        try:
            found = expressions.fragments(text)
        except expressions.ExpressionError:
            return False
        return all(path[0] in self.variables for fragment in found for path in expressions.references(fragment))

    def text(self, text: str, place: Place, reader: Any) -> str:
        """Return a name resolved and checked."""
        if "${{" not in text:
            return text
        if not self.knows(text):
            self._tell(place, text, "this name must be known before the run starts", "use only `params` and `matrix`")
            return text
        try:
            resolved: str = reader(expressions.interpolate(text, self.variables))
            if "${{" in resolved:  # a parameter's value must not become an expression
                raise leaves.LeafError(f"cannot be {leaves.shown(resolved)}")
        except expressions.ExpressionError:
            return text  # the check of expressions tells it in full
        except leaves.LeafError as error:
            self._tell(place, text, f"this name {error}", error.hint)
            return text
        return resolved

    def _tell(self, place: Place, text: str, message: str, hint: str) -> None:
        found = place.problem_at(text, "name", message, hint=hint)
        if (found.file, found.line) not in self.told:
            self.told.add((found.file, found.line))
            self.problems.append(found)


def names_of(instances_: list[Instance]) -> Iterator[str]:
    """Yield the names of instances."""
    for instance in instances_:
        yield instance.plan.name
