"""Manifest files as plain data that remembers where everything stands: YAML of several documents, or JSON.

The events of libyaml are folded into trees without recursion, so that a nested or aliased bomb ends at a limit.
Scalars are read as kubectl reads them (YAML 1.1: `yes`, `on` and `y` are booleans, `0644` is octal); dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from forge.model.diagnostics import Diagnostic
from forge.model.errors import InvalidConfiguration

MAX_BYTES = 16_000_000
"""Of one file: all the types of a large operator are a tenth of it."""
MAX_VALUES = 1_000_000
"""Of one file, with aliases expanded."""
MAX_DEPTH = 100
MAX_SNIPPET = 400
_TEMPLATE_HINT = "this is a template: `helm: {chart: DIR}` renders a chart"
Path = tuple[str | int, ...]

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE = frozenset({"y", "Y", "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"})
_FALSE = frozenset({"n", "N", "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"})
_INT = re.compile(r"[-+]?(0_*|[1-9][0-9_]*)")
_OTHER_INT = re.compile(r"[-+]?(0b[01]+|0x[0-9a-fA-F]+|0o?[0-7]+)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_MOST_DIGITS = 30
_EXACT = 2**53
_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2})(\\u[dD][c-fC-F][0-9a-fA-F]{2})")
_LINE_ENDS = {0x85: " ", 0x2028: " ", 0x2029: " ", 0x0B: " ", 0x0C: " ", 0x1C: " ", 0x1D: " ", 0x1E: " "}


@dataclass(slots=True)
class Node:
    """A scalar (`text`), a list (`items`) or a mapping (`pairs`), and where it stands; lines count from 1."""

    line: int
    column: int
    length: int
    kind: str
    text: str = ""
    plain: bool = False
    tag: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)

    def child(self, step: str | int) -> tuple[Node, Node] | None:
        """Return (key node, value node) of a mapping's key or a list's index."""
        if isinstance(step, int):
            return (self.items[step], self.items[step]) if step < len(self.items) else None
        return next((pair for pair in self.pairs if pair[0].text == step), None)


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: its data, and the place of everything in it."""

    file: str
    lines: tuple[str, ...]
    root: Node
    data: Any

    def problem(
        self, code: str, message: str, path: Path = (), *, hint: str = "", key: bool = False, warning: bool = False
    ) -> Diagnostic:
        """Return a diagnostic that points at the value (or, with `key`, the key) at `path`, or what is nearest."""
        node = name = self.root
        for step in path:
            found = node.child(step)
            if found is None:
                # What is missing is told at the key that it is missing under.
                node = name
                break
            name, node = found
        return _diagnostic(self.file, self.lines, name if key else node, code, message, hint=hint, warning=warning)


class _RefusedError(Exception):
    """What libyaml takes and a manifest cannot have, at its place."""

    def __init__(self, message: str, node: Node, hint: str = "") -> None:
        super().__init__(message)
        self.node = node
        self.hint = hint


def read_documents(content: str | bytes, file: str) -> list[Document]:
    """Return the documents of a file that are not empty. Raises InvalidConfiguration with what is wrong."""
    text = _decoded(content, file)
    lines = tuple(text.splitlines())
    builder = _Builder()
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CLoader", yaml.Loader)):
            builder.take(event)
        budget = [MAX_VALUES]
        return [
            Document(file, lines, root, _plain(root, budget, 0))
            for root in builder.roots
            if root.kind != "scalar" or not root.plain or root.text not in _NULL
        ]
    except yaml.YAMLError as wrong:
        raise InvalidConfiguration((_syntax(wrong, file, lines),)) from None
    except _RefusedError as refused:
        hint = _TEMPLATE_HINT if "{{" in lines[refused.node.line - 1] else refused.hint
        problem = _diagnostic(file, lines, refused.node, "manifest", str(refused), hint=hint)
        raise InvalidConfiguration((problem,)) from None


