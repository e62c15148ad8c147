"""A plan as a picture: a tree in text, Mermaid, or SVG. Pure functions of the plan."""

from __future__ import annotations

from html import escape

from forge.core.pipeline.layout import BOX_HEIGHT, Box, Edge, place
from forge.core.pipeline.order import topological, waves
from forge.model.plan import JobPlan, Plan

_LETTER = 7.3
"""Pixels that a letter of the picture's font takes."""
_MOST_LETTERS = 48


def text_tree(plan: Plan) -> str:
    """Return the jobs as a tree, each under the last job that it waits for; `(+ a)`: it waits for `a`, too."""
    order = {name: index for index, name in enumerate(topological(dependencies(plan)))}
    children: dict[str, list[JobPlan]] = {}
    for job in plan.jobs:
        parent = max(job.depends_on, key=order.__getitem__, default="")
        children.setdefault(parent, []).append(job)
    rows: list[str] = []
    stack: list[tuple[JobPlan, str, str]] = [(job, "", "") for job in reversed(children.get("", []))]
    while stack:
        job, branch, indent = stack.pop()
        parent = max(job.depends_on, key=order.__getitem__, default="")
        others = [name for name in job.depends_on if name != parent]
        rows.append(branch + job.name + "".join(f"  [{mark}]" for mark in marks(job)) + _also(others))
        below = children.get(job.name, [])
        for index, child in reversed(list(enumerate(below))):
            last = index == len(below) - 1
            stack.append((child, f"{indent}{'└─ ' if last else '├─ '}", f"{indent}{'   ' if last else '│  '}"))
    return "\n".join(rows)


def _also(names: list[str]) -> str:
    if not names:
        return ""
    shown = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"  (+ {shown})"


def marks(job: JobPlan) -> list[str]:
    """Return what is special about a job, in a word or two each."""
    found = []
    if job.gate is not None:
        people = f"{job.gate.required} people" if job.gate.required > 1 else "manual"
        found.append(f"manual: {people}" if job.gate.required > 1 else people)
    if job.when:
        found.append("conditional")
    for step in job.steps:
        if step.kind == "deploy":
            found.append(f"{step.config['strategy']['name']} to {step.config['environment']}")
        elif step.kind == "approve":
            found.append("asks a person")
    return found


def dependencies(plan: Plan) -> dict[str, tuple[str, ...]]:
    """Return each job's name with the names that it depends on."""
    return {job.name: job.depends_on for job in plan.jobs}


def mermaid(plan: Plan) -> str:
    """Return a Mermaid flowchart; jobs behind a gate are hexagons."""
    number = {job.name: f"j{index}" for index, job in enumerate(plan.jobs)}
    rows = ["flowchart LR"]
    for job in plan.jobs:
        label = "<br>".join(_mermaid_text(line) for line in (job.name, *marks(job)))
        opening, closing = ("{{", "}}") if job.gate else ("[", "]")
        rows.append(f'  {number[job.name]}{opening}"{label}"{closing}')
    rows += [f"  {number[before]} --> {number[job.name]}" for job in plan.jobs for before in job.depends_on]
    return "\n".join(rows)


def _mermaid_text(text: str) -> str:
    """Escape what Mermaid or the browser would obey; its own escapes are `#name;`."""
    safe = text.replace("&", "#amp;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
    return "".join(letter if letter.isprintable() else " " for letter in safe)


def svg(plan: Plan) -> str:
    """Return the graph as one self-contained SVG image, which follows the reader's light or dark mode."""
    widths = {job.name: _width(job) for job in plan.jobs}
    layout = place(dependencies(plan), widths)
    by_name = {job.name: job for job in plan.jobs}
    title = escape(plan.name or "pipeline")
    box = f"{layout.width:.0f} {layout.height:.0f}"
    size = f'viewBox="0 0 {box}" width="{layout.width:.0f}" height="{layout.height:.0f}"'
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{title}" {size}>',
        f"<title>{title}: {len(plan.jobs)} jobs in {len(waves(dependencies(plan)))} waves</title>",
        _STYLE,
        *(_line(edge) for edge in layout.edges),
        *(_drawn(box, by_name[box.name]) for box in layout.boxes),
        "</svg>",
    ]
    return "\n".join(rows)


_STYLE = """<style>
.box { fill: #f6f8fa; stroke: #57606a; } .gate { stroke: #9a6700; stroke-dasharray: 5 3; }
.line { fill: none; stroke: #8c959f; stroke-width: 1.5; }
text { font: 12px ui-monospace, monospace; fill: #1f2328; } .mark { font-size: 10px; fill: #57606a; }
@media (prefers-color-scheme: dark) {
.box { fill: #161b22; stroke: #8b949e; } .gate { stroke: #d29922; } text { fill: #e6edf3; } .mark { fill: #8b949e; }
}
</style>"""


def _width(job: JobPlan) -> float:
    longest = max(len(_short(job.name)), round(len(_short(", ".join(marks(job)))) * 0.85))
    return longest * _LETTER + 24


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"


def _xml(text: str) -> str:
    return escape("".join(letter if letter.isprintable() else " " for letter in text))


def _drawn(box: Box, job: JobPlan) -> str:
    noted = _short(", ".join(marks(job)))
    middle = box.x + box.width / 2
    baseline = box.y + BOX_HEIGHT / 2 + (-2 if noted else 4)
    name = f'<text x="{middle:.1f}" y="{baseline:.1f}" text-anchor="middle">{_xml(_short(job.name))}</text>'
    mark = (
        f'<text class="mark" x="{middle:.1f}" y="{baseline + 14:.1f}" text-anchor="middle">{_xml(noted)}</text>'
        if noted
        else ""
    )
    kind = "box gate" if job.gate else "box"
    return (
        f'<g><title>{_xml(job.name)}</title><rect class="{kind}" x="{box.x:.1f}" y="{box.y:.1f}" '
        f'width="{box.width:.1f}" height="{box.height:.1f}" rx="6"/>{name}{mark}</g>'
    )


def _line(edge: Edge) -> str:
    """Draw a soft curve through an edge's points; it leaves and arrives level."""
    (x, y), *rest = edge.points
    path = f"M{x:.1f} {y:.1f}"
    for next_x, next_y in rest:
        middle = (x + next_x) / 2
        path += f" C{middle:.1f} {y:.1f} {middle:.1f} {next_y:.1f} {next_x:.1f} {next_y:.1f}"
        x, y = next_x, next_y
    return f'<path class="line" d="{path}"/>'
