"""Where a rollback goes, and why: a decision table."""

from __future__ import annotations

import pytest

from forge.core.release.rollback import choose_target
from forge.core.release.state import EnvironmentState, VersionState
from forge.model.plan import EnvironmentPlan
from forge.model.traffic import ReplicaCount, Version

WARM = ReplicaCount(2, 2, 2)
COLD = ReplicaCount(0, 0, 0)


def environment(previous: dict[str, VersionState]) -> EnvironmentState:
    versions = {"1.5": VersionState(Version("1.5")), **previous}
    return EnvironmentState("production", EnvironmentPlan("production"), "1.5", tuple(previous), versions)


def was(name: str, seen: ReplicaCount | None = None, faulted: str = "") -> VersionState:
    return VersionState(Version(name), seen=seen, faulted=faulted)


@pytest.mark.parametrize(
    ("previous", "to", "version", "why"),
    [
        ({}, "", "", "there is no earlier version to go back to from 1.5"),
        ({"1.4": was("1.4", WARM)}, "", "1.4", "1.4 was stable before 1.5 and is still warm (2 of 2 replicas ready)"),
        ({"1.4": was("1.4", COLD)}, "", "1.4", "1.4 was stable before 1.5 and has to be started first"),
        ({"1.4": was("1.4")}, "", "1.4", "1.4 was stable before 1.5 and has to be started first"),
        (
            {"1.4": was("1.4", faulted="5xx"), "1.3": was("1.3")}, "", "1.3",
            "1.3 was stable before 1.5 and has to be started first; skipped 1.4, rolled back before",
        ),
        (
            {"1.4": was("1.4", faulted="5xx")}, "", "",
            "every earlier version was rolled back itself (1.4); name one with `to`",
        ),
        ({"1.4": was("1.4", faulted="5xx")}, "1.4", "1.4", "1.4 was asked for and has to be started first"),
        ({"1.4": was("1.4"), "1.3": was("1.3", WARM)}, "1.3", "1.3",
         "1.3 was asked for and is still warm (2 of 2 replicas ready)"),
        ({"1.4": was("1.4")}, "0.9", "",
         "0.9 was never stable in production, or too long ago; versions to go back to: 1.4"),
        ({}, "0.9", "", "0.9 was never stable in production, or too long ago; versions to go back to: none"),
    ],
)  # fmt: skip
def test_the_choice_and_its_reason(previous: dict[str, VersionState], to: str, version: str, why: str) -> None:
    target = choose_target(environment(previous), to)
    assert (target.version, target.why) == (version, why)
