"""Regions of releases: a pure fold of the log, whatever its order of reading, and their delivery."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.notify.regions import Drawing, Happened, drawn, under_way
from forge.core.notify.telling import NotifierState, Seen, Told, decide
from forge.model.decision import Outcome
from forge.model.plan import NotifierPlan

STEPS = ["release_started", "release_weight", "release_paused", "command_resume", "release_promoting",
         "release_baking", "release_rolling_back", "release_waits_for_approval"]  # fmt: skip
ENDS = ["release_promoted", "release_rolled_back", "release_aborted", "release_failed", "release_superseded"]
GRAFANA, OTHER = NotifierPlan("grafana", "grafana"), NotifierPlan("grafana", "second")


def canary() -> list[Happened]:
    told = [
        ("release_accepted", {"version": "2"}), ("release_started", {"version": "2"}),
        ("release_weight", {"weight": 500}), ("release_paused", {}), ("command_resume", {}),
        ("release_weight", {"weight": 5000}), ("release_promoting", {}), ("release_promoted", {}),
    ]  # fmt: skip
    return [
        Happened(seq, 100.0 + seq, kind, f"{kind}.", {"release": "production-1", **data})
        for seq, (kind, data) in enumerate(told, 1)
    ]


def test_a_canary_is_a_region_for_each_step() -> None:
    drawing = drawn(Drawing(), canary())
    assert [(region.step, region.began, region.ended) for region in drawing.regions] == [
        ("starting", 102, 103), ("weight 5%", 103, 104), ("paused", 104, 105), ("weight 5%", 105, 106),
        ("weight 50%", 106, 107), ("promoting", 107, 108), ("promoted", 108, 108),
    ]  # fmt: skip
    assert {region.version for region in drawing.regions} == {"2"}
    assert not under_way(drawing)


@st.composite
def logs(draw: st.DrawFn) -> list[Happened]:
    kinds = draw(st.lists(st.tuples(st.sampled_from([*STEPS, *ENDS, "traffic"]), st.sampled_from("abc")), max_size=40))
    at, events = 100.0, []
    for seq, (kind, release) in enumerate(kinds, 1):
        at += draw(st.floats(-1, 5))
        data = {"release": release, "version": release, "weight": draw(st.integers(0, 10000))}
        events.append(Happened(seq, at, kind, kind, data))
    return events


@given(logs(), st.data())
@settings(deadline=None, max_examples=150)
def test_reading_in_pieces_and_again_draws_the_same(log: list[Happened], data: st.DataObject) -> None:
    whole = drawn(Drawing(), log)
    cut = data.draw(st.integers(0, len(log)))
    back = data.draw(st.integers(0, cut))
    assert drawn(drawn(Drawing(), log[:cut]), log[back:]) == whole
    assert len({region.key for region in whole.regions}) == len(whole.regions)
    for release in "abc":
        own = [region for region in whole.regions if region.release == release]
        assert sum(region.ended is None for region in own) <= 1
        assert all(region.ended is None or region.ended >= region.began for region in own)
        # one step ends when the next begins, unless the clock was set back
        for before, after in itertools.pairwise(own):
            assert before.ended is not None
            assert before.ended == max(after.began, before.began) or before.step in {
                e[8:].replace("_", " ") for e in ENDS
            }


class Place:
    """A notifier that fails as it is told to, and never takes a thing twice."""

    def __init__(self) -> None:
        self.opened: dict[str, float | None] = {}

    def answer(self, action, fails: str) -> Outcome:
        if fails:
            return Outcome(action.key, fails, 0.0, "away")
        region = action.payload["region"]
        if action.kind == "open":
            assert region["key"] not in self.opened, "told twice"
            self.opened[region["key"]] = region["ended"]
            return Outcome(action.key, "succeeded", 0.0, data={"id": "7", "closed": region["ended"] is not None})
        assert region["key"] in self.opened
        self.opened[region["key"]] = region["ended"]
        return Outcome(action.key, "succeeded", 0.0, data={"id": "7", "closed": True})


@given(logs(), st.lists(st.sampled_from(["", "", "error"]), max_size=60), st.data())
@settings(deadline=None, max_examples=100)
def test_every_region_is_told_whatever_fails_in_between(log, failures, data) -> None:
    places = {"grafana": Place(), "second": Place()}
    state = NotifierState("production", "env-1", (GRAFANA, OTHER))
    now, outcomes, left = 0.0, (), list(failures)
    rest = list(log)
    for _ in range(400):
        size = data.draw(st.integers(0, 3)) if rest and left else len(rest)
        events, rest = tuple(rest[:size]), rest[size:]
        decision = decide(state, Seen(events), outcomes, now)
        state = decision.state
        assert decision.wake_at is not None
        outcomes = tuple(
            places[action.payload["notifier"]].answer(action, left.pop() if left else "") for action in decision.actions
        )
        if not outcomes and not rest and not state.waiting:
            break
        now = max(now + 0.1, decision.wake_at if not outcomes else 0.0)
    whole = {region.key: region.ended for region in drawn(Drawing(), log).regions}
    assert places["grafana"].opened == whole
    assert places["second"].opened == whole
    assert all(region.ended is None for region in state.drawing.regions)


def test_a_notifier_that_is_away_is_asked_less_and_less_and_told_of_once() -> None:
    state = NotifierState("production", "env-1", (GRAFANA,))
    decision = decide(state, Seen(tuple(canary())), (), 0.0)
    asked, now, events = [], 0.0, []
    for _ in range(12):
        outcomes = tuple(Outcome(action.key, "error", now, "refused") for action in decision.actions)
        decision = decide(decision.state, Seen(), outcomes, now)
        events += decision.events
        now = max(health.again_at for health in decision.state.health.values())
        decision = decide(decision.state, Seen(), (), now)
        asked.append((now, len(decision.actions)))
    assert all(count == 1 for _, count in asked)
    pauses = [after[0] - before[0] for before, after in itertools.pairwise(asked)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 300
    assert [event.kind for event in events] == ["notifier_away"]


def test_what_is_refused_for_good_is_told_once_and_given_up() -> None:
    state = NotifierState("production", "env-1", (GRAFANA,))
    decision, events, actions = decide(state, Seen(tuple(canary())), (), 0.0), [], 0
    while decision.actions:
        actions += len(decision.actions)
        outcomes = tuple(Outcome(action.key, "failed", 0.0, "answered 400") for action in decision.actions)
        decision = decide(decision.state, Seen(), outcomes, 0.0)
        events += decision.events
    assert actions == 7  # each region once
    assert [event.kind for event in events] == ["notifier_refused"]
    assert decision.state.drawing.regions == ()
    assert not decision.state.waiting


def test_who_is_not_named_any_more_is_not_waited_for() -> None:
    state = decide(NotifierState("p", "env-1", (GRAFANA, OTHER)), Seen(tuple(canary())), (), 0.0).state
    state = decide(state, Seen((), (OTHER,)), (), 1.0).state
    assert set(state.told) == {"second"}
    assert all(isinstance(told, Told) for told in state.told["second"].values())
    state = decide(state, Seen((), ()), (), 2.0).state
    assert not state.waiting
    assert state.drawing.regions == ()
