"""A YAML file as plain data that remembers where everything stands.

The events of libyaml are folded into a tree of nodes by ourselves, without recursion: a nested or
aliased bomb ends at a limit instead of in memory. Scalars follow the YAML 1.2 core schema, so `on`, `yes`
and `no` are text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from forge.core.pipeline.nodes import MAX_DEPTH, MAX_NODES, Key, Node, Span, TooMuchError, TreeBuilder, TreeError
from forge.core.pipeline.scalars import ScalarError, read_scalar
from forge.model.diagnostics import Diagnostic
from forge.model.errors import InvalidConfiguration

MAX_BYTES = 1_000_000
"""Larger files are refused before they are read: no pipeline that a person wrote is this long."""
Path = tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One file: its data, and the place of everything in it."""

    file: str
    lines: tuple[str, ...]
    root: Node
    data: Any

    def span(self, path: Path, *, key: bool = False) -> Span:
        """Return the place of the value (or, with `key`, of the key) at `path`, or of what is nearest to it."""
        node = name = self.root
        for step in path:
            found = node.child(step)
            if found is None:
                # What is missing is told at the key that it is missing under; a short form has no keys.
                return name.span if node.kind == "mapping" else node.span
            name, node = found
        return name.span if key else node.span

    def existing(self, path: Path) -> Path:
        """Return as much of `path` as the file has: a short form such as `retry: 3` has no `attempts`."""
        node = self.root
        for depth, step in enumerate(path):
            found = node.child(step)
            if found is None:
                return path[:depth] if node.kind != "mapping" else path
            node = found[1]
        return path

    def find(self, path: Path, text: str) -> Span:
        """Return the place of `text` inside the (perhaps many-lined) value at `path`."""
        node = self.root
        for step in path:
            found = node.child(step)
            if found is None:
                break
            node = found[1]
        first = text.split("\n", 1)[0]
        for number in range(node.span.line, min(node.end_line, len(self.lines)) + 1):
            start = node.span.column - 1 if number == node.span.line else 0
            column = self.lines[number - 1].find(first, start)
            if column >= 0:
                return Span(number, column + 1, len(first))
        return node.span

    def problem(
        self,
        code: str,
        message: str,
        path: Path,
        *,
        hint: str = "",
        key: bool = False,
        at: Span | None = None,
        warning: bool = False,
    ) -> Diagnostic:
        """Return a diagnostic that points at `path` (or at the place `at`)."""
        place = at or self.span(path, key=key)
        return diagnostic_at(
            self.file, self.lines, place, code, message, hint=hint, severity="warning" if warning else "error"
        )


def diagnostic_at(
    file: str, lines: tuple[str, ...], place: Span, code: str, message: str, *, hint: str = "", severity: Any = "error"
) -> Diagnostic:
    """Return a diagnostic with the line that it is about, shortened around a very long line's place."""
    snippet = lines[place.line - 1] if place.line <= len(lines) else ""
    column = min(place.column, len(snippet) + 1)
    return Diagnostic(
        code=code,
        message=message,
        file=file,
        line=place.line,
        column=column,
        length=max(1, min(place.length, len(snippet) - column + 1)),
        # One column a letter, and nothing that a terminal would obey.
        snippet="".join(letter if letter.isprintable() else " " for letter in snippet[: max(400, column + 1)]),
        hint=hint,
        severity=severity,
    )


def read(text: str | bytes, file: str) -> Document:
    """Return the document of a file's content. Raises InvalidConfiguration with every problem in the YAML."""
    document, problems = examine(text, file)
    if problems:
        raise InvalidConfiguration(tuple(problems))
    return document


def examine(text: str | bytes, file: str) -> tuple[Document, list[Diagnostic]]:
    """Return the document and what is wrong with single keys and values of it, so that the rest can be checked too.

    Of a key that is there twice the first counts; a value that cannot be read is empty. Raises InvalidConfiguration
    when there is no document at all: broken YAML, too much of it, or none.
    """
    decoded = _decode(text, file)
    lines = tuple(decoded.splitlines())
    problems: list[Diagnostic] = []
    root = _compose(decoded, file, lines)
    budget = [MAX_NODES]
    try:
        data = _plain(root, problems, budget, 0, (file, lines))
    except TooMuchError as bomb:
        raise InvalidConfiguration((diagnostic_at(file, lines, bomb.span, "too-large", str(bomb)),)) from None
    return Document(file, lines, root, data), problems


