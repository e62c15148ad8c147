"""What a release would change in a cluster, for people: a line an object, and under it a line a field."""

from __future__ import annotations

from collections.abc import Sequence

from forge.adapters.kubernetes.diffing import FieldChange, ObjectChange
from forge.cli.render.paint import Paint, strip_ansi
from forge.engine.differences import StepDifferences

_SIGNS = {"new": "+", "changed": "~", "removed": "-", "kept": "!", "left": "=", "refused": "!"}


def difference_lines(found: Sequence[StepDifferences], paint: Paint) -> list[str]:
    """Return the lines of all deploy steps."""
    lines: list[str] = []
    for one in found:
        lines += ["", *_step(one, paint)]
    return lines


def _step(one: StepDifferences, paint: Paint) -> list[str]:
    if one.problem:
        return [f"{paint.bold(f'Changes to {one.environment}')} ({one.job}) are not known: {one.problem}"]
    against = f"held against {one.compared_with}, which serves now" if one.compared_with else "its first release"
    where = f"{one.cluster}, namespace {one.namespace}" if one.namespace else one.cluster
    lines = [f"{paint.bold(f'Changes to {one.environment}')} ({one.job}) on {where}; {against}:"]
    for change in one.changes:
        if change.outcome != "same":
            lines += _object(change, paint)
    same = sum(change.outcome == "same" for change in one.changes)
    if same:
        lines.append(paint.dim(f"    {same} object{'s' if same > 1 else ''} stay{'' if same > 1 else 's'} as before"))
    return lines


def _object(change: ObjectChange, paint: Paint) -> list[str]:
    colour = {"new": paint.green, "changed": paint.yellow}.get(change.outcome, paint.red)
    if change.outcome == "left":
        colour = paint.dim
    words = {"refused": "would be refused", "kept": "is not removed", "left": "is left alone"}.get(change.outcome, "")
    note = ": ".join(part for part in (words, strip_ansi(change.note)) if part)
    lines = [f"  {colour(_SIGNS[change.outcome])} {change.object}" + (f"  {note}" if note else "")]
    return lines + [f"      {_field(field, paint)}" for field in change.fields]


def _field(field: FieldChange, paint: Paint) -> str:
    if field.before is None:
        return f"{paint.green('+')} {field.path}: {field.after}"
    if field.after is None:
        return f"{paint.red('-')} {field.path}: {field.before}"
    if field.before == field.after:
        return f"{paint.yellow('~')} {field.path}: {field.after}, of other content"
    return f"{paint.yellow('~')} {field.path}: {field.before} -> {field.after}"
