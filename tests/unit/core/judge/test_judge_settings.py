"""What an environment's plan may set of the classic judges."""

from __future__ import annotations

from typing import Any

import pytest

from forge.core.judge.canary_analysis import MannWhitneyJudge
from forge.core.judge.failure_limit import FailureLimitJudge
from forge.core.judge.registry import judge_of
from forge.model.errors import UsageError
from forge.model.plan import EnvironmentPlan


def test_a_failure_limit_is_set() -> None:
    plan = EnvironmentPlan("p", judge="failure_limit", judge_config={"interval": 30, "failure_limit": 3, "count": 10})
    judge = judge_of(plan)
    assert isinstance(judge, FailureLimitJudge)
    assert (judge.settings.interval, judge.settings.failure_limit, judge.settings.count) == (30, 3, 10)


def test_a_canary_analysis_is_set() -> None:
    metric = {"name": "error_rate", "groups": ["errors"], "critical": True, "effect": {"allowed_increase": 1.2}}
    config = {"step": 30, "interval": 120, "lifetime": 600, "metrics": [metric], "weights": {"errors": 100}}
    judge = judge_of(EnvironmentPlan("p", judge="mann_whitney", judge_config=config))
    assert isinstance(judge, MannWhitneyJudge)
    assert judge.settings.metrics[0].effect.allowed_increase == 1.2


@pytest.mark.parametrize(
    ("judge", "config", "words"),
    [
        ("failure_limit", {"intervall": 30}, "intervall"),
        ("failure_limit", {"interval": 0}, "`interval` is more than 0 seconds, not 0"),
        ("failure_limit", {"count": 0}, "`count` is at least 1, not 0"),
        ("failure_limit", {"failure_limit": -2}, "or -1 to forgive all"),
        ("mann_whitney", {"step": 0}, "`step` is more than 0"),
        ("mann_whitney", {"interval": 1000}, "`lifetime` at least `interval`"),
        ("mann_whitney", {"marginal": 99}, "`marginal` is at most `passing`"),
        ("mann_whitney", {"metrics": [{"name": "error_rat"}]}, "there is no metric error_rat"),
        ("mann_whitney", {"metrics": [{"name": "error_rate", "criticall": True}]}, "criticall"),
        ("mann_whitney", {"weights": {"nothing": 10}}, "`weights` are of errors, latency"),
        ("mann_whitney", {"weights": {"errors": 110}}, "sum to at most 100"),
        ("threshold", {"alpha": 0.1}, "the judge `threshold` has nothing to set"),
    ],
)
def test_wrong_settings_are_told(judge: str, config: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="judge") as caught:
        judge_of(EnvironmentPlan("p", judge=judge, judge_config=config))
    assert words in str(caught.value)
