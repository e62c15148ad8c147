"""Asks every source of signals of an environment once, for people: does it answer, and what does it know of whom?"""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec

from forge.adapters.signals.base import QueryResult, RequestTrace, TracingSource
from forge.adapters.signals.combined import CombinedSignals
from forge.adapters.signals.proxy import OwnSignals
from forge.adapters.targets.registry import open_environment
from forge.engine.project import Project
from forge.engine.secrets import resolve_one
from forge.model.plan import EnvironmentPlan


class SourceExamined(msgspec.Struct, frozen=True):
    """What one source said to each of its queries. `gives`: what it is there for."""

    source: str
    kind: str
    gives: tuple[str, ...]
    queries: tuple[QueryResult, ...]

    @property
    def answers(self) -> bool:
        """Whether every query could be answered."""
        return all(not query.problem for query in self.queries)


async def examine_signals(
    project: Project, plan: EnvironmentPlan, versions: list[str]
) -> tuple[SourceExamined, ...]:  # fmt: skip
    """Run each query of each source of `plan` for these versions. Starts nothing, changes nothing.

    Raises UsageError for a source that is not known; what a source says is in the results.
    """
    signals = _opened(project, plan)
    kinds = {source.name: source.kind for source in plan.sources} or {plan.signals: plan.signals}
    try:
        found = await signals.examine(versions)
    finally:
        await signals.close()
    return tuple(
        SourceExamined(name, kinds.get(name, name), tuple(sorted(source.gives)), tuple(found[name]))
        for name, source in signals.sources
    )


async def find_traces(
    project: Project, plan: EnvironmentPlan, versions: list[str], start: float, end: float
) -> list[RequestTrace] | None:
    """Return requests of these versions between two times that the environment's sources know, newest first.

    None: none of the sources keeps any. Raises UsageError for a source that is not known, DependencyFailed for one
    that does not answer.
    """
    signals = _opened(project, plan)
    try:
        tracing = [source for _, source in signals.sources if isinstance(source, TracingSource)]
        if not tracing:
            return None
        asked = [source.traces(version, start, end) for source in tracing for version in versions]
        found = await asyncio.gather(*asked)
    finally:
        await signals.close()
    return sorted((trace for traces in found for trace in traces), key=lambda trace: -trace.at)


def _opened(project: Project, plan: EnvironmentPlan) -> CombinedSignals:
    secrets = partial(resolve_one, root=project.root)
    signals = open_environment(plan, project.environment_folder(plan.name), secrets=secrets).signals
    if isinstance(signals, CombinedSignals):
        return signals
    return CombinedSignals([(plan.signals, OwnSignals(signals))])
