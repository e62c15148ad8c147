"""A judged release for people: the verdict in words, and evidence and error ratio over time as text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from forge.cli.render.paint import Paint

if TYPE_CHECKING:
    from forge.core.judge.analysis import Point
    from forge.engine.analysing import Judged

LEFT = 9
ROWS = 8


def sentence(one: Judged, paint: Paint) -> str:
    """Return the verdict in words."""
    told = one.analysis
    colour = {"rollback": paint.red, "promote": paint.green}.get(told.verdict, paint.yellow)
    lines = [
        f"{told.release}: {colour(told.verdict.upper())} of {told.arm or 'nothing'} after {told.t_verdict:g} s: {one.why}"
    ]
    if told.ratio_interval is not None and told.evidence is not None and told.p_value is not None:
        low, high = told.ratio_interval
        upper = "any number of" if high is None else f"{high:.3g}"
        lines.append(f"  it fails {low:.3g} to {upper} times as often as stable (95 % at every time at once)")
        lines.append(f"  largest evidence {told.evidence:.3g}:1 against it (p = {told.p_value:.2g}); {one.calibration}")
    lines.append(
        f"  {told.failed_requests:,} of {one.requests:,} requests failed until then, "
        f"{told.excess_failed_requests:,.1f} more than with stable"
    )
    return "\n".join(lines)


def drawing(one: Judged, width: int) -> str:
    """Return both pictures, `width` characters wide."""
    columns = max(20, width - LEFT - 2)
    shown = _columns(one.trace, columns)
    needed = math.log10(1 / one.alpha)
    evidence = [point.log_e / math.log(10) if point else None for point in shown]
    top = max([needed * 1.25, *(value for value in evidence if value is not None)])
    bottom = min([-1.0, *(value for value in evidence if value is not None)])
    rows = ["evidence against it, to 1 (logarithmic)"]
    rows += _grid([(value, value) if value is not None else None for value in evidence], bottom, top, needed, _power)
    rows += [_axis(one.trace, columns), "", "error ratio to stable, 95 % interval (logarithmic)"]
    low, high = math.log10(0.05), math.log10(1000)
    spans = [
        (max(low, math.log10(max(point.interval[0], 0.05))), min(high, math.log10(min(point.interval[1], 1000.0))))
        if point
        else None
        for point in shown
    ]
    rows += _grid(spans, low, high, 0.0, lambda value: f"{10**value:.0f}x" if value >= 0 else f"{10**value:.2g}x")
    return "\n".join([*rows, _axis(one.trace, columns)])


def _columns(trace: tuple[Point, ...], columns: int) -> list[Point | None]:
    """Return the newest point at each column, left to right in time."""
    end = trace[-1].t or 1.0
    found: list[Point | None] = []
    for column in range(columns):
        until = end * (column + 1) / columns
        found.append(next((point for point in reversed(trace) if point.t <= until + 1e-9), None))
    return found


def _grid(
    spans: list[tuple[float, float] | None], bottom: float, top: float, mark: float, label: object
) -> list[str]:  # fmt: skip
    """Return rows of text, highest first; `mark` is a line across, drawn where nothing else is."""
    size = (top - bottom) / ROWS or 1.0
    rows = []
    for row in range(ROWS):
        above, below = top - row * size, top - (row + 1) * size
        last = row == ROWS - 1
        marked = below < mark <= above or (last and mark == bottom)
        cells = "".join(
            "█" if span is not None and span[1] > below and (span[0] <= above or row == 0) and _in(span, above, below)
            else ("╌" if marked else " ")
            for span in spans
        )  # fmt: skip
        name = label(mark if marked else above) if marked or row in {0, ROWS - 1} else ""  # type: ignore[operator]
        rows.append(f"{name:>{LEFT - 2}} │{cells}".rstrip())
    return rows


def _in(span: tuple[float, float], above: float, below: float) -> bool:
    return span[0] <= above and span[1] > below


def _power(value: float) -> str:
    return f"{10**value:.2g}" if value < 6 else f"1e{value:.0f}"


def _axis(trace: tuple[Point, ...], columns: int) -> str:
    end = f"{trace[-1].t:g} s"
    return " " * (LEFT - 1) + "└" + "─" * (columns - len(end) - 1) + " " + end
