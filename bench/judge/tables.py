"""What a table is: releases to play, what is asked of each, and how the answers are told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, NamedTuple

from forge.simulate.nulls import upper_bound


class Job(NamedTuple):
    """One release: what is played (a cell of any kind) and its seed."""

    cell: Any
    seed: int


class Table(NamedTuple):
    """`cells` says how often each is played at a scale; `work` plays one; `told` makes Markdown of all answers."""

    title: str
    cells: Callable[[float], dict[Any, int]]
    work: Callable[[Job], Any]
    told: Callable[[dict[Any, list[Any]]], list[str]]
    cost: float = 0.1
    """Seconds that one release takes, roughly: the dearest are handed out first."""


class Told(NamedTuple):
    """When a judge rolled back (None: never), and the failed requests until then, or until the end."""

    at: int | None
    failed: int


def often(number: int, scale: float) -> int:
    return max(2, round(number * scale))


def rate(hits: int, of: int) -> str:
    return f"{100 * hits / of:.3g} %" if hits else "0"


def bounded(hits: int, of: int) -> str:
    """Return how often, and what it is at most with 95 % confidence (Clopper-Pearson)."""
    return f"{hits} of {of:,} (≤ {100 * upper_bound(hits, of, 0.95):.2g} %)"


def summary(told: Sequence[Told]) -> str:
    """Return `found / median second / mean failed requests`."""
    fired = [one.at for one in told if one.at is not None]
    found = f"{100 * len(fired) / len(told):.0f} %"
    when = f"{median(fired):.0f} s" if fired else "never"
    return f"{found} / {when} / **{mean_failed(told):,.0f}**"


def mean_failed(told: Sequence[Told]) -> float:
    return sum(one.failed for one in told) / len(told)


def rows(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(heads) + " |",
        "|---|" + "---:|" * (len(heads) - 1),
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
    ]
