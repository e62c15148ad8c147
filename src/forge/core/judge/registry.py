"""Judges by the name that an environment's plan gives."""

from __future__ import annotations

import difflib

from forge.core.judge.base import Judge
from forge.core.judge.canary_analysis import MannWhitneyJudge
from forge.core.judge.classic import NoJudge, ThresholdJudge
from forge.core.judge.failure_limit import FailureLimitJudge
from forge.model.errors import UsageError

JUDGES: dict[str, Judge] = {
    "threshold": ThresholdJudge(),
    "failure_limit": FailureLimitJudge(),
    "mann_whitney": MannWhitneyJudge(),
    "none": NoJudge(),
}


def judge_named(name: str) -> Judge:
    """Return the judge of that name. Raises UsageError with the nearest name."""
    if name in JUDGES:
        return JUDGES[name]
    near = difflib.get_close_matches(name, JUDGES, 1)
    known = ", ".join(f"`{known}`" for known in sorted(JUDGES))
    raise UsageError(
        f"there is no judge `{name}`", hint=f"did you mean `{near[0]}`?" if near else f"the judges are {known}"
    )