def _decode(text: str | bytes, file: str) -> str:
    size = len(text)
    if size > MAX_BYTES:
        message = f"the file is {size / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
        raise InvalidConfiguration(
            (Diagnostic("too-large", message, file=file, hint="split it into templates that it includes"),)
        )
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as wrong:
            line = wrong.object.count(b"\n", 0, wrong.start) + 1
            message = f"byte 0x{wrong.object[wrong.start]:02x} at line {line} is not UTF-8"
            raise InvalidConfiguration(
                (Diagnostic("encoding", message, file=file, hint="save the file as UTF-8"),)
            ) from None
    elif any("\ud800" <= letter <= "\udfff" for letter in text):
        raise InvalidConfiguration((Diagnostic("encoding", "the text is not valid Unicode", file=file),))
    # One kind of line end, and only it: libyaml also counts others, and the caret must stand on the right line.
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").translate(_LINE_ENDS)


_LINE_ENDS = {0x85: " ", 0x2028: " ", 0x2029: " ", 0x0B: " ", 0x0C: " ", 0x1C: " ", 0x1D: " ", 0x1E: " "}


def _compose(text: str, file: str, lines: tuple[str, ...]) -> Node:
    """Fold libyaml's events into one tree; never recursive, so that depth is ours to limit."""
    from forge.core.pipeline.yaml_errors import describe

    def refuse(place: Span, code: str, message: str, hint: str = "") -> InvalidConfiguration:
        return InvalidConfiguration((diagnostic_at(file, lines, place, code, message, hint=hint),))

    builder = TreeBuilder()
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CLoader", yaml.Loader)):
            builder.take(event)
    except yaml.YAMLError as wrong:
        raise InvalidConfiguration((describe(wrong, file, lines),)) from None
    except TooMuchError as bomb:
        raise refuse(bomb.span, "too-large", str(bomb)) from None
    except TreeError as wrong:
        raise refuse(wrong.span, "syntax", str(wrong), wrong.hint) from None
    if builder.root is None:
        raise InvalidConfiguration((Diagnostic("empty", "the file is empty", file=file, hint=_EMPTY_HINT),))
    return builder.root


_EMPTY_HINT = "a pipeline needs `jobs:`; `forge init` writes one to start from"


def _plain(node: Node, problems: list[Diagnostic], budget: list[int], depth: int, source: tuple[str, Any]) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise TooMuchError(f"aliases make this more than {MAX_NODES:,} values", node.span)
    if depth > MAX_DEPTH:
        raise TooMuchError(f"aliases nest this more than {MAX_DEPTH} deep", node.span)
    if node.kind == "scalar":
        try:
            return read_scalar(node.text, plain=node.plain, tag=node.tag)
        except ScalarError as wrong:
            problems.append(diagnostic_at(*source, node.span, "scalar", str(wrong), hint=wrong.hint))
            return ""
    if node.tag and node.tag not in {"!", "tag:yaml.org,2002:seq", "tag:yaml.org,2002:map"}:
        problems.append(diagnostic_at(*source, node.span, "scalar", f"the tag `{node.tag}` means nothing here"))
    if node.kind == "list":
        return [_plain(item, problems, budget, depth + 1, source) for item in node.items]
    return _mapping(node, problems, budget, depth, source)


def _mapping(
    node: Node, problems: list[Diagnostic], budget: list[int], depth: int, source: tuple[str, Any]
) -> dict[str, Any]:
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    first: dict[str, Span] = {}
    for name, value in node.pairs:
        content = _plain(value, problems, budget, depth + 1, source)
        if name.kind != "scalar":
            problems.append(diagnostic_at(*source, name.span, "key", "a key must be text"))
        elif name.text == "<<" and name.plain:
            for part in _merge_parts(content):
                if part is None:
                    message = "`<<` takes a mapping, or a list of them"
                    problems.append(diagnostic_at(*source, value.span, "key", message))
                else:
                    merged = {**part, **merged}
        elif name.text in first:
            hint = f"the first is at line {first[name.text].line}; keep one of the two"
            message = f"the key `{name.text}` is there twice"
            problems.append(diagnostic_at(*source, name.span, "duplicate-key", message, hint=hint))
        else:
            first[name.text] = name.span
            own[name.text] = content
    return {**merged, **own} if merged else own


def _merge_parts(content: Any) -> Iterator[dict[str, Any] | None]:
    for part in content if isinstance(content, list) else [content]:
        yield part if isinstance(part, dict) else None
