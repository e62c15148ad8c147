from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET

from bench.judge import FAULTS, HISTORY, JUDGES, NULLS, SECONDS, Cell, Row, World, drawing, plan, readings, table


def test_a_release_has_history_and_counters_that_never_fall():
    past, stable, arm = readings(Cell(0.01, 50.0, "bursts"), 1)
    assert len(past) == HISTORY
    assert len(stable) == len(arm) == SECONDS + 1
    for one in (stable, arm):
        assert all(0 <= b.errors - a.errors <= b.requests - a.requests for a, b in itertools.pairwise(one))
    assert arm[300].requests / (arm[300].requests + stable[300].requests) < 0.1


def test_clumps_spread_more_than_chance_with_the_same_mean():
    def errors(scenario):
        world = World(Cell(0.01, 1000.0, scenario), 3)
        return [world.second(t, "one", 1.0).errors for t in range(2000)]

    for scenario, least, most in (("clean", 0.8, 1.3), ("clumps", 8.0, 40.0)):
        found = errors(scenario)
        mean = sum(found) / len(found)
        assert 8 < mean < 12
        assert least < sum((one - mean) ** 2 for one in found) / len(found) / mean < most


def test_every_null_and_fault_is_measured_and_told():
    cells = plan(quick=False, scale=1.0)
    assert {cell.scenario for cell in cells if cell.fault is None} == set(NULLS)
    assert {cell.fault for cell in cells} - {None} == {fault for _, fault in FAULTS}
    rows = [Row(judge, cell, 10, 0.5, 3.0, 42.0) for cell in cells for judge in JUDGES]
    text = table(rows)
    assert all(f"| {judge} | " in text for judge in JUDGES)
    assert "50 %, 3 s, **42**" in text
    assert ET.fromstring(drawing(rows)).tag.endswith("svg")
