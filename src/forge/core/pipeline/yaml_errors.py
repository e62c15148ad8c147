"""What libyaml says about broken YAML, in words that help."""

from __future__ import annotations

from typing import Any

import yaml

from forge.core.pipeline.document import diagnostic_at
from forge.core.pipeline.nodes import Span
from forge.model.diagnostics import Diagnostic


def describe(wrong: yaml.YAMLError, file: str, lines: tuple[str, ...]) -> Diagnostic:
    """Return libyaml's error as a diagnostic at its place."""
    mark: Any = getattr(wrong, "problem_mark", None)
    if mark is None:
        return _unreadable(wrong, file, lines)
    place = Span(mark.line + 1, mark.column + 1, 1)
    problem = str(getattr(wrong, "problem", "") or "")
    context = str(getattr(wrong, "context", "") or "")
    line = lines[mark.line] if mark.line < len(lines) else ""
    start: Any = getattr(wrong, "context_mark", None)
    message, hint = _words(problem, context, line, mark.column, 0 if start is None else start.line + 1)
    if place.line > len(lines) and start is not None:
        # The end of the file shows nothing; the place where it was opened does.
        place = Span(start.line + 1, start.column + 1, 1)
    return diagnostic_at(file, lines, place, "syntax", message, hint=hint)


def _words(problem: str, context: str, line: str, column: int, opened: int) -> tuple[str, str]:
    letter = line[column : column + 1]
    if "cannot start any token" in problem:
        if letter == "\t" or "\t" in line[: column + 1]:
            return "a tab cannot indent YAML", "indent with spaces"
        return f"a value cannot begin with `{letter}`", "put quotes around it"
    if "mapping values are not allowed" in problem:
        return "a `:` is not allowed here", "put quotes around text with `: ` in it, and check the indentation"
    if "unexpected end of stream" in problem:
        return "the quotes are never closed", f"they were opened at line {opened}"
    if "',' or ']'" in problem or "',' or '}'" in problem:
        bracket = "]" if "]" in problem else "}"
        return f"`,` or `{bracket}` is missing", f"it was opened at line {opened}"
    if "expected '-' indicator" in problem:
        return "this does not belong to the list above", f"the list began at line {opened}; check the indentation"
    if "expected key" in problem:
        return "a key is expected here", f"the mapping began at line {opened}; check the indentation"
    if "could not find expected ':'" in problem:
        return "a `:` is missing after this key", "write `key: value`"
    return f"this is not YAML: {problem or context}", "check the indentation and the quotes"


def _unreadable(wrong: yaml.YAMLError, file: str, lines: tuple[str, ...]) -> Diagnostic:
    """A character that YAML does not allow; libyaml tells only how far into the file it is."""
    for number, line in enumerate(lines, 1):
        for column, letter in enumerate(line, 1):
            if letter != "\t" and not letter.isprintable() and ord(letter) < 0xA0:
                message = f"the control character 0x{ord(letter):02x} is not allowed in YAML"
                return diagnostic_at(file, lines, Span(number, column, 1), "syntax", message)
    return Diagnostic("syntax", f"this is not YAML: {str(wrong).splitlines()[0]}", file=file)
