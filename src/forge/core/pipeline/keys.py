"""Action keys: unique in a run, readable in a log, and parsed back from outcomes.

`build#2/test#1` is attempt 1 of step `test` in attempt 2 of job `build`; `slot_ask:build@1` asks for the place
of `build` in its group during the run's first attempt; `slot_ask:@1` does so for the run as a whole;
`save_caches:build@2` keeps the caches of attempt 2 of `build`.
"""

from __future__ import annotations

from typing import NamedTuple

ASK = "slot_ask"
FREE = "slot_free"
SAVE = "save_caches"


class StepKey(NamedTuple):
    """One execution of a step."""

    job: str
    attempt: int
    step: str
    step_attempt: int

    def __str__(self) -> str:
        return f"{self.job}#{self.attempt}/{self.step}#{self.step_attempt}"


class SideKey(NamedTuple):
    """One request beside the steps; `job` is empty for the run's own place in a group.

    `attempt` is the run's for places, the job's for caches."""

    kind: str
    job: str
    attempt: int

    def __str__(self) -> str:
        return f"{self.kind}:{self.job}@{self.attempt}"


def parse(key: str) -> StepKey | SideKey | None:
    """Return what a key stands for, or None if no run has ever made such a key."""
    return _parse_step(key) or _parse_side(key)


def _parse_step(key: str) -> StepKey | None:
    rest, mark, step_attempt = key.rpartition("#")
    job_part, slash, step = rest.rpartition("/")
    job, hash_mark, attempt = job_part.rpartition("#")
    if not (mark and slash and hash_mark and attempt.isdecimal() and step_attempt.isdecimal()):
        return None
    return StepKey(job, int(attempt), step, int(step_attempt))


def _parse_side(key: str) -> SideKey | None:
    rest, mark, attempt = key.rpartition("@")
    kind, colon, job = rest.partition(":")
    if not (mark and colon and kind in {ASK, FREE, SAVE} and attempt.isdecimal()):
        return None
    return SideKey(kind, job, int(attempt))
