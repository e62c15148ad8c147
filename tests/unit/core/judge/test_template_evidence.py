"""New kinds of error lines as evidence: what is bet, what is lost, and how often a good version is accused."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forge.core.judge.templates import (
    MOST,
    TemplateCounts,
    TemplateEvidence,
    fresh_templates,
    newest_kinds,
    templates_log_e,
    update_templates,
)


def blocks(*pairs, known=None, ratio=1.0, share=(50, 950)):
    """Play blocks of 15 s; each pair has the arm's and stable's lines by kind."""
    state = fresh_templates()
    state = update_templates(state, TemplateCounts(), TemplateCounts(), known or {}, 0.0)
    for index, (arm, stable) in enumerate(pairs, start=1):
        state = update_templates(
            state,
            TemplateCounts(share[0], arm),
            TemplateCounts(share[1], stable),
            known or {},
            15.0 * index,
            ratio=ratio,
        )
    return state


def test_nothing_written_is_no_evidence():
    assert templates_log_e(blocks(({}, {}), ({}, {}))) == pytest.approx(0.0)


def test_a_new_kind_on_the_arm_alone_multiplies_its_stake_by_one_over_the_share():
    state = blocks(({"boom": 1}, {}))
    assert math.exp(templates_log_e(state)) == pytest.approx(1 / 2 + 1 / 2 * 20)


def test_a_thousand_lines_of_one_block_are_one_draw():
    assert templates_log_e(blocks(({"boom": 1000}, {}))) == templates_log_e(blocks(({"boom": 1}, {})))


def test_three_blocks_are_enough_for_one_to_a_thousand_and_more():
    assert math.exp(templates_log_e(blocks(*[({"boom": 3}, {})] * 3))) == pytest.approx(1 / 2 + 1 / 2 * 8000)


def test_a_kind_that_stable_writes_too_loses_its_stake_for_good():
    state = blocks(({"boom": 9}, {}), ({"boom": 9}, {"boom": 1}), *[({"boom": 9}, {})] * 20)
    assert math.exp(templates_log_e(state)) == pytest.approx(1 / 2)


def test_a_kind_that_stable_had_written_before_is_not_bet_on():
    state = blocks(*[({"old": 5}, {})] * 10, known={"old": 1})
    assert templates_log_e(state) == pytest.approx(0.0)
    assert state.stakes == {}


def test_later_kinds_cost_more_so_that_many_are_no_more_likely_to_alarm():
    state = blocks(({"a": 1, "b": 1, "c": 1}, {}))
    assert math.exp(templates_log_e(state)) == pytest.approx(1 / 4 + (1 / 2 + 1 / 6 + 1 / 12) * 20)


def test_the_tolerated_ratio_makes_the_share_larger():
    state = blocks(({"boom": 1}, {}), ratio=2.0)
    assert math.exp(templates_log_e(state)) == pytest.approx(1 / 2 + 1 / 2 * (100 + 950) / 100)


def test_without_requests_of_both_nothing_is_won():
    assert templates_log_e(blocks(({"boom": 1}, {}), share=(0, 950))) == pytest.approx(0.0)
    assert templates_log_e(blocks(({"boom": 1}, {}), share=(50, 0))) == pytest.approx(0.0)


def test_the_same_reading_twice_counts_once():
    once = blocks(({"boom": 1}, {}))
    again = update_templates(once, TemplateCounts(50, {"boom": 7}), TemplateCounts(950), {}, 15.0)
    assert again == once


def test_a_change_of_weight_closes_the_block():
    state = update_templates(fresh_templates(), TemplateCounts(), TemplateCounts(), {}, 0.0)
    state = update_templates(state, TemplateCounts(50, {"x": 1}), TemplateCounts(950), {}, 1.0, close_block=True)
    assert templates_log_e(state) > 0
    assert state.arm == {}


def test_the_kinds_with_most_evidence_are_told_first():
    state = blocks(({"a": 1}, {}), ({"a": 2, "b": 1}, {}))
    assert newest_kinds(state) == [("a", 3), ("b", 1)]


def test_so_many_kinds_are_kept_and_no_more():
    state = blocks(({f"kind {index}": 1 for index in range(500)}, {}))
    assert len(state.stakes) == MOST
    assert len(msgspec.json.encode(state)) < 4000


def test_evidence_never_overflows():
    state = blocks(*[({"boom": 1}, {})] * 500)
    assert math.isfinite(templates_log_e(state))


@given(
    st.lists(
        st.tuples(
            st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
            st.dictionaries(st.sampled_from("abc"), st.integers(0, 5)),
        )
    )
)
def test_a_state_comes_back_from_json_the_same(pairs):
    state = blocks(*pairs)
    assert msgspec.json.decode(msgspec.json.encode(state), type=TemplateEvidence) == state


@pytest.mark.parametrize("share", [0.02, 0.05, 0.25, 0.5])
def test_a_good_version_is_accused_with_at_most_the_bound(share: float):
    """Kinds appear on either version by chance, in clumps of up to 30 lines that land on one of them."""
    draw = random.Random(7)
    alarms, runs, needed = 0, 600, math.log(100)
    for _ in range(runs):
        state = update_templates(fresh_templates(), TemplateCounts(), TemplateCounts(), {}, 0.0)
        rates = [draw.choice((0.02, 0.2, 1.0, 3.0)) for _ in range(12)]
        for block in range(1, 61):
            arm: dict[str, int] = {}
            stable: dict[str, int] = {}
            for kind, rate in enumerate(rates):
                clumps = sum(draw.random() < rate / 4 for _ in range(4))
                for _ in range(clumps):
                    side = arm if draw.random() < share else stable
                    side[f"kind {kind}"] = side.get(f"kind {kind}", 0) + draw.randint(1, 30)
            requests = TemplateCounts(int(10000 * share), arm), TemplateCounts(int(10000 * (1 - share)), stable)
            state = update_templates(state, *requests, {}, 15.0 * block, ratio=1.0)
        alarms += state.largest >= needed
    # 600 runs at a bound of 1 %: 14 or more would happen by chance in fewer than 1 of 200 suites.
    assert alarms <= 13
