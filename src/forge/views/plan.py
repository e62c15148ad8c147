"""What `forge plan` shows: the core's outline of a plan, and its summary in one line."""

from __future__ import annotations

from forge.core.pipeline.outline import JobOutline, PlanDocument, StepOutline, plan_document
from forge.model.plan import Plan
from forge.model.units import format_duration

__all__ = ["JobOutline", "PlanView", "StepOutline", "plan_view", "summary"]

PlanView = PlanDocument


def plan_view(plan: Plan) -> PlanView:
    """Return what to show of a plan."""
    return plan_document(plan)


def summary(view: PlanView) -> str:
    """Return `3 jobs in 2 waves, 1 gate, 1 release; at least 10m 0s`."""
    releases = sum(step.deploy is not None for job in view.jobs for step in job.steps)
    parts = [
        f"{_count(len(view.jobs), 'job')} in {_count(len(view.waves), 'wave')}",
        _count(len(view.gates), "gate"),
        _count(releases, "release"),
    ]
    least = f"; waits at least {format_duration(view.minimal_seconds)}" if view.minimal_seconds else ""
    return ", ".join(parts) + least


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