def _decoded(content: str | bytes, file: str) -> str:
    if len(content) > MAX_BYTES:
        message = f"the file is {len(content) / 1e6:.1f} MB; at most {MAX_BYTES / 1e6:.0f} MB are read"
        raise InvalidConfiguration((Diagnostic("manifest", message, file=file),))
    if isinstance(content, bytes):
        try:
            content = content.decode("utf-8")
        except UnicodeDecodeError as wrong:
            line = wrong.object.count(b"\n", 0, wrong.start) + 1
            message = f"byte 0x{wrong.object[wrong.start]:02x} at line {line} is not UTF-8"
            raise InvalidConfiguration((Diagnostic("manifest", message, file=file),)) from None
    # One kind of line end, and only it, so that the caret stands on the right line.
    text = content.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").translate(_LINE_ENDS)
    # JSON writes what is beyond 16 bits as two escapes, which YAML does not know.
    return _PAIR.sub(_joined, text) if text.lstrip()[:1] in {"{", "[", '"'} else text


def _joined(pair: re.Match[str]) -> str:
    return pair[1] + f"{pair[2]}{pair[3]}".encode().decode("unicode_escape").encode("utf-16", "surrogatepass").decode(
        "utf-16"
    )


class _Builder:
    """Takes libyaml's events one by one and grows one tree a document."""

    def __init__(self) -> None:
        self.roots: list[Node] = []
        self.open: list[Node] = []
        self.keys: list[Node | None] = []
        self.anchors: dict[str, Node] = {}
        self.count = 0

    def take(self, event: Any) -> None:
        """Add one event."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            node = _node(event, "scalar", event.tag)
            node.text, node.plain = event.value, bool(event.implicit[0]) and event.style in {"", None}
            self._add(node, event.anchor)
        elif kind in {yaml.SequenceStartEvent, yaml.MappingStartEvent}:
            node = _node(event, "list" if kind is yaml.SequenceStartEvent else "mapping", event.tag)
            if len(self.open) >= MAX_DEPTH:
                raise _RefusedError(f"this is nested more than {MAX_DEPTH} deep", node)
            self._add(node, event.anchor)
            self.open.append(node)
            self.keys.append(None)
        elif kind in {yaml.SequenceEndEvent, yaml.MappingEndEvent}:
            self.open.pop()
            self.keys.pop()
        elif kind is yaml.AliasEvent:
            if event.anchor not in self.anchors:
                hint = "put quotes around a text that begins with `*`"
                raise _RefusedError(f"`*{event.anchor}` refers to nothing", _node(event, "scalar", ""), hint)
            self._add(self.anchors[event.anchor], None)
        elif kind is yaml.DocumentStartEvent:
            self.anchors = {}

    def _add(self, node: Node, anchor: str | None) -> None:
        self.count += 1
        if self.count > MAX_VALUES:
            raise _RefusedError(f"the file holds more than {MAX_VALUES:,} values", node)
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.roots.append(node)
            return
        parent = self.open[-1]
        if parent.kind == "list":
            parent.items.append(node)
        elif (key := self.keys[-1]) is None:
            self.keys[-1] = node
        else:
            parent.pairs.append((key, node))
            self.keys[-1] = None


def _node(event: Any, kind: str, tag: str | None) -> Node:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Node(start.line + 1, start.column + 1, max(1, length), kind, tag=tag or "")


def _plain(node: Node, budget: list[int], depth: int) -> Any:
    budget[0] -= 1
    if budget[0] < 0:
        raise _RefusedError(f"aliases make this more than {MAX_VALUES:,} values", node)
    if depth > MAX_DEPTH:
        raise _RefusedError(f"aliases nest this more than {MAX_DEPTH} deep", node)
    if node.kind == "scalar":
        return _scalar(node)
    if node.kind == "list":
        return [_plain(item, budget, depth + 1) for item in node.items]
    own: dict[str, Any] = {}
    merged: dict[str, Any] = {}
    first: dict[str, Node] = {}
    for name, value in node.pairs:
        if name.kind != "scalar":
            raise _RefusedError("a key must be text", name)
        content = _plain(value, budget, depth + 1)
        if name.text == "<<" and name.plain:
            for part in _merged_parts(content, value):
                merged = {**part, **merged}
        elif name.text in first:
            hint = f"the first is at line {first[name.text].line}; keep one of the two"
            raise _RefusedError(f"the key `{name.text}` is there twice", name, hint)
        else:
            first[name.text] = name
            own[name.text] = content
    return {**merged, **own}


def _merged_parts(content: Any, node: Node) -> Iterator[dict[str, Any]]:
    for part in content if isinstance(content, list) else [content]:
        if not isinstance(part, dict):
            raise _RefusedError("`<<` takes a mapping, or a list of them", node)
        yield part


def _scalar(node: Node) -> Any:
    text = node.text
    if node.tag in {"!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"} or (not node.plain and not node.tag):
        return text
    if node.tag and not node.tag.startswith("tag:yaml.org,2002:"):
        hint = "templates are rendered before: use `helm` or `kustomize`"
        raise _RefusedError(f"the tag `{node.tag}` means nothing in a manifest", node, hint)
    return read_scalar(text)


def read_scalar(text: str) -> Any:
    """Return what kubectl takes a text without quotes for: None, bool, int, float, or the text itself."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if len(text) <= _MOST_DIGITS:
        if _INT.fullmatch(text):
            return _whole(int(text.replace("_", "")))
        if _OTHER_INT.fullmatch(text):
            sign, digits = ("-" if text[0] == "-" else ""), text.lstrip("+-")
            old_octal = digits[1:].isdigit()
            return _whole(int(f"{sign}0o{digits[1:]}" if old_octal else f"{sign}{digits}", 0))
    if text[:1] in "+-.0123456789" and _FLOAT.fullmatch(text):
        number = float(text)
        if number in {float("inf"), float("-inf")}:
            return text
        # As kubectl sends it: `1.0` where a whole number is wanted is one.
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    return text


