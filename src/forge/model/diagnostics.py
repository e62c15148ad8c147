"""A diagnostic is a value: what is wrong, where, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

Severity = Literal["error", "warning"]


class Diagnostic(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem in a file. `line` and `column` count from 1; 0 means the file as a whole."""

    code: str
    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    length: int = 1
    snippet: str = ""
    hint: str = ""
    severity: Severity = "error"

    def render(self) -> str:
        """Return the diagnostic as text: message, `--> file:line:column`, line, caret, hint."""
        rows = [f"{self.severity}[{self.code}]: {self.message}"]
        if self.line:
            rows.append(f"  --> {self.file}:{self.line}:{self.column}")
            gutter = " " * len(str(self.line))
            rows.append(f"  {gutter} |")
            rows.append(f"  {self.line} | {self.snippet}")
            caret = "^" * max(1, min(self.length, len(self.snippet) - self.column + 1))
            rows.append(f"  {gutter} | {' ' * (self.column - 1)}{caret}")
        elif self.file:
            rows.append(f"  --> {self.file}")
        if self.hint:
            rows.append(f"  hint: {self.hint}")
        return "\n".join(rows)


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return a hint that names the closest of `known`, or that lists them; never guesses for the user."""
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"known: {', '.join(f'`{name}`' for name in sorted(known))}" if known else ""
