"""Places a layered graph on paper: longest-path layers from left to right, few crossings, no box over another.

Pure arithmetic: the same graph gives the same picture. Lengths are pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from forge.core.pipeline.order import waves

BOX_HEIGHT = 40.0
ROW_GAP = 20.0
COLUMN_GAP = 60.0
MARGIN = 16.0
_SWEEPS = 6
_MOST_BENDS = 20_000
"""Beyond it, long edges are drawn straight: nobody reads such a picture edge by edge."""


@dataclass(frozen=True, slots=True)
class Box:
    """One job on the paper."""

    name: str
    x: float
    y: float
    width: float
    height: float = BOX_HEIGHT


@dataclass(frozen=True, slots=True)
class Edge:
    """A line from the right side of one box to the left side of another, by way of `points`."""

    start: str
    end: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole picture."""

    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


def place(dependencies: Mapping[str, Sequence[str]], widths: Mapping[str, float]) -> Layout:
    """Return the picture of an acyclic graph; `dependencies` maps a name to the names before it."""
    layers = [list(row) for row in waves(dependencies)]
    level = {name: index for index, row in enumerate(layers) for name in row}
    chains = _bend(layers, level, dependencies)
    _order(layers, chains)
    x, columns = MARGIN, []
    for row in layers:
        width = max((widths[name] for name in row if name in widths), default=0.0)
        columns.append((x, width))
        x += width + COLUMN_GAP
    tallest = max((_height(row) for row in layers), default=0.0)
    spots = _spots(layers, columns, tallest, widths)
    boxes = tuple(Box(name, *spots[name], widths[name]) for name in dependencies if name in spots)
    edges = tuple(_edge(chain, spots, widths) for chain in chains)
    return Layout(boxes, edges, max(x - COLUMN_GAP, 0.0) + MARGIN, tallest + 2 * MARGIN)


def _bend(layers: list[list[str]], level: dict[str, int], dependencies: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Give every edge over several layers a point in each layer between, and return the edges as chains."""
    edges = [
        (before, name) for name, needs in dependencies.items() for before in dict.fromkeys(needs) if before in level
    ]
    straight = sum(level[end] - level[start] - 1 for start, end in edges) > _MOST_BENDS
    chains: list[list[str]] = []
    for start, end in edges:
        chain = [start]
        for row in range(level[start] + 1, level[end]) if not straight else ():
            # The NUL keeps these names apart from every job's.
            point = f"\0{start}\0{end}\0{row}"
            layers[row].append(point)
            chain.append(point)
        chains.append([*chain, end])
    return chains


def _order(layers: list[list[str]], chains: list[list[str]]) -> None:
    """Sort each layer by the mean position of its neighbours, forwards and backwards, a few times."""
    before: dict[str, list[str]] = {}
    after: dict[str, list[str]] = {}
    for chain in chains:
        for one, other in pairwise(chain):
            before.setdefault(other, []).append(one)
            after.setdefault(one, []).append(other)
    for sweep in range(_SWEEPS):
        neighbours = before if sweep % 2 == 0 else after
        position = {name: index for row in layers for index, name in enumerate(row)}
        for row in layers if sweep % 2 == 0 else reversed(layers):
            mean = {
                name: sum(position[other] for other in neighbours[name]) / len(neighbours[name])
                if name in neighbours
                else float(position[name])
                for name in row
            }
            row.sort(key=lambda name, mean=mean: mean[name])  # type: ignore[misc]
            position.update({name: index for index, name in enumerate(row)})


def _is_point(name: str) -> bool:
    return name.startswith("\0")


def _height(row: list[str]) -> float:
    return sum(ROW_GAP if _is_point(name) else BOX_HEIGHT + ROW_GAP for name in row) - ROW_GAP


def _spots(
    layers: list[list[str]], columns: list[tuple[float, float]], tallest: float, widths: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    spots: dict[str, tuple[float, float]] = {}
    for row, (x, width) in zip(layers, columns, strict=True):
        y = MARGIN + (tallest - _height(row)) / 2
        for name in row:
            if _is_point(name):
                spots[name] = (x + width / 2, y)
                y += ROW_GAP
            else:
                spots[name] = (x + (width - widths[name]) / 2, y)
                y += BOX_HEIGHT + ROW_GAP
    return spots


def _edge(chain: list[str], spots: Mapping[str, tuple[float, float]], widths: Mapping[str, float]) -> Edge:
    first, last = chain[0], chain[-1]
    start = (spots[first][0] + widths[first], spots[first][1] + BOX_HEIGHT / 2)
    end = (spots[last][0], spots[last][1] + BOX_HEIGHT / 2)
    return Edge(first, last, (start, *(spots[point] for point in chain[1:-1]), end))
