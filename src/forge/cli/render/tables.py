"""Rows as text: aligned tables for people, JSON, YAML and names for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from forge.cli.render.paint import pad, width
from forge.model.diagnostics import did_you_mean
from forge.model.errors import UsageError

T = TypeVar("T")

OUTPUTS = ("table", "wide", "json", "yaml", "name")


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column: its title and how a row's cell is written. `wide` columns show with `-o wide` only."""

    title: str
    cell: Callable[[T], str]
    wide: bool = False
    right: bool = False


def check_output(output: str) -> str:
    """Return the output mode. Raises UsageError with a suggestion for an unknown one."""
    if output not in OUTPUTS:
        raise UsageError(f"unknown output `{output}`", hint=did_you_mean(output, OUTPUTS))
    return output


def table(columns: Sequence[Column[T]], rows: Sequence[T], *, wide: bool = False) -> str:
    """Return rows under titles, each column as wide as its widest cell; no trailing blanks."""
    shown = [column for column in columns if wide or not column.wide]
    cells = [[column.title for column in shown], *([_one_line(column.cell(row)) for column in shown] for row in rows)]
    widths = [max(width(line[at]) for line in cells) for at in range(len(shown))]
    lines = []
    for line in cells:
        parts = []
        for column, text, cells_wide in zip(shown, line, widths, strict=True):
            filler = " " * (cells_wide - width(text))
            parts.append(filler + text if column.right else pad(text, cells_wide))
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def document(value: object, output: str) -> str:
    """Return a value (structs, lists, plain data) as JSON or YAML text, with the same fields in both."""
    plain = msgspec.to_builtins(value)
    if output == "yaml":
        import yaml

        return str(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=120)).rstrip("\n")
    return json.dumps(plain, indent=2, ensure_ascii=False)


def listing(
    rows: Sequence[T],
    columns: Sequence[Column[T]],
    output: str,
    *,
    name: Callable[[T], str],
    empty: str = "",
) -> str:
    """Return rows in the output mode that was asked for; `empty` is said for a table without rows."""
    if output in {"json", "yaml"}:
        return document(list(rows), output)
    if output == "name":
        return "\n".join(name(row) for row in rows)
    if not rows:
        return empty
    return table(columns, rows, wide=output == "wide")


def age(since: float | None, now: float) -> str:
    """Return how long ago a time was, in one unit: `12s`, `3m`, `2h`, `4d`; `-` for never."""
    if since is None or since <= 0:
        return "-"
    seconds = max(0, int(now - since))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def flatten(value: Any) -> str:
    """Return plain data in one cell: lists by commas, nothing as `-`."""
    if value is None or value in ("", (), []):
        return "-"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _one_line(text: str) -> str:
    return " ".join(text.split("\n")) if "\n" in text else text
