"""The project's own policy as a story: the strategy of its last deploy step, its environment, and a mixed month."""

from __future__ import annotations

import msgspec

from forge.engine.planning import load
from forge.engine.project import Project
from forge.model.configs import DeployConfig
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Strategy
from forge.simulate.scenario import parse_story
from forge.simulate.story import Story

INSTRUCTIVE = """\
name: A month of releases
days: 30
service: {replicas: 4, requests_per_second: 100, errors: 0.1%, latency: 80ms}
traffic:
  diurnal: 40%
  clump: 3
  bursts: {every: 8h, lasts: 20s, errors: 5%}
releases:
  every: 12h
  versions:
    - {name: good, share: 70}
    - {name: slightly worse, share: 6, errors: 0.5%}
    - {name: twenty percent fail, share: 8, errors: 20%}
    - {name: everything fails, share: 4, errors: 100%}
    - {name: slow, share: 4, latency: 800ms}
    - {name: fails after a while, share: 4, errors: 10%, after: 5m}
    - {name: crashes at start, share: 4, crash_loops: true}
faults:
  - {kind: metrics_away, every: 2d, lasts: 2m}
  - {kind: replicas_lost, every: 1d, amount: 0.25}
  - {kind: router_lags, every: 2d, lasts: 10m, amount: 10}
"""


def project_policy(project: Project) -> tuple[Strategy, EnvironmentPlan]:
    """Return the strategy and the environment of the last deploy step of the project's pipeline.

    Raises UsageError when the pipeline deploys nothing, InvalidConfiguration when it cannot be read.
    """
    plan = load(project)
    for job in reversed(plan.jobs):
        for step in reversed(job.steps):
            if step.kind == "deploy":
                deploy = msgspec.convert(step.config, DeployConfig)
                return deploy.strategy, plan.environment(deploy.environment)
    raise UsageError(f"{project.pipeline} deploys nothing", hint="name a scenario: forge simulate FILE")


def instructive_story(strategy: Strategy | None = None, plan: EnvironmentPlan | None = None) -> Story:
    """Return a month of good and bad releases under a policy (without one: the default canary)."""
    if strategy is None:
        return parse_story(INSTRUCTIVE + "strategy: canary\n", "built-in scenario", None, plan)
    return parse_story(INSTRUCTIVE, "built-in scenario", strategy, plan)
