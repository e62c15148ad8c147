"""What decisions on record tell of one release."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from forge.core.release.replay import Moment, RecordedTick
from forge.core.release.state import EnvironmentState, ReleaseState, Verdict, VersionState
from forge.model.decision import Command, Decision
from forge.model.plan import EnvironmentPlan
from forge.model.strategy import Adaptive, Strategy, StrategyStep
from forge.model.traffic import Observation, ReplicaCount, TrafficTable, Version
from forge.views.explanation import Explanation, explain, narrate

STEPS = (
    StrategyStep(weight=500),
    StrategyStep(pause=100.0),
    StrategyStep(approval={"required": 1}),
    StrategyStep(weight=2500),
    StrategyStep(pause=600.0),
)
RELEASE = ReleaseState(
    "production-2", "1.1", Strategy("canary", steps=STEPS), "progressing", "ann", "run-3", 1000.0, 1000.0,
    previous="1.0", traffic_since=1000.0,
)  # fmt: skip
STABLE = VersionState(Version("1.0"), seen=ReplicaCount(2, 2, 2))
STATE = EnvironmentState(
    "production", EnvironmentPlan("production", judge="threshold"), stable="1.0", versions={"1.0": STABLE}
)


class Record:
    """Decisions on record, as many as are told."""

    def __init__(self) -> None:
        self.state = STATE
        self.moments: list[Moment] = []

    def tick(self, now: float, weights=None, observed=None, commands=(), **release) -> Record:
        known = self.state.releases.get("production-2", RELEASE)
        table = self.state.traffic if weights is None else TrafficTable({"1.1": weights, "1.0": 10_000 - weights}, 1)
        after = replace(
            self.state,
            releases={"production-2": replace(known, **release)},
            traffic=table,
            observed=self.state.observed if observed is None else {"1.1": observed, "1.0": 10_000 - observed},
        )
        tick = RecordedTick(now, Observation(now), "", tuple(commands))
        self.moments.append(Moment(1, len(self.moments), tick, self.state, Decision(after)))
        self.state = after
        return self

    def story(self, now: float = 5000.0) -> Explanation:
        story = narrate("production-2", self.moments, now)
        assert story is not None
        return story


@pytest.fixture
def record() -> Record:
    return Record()


def bad(record: Record, step: int = 1) -> Record:
    """A release that failed on a tenth of its 1,000 requests at 5 %, in 100 seconds, and went back."""
    record.tick(1000.0, weights=500)
    record.tick(1001.0, observed=500, waits_for="1m 40s at 5%", step=step, verdict=Verdict("promote", "fine"))
    verdict = Verdict("rollback", "bad", {"requests": 1000, "evidence": 120.0})
    cost = {"requests": 1000, "failed_requests": 110, "excess_failed": 100.0}
    record.tick(1100.0, weights=0, status="rolling_back", reason="bad", verdict=verdict, waits_for="", **cost)
    return record.tick(1101.0, observed=0, status="rolled_back", finished_at=1101.0)


def test_a_release_that_nobody_decided_on_has_no_story(record):
    record.tick(1.0)
    assert narrate("production-9", record.moments, 2.0) is None
    assert narrate("production-2", [], 2.0) is None


def test_who_asked_for_what_and_when(record):
    commands = [Command(1, "deploy", "ann", 999.0), Command(2, "deploy", "eve", 999.5)]
    record.tick(1000.0, commands=commands[:1])
    record.tick(1001.0, commands=[commands[1], Command(3, "pause", "bob", 1000.5, {"comment": "look first"})])
    record.tick(1002.0, commands=[Command(4, "resume", "bob", 1001.5, {"release": "production-7"})])
    told = record.story().told
    assert [(t.at, t.actor, t.command, t.comment) for t in told] == [
        (999.0, "ann", "deploy", ""),
        (1000.5, "bob", "pause", "look first"),
    ]


def test_each_weight_with_when_it_was_seen(record):
    record.tick(1000.0, weights=500).tick(1001.0, observed=0).tick(1003.0, observed=500)
    record.tick(1010.0, weights=2500).tick(1011.0)
    steps = record.story().steps
    assert [(step.at, step.weight, step.observed_at) for step in steps] == [
        (1000.0, 500, 1003.0),
        (1010.0, 2500, None),
    ]


def test_verdicts_of_one_kind_are_one_word_with_its_readings(record):
    for second in range(5):
        record.tick(1000.0 + second, verdict=Verdict("hold", f"{second} of 9"))
    record.tick(1005.0, verdict=Verdict("promote", "fine"))
    record.tick(1006.0)
    words = record.story().verdicts
    assert [(word.kind, word.why, word.readings) for word in words] == [("hold", "0 of 9", 5), ("promote", "fine", 1)]


def test_a_wait_that_counts_down_is_one_wait(record):
    record.tick(1000.0, waits_for="a first reading")
    for second in range(10):
        record.tick(1002.0 + second, waits_for=f"warming up for {10 - second}s more")
    record.tick(1012.0, waits_for="", step=1)
    waits = [(wait.what, wait.seconds) for wait in record.story().waits]
    assert waits == [("a first reading", 2.0), ("warming up for 10s more", 10.0)]


def test_the_same_words_at_another_time_are_told_once_with_all_their_seconds(record):
    for at, words in ((1000.0, "the router"), (1005.0, "replicas"), (1007.0, "the router"), (1010.0, "replicas")):
        record.tick(at, waits_for=words)
    record.tick(1014.0, waits_for="")
    assert {wait.what: wait.seconds for wait in record.story().waits} == {"the router": 8.0, "replicas": 6.0}


def test_what_decided_and_where_it_went(record):
    story = bad(record).story()
    assert story.status == "rolled_back"
    assert story.decisive is not None
    assert (story.decisive.at, story.decisive.kind, story.decisive.data["evidence"]) == (1100.0, "rollback", 120.0)
    assert story.rolled_back_to == "1.0"
    assert "2 of 2 replicas ready" in story.rolled_back_why
    assert story.harm is not None
    assert (story.harm.requests, story.harm.failed, story.harm.excess, story.harm.seconds) == (1000, 110, 100.0, 101.0)
    assert story.decisions == 4


def test_what_the_next_step_would_have_cost_is_an_estimate_from_what_was_seen(record):
    story = bad(record).story()
    guess = story.counterfactual
    assert guess is not None
    # 1,000 requests in 100 s at 5 % are 200 a second; a quarter of them for 600 s are 30,000, of which 10 % fail.
    assert (guess.weight, guess.seconds, guess.requests, guess.failed) == (2500, 600.0, 30_000, 3000)
    assert guess.rate == 0.1
    assert "25% for 10m 0s, about 3,000 more requests would have failed (an estimate" in guess.words


def test_after_the_last_step_comes_all_of_the_traffic(record):
    guess = bad(record, step=5).story().counterfactual
    assert guess is not None
    assert (guess.weight, guess.seconds, guess.failed) == (10_000, 60.0, 1200)


def test_an_adaptive_canary_would_have_gone_to_three_times_its_weight(record):
    record.tick(999.0, strategy=Strategy("canary", adaptive=Adaptive()))
    guess = bad(record).story().counterfactual
    assert guess is not None
    assert (guess.weight, guess.seconds, guess.requests, guess.failed) == (1500, 10.0, 300, 30)


@pytest.mark.parametrize(
    "fields",
    [{"status": "promoted"}, {"excess_failed": 0.0}, {"excess_failed": -3.0}, {"requests": 0}, {"traffic_since": None}],
)
def test_nothing_is_guessed_where_nothing_is_known(record, fields):
    bad(record).tick(1102.0, **fields)
    assert record.story().counterfactual is None


def test_a_release_without_traffic_cost_nothing(record):
    record.tick(1000.0, status="failed", traffic_since=None, finished_at=1000.0)
    assert record.story().harm is None


def test_without_a_record_the_state_tells_what_it_knows():
    release = replace(
        RELEASE, status="rolled_back", reason="bad", verdict=Verdict("rollback", "bad"), finished_at=1100.0
    )
    story = explain(STATE, release, 2000.0)
    assert (story.decisions, story.rolled_back_to, story.steps) == (0, "1.0", ())
    assert story.decisive is not None
    assert story.decisive.at == 1100.0


def test_a_release_under_way_says_what_it_waits_for(record):
    assert record.tick(1000.0, waits_for="1m at 5%").story().waits_for == "1m at 5%"
    assert record.tick(1001.0, status="promoted", finished_at=1001.0).story().waits_for == ""


def test_it_is_json(record):
    story = bad(record).story()
    assert msgspec.json.decode(msgspec.json.encode(story), type=Explanation) == story
