"""Warnings: what is valid but most likely not meant, or gives up safety."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from forge.core.pipeline.assemble import Assembly
from forge.core.pipeline.draft import JobDraft, Place
from forge.model.diagnostics import Diagnostic
from forge.model.units import WHOLE, format_duration, format_weight

LOOSE = 0.05


def check_prudence(assembly: Assembly) -> Iterator[Diagnostic]:
    """Yield the warnings of the whole assembly."""
    for name, (_, place) in assembly.templates.items():
        if name not in assembly.used_templates and assembly.whole:
            yield place.problem("unused-template", f"no job uses the template `{name}`", key=True, warning=True)
    for draft in assembly.jobs.values():
        yield from _times(draft)
        for step, place in zip(draft.plan.steps, draft.steps, strict=True):
            if step.kind == "deploy":
                yield from _strategy(step.config["strategy"], place / "deploy")


def _times(draft: JobDraft) -> Iterator[Diagnostic]:
    if draft.retry_place and draft.plan.retry.attempts == 1:
        hint = "the number is how often it is tried in all; `retry: 2` tries once more"
        yield draft.retry_place.problem("retry", "`retry: 1` never tries again", hint=hint, warning=True)
    limit = draft.plan.timeout
    for step, model, place in zip(draft.plan.steps, draft.models, draft.steps, strict=True):
        if model.retry is not None and model.retry.attempts == 1:
            hint = "the number is how often it is tried in all; `retry: 2` tries once more"
            yield (place / "retry").problem("retry", "`retry: 1` never tries again", hint=hint, warning=True)
        if limit is not None and step.timeout is not None and step.timeout > limit:
            message = f"this timeout is never reached: the job's is {format_duration(limit)}"
            yield (place / "timeout").problem("timeout", message, warning=True)


def _strategy(strategy: dict[str, Any], place: Place) -> Iterator[Diagnostic]:
    if strategy["max_unavailable"] > 0:
        message = "`max_unavailable` above 0 gives up capacity while the release is under way"
        hint = "`max_unavailable: 0` with `max_surge: 1` keeps every replica until its successor is ready"
        yield place.problem_at("max_unavailable", "capacity", message, hint=hint, warning=True)
    if not strategy["thresholds"]:
        hint = "remove `checks: []` for the default: more than 5% of requests answered 5xx"
        yield place.problem_at("checks", "no-checks", "nothing watches this release", hint=hint, warning=True)
    if strategy.get("adaptive"):
        yield from _adaptive(strategy["adaptive"], place)
    last = 0
    for step in strategy["steps"]:
        weight = step["weight"]
        if weight is None:
            continue
        if weight < last:
            message = f"the weight goes back from {format_weight(last)} to {format_weight(weight)}"
            yield place.problem_at("steps", "weights", message, warning=True)
        last = weight
    if last == WHOLE and strategy["steps"][-1]["weight"] != WHOLE:
        yield place.problem_at("steps", "weights", "the steps after 100% do not hold back anything", warning=True)


def _adaptive(adaptive: dict[str, Any], place: Place) -> Iterator[Diagnostic]:
    """What may be set of an adaptive canary, but makes it something else."""
    start, most = adaptive["start"], adaptive["most"]
    if start > most:
        message = f"`start` of {format_weight(start)} is never reached: `most` is {format_weight(most)}"
        yield place.problem_at("start", "weights", message, warning=True)
    if adaptive["tolerance"] >= LOOSE:
        message = (
            f"with a `tolerance` of {adaptive['tolerance'] * 100:g}% a version that fails so much more is promoted"
        )
        hint = "it is the additional error rate that must be excluded, like `0.1%`"
        yield place.problem_at("tolerance", "adaptive", message, hint=hint, warning=True)
    if adaptive["decide_within"] <= 2 * adaptive["every"]:
        message = "`decide_within` ends before the weight can change twice: a person will have to promote"
        yield place.problem_at("decide_within", "adaptive", message, warning=True)
    if adaptive["reaction"] is not None and adaptive["reaction"] >= adaptive["decide_within"]:
        message = "`reaction` is the time from an error to the traffic being gone; it is longer than `decide_within`"
        yield place.problem_at("reaction", "adaptive", message, hint="leave it out: it is measured", warning=True)
