"""A simulation as one self-contained SVG: all releases over time, and one of them told in detail."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec

from forge.model.units import WHOLE, format_duration
from forge.simulate.report import Outcome, Point, Report, Told

WIDTH, LEFT, RIGHT, PANEL, GAP, TOP = 860, 64, 16, 120, 44, 74
INNER = WIDTH - LEFT - RIGHT
STYLE = """<style>
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; } .title { font-size: 15px; font-weight: 600; }
.small { font-size: 10px; fill: #57606a; } .axis { stroke: #8c959f; stroke-width: 1; } .grid { stroke: #d0d7de; }
.line { fill: none; stroke-width: 1.8; } .c0 { stroke: #57606a; fill: #57606a; } .c1 { stroke: #0969da; fill: #0969da; }
.c2 { stroke: #bc4c00; fill: #bc4c00; } .c3 { stroke: #8250df; fill: #8250df; } .line.c0, .line.c1, .line.c2, .line.c3
{ fill: none; } .promoted { fill: #1a7f37; } .caught { fill: #0969da; } .missed { fill: #cf222e; }
.false_alarm { fill: #bf8700; } .stopped, .unfinished, .not_started { fill: #8c959f; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .small { fill: #8b949e; } .grid { stroke: #30363d; }
.axis { stroke: #6e7681; } .c0 { stroke: #8b949e; fill: #8b949e; } .c1 { stroke: #58a6ff; fill: #58a6ff; }
.c2 { stroke: #f0883e; fill: #f0883e; } .c3 { stroke: #bc8cff; fill: #bc8cff; } .promoted { fill: #3fb950; }
.caught { fill: #58a6ff; } .missed { fill: #f85149; } .false_alarm { fill: #d29922; } }
</style>"""
WORDS: dict[Outcome, str] = {
    "promoted": "good, promoted", "caught": "bad, rolled back", "false_alarm": "good, rolled back",
    "missed": "bad, promoted", "stopped": "stopped by a person", "unfinished": "under way",
    "not_started": "not started",
}  # fmt: skip

Curve = tuple[str, Sequence[tuple[float, float]]]


class Panel(msgspec.Struct, frozen=True):
    """One diagram: curves over seconds, from 0 to `highest`."""

    title: str
    curves: tuple[Curve, ...]
    highest: float
    mark: float | None = None
    """A level that is drawn across."""
    unit: str = ""


def svg(report: Report) -> str:
    """Return the picture; without a trace, only the releases over time."""
    panels = _panels(report)
    height = TOP + PANEL + GAP + len(panels) * (PANEL + GAP) + 10
    rows = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
            f'height="{height}"><title>{_text(report.name)}</title>'
        ),
        STYLE,
        f'<text class="title" x="{LEFT}" y="24">{_text(report.name)}</text>',
        f'<text class="small" x="{LEFT}" y="42">{_text(_summary(report))}</text>',
    ]
    rows += _releases(report, TOP)
    for number, panel in enumerate(panels):
        rows += _drawn(panel, TOP + (number + 1) * (PANEL + GAP))
    return "\n".join([*rows, "</svg>"])


def _summary(report: Report) -> str:
    totals = report.totals
    return (
        f"{totals.releases} releases in {report.days:g} days by {report.policy}, judge {report.judge}, seed "
        f"{report.seed}: {totals.caught} of {totals.caught + totals.missed} bad ones caught, {totals.false_alarms} "
        f"false alarms, {totals.failed_requests:,} requests failed"
    )


def _releases(report: Report, top: float) -> list[str]:
    """Each release as a dot: when it was asked for, and how long it took (logarithmic)."""
    days = max(report.days, 1e-9)
    longest = max([60.0, *(one.seconds or 0.0 for one in report.releases)])
    rows = [*_frame(top, "all releases: how long they took", [("1s", 0.0), (format_duration(longest), 1.0)])]
    for one in report.releases:
        x = LEFT + INNER * min(1.0, one.asked / 86400 / days)
        y = top + PANEL * (1 - math.log(max(1.0, one.seconds or longest)) / math.log(longest))
        rows.append(
            f'<circle class="{one.outcome}" cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{_text(_of(one))}</title></circle>'
        )
    rows += _ticks(top, [(f"{days * part / 4:g} d", part / 4) for part in range(5)])
    x = LEFT + 250.0
    for outcome in [known for known in WORDS if any(one.outcome == known for one in report.releases)]:
        rows.append(f'<circle class="{outcome}" cx="{x:.0f}" cy="{top - 10:.0f}" r="4"/>')
        rows.append(f'<text class="small" x="{x + 8:.0f}" y="{top - 6:.0f}">{WORDS[outcome]}</text>')
        x += 16 + 6.2 * len(WORDS[outcome])
    return rows


def _of(one: Told) -> str:
    return f"{one.id} ({one.version}, {one.kind}): {one.reason}; {one.failed} of {one.requests} requests failed"


def _panels(report: Report) -> list[Panel]:
    points = report.trace
    if len(points) < 2:
        return []
    names = sorted({name for point in points for name in point.weights})
    arm = next((one.version for one in report.releases if one.id == report.traced), "")
    names = [name for name in names if name != arm] + ([arm] if arm else [])
    begin = points[0].at
    weights = tuple((name, [(p.at - begin, p.weights.get(name, 0) / WHOLE) for p in points]) for name in names)
    rates = tuple((name, _rates(points, name)) for name in names)
    found = [
        Panel(f"{report.traced}: share of the traffic", weights, 1.0, unit="%"),
        Panel("failed requests", rates, max([0.01, *(y for _, curve in rates for _, y in curve)]), unit="%"),
    ]
    evidence = [(point.at - begin, point.evidence / math.log(10)) for point in points if point.evidence is not None]
    if evidence:
        highest = max([3.0, *(y for _, y in evidence)])
        found.append(Panel("evidence against it (powers of ten)", ((arm, evidence),), highest, mark=2.0))
    harm = [(point.at - begin, float(point.failed)) for point in points]
    found.append(Panel("requests failed in it so far", ((arm, harm),), max(1.0, *(y for _, y in harm))))
    return found


def _rates(points: Sequence[Point], name: str) -> list[tuple[float, float]]:
    """Failures per request over about a fiftieth of the whole time."""
    width = max(1, len(points) // 50)
    found = []
    for end in range(width, len(points) + 1, width):
        part = points[end - width : end]
        requests = sum(point.requests.get(name, 0) for point in part)
        if requests:
            errors = sum(point.errors.get(name, 0) for point in part)
            found.append((part[-1].at - points[0].at, errors / requests))
    return found


def _drawn(panel: Panel, top: float) -> list[str]:
    last = max((x for _, curve in panel.curves for x, _ in curve), default=1.0) or 1.0
    shown = f"{panel.highest * 100:.3g}%" if panel.unit == "%" else f"{panel.highest:,.0f}"
    rows = _frame(top, panel.title, [("0", 0.0), (shown, 1.0)])
    if panel.mark is not None and panel.mark <= panel.highest:
        y = top + PANEL * (1 - panel.mark / panel.highest)
        rows.append(f'<line class="axis" x1="{LEFT}" x2="{LEFT + INNER}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text class="small" x="{LEFT + 4}" y="{y - 3:.1f}">enough for a rollback</text>')
    x = LEFT + 300.0
    for number, (name, curve) in enumerate(panel.curves):
        colour = f"c{number % 4}" if len(panel.curves) > 1 else "c1"
        path = " ".join(
            f"{LEFT + INNER * x_ / last:.1f},{top + PANEL * (1 - min(1.0, y_ / panel.highest)):.1f}" for x_, y_ in curve
        )
        rows.append(f'<polyline class="line {colour}" points="{path}"/>')
        if name:
            rows.append(f'<rect class="{colour}" x="{x:.0f}" y="{top - 13:.0f}" width="10" height="3"/>')
            rows.append(f'<text class="small" x="{x + 14:.0f}" y="{top - 8:.0f}">{_text(name)}</text>')
        x += 30 + 6.5 * len(name)
    return [*rows, *_ticks(top, [(format_duration(last * part / 4), part / 4) for part in range(5)])]


def _frame(top: float, title: str, levels: Sequence[tuple[str, float]]) -> list[str]:
    rows = [f'<text x="{LEFT}" y="{top - 6:.0f}">{_text(title)}</text>']
    for words, part in levels:
        y = top + PANEL * (1 - part)
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{LEFT + INNER}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text class="small" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_text(words)}</text>')
    return rows


def _ticks(top: float, ticks: Sequence[tuple[str, float]]) -> list[str]:
    return [
        f'<text class="small" x="{LEFT + INNER * part:.1f}" y="{top + PANEL + 14:.0f}" '
        f'text-anchor="{"end" if part == 1 else "start" if part == 0 else "middle"}">{_text(words)}</text>'
        for words, part in ticks
    ]


def _text(words: str) -> str:
    return escape("".join(letter if letter.isprintable() else " " for letter in words))
