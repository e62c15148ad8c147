"""Judges by the name that an environment's plan gives."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any

import msgspec

from forge.core.judge.base import Judge
from forge.core.judge.canary_analysis import AnalysisSettings, MannWhitneyJudge
from forge.core.judge.classic import NoJudge, ThresholdJudge
from forge.core.judge.failure_limit import FailureLimit, FailureLimitJudge
from forge.core.judge.sequential import SequentialJudge
from forge.core.judge.settings import SequentialSettings
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan

JUDGES: dict[str, Judge] = {
    "sequential": SequentialJudge(),
    "threshold": ThresholdJudge(),
    "failure_limit": FailureLimitJudge(),
    "mann_whitney": MannWhitneyJudge(),
    "none": NoJudge(),
}

_MADE_OF: dict[str, tuple[Any, Callable[[Any], Judge]]] = {
    "sequential": (SequentialSettings, SequentialJudge),
    "failure_limit": (FailureLimit, FailureLimitJudge),
    "mann_whitney": (AnalysisSettings, MannWhitneyJudge),
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


def judge_of(plan: EnvironmentPlan) -> Judge:
    """Return the judge of an environment as its plan sets it. Raises UsageError for what cannot be set so."""
    judge = judge_named(plan.judge)
    if not plan.judge_config:
        return judge
    if plan.judge not in _MADE_OF:
        settable = ", ".join(f"`{name}`" for name in _MADE_OF)
        raise UsageError(f"the judge `{plan.judge}` has nothing to set", hint=f"only {settable} have settings")
    kind, made = _MADE_OF[plan.judge]
    try:
        return made(msgspec.convert(plan.judge_config, kind))
    except msgspec.ValidationError as error:
        raise UsageError(f"the settings of the judge `{plan.judge}` are wrong: {error}") from None
