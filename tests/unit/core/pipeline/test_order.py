"""Order, cycles and waves, against what they mean."""

from __future__ import annotations

import time
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.pipeline.order import Ancestry, cycles, topological, waves


@st.composite
def graphs(draw, *, acyclic: bool) -> dict[str, list[str]]:
    names = [f"n{index}" for index in range(draw(st.integers(0, 12)))]
    graph: dict[str, list[str]] = {}
    for index, name in enumerate(names):
        others = names[:index] if acyclic else names
        graph[name] = draw(st.lists(st.sampled_from(others), max_size=4)) if others else []
    return dict(draw(st.permutations(list(graph.items()))))


def reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += graph[name]
    return seen


@given(graphs(acyclic=True))
@settings(max_examples=60)
def test_every_name_follows_what_it_depends_on(graph: dict[str, list[str]]):
    order = topological(graph)
    assert sorted(order) == sorted(graph)
    for name, needs in graph.items():
        assert all(order.index(other) < order.index(name) for other in needs)


@given(graphs(acyclic=False))
@settings(max_examples=60)
def test_what_is_in_no_cycle_and_behind_none_is_ordered(graph: dict[str, list[str]]):
    stuck = {
        name for name in graph if any(other in reachable(graph, other) for other in {name, *reachable(graph, name)})
    }
    assert set(topological(graph)) == set(graph) - stuck


@given(graphs(acyclic=False))
@settings(max_examples=60)
def test_cycles_are_real_and_all_groups_are_told(graph: dict[str, list[str]]):
    found = cycles(graph)
    for loop in found:
        assert loop[0] == loop[-1]
        assert len(set(loop)) == len(loop) - 1
        for name, other in pairwise(loop):
            assert other in graph[name]
    looping = {name for name in graph if name in reachable(graph, name)}
    assert bool(found) == bool(looping)
    members = [name for loop in found for name in loop[:-1]]
    assert len(set(members)) == len(members)


@given(graphs(acyclic=True))
@settings(max_examples=60)
def test_no_cycle_is_found_where_there_is_none(graph: dict[str, list[str]]):
    assert cycles(graph) == []


@given(graphs(acyclic=True))
@settings(max_examples=60)
def test_ancestry_is_what_can_be_reached(graph: dict[str, list[str]]):
    ancestry = Ancestry(graph)
    for name in graph:
        assert ancestry.before(name) == reachable(graph, name)
        for other in graph:
            assert ancestry.precedes(other, name) == (other in reachable(graph, name))


@given(graphs(acyclic=True))
@settings(max_examples=60)
def test_a_wave_needs_only_the_waves_before_it(graph: dict[str, list[str]]):
    rows = waves(graph)
    level = {name: index for index, row in enumerate(rows) for name in row}
    assert sorted(level) == sorted(graph)
    for name, needs in graph.items():
        assert level[name] == 1 + max((level[other] for other in needs), default=-1)


def test_the_given_order_breaks_ties():
    assert topological({"c": [], "a": [], "b": ["c"]}) == ["c", "a", "b"]


def test_unknown_names_are_ignored():
    assert topological({"a": ["zz"]}) == ["a"]
    assert waves({"a": ["zz"]}) == [["a"]]


def test_a_chain_of_three_thousand_needs_no_recursion():
    graph = {f"n{index}": [f"n{index - 1}"] if index else [] for index in range(3_000)}
    start = time.process_time()
    assert len(topological(graph)) == len(waves(graph)) == 3_000
    assert Ancestry(graph).precedes("n0", "n2999")
    assert time.process_time() - start < 5
    looped = {**graph, "n0": ["n2999"]}
    assert len(cycles(looped)[0]) == 3_001