def _whole(number: int) -> int | float:
    """Return a number that JSON's readers take: those that do not fit 64 bits lose their last digits."""
    return number if -(2**63) <= number < 2**64 else float(number)


def _diagnostic(
    file: str, lines: tuple[str, ...], node: Node, code: str, message: str, *, hint: str = "", warning: bool = False
) -> Diagnostic:
    snippet = lines[node.line - 1] if node.line <= len(lines) else ""
    column = min(node.column, len(snippet) + 1)
    shown = snippet[: max(MAX_SNIPPET, column + 1)]
    return Diagnostic(
        code=code,
        message=message,
        file=file,
        line=node.line,
        column=column,
        length=max(1, min(node.length, len(snippet) - column + 1)),
        # One column a letter, and nothing that a terminal would obey.
        snippet="".join(letter if letter.isprintable() else " " for letter in shown),
        hint=hint,
        severity="warning" if warning else "error",
    )


def _syntax(wrong: yaml.YAMLError, file: str, lines: tuple[str, ...]) -> Diagnostic:
    mark: Any = getattr(wrong, "problem_mark", None)
    if mark is None:
        return Diagnostic("manifest", f"this is not YAML: {str(wrong).splitlines()[0]}", file=file)
    problem = str(getattr(wrong, "problem", "") or getattr(wrong, "context", "") or "it cannot be read")
    line = lines[mark.line] if mark.line < len(lines) else ""
    hint = "check the indentation and the quotes"
    if "{{" in line:
        hint = _TEMPLATE_HINT
    elif "\t" in line[: mark.column + 1]:
        hint = "indent with spaces; a tab cannot indent YAML"
    start: Any = getattr(wrong, "context_mark", None)
    # The end of the file shows nothing; the place where it was opened does.
    place = start if mark.line >= len(lines) and start is not None else mark
    node = Node(place.line + 1, place.column + 1, 1, "scalar")
    return _diagnostic(file, lines, node, "manifest", f"this is not YAML: {problem}", hint=hint)
