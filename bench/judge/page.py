"""The page and the picture of what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

OURS, OTHERS, LINE = "#0969da", "#8c959f", "#cf222e"
LEFT, RIGHT, ROW = 270, 1010, 15


def page(parts: dict[str, list[str]], seconds: float, machine: str) -> str:
    """Return docs/judge-results.md."""
    lines = [
        "# What judges cost", "",
        ("Measured by `make bench-judge-record` with the code of this tree; [the judge](judge.md) has the meaning, and "
        "[adaptive canaries against fixed steps](adaptive-results.md) is table 2.4. All judges see the same simulated "
        "readings, one a second; 5, 25 and 50 % of the traffic for 300 s each, then all of it. "
        f"{seconds:.0f} s on {machine}."), "",
        "![failed requests until the rollback, and good releases rolled back](judge-results.svg)", "",
    ]  # fmt: skip
    for title, told in parts.items():
        lines += [f"## {title}", "", *told]
    return "\n".join(lines).rstrip() + "\n"


def picture(failed: dict[str, dict[str, float]], alarms: dict[str, dict[str, float]], ours: Sequence[str]) -> str:
    """Return an SVG: failed requests of each fault, and false rollbacks in each null, on logarithmic scales."""
    blocks = [
        *((f"A version that fails {name}: failed requests until its rollback", values, 1.0, 1e5, "{:,.0f}") for name, values in failed.items()),
        *((f"Good releases rolled back, {name}", {judge: 100 * value for judge, value in values.items()}, 0.05, 100.0, "{:.3g} %") for name, values in alarms.items()),
    ]  # fmt: skip
    out: list[str] = []
    top = 44.0
    for number, (title, values, low, high, form) in enumerate(blocks):
        if number == len(failed):
            top += 14
        out.append(f'<text x="10" y="{top:g}" font-weight="bold">{escape(title)}</text>')
        start = top + 6
        for judge, value in values.items():
            top += ROW
            width = _width(value, low, high)
            colour = OURS if judge in ours else OTHERS
            out.append(f'<text x="{LEFT - 8}" y="{top:g}" text-anchor="end">{escape(judge)}</text>')
            if width:
                out.append(f'<rect x="{LEFT}" y="{top - 10:g}" width="{width:.1f}" height="11" fill="{colour}"/>')
            out.append(f'<text x="{LEFT + width + 5:.1f}" y="{top:g}">{form.format(value) if value else "0"}</text>')
        if form.endswith("%"):
            x = LEFT + _width(1.0, low, high)
            out.append(f'<path d="M{x:.1f} {start:g}V{top + 3:g}" stroke="{LINE}" stroke-dasharray="3 2"/>')
            out.append(f'<text x="{x:.1f}" y="{start - 2:g}" text-anchor="middle" fill="{LINE}">1 %</text>')
        top += 28
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {RIGHT + 80} {top:g}" font-family="sans-serif" '
        f'font-size="11.5"><rect width="100%" height="100%" fill="white"/>'
        '<text x="10" y="20" font-size="15">The same releases under every judge (logarithmic scales; blue: Forge)</text>'
    )
    return "\n".join([head, *out, "</svg>", ""])


def _width(value: float, low: float, high: float) -> float:
    if value <= low:
        return 0.0
    return (RIGHT - LEFT) * min(1.0, math.log(value / low) / math.log(high / low))
