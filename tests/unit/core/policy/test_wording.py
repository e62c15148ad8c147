"""What `forge plan` says of the gates before a release, from the user's file to the words."""

from __future__ import annotations

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.outline import plan_document
from forge.core.pipeline.resolve import resolve
from forge.core.policy.wording import gate_words
from forge.model.policy import GATE_KEYS, LowBudget, ReleasePolicy, Slo
from forge.model.units import WHOLE

FILE = b"""
environments:
  production:
    target: {local: {command: ./serve}}
    policy:
      zone: Europe/Berlin
      slo: {objective: 99.9%, window: 30d}
      when_budget_low: {below: 25%, largest_step: 10%, bake: 10m}
      when_budget_empty: fixes_only
      windows: ["Mon-Fri 09:00-16:00", {cron: "0 22 * * 6", lasts: 2h, zone: UTC}]
      freezes: [{from: 2026-12-20, to: 2027-01-02, reason: holidays}, {from: "2026-11-27T18:00", to: 2026-11-30}]
      max_releases: {count: 4, per: 1h}
      approvals: {required: 2, approvers: [ada, bob], allow_self: false}
  staging:
    target: {local: {command: ./serve}}
jobs:
  release:
    steps:
      - deploy: {environment: production, fix: true}
      - deploy: staging
"""


def test_every_gate_is_told() -> None:
    plan = resolve(Sources(read(FILE, "forge/pipeline.yaml")), {})
    production, staging = [step.deploy for job in plan_document(plan).jobs for step in job.steps if step.deploy]
    assert production.gates == (
        "not from 2026-12-20 to 2027-01-03 Europe/Berlin (holidays)",
        "not from 2026-11-27 18:00 to 2026-12-01 Europe/Berlin",
        "only in Mon-Fri 09:00-16:00 Europe/Berlin or cron `0 22 * * 6` UTC for 2h",
        "at most 4 releases within 1h",
        "only fixes while the error budget is empty (99.9% over 30d)",
        "below 25% of the error budget in steps of at most 10% and 10m of watching at the end",
        "after approval of 2 people of ada, bob, not of who asked for it",
    )
    assert staging.gates == ()
    policy = plan.environment("production").policy
    assert set(policy) == {*GATE_KEYS, "max_arms", "on_overlap"}
    assert set(plan.environment("staging").policy) == {"max_arms", "on_overlap"}
    assert [step.config["fix"] for job in plan.jobs for step in job.steps] == [True, False]


def test_only_what_is_set_is_told() -> None:
    low = ReleasePolicy(slo=Slo(0.99), when_budget_low=LowBudget(0.5, None, 60.0), when_budget_empty="go_on")
    assert gate_words(low) == ("below 50% of the error budget with 1m of watching at the end",)
    assert gate_words(ReleasePolicy()) == ()
    steps = ReleasePolicy(slo=Slo(0.99), when_budget_low=LowBudget(0.5, WHOLE // 20))
    assert gate_words(steps)[1] == "below 50% of the error budget in steps of at most 5%"
