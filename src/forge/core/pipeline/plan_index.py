"""Lookups over a plan that every tick needs, worked out once a plan."""

from __future__ import annotations

from collections import OrderedDict

from forge.core.pipeline.wording import name_list
from forge.model.plan import JobPlan, Plan

_KEPT = 32
_known: OrderedDict[int, PlanIndex] = OrderedDict()


class PlanIndex:
    """A plan's jobs by name, and who depends on whom."""

    __slots__ = ("depends_text", "jobs", "plan")

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.jobs: dict[str, JobPlan] = {job.name: job for job in plan.jobs}
        self.depends_text = {job.name: waits_for_jobs(job) for job in plan.jobs}

    def with_dependents(self, names: set[str]) -> set[str]:
        """Return `names` and every job that depends on one of them, however far away."""
        found = set(names)
        for job in self.plan.jobs:  # in an order in which every job follows what it depends on
            if not found.isdisjoint(job.depends_on):
                found.add(job.name)
        return found


def index_of(plan: Plan) -> PlanIndex:
    """Return the plan's index, made once for as long as the same plan object is used."""
    index = _known.get(id(plan))
    if index is None or index.plan is not plan:
        index = _known[id(plan)] = PlanIndex(plan)
        while len(_known) > _KEPT:
            _known.popitem(last=False)
    return index


def waits_for_jobs(job: JobPlan) -> str:
    """Return in words what a pending job waits for."""
    if not job.depends_on:
        return "the run to start"
    return f"{name_list(job.depends_on)} to succeed"
