"""Classic judges as `environments.yaml` sets them up: a bad canary goes, a good one stays, a marginal one waits."""

from __future__ import annotations

from typing import Any

import pytest
from world import Behaviour, World, canary

from forge.core.pipeline.schema_judge import JudgeModel
from forge.core.release.state import EnvironmentState
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Threshold

GOOD = Behaviour(failure_rate=0.01, latency=0.02)


def judged_by(judge: dict[str, Any], *, rps: int = 200) -> World:
    """A world at rest whose environment is set up as in a file."""
    model = JudgeModel.model_validate(judge)
    world = World(rps=rps, judge=model.name)
    world.plan = EnvironmentPlan("production", judge=model.name, judge_config=model.config())
    world.state = EnvironmentState("production", world.plan)
    world.behaviour["1.3"] = GOOD
    return world.established()


class TestFailureLimit:
    JUDGE: dict[str, Any] = {"failure_limit": {"interval": "20s", "failure_limit": 2, "inconclusive_limit": 1}}

    def released(self, how: Behaviour, *, rps: int = 200, needs: int = 10) -> World:
        world = judged_by(self.JUDGE, rps=rps)
        check = Threshold("error_rate", 0.05, 30.0, minimum_requests=needs)
        world.deploy("1.4", canary(10, 120.0, 50, 30.0, thresholds=(check,)), behaviour=how)
        return world

    def test_a_bad_canary_goes_at_the_third_look(self) -> None:
        world = self.released(Behaviour(failure_rate=0.2))
        release = world.until("rolled_back", version="1.4")
        assert "3 looks found it exceeded, and 2 are forgiven" in release.reason
        assert release.finished_at is not None
        assert release.traffic_since is not None
        assert 60 <= release.finished_at - release.traffic_since <= 90
        assert world.settle().split == {"1.3": 10_000}

    def test_a_good_canary_stays_and_two_bad_looks_are_forgiven(self) -> None:
        how = Behaviour(failure_rate=0.01)
        world = self.released(how)
        world.until("progressing", version="1.4")
        for _ in range(100):
            if world.split.get("1.4"):
                break
            world.tick()
        how.failure_rate = 0.2
        world.run(22)
        how.failure_rate = 0.01
        release = world.until("promoted", version="1.4")
        tallies = release.judge_state["tallies"]
        assert [tally["failed"] for tally in tallies] != [0]
        assert all(tally["failed"] <= 2 for tally in tallies)

    def test_one_that_hardly_anybody_calls_waits_for_a_person(self) -> None:
        """At 10 % of 10 requests a second, half a minute has 30 of them and the check needs 100."""
        world = self.released(Behaviour(failure_rate=0.2), rps=10, needs=100)
        release = world.until("paused", version="1.4")
        assert "looks found too few requests, and 1 are forgiven" in release.waits_for
        assert "a person decides" in release.waits_for
        world.send("abort")
        world.until("rolled_back", "aborted", version="1.4")


class TestMannWhitney:
    JUDGE: dict[str, Any] = {
        "mann_whitney": {
            "step": "10s", "interval": "50s", "lifetime": "150s", "marginal": 50, "pass": 95, "at_marginal": "pause",
            "weights": {"errors": 60, "latency": 40},
            "metrics": [{"name": "error_rate", "must_have_data": True}, "latency_p99"],
        }
    }  # fmt: skip

    def released(self, how: Behaviour, **changes: Any) -> World:
        world = judged_by({"mann_whitney": {**self.JUDGE["mann_whitney"], **changes}})
        world.deploy("1.4", canary(10, 200.0, 50, 30.0), behaviour=how)
        return world

    def test_a_bad_canary_goes_at_the_first_score(self) -> None:
        release = self.released(Behaviour(failure_rate=0.2)).until("rolled_back", version="1.4")
        assert "Fail, score 40 is below 50: error_rate High" in release.reason
        assert release.finished_at is not None
        assert release.traffic_since is not None
        assert 50 <= release.finished_at - release.traffic_since <= 80

    def test_a_good_canary_stays(self) -> None:
        release = self.released(Behaviour(failure_rate=0.01)).until("promoted", version="1.4")
        assert release.verdict is not None
        assert release.verdict.data["summary"] == "Pass"

    @pytest.mark.parametrize(("at_the_end", "status"), [("pause", "paused"), ("rollback", "rolled_back")])
    def test_a_marginal_one_waits_for_a_person_or_goes(self, at_the_end: str, status: str) -> None:
        """Slow, but without errors: 60 of 100."""
        world = self.released(Behaviour(failure_rate=0.01, latency=0.3), at_marginal=at_the_end)
        release = world.until("paused", "rolled_back", "promoted", version="1.4")
        assert release.status == status
        assert "Marginal, score 60" in (release.waits_for or release.reason)
        if status == "paused":
            world.send("promote", full=True)
            world.until("promoted", version="1.4")

    def test_a_critical_metric_fails_all_of_it(self) -> None:
        metrics = ["error_rate", {"name": "latency_p99", "critical": True}]
        slow = Behaviour(failure_rate=0.01, latency=0.3)
        release = self.released(slow, metrics=metrics).until("rolled_back", version="1.4")
        assert "Fail, critical: latency_p99" in release.reason

    def test_the_users_own_query_is_a_metric_like_others(self) -> None:
        metrics = [{"value": "queue", "critical": True, "must_have_data": True}]
        judge: dict[str, Any] = {"metrics": metrics, "weights": {"queue": 100}}
        full = Behaviour(failure_rate=0.01, values=(("queue", 50.0),))
        world = judged_by({"mann_whitney": {**self.JUDGE["mann_whitney"], **judge}})
        world.behaviour["1.3"] = Behaviour(failure_rate=0.01, values=(("queue", 5.0),))
        world.deploy("1.4", canary(10, 200.0), behaviour=full)
        assert "critical: value:queue" in world.until("rolled_back", version="1.4").reason
