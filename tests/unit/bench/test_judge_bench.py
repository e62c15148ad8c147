from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

import pytest

from bench.judge import key, rules
from bench.judge.measuring import TABLES
from bench.judge.page import page, picture
from bench.judge.tables import Job, bounded
from bench.judge.worlds import COMPARED, HISTORY, NULLS, SECONDS, Cell, Release, World
from forge.core.judge.canary_analysis import MannWhitneyJudge
from forge.core.judge.classic import ThresholdJudge
from forge.core.judge.failure_limit import FailureLimitJudge, argo, flagger
from forge.core.judge.recorded import judge_recorded
from forge.model.strategy import Strategy, Threshold

CELLS = [Cell(0.01, 60.0, "bursts"), Cell(0.001, 200.0, fault=0.05), Cell(0.01, 100.0, "clumps")]


def test_a_release_has_history_and_counters_that_never_fall():
    release = Release(Cell(0.01, 50.0, "bursts"), 1)
    assert len(release.past) == HISTORY
    for one in (release.stable, release.arm):
        samples = one.samples(SECONDS)
        assert len(samples) == SECONDS + 1
        assert all(0 <= b.errors - a.errors <= b.requests - a.requests for a, b in itertools.pairwise(samples))
    assert release.arm.requests[300] / release.whole.requests[300] < 0.1
    assert release.stable.requests[COMPARED] == release.stable.requests[SECONDS]


def test_clumps_spread_more_than_chance_with_the_same_mean():
    def errors(scenario):
        world = World(Cell(0.01, 1000.0, scenario), 3)
        return [world.second(t, "one", 1.0).errors for t in range(2000)]

    for scenario, least, most in (("clean", 0.8, 1.3), ("clumps", 8.0, 40.0)):
        found = errors(scenario)
        mean = sum(found) / len(found)
        assert 8 < mean < 12
        assert least < sum((one - mean) ** 2 for one in found) / len(found) / mean < most


@pytest.mark.parametrize(
    ("ours", "shipped", "above", "over"),
    [
        (lambda release: rules.failures(release.arm, 0.01, 3), FailureLimitJudge(argo(60.0, None, 3)), 0.01, 60.0),
        (lambda release: rules.failures(release.arm, 0.01, 4), FailureLimitJudge(flagger(60.0, 5)), 0.01, 60.0),
        (lambda release: rules.window(release.arm, 0.05, 300), ThresholdJudge(), 0.05, 300.0),
        (rules.canary_analysis, MannWhitneyJudge(), None, 300.0),
    ],
)
@pytest.mark.parametrize("cell", CELLS)
def test_the_rules_of_others_say_what_the_shipped_ones_say(ours, shipped, above, over, cell):
    release = Release(cell, 5, history=0)
    strategy = Strategy(thresholds=(Threshold("error_rate", above, over),) if above else ())
    said = judge_recorded(shipped, release.arm.samples(COMPARED), release.stable.samples(COMPARED), strategy=strategy)
    found = ours(release)
    if said.kind == "rollback":
        assert found == said.at
    else:
        assert found is None or found > COMPARED


def test_a_window_that_is_full_waits_and_a_young_one_does_not():
    release = Release(Cell(0.001, 200.0, fault=1.0), 1, history=0)
    assert rules.window(release.arm, 0.05, 300) == 1
    assert rules.window(release.arm, 0.05, 300, full=True) == 300
    assert rules.burn_rate(release.arm) == 1


def test_an_outage_is_found_by_all_and_a_good_release_by_none_of_ours():
    bad = key.work(Job(key.FAULTS["100 %"], 0))
    assert set(bad) == set(key.NAMES)
    assert all(told.at is not None for told in bad.values())
    assert bad["Forge"].failed < bad["Argo: failureLimit 3"].failed / 10
    good = key.work(Job(Cell(0.001, 50.0), 400))
    assert good["Forge"].at is None
    assert "Forge, strict (r0 = 1)" not in good


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_told(name):
    table = TABLES[name]
    cells = table.cells(1.0)
    assert min(cells.values()) >= 30
    answer = table.work(Job(next(iter(cells)), 1))
    lines = table.told({cell: [answer] * 2 for cell in cells})
    widths = [line.count("|") for line in lines if line.startswith("|")]
    assert len(widths) > 3
    assert all(widths)
    assert table.title in page({table.title: lines}, 1.0, "a machine")


def test_the_picture_has_every_judge_fault_and_null():
    answers = {cell: [key.work(Job(key.FAULTS["20 %"], 0))] for cell in key.cells(1.0)}
    drawn = picture(*key.drawn(answers), ("Forge",))
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert all(drawn.count(f">{name.replace('>', '&gt;').replace('<', '&lt;')}<") == 9 for name in key.NAMES)
    assert all(f"rolled back, {null}" in drawn for null in NULLS)


def test_a_count_is_told_with_what_it_does_not_exclude():
    assert bounded(0, 1000) == "0 of 1,000 (≤ 0.3 %)"
    assert bounded(3, 1000) == "3 of 1,000 (≤ 0.77 %)"
