"""`judge:` of an environment: names, settings, and words for what does not fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from forge.core.judge.registry import JUDGES, judge_of
from forge.core.pipeline import schema_judge
from forge.core.pipeline.schema_judge import JudgeModel
from forge.model.plan import EnvironmentPlan


def test_every_judge_has_a_name_in_the_file() -> None:
    assert set(schema_judge.JUDGES) == set(JUDGES)


@pytest.mark.parametrize("name", schema_judge.JUDGES)
@pytest.mark.parametrize("mapping", [False, True])
def test_by_name_or_as_a_mapping(name: str, mapping: bool) -> None:
    model = JudgeModel.model_validate({name: {}} if mapping else name)
    assert (model.name, model.config()) == (name, {})
    assert judge_of(EnvironmentPlan("production", judge=model.name, judge_config=model.config()))


def test_what_is_given_is_what_the_judge_gets() -> None:
    given: dict[str, Any] = {
        "alpha": "0.5%",
        "ratio": 1.5,
        "decide_within": "20m",
        "prove": "1%",
        "weights": {"latency": 0},
    }
    model = JudgeModel.model_validate({"sequential": given})
    assert model.config() == {
        "alpha": 0.005, "ratio": 1.5, "decide_within": 1200.0, "prove": 0.01,
        "weights": {"errors": 0.5, "latency": 0.0, "saturation": 0.1},
    }  # fmt: skip
    judge = judge_of(EnvironmentPlan("production", judge_config=model.config()))
    assert judge.settings.alpha == 0.005  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong",
    [
        "sequentail", 3, {"sequential": {}, "threshold": {}}, {"sequential": {"alpha": 0}}, {"sequential": {"ratio": 0.5}},
        {"sequential": {"alfa": 0.1}}, {"threshold": {"alpha": 0.1}},
        {"sequential": {"weights": {"errors": 0, "latency": 0, "saturation": 0}}},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        JudgeModel.model_validate(wrong)
