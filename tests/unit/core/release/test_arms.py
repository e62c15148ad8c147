"""The arithmetic of the traffic table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.release.arms import Goal, allocate
from forge.core.release.capacity import spread_shortage
from forge.model.units import WHOLE

READY = {"s": WHOLE, "a": WHOLE, "b": WHOLE}


@pytest.mark.parametrize(
    ("goals", "capacities", "current", "weights"),
    [
        ([], READY, {}, {"s": WHOLE}),
        ([Goal("a", 500)], READY, {"s": WHOLE}, {"s": 9500, "a": 500}),
        ([Goal("a", 500), Goal("b", 2000)], READY, {"s": WHOLE}, {"s": 7500, "a": 500, "b": 2000}),
        # An arm never gets more than its ready replicas carry.
        ([Goal("a", 5000)], READY | {"a": 2500}, {"s": WHOLE}, {"s": 7500, "a": 2500}),
        ([Goal("a", 5000)], READY | {"a": 0}, {"s": 5000, "a": 5000}, {"s": WHOLE}),
        # Everything is what the other arms leave.
        ([Goal("a", everything=True), Goal("b", 2000)], READY, {"s": WHOLE}, {"a": 8000, "b": 2000}),
        ([Goal("a", everything=True)], READY | {"a": 6667}, {"s": WHOLE}, {"s": 3333, "a": 6667}),
        # At once: all of it or no change.
        ([Goal("a", everything=True, at_once=True)], READY | {"a": 9999}, {"s": WHOLE}, {"s": WHOLE}),
        ([Goal("a", everything=True, at_once=True)], READY, {"s": WHOLE}, {"a": WHOLE}),
        # Giving back: only what stable can carry now.
        ([Goal("a")], READY, {"s": 5000, "a": 5000}, {"s": WHOLE}),
        ([Goal("a")], READY | {"s": 7500}, {"s": 5000, "a": 5000}, {"s": 7500, "a": 2500}),
        ([Goal("a")], READY | {"s": 0}, {"a": WHOLE}, {"a": WHOLE}),
        ([Goal("a")], {"s": 5000, "a": 0}, {"s": 5000, "a": 5000}, {"s": WHOLE}),
        # An arm that was not asked to grow is not made to help out.
        ([Goal("a", 500)], READY | {"s": 5000}, {"s": WHOLE}, {"s": 9500, "a": 500}),
        # Two that together want more than there is: the older first.
        ([Goal("a", 7000), Goal("b", 7000)], READY, {"s": WHOLE}, {"a": 7000, "b": 3000}),
        # Nobody is ready: nothing is changed.
        ([Goal("a", 500)], {}, {"s": WHOLE}, {"s": WHOLE}),
        # Too little for everything: every replica is loaded alike.
        ([Goal("a", everything=True)], {"s": 2500, "a": 2500}, {"s": WHOLE}, {"s": 5000, "a": 5000}),
    ],
)
def test_the_nearest_weights_that_can_be_carried(
    goals: list[Goal], capacities: dict[str, int], current: dict[str, int], weights: dict[str, int]
) -> None:
    assert allocate(goals, "s", capacities, current) == weights


def test_the_first_version_gets_everything_or_nothing() -> None:
    goal = Goal("a", everything=True, at_once=True)
    assert allocate([goal], "", {"a": 0}, {}) == {}
    assert allocate([goal], "", {"a": WHOLE}, {}) == {"a": WHOLE}
    assert allocate([Goal("a")], "", {"a": WHOLE}, {}) == {}


NAMES = ("a", "b", "c")
WEIGHTS = st.integers(0, WHOLE)


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Goal], dict[str, int], dict[str, int]]:
    goals = [Goal(name, draw(WEIGHTS)) for name in NAMES[: draw(st.integers(0, 3))]]
    if goals and draw(st.booleans()):
        goals[draw(st.integers(0, len(goals) - 1))] = Goal(
            goals[0].version, everything=True, at_once=draw(st.booleans())
        )
    goals = list({goal.version: goal for goal in goals}.values())
    capacities = {name: draw(st.sampled_from([0, 2500, 5000, WHOLE])) for name in ("s", *NAMES)}
    left, current = WHOLE, {}
    for goal in goals:
        current[goal.version] = draw(st.integers(0, left))
        left -= current[goal.version]
    return goals, capacities, {"s": left, **current}


@given(situations())
def test_whatever_is_wanted_the_table_is_whole_and_bounded(
    situation: tuple[list[Goal], dict[str, int], dict[str, int]],
) -> None:
    goals, capacities, current = situation
    weights = allocate(goals, "s", capacities, current)
    names = ["s", *(goal.version for goal in goals)]
    bounds = spread_shortage({name: capacities[name] for name in names})
    if not any(bounds.values()):
        assert weights == current
        return
    assert sum(weights.values()) == WHOLE
    assert all(weight > 0 for weight in weights.values())
    for goal in goals:
        given = weights.get(goal.version, 0)
        assert given <= bounds[goal.version]
        if not goal.everything:
            assert given <= max(goal.weight, current.get(goal.version, 0))
            if bounds["s"] >= WHOLE:
                assert given <= goal.weight


@given(situations())
def test_what_gives_back_keeps_no_more_than_stable_cannot_carry(
    situation: tuple[list[Goal], dict[str, int], dict[str, int]],
) -> None:
    goals, capacities, current = situation
    leaving = [Goal(goal.version) for goal in goals]
    weights = allocate(leaving, "s", capacities, current)
    kept = sum(weight for version, weight in weights.items() if version != "s")
    if any(capacities[name] for name in ["s", *(goal.version for goal in goals)]):
        assert kept <= max(0, WHOLE - capacities["s"])
    assert all(weights.get(goal.version, 0) <= current.get(goal.version, 0) for goal in goals)


@given(situations())
def test_allocating_twice_changes_nothing_more(situation: tuple[list[Goal], dict[str, int], dict[str, int]]) -> None:
    goals, capacities, current = situation
    once = allocate(goals, "s", capacities, current)
    assert allocate(goals, "s", capacities, once) == once
