"""The picture of a run's jobs: nothing overlaps, every line leads to the right, whatever the pipeline."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from forge.views.graph import HEIGHT, WIDTH, Graph, layout


@st.composite
def pipelines(draw: st.DrawFn) -> dict[str, list[str]]:
    names = [f"job-{number}" for number in range(draw(st.integers(0, 14)))]
    return {
        name: draw(st.lists(st.sampled_from(names[:place]), unique=True, max_size=4)) if place else []
        for place, name in enumerate(names)
    }


@given(pipelines())
def test_no_two_jobs_overlap_and_all_are_inside(jobs: dict[str, list[str]]) -> None:
    graph = layout(jobs)
    assert [node.name for node in graph.nodes] == list(jobs)
    for one, other in itertools.combinations(graph.nodes, 2):
        assert abs(one.x - other.x) >= WIDTH or abs(one.y - other.y) >= HEIGHT
    for node in graph.nodes:
        assert 0 <= node.x <= graph.width - WIDTH
        assert 0 <= node.y <= graph.height - HEIGHT


@given(pipelines())
def test_every_line_leads_to_the_right_and_hits_its_jobs(jobs: dict[str, list[str]]) -> None:
    graph = layout(jobs)
    places = {node.name: node for node in graph.nodes}
    assert {(edge.before, edge.after) for edge in graph.edges} == {
        (before, name) for name, others in jobs.items() for before in others
    }
    for edge in graph.edges:
        xs = [x for x, _ in edge.points]
        assert xs == sorted(xs)
        assert edge.points[0] == (places[edge.before].x + WIDTH, places[edge.before].y + HEIGHT // 2)
        assert edge.points[-1] == (places[edge.after].x, places[edge.after].y + HEIGHT // 2)


@given(pipelines())
def test_a_line_never_runs_through_a_job_that_it_does_not_concern(jobs: dict[str, list[str]]) -> None:
    graph = layout(jobs)
    for edge in graph.edges:
        for (x1, y1), (x2, y2) in itertools.pairwise(edge.points):
            if y1 != y2 or x2 - x1 != WIDTH:
                continue  # between columns there are no jobs
            assert not any(node.x == x1 and node.y <= y1 <= node.y + HEIGHT for node in graph.nodes)


def crossings(graph: Graph) -> int:
    gaps: dict[int, list[tuple[int, int]]] = {}
    for edge in graph.edges:
        for (x1, y1), (x2, y2) in itertools.pairwise(edge.points):
            if x2 - x1 != WIDTH:
                gaps.setdefault(x1, []).append((y1, y2))
    return sum(
        (a1 - b1) * (a2 - b2) < 0 for lines in gaps.values() for (a1, a2), (b1, b2) in itertools.combinations(lines, 2)
    )


def test_lines_that_need_not_cross_do_not() -> None:
    twisted = {"a": [], "b": [], "c": [], "x": ["c"], "y": ["b"], "z": ["a"]}
    assert crossings(layout(twisted)) == 0
    diamond = {"build": [], "unit": ["build"], "e2e": ["build"], "ship": ["unit", "e2e", "build"]}
    assert crossings(layout(diamond)) == 0


def test_what_is_not_there_or_goes_in_a_circle_is_no_harm() -> None:
    graph = layout({"a": ["b", "gone", "a"], "b": ["a"]})
    assert {node.name for node in graph.nodes} == {"a", "b"}
    assert len(graph.edges) == 1
    assert layout({}).nodes == ()
