"""Pictures of a plan: nothing overlaps, every line goes forward, nothing that a name says is obeyed."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.core.pipeline.assemble import Sources
from forge.core.pipeline.document import read
from forge.core.pipeline.graph import mermaid, svg, text_tree
from forge.core.pipeline.layout import BOX_HEIGHT, place
from forge.core.pipeline.resolve import resolve
from forge.model.plan import Approval, JobPlan, Plan, Source

GOLDEN = Path(__file__).parents[3] / "golden" / "pipeline"
SVG = "{http://www.w3.org/2000/svg}"


def plan_of(dependencies: dict[str, list[str]], gates: frozenset[str] = frozenset()) -> Plan:
    jobs = tuple(
        JobPlan(name, name, (), depends_on=tuple(needs), gate=Approval() if name in gates else None)
        for name, needs in dependencies.items()
    )
    return Plan("p", jobs, Source(""))


@st.composite
def graphs(draw) -> dict[str, list[str]]:
    count = draw(st.integers(0, 14))
    names = [f"job-{index}" for index in range(count)]
    return {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True, max_size=4)) if index else []
        for index, name in enumerate(names)
    }


@given(graphs(), st.data())
@settings(max_examples=60)
def test_boxes_never_overlap_and_lines_always_go_right(graph: dict[str, list[str]], data):
    widths = {name: data.draw(st.floats(10, 400)) for name in graph}
    layout = place(graph, widths)
    assert {box.name for box in layout.boxes} == set(graph)
    boxes = {box.name: box for box in layout.boxes}
    for one in layout.boxes:
        assert one.x >= 0
        assert one.y >= 0
        assert one.x + one.width <= layout.width
        assert one.y + one.height <= layout.height
        for other in layout.boxes:
            if one is not other:
                beside = one.x + one.width <= other.x or other.x + other.width <= one.x
                above = one.y + one.height <= other.y or other.y + other.height <= one.y
                assert beside or above
    assert {(edge.start, edge.end) for edge in layout.edges} == {
        (other, name) for name, needs in graph.items() for other in needs
    }
    for edge in layout.edges:
        xs = [x for x, _ in edge.points]
        assert xs == sorted(xs)
        assert boxes[edge.start].x + boxes[edge.start].width == xs[0]
        assert xs[-1] == boxes[edge.end].x
        assert xs[0] < xs[-1]


@given(graphs())
@settings(max_examples=60)
def test_the_same_graph_gives_the_same_picture(graph: dict[str, list[str]]):
    widths = dict.fromkeys(graph, 80.0)
    assert place(graph, widths) == place(graph, widths)


@given(graphs())
@settings(max_examples=60)
def test_lines_bend_around_boxes_that_they_pass(graph: dict[str, list[str]]):
    layout = place(graph, dict.fromkeys(graph, 80.0))
    for edge in layout.edges:
        for x, y in edge.points[1:-1]:
            for box in layout.boxes:
                inside = box.x < x < box.x + box.width and box.y < y < box.y + BOX_HEIGHT
                assert not inside


def crossings(layout) -> int:
    straight = [(edge.points[0], edge.points[-1]) for edge in layout.edges]
    return sum(
        (one[0][1] - other[0][1]) * (one[1][1] - other[1][1]) < 0
        for index, one in enumerate(straight)
        for other in straight[index + 1 :]
        if one[0][0] == other[0][0] and one[1][0] == other[1][0]
    )


def test_layers_are_ordered_so_that_lines_do_not_cross():
    graph = {"a": [], "b": [], "c": [], "x": ["c"], "y": ["b"], "z": ["a"]}
    assert crossings(place(graph, dict.fromkeys(graph, 80.0))) == 0


def test_a_thousand_jobs_are_drawn():
    graph = {
        f"j{n}": [f"j{m}" for m in range((n // 10 - 1) * 10, n // 10 * 10)] if n >= 10 else [] for n in range(1000)
    }
    picture = svg(plan_of(graph))
    assert picture.count("<rect") == 1000


@pytest.mark.parametrize("name", ["seed", "full"])
@pytest.mark.parametrize("form", ["txt", "mmd", "svg"])
def test_pictures_look_as_recorded(name: str, form: str):
    text = (GOLDEN / f"{name}.yaml").read_text()
    plan = resolve(Sources(read(text, "forge/pipeline.yaml")), {"tag": "v2"} if name == "full" else {})
    draw = {"txt": text_tree, "mmd": mermaid, "svg": svg}[form]
    assert draw(plan) + "\n" == (GOLDEN / f"{name}.graph.{form}").read_text()


def test_the_tree_tells_what_else_a_job_waits_for():
    plan = plan_of({"a": [], "b": [], "c": ["a", "b"], "d": ["a"], "e": ["c", "d"]}, frozenset({"c"}))
    assert text_tree(plan).splitlines() == [
        "a",
        "└─ d",
        "   └─ e  (+ c)",
        "b",
        "└─ c  [manual]  (+ a)",
    ]


@given(graphs())
@settings(max_examples=60)
def test_every_job_is_in_the_tree_once_under_something_it_waits_for(graph: dict[str, list[str]]):
    rows = text_tree(plan_of(graph)).splitlines()
    path: list[str] = []
    seen: list[str] = []
    for row in rows:
        found = re.search(r"job-\d+", row)
        assert found
        depth = found.start() // 3
        path = [*path[:depth], found[0]]
        seen.append(found[0])
        assert (path[-2] in graph[found[0]]) if depth else not graph[found[0]]
    assert sorted(seen) == sorted(graph)


NASTY = "\"><script>alert(1)</script>&'\x1b[31m\n]}"


def test_names_are_text_and_nothing_else_in_svg():
    root = ET.fromstring(svg(plan_of({NASTY: [], "b": [NASTY]})))
    assert root.findall(f".//{SVG}script") == []
    assert len(root.findall(f".//{SVG}rect")) == 2


def test_names_are_text_and_nothing_else_in_mermaid():
    rows = mermaid(plan_of({NASTY: [], "b": [NASTY]})).splitlines()
    assert len(rows) == 4
    assert "<script" not in "".join(rows)
    assert rows[1].count('"') == 2


def test_a_gate_is_drawn_otherwise():
    plan = plan_of({"a": [], "b": ["a"]}, frozenset({"b"}))
    assert '  j1{{"b<br>manual"}}' in mermaid(plan).splitlines()
    assert 'class="box gate"' in svg(plan)
    assert "b  [manual]" in text_tree(plan)


def test_an_empty_plan_is_an_empty_picture():
    assert text_tree(plan_of({})) == ""
    assert ET.fromstring(svg(plan_of({}))).findall(f".//{SVG}rect") == []


def test_a_long_name_is_shortened_in_the_picture_and_whole_in_its_title():
    picture = svg(plan_of({"n" * 90: []}))
    assert f"<title>{'n' * 90}</title>" in picture
    assert "n" * 47 + "…</text>" in picture
