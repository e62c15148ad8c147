"""Figures and their table. Only ratios of things measured in turn on the same machine mean much."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One line of the table: `floor` is what was measured in turn with it, `ratio` how often it fits."""

    what: str
    measured: str
    floor: str = ""
    ratio: str = ""


def in_turn(ours: Callable[[], object], floor: Callable[[], object], rounds: int) -> tuple[list[float], list[float]]:
    """Time two things alternately, so that whatever disturbs the machine disturbs both; return seconds."""
    taken: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        pair = ((ours, taken[0]), (floor, taken[1]))
        for act, times in pair if number % 2 == 0 else reversed(pair):
            began = time.perf_counter()
            act()
            times.append(time.perf_counter() - began)
    return taken


def compare(what: str, ours: list[float], floor: list[float], floor_is: str, each: int = 1) -> Figure:
    """Return the figure of two lists of seconds; `each` also tells the cost of one of so many parts."""
    one, other = statistics.median(ours), statistics.median(floor)
    ratios = sorted(a / b for a, b in zip(ours, floor, strict=True))
    spread = f" ({ratios[0]:.2f}-{ratios[-1]:.2f})" if len(ratios) > 1 else ""
    part = f", {one / each * 1000:.2f} ms each" if each > 1 else ""
    return Figure(
        what, f"{seconds(one)}{part}", f"{seconds(other)} {floor_is}", f"{statistics.median(ratios):.2f}{spread}"
    )


def spread(values: list[float]) -> str:
    """Return the median and the largest of some seconds."""
    return f"{seconds(statistics.median(values))} (at most {seconds(max(values))})"


def seconds(value: float) -> str:
    """Return seconds as people read them."""
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def table(figures: list[Figure]) -> str:
    """Return the figures as a Markdown table."""
    rows = [("what", "measured", "floor, in turn", "ratio")]
    rows += [(one.what, one.measured, one.floor, one.ratio) for one in figures]
    widths = [max(len(row[at]) for row in rows) for at in range(4)]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Return on what it was measured."""
    import os

    return f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}, Python {platform.python_version()}"
