"""Diagnostics and errors as people read them: what, where, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from forge.cli.render.paint import Paint
from forge.model.diagnostics import Diagnostic
from forge.model.errors import ForgeError, InvalidConfiguration


def render_diagnostics(diagnostics: Sequence[Diagnostic], paint: Paint) -> str:
    """Return all diagnostics in the file's order, and how many there are."""
    ordered = sorted(diagnostics, key=lambda one: (one.file, one.line, one.column))
    blocks = [_coloured(one, paint) for one in ordered]
    blocks.append(summary(ordered))
    return "\n\n".join(blocks)


def summary(diagnostics: Sequence[Diagnostic]) -> str:
    """Return `2 errors, 1 warning`, or `no problems`."""
    parts = []
    for severity in ("error", "warning"):
        count = sum(one.severity == severity for one in diagnostics)
        if count:
            parts.append(f"{count} {severity}{'s' if count > 1 else ''}")
    return ", ".join(parts) or "no problems"


def render_error(error: ForgeError, paint: Paint) -> str:
    """Return an error with its hint; a wrong configuration with everything that is wrong with it."""
    if isinstance(error, InvalidConfiguration):
        return render_diagnostics(error.diagnostics, paint)
    lines = [f"{paint.red('error:')} {error.message}"]
    if error.hint:
        lines.append(f"  {paint.cyan('hint:')} {error.hint}")
    return "\n".join(lines)


def _coloured(diagnostic: Diagnostic, paint: Paint) -> str:
    text = diagnostic.render()
    if not paint.colour:
        return text
    first, *rest = text.split("\n")
    kind, _, message = first.partition(": ")
    shade = paint.red if diagnostic.severity == "error" else paint.yellow
    lines = [f"{shade(kind)}: {paint.bold(message)}"]
    for line in rest:
        marked = line.replace("hint:", paint.cyan("hint:"), 1) if line.startswith("  hint:") else line
        lines.append(shade(marked) if set(marked) <= set(" |^") and "^" in marked else marked)
    return "\n".join(lines)
