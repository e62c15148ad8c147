"""The graph of a plan's jobs as text, Mermaid or SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from forge.views.plan import PlannedJob, PlanView

BOX_HEIGHT = 34
LETTER = 8
"""Width of a letter of the SVG's monospaced font, in its units."""
GAP_ACROSS, GAP_DOWN, MARGIN = 60, 16, 20


def draw_graph(view: PlanView, format_: str) -> str:
    """Return the graph in `text`, `mermaid` or `svg`."""
    return {"text": as_text, "mermaid": as_mermaid, "svg": as_svg}[format_](view.jobs)


def waves(jobs: Sequence[PlannedJob]) -> list[list[PlannedJob]]:
    """Return the jobs by wave, in the plan's order."""
    found: dict[int, list[PlannedJob]] = {}
    for job in jobs:
        found.setdefault(job.wave, []).append(job)
    return [found[wave] for wave in sorted(found)]


def as_text(jobs: Sequence[PlannedJob]) -> str:
    """Return one block a wave: each job, what it follows, and what it asks."""
    lines = []
    for number, wave in enumerate(waves(jobs), 1):
        lines.append(f"{number}")
        for at, job in enumerate(wave):
            branch = "└──" if at == len(wave) - 1 else "├──"
            after = f"  ← {', '.join(job.depends_on)}" if job.depends_on else ""
            lines.append(f"{branch} {'॥ ' if job.gate else ''}{job.name}{after}")
    return "\n".join(lines)


def as_mermaid(jobs: Sequence[PlannedJob]) -> str:
    """Return a Mermaid flowchart; jobs behind a gate are hexagons."""
    ids = {job.name: f"j{at}" for at, job in enumerate(jobs)}
    lines = ["flowchart LR"]
    for job in jobs:
        label = _mermaid_text(job.name)
        lines.append(f'  {ids[job.name]}{{{{"{label}"}}}}' if job.gate else f'  {ids[job.name]}["{label}"]')
    for job in jobs:
        lines += [f"  {ids[name]} --> {ids[job.name]}" for name in job.depends_on]
    return "\n".join(lines)


def _mermaid_text(text: str) -> str:
    """Mermaid's own escapes: quotes and markup become entities."""
    return "".join(f"#{ord(letter)};" if letter in '"#<>&`' else letter for letter in text)


def as_svg(jobs: Sequence[PlannedJob]) -> str:
    """Return an SVG picture: waves from left to right; jobs behind a gate have a dashed frame."""
    places: dict[str, tuple[int, int, int]] = {}
    left = MARGIN
    tallest = 0
    for wave in waves(jobs):
        wide = max(len(job.name) for job in wave) * LETTER + 24
        for at, job in enumerate(wave):
            places[job.name] = (left, MARGIN + at * (BOX_HEIGHT + GAP_DOWN), wide)
        tallest = max(tallest, len(wave))
        left += wide + GAP_ACROSS
    width = max(left - GAP_ACROSS + MARGIN, 2 * MARGIN)
    height = 2 * MARGIN + max(tallest, 1) * (BOX_HEIGHT + GAP_DOWN) - GAP_DOWN
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="monospace" font-size="13">']
    parts.append("<title>jobs</title>")
    for job in jobs:
        parts += [_edge(places[name], places[job.name]) for name in job.depends_on]
    parts += [_box(job, places[job.name]) for job in jobs]
    return "\n".join([*parts, "</svg>"])


def _edge(start: tuple[int, int, int], end: tuple[int, int, int]) -> str:
    x1, y1 = start[0] + start[2], start[1] + BOX_HEIGHT // 2
    x2, y2 = end[0], end[1] + BOX_HEIGHT // 2
    bend = (x2 - x1) // 2
    return f'<path d="M{x1},{y1} C{x1 + bend},{y1} {x2 - bend},{y2} {x2},{y2}" fill="none" stroke="#888"/>'


def _box(job: PlannedJob, place: tuple[int, int, int]) -> str:
    left, top, wide = place
    dashes = ' stroke-dasharray="5 3"' if job.gate else ""
    name = escape(job.name)
    middle = top + BOX_HEIGHT // 2 + 5
    return (
        f'<g><rect x="{left}" y="{top}" width="{wide}" height="{BOX_HEIGHT}" rx="6" fill="#f4f4f8" stroke="#446"{dashes}/>'
        f'<text x="{left + 12}" y="{middle}" fill="#222">{name}</text></g>'
    )
