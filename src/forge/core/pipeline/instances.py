"""Drafts become jobs: matrices are expanded, and names that others refer to are resolved."""

from __future__ import annotations

from collections.abc import Mapping
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


MAX_FOLDER = 240
"""A job has a folder of its name, and file systems take 255 bytes."""
_SHOWN_HINT = "only `params` and `matrix` are known when names and messages are made"
IDENTITIES: Mapping[str, tuple[str, ...]] = {
    "publish": ("name",),
    "download": ("name",),
    "deploy": ("environment", "artifact"),
    "verify": ("environment",),
    "rollback": ("environment",),
    "job": ("environment",),
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
    steps = tuple(
        resolver.step(step, place, named=bool(model.name))
        for step, place, model in zip(draft.plan.steps, draft.steps, draft.models, strict=True)
    )
    changes: dict[str, Any] = {"steps": steps, "matrix": dict(combination)}
    changes["name"] = instance_name(draft.name, dict(combination))
    if _folder_length(changes["name"]) > MAX_FOLDER:
        place = draft.matrix_place if combination else draft.place
        message = f"{leaves.shown(changes['name'])} is too long for a job's name"
        problems.append(place.problem("name", message, hint="its folder is called so; use shorter values", key=True))
    if draft.plan.gate:
        message = resolver.fill(draft.plan.gate.message, draft.place / "trigger")
        changes["gate"] = msgspec.structs.replace(draft.plan.gate, message=message)
    if draft.plan.environment:
        changes["environment"] = resolver.text(draft.plan.environment, draft.place / "environment", leaves.name)
    if draft.plan.concurrency and resolver.knows(draft.plan.concurrency.group):
        group = resolver.text(draft.plan.concurrency.group, draft.place / "concurrency", leaves.text)
        changes["concurrency"] = msgspec.structs.replace(draft.plan.concurrency, group=group)
    return msgspec.structs.replace(draft.plan, **changes)


def _folder_length(name: str) -> int:
    """Return how long the name is as a folder's, where unusual letters are escaped."""
    return sum(1 if letter < 128 and chr(letter).isalnum() else 3 for letter in name.encode())


class _Resolver:
    """Puts parameters and matrix values into names, and tells each problem of a place once."""

    def __init__(self, variables: Mapping[str, Any], problems: list[Diagnostic], told: set[tuple[str, int]]) -> None:
        self.variables = variables
        self.problems = problems
        self.told = told

    def step(self, step: StepPlan, place: Place, *, named: bool) -> StepPlan:
        """Return the step with its names resolved."""
        changed = dict(step.config)
        if step.kind == "approve":
            approval = changed["approval"]
            changed["approval"] = {**approval, "message": self.fill(approval["message"], place)}
        for key in IDENTITIES.get(step.kind, ()):
            reader = leaves.name if key == "environment" else leaves.artifact_name
            changed[key] = self.text(changed[key], place, reader)
        name = step.name
        for key in IDENTITIES.get(step.kind, ()):
            if step.config[key]:
                name = name.replace(step.config[key], changed[key])
        name = self.fill(name, place, quiet=not named)
        return msgspec.structs.replace(step, config=changed, name=name)

    def fill(self, text: str, place: Place, *, quiet: bool = False) -> str:
        """Return text for people with what is known before the run; the rest is shown as it is written."""

        def value(expression: str) -> str:
            fragment = f"${{{{ {expression} }}}}"
            if not self.knows(fragment):
                if quiet:
                    return fragment
                message = f"`{expression}` is shown as it is written here"
                found = place.problem_at(expression, "expression", message, hint=_SHOWN_HINT, warning=True)
                self._once(found)
                return fragment
            try:
                return expressions.interpolate(fragment, self.variables)
            except expressions.ExpressionError:
                return fragment  # the check of expressions tells it in full

        return expressions.replace_fragments(text, value) if "${{" in text else text

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
        self._once(place.problem_at(text, "name", message, hint=hint))

    def _once(self, found: Diagnostic) -> None:
        if (found.file, found.line) not in self.told:
            self.told.add((found.file, found.line))
            self.problems.append(found)
