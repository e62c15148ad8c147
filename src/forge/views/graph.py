"""A run's jobs as a picture: each in a column after all that it waits for, lines that cross as rarely as is cheap.

The layered way of Sugiyama, Tagawa and Toda (1981): columns by the longest path, places passed through by long edges,
order within a column by the median of the neighbours, swept forth and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

WIDTH, HEIGHT = 170, 48
GAP_X, GAP_Y = 56, 18
MARGIN = 8
SWEEPS = 8


class Node(msgspec.Struct, frozen=True):
    """A job: its box, in pixels; `column` counts from 0."""

    name: str
    x: int
    y: int
    column: int


class Edge(msgspec.Struct, frozen=True):
    """From a job to one that waits for it; `points` are passed one after another, in pixels."""

    before: str
    after: str
    points: tuple[tuple[int, int], ...]


class Graph(msgspec.Struct, frozen=True):
    """A picture of so many pixels."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


_Spot = tuple[str, str, int]
"""A place in a column: a job (name, "", column), or where an edge passes through it (before, after, column)."""


def layout(depends_on: Mapping[str, Sequence[str]]) -> Graph:
    """Return the picture of jobs and what each waits for. What is named but not there is left out; a circle, which a
    checked plan has not, is cut where it closes."""
    known = {name: [other for other in dict.fromkeys(others) if other in depends_on and other != name]
             for name, others in depends_on.items()}  # fmt: skip
    columns = _columns(known)
    layers, links = _layers(known, columns)
    _sort(layers, links)
    tallest = max((len(layer) for layer in layers), default=0)
    places: dict[_Spot, tuple[int, int]] = {}
    for number, layer in enumerate(layers):
        top = MARGIN + (tallest - len(layer)) * (HEIGHT + GAP_Y) // 2
        for row, spot in enumerate(layer):
            places[spot] = (MARGIN + number * (WIDTH + GAP_X), top + row * (HEIGHT + GAP_Y))
    nodes = tuple(Node(name, *places[name, "", columns[name]], columns[name]) for name in depends_on)
    edges = tuple(
        Edge(before, name, _points(before, name, columns, places)) for name, others in known.items() for before in others
        if columns[before] < columns[name]
    )  # fmt: skip
    width = 2 * MARGIN + len(layers) * WIDTH + max(0, len(layers) - 1) * GAP_X
    height = 2 * MARGIN + tallest * HEIGHT + max(0, tallest - 1) * GAP_Y
    return Graph(width, height, nodes, edges)


def _columns(depends_on: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Return each job's column: one more than that of the last of those that it waits for."""
    columns: dict[str, int] = {}
    waiting = dict(depends_on)
    while waiting:
        free = [name for name, others in waiting.items() if all(other in columns for other in others)]
        for name in free or [next(iter(waiting))]:
            columns[name] = max((columns[other] + 1 for other in waiting[name] if other in columns), default=0)
            del waiting[name]
    return columns


def _layers(
    depends_on: Mapping[str, Sequence[str]], columns: Mapping[str, int]
) -> tuple[list[list[_Spot]], dict[_Spot, list[_Spot]]]:
    """Return the spots of every column, and to which spots of the next column each leads."""
    layers: list[list[_Spot]] = [[] for _ in range(max(columns.values(), default=-1) + 1)]
    links: dict[_Spot, list[_Spot]] = {}
    for name in depends_on:
        layers[columns[name]].append((name, "", columns[name]))
    for name, others in depends_on.items():
        for before in others:
            spot: _Spot = (before, "", columns[before])
            for column in range(columns[before] + 1, columns[name]):
                passed: _Spot = (before, name, column)
                layers[column].append(passed)
                links.setdefault(spot, []).append(passed)
                spot = passed
            if columns[before] < columns[name]:
                links.setdefault(spot, []).append((name, "", columns[name]))
    return layers, links


def _sort(layers: list[list[_Spot]], links: Mapping[_Spot, Sequence[_Spot]]) -> None:
    """Order each column by the median of its neighbours in the one before, then after, and so on."""
    back: dict[_Spot, list[_Spot]] = {}
    for spot, others in links.items():
        for other in others:
            back.setdefault(other, []).append(spot)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        numbers = range(1, len(layers)) if forth else range(len(layers) - 2, -1, -1)
        for number in numbers:
            beside = {spot: row for row, spot in enumerate(layers[number - 1 if forth else number + 1])}
            neighbours = back if forth else links
            rows = {spot: row for row, spot in enumerate(layers[number])}
            layers[number].sort(key=lambda spot: (_median(spot, neighbours, beside, rows), rows[spot]))


def _median(
    spot: _Spot, neighbours: Mapping[_Spot, Sequence[_Spot]], beside: Mapping[_Spot, int], rows: Mapping[_Spot, int]
) -> float:  # fmt: skip
    found = sorted(beside[other] for other in neighbours.get(spot, ()))
    if not found:
        return rows[spot]
    middle = len(found) // 2
    return found[middle] if len(found) % 2 else (found[middle - 1] + found[middle]) / 2


def _points(
    before: str, after: str, columns: Mapping[str, int], places: Mapping[_Spot, tuple[int, int]]
) -> tuple[tuple[int, int], ...]:
    half = HEIGHT // 2
    x, y = places[before, "", columns[before]]
    points = [(x + WIDTH, y + half)]
    for column in range(columns[before] + 1, columns[after]):
        x, y = places[before, after, column]
        points += [(x, y + half), (x + WIDTH, y + half)]
    x, y = places[after, "", columns[after]]
    return (*points, (x, y + half))
