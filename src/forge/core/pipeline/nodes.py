"""libyaml's events folded into a tree that remembers where everything stands.

Not recursive, and counted while it grows: a nested or a long bomb ends at a limit instead of in memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_DEPTH = 40
MAX_NODES = 150_000
"""Nodes after aliases are expanded; each costs about a kilobyte while it is checked."""
Key = str | int


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a file; `line` and `column` count from 1."""

    line: int
    column: int
    length: int


@dataclass(slots=True)
class Node:
    """A scalar (`text`), a list (`items`) or a mapping (`pairs`), and where it stands."""

    span: Span
    end_line: int
    kind: str
    text: str = ""
    plain: bool = False
    tag: str = ""
    items: list[Node] = field(default_factory=list)
    pairs: list[tuple[Node, Node]] = field(default_factory=list)
    index: dict[str, tuple[Node, Node]] | None = None
    """`pairs` by their key, made when first asked for."""

    def child(self, key: Key) -> tuple[Node, Node] | None:
        """Return (key node, value node) of a mapping's key or a list's index."""
        if isinstance(key, int):
            return (self.items[key], self.items[key]) if 0 <= key < len(self.items) else None
        if self.index is None:
            self.index = {}
            for pair in self.pairs:
                self.index.setdefault(pair[0].text, pair)
        for spelling in (key, _OTHER_SPELLING.get(key, key)):
            if spelling in self.index:
                return self.index[spelling]
        merge = self.index.get("<<")
        if merge is not None and merge[0].plain:
            for merged in merge[1].items if merge[1].kind == "list" else [merge[1]]:
                if (found := merged.child(key)) is not None:
                    return found
        return None


_OTHER_SPELLING = {"artifact": "artefact", "artefact": "artifact"}


class TooMuchError(Exception):
    """The content is larger or deeper than anything that a person wrote."""

    def __init__(self, message: str, span: Span) -> None:
        super().__init__(message)
        self.span = span


class TreeError(Exception):
    """YAML that libyaml takes and Forge does not."""

    def __init__(self, message: str, span: Span, hint: str) -> None:
        super().__init__(message)
        self.span = span
        self.hint = hint


class TreeBuilder:
    """Takes events one by one and grows the tree."""

    def __init__(self) -> None:
        self.root: Node | None = None
        self.open: list[Node] = []
        self.keys: list[Node | None] = []
        self.anchors: dict[str, Node] = {}
        self.count = 0

    def take(self, event: Any) -> None:
        """Add one event."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            plain = bool(event.implicit[0]) and event.style in {"", None}
            node = Node(_span(event), event.end_mark.line + 1, "scalar", event.value, plain, event.tag or "")
            self._add(node, event.anchor)
        elif kind in {yaml.SequenceStartEvent, yaml.MappingStartEvent}:
            shape = "list" if kind is yaml.SequenceStartEvent else "mapping"
            node = Node(_span(event), event.end_mark.line + 1, shape, tag=event.tag or "")
            self._add(node, event.anchor)
            if len(self.open) >= MAX_DEPTH:
                raise TooMuchError(f"this is nested more than {MAX_DEPTH} deep", node.span)
            self.open.append(node)
            self.keys.append(None)
        elif kind in {yaml.SequenceEndEvent, yaml.MappingEndEvent}:
            closed = self.open.pop()
            self.keys.pop()
            closed.end_line = max(event.end_mark.line + (event.end_mark.column > 0), closed.span.line)
        elif kind is yaml.AliasEvent:
            if event.anchor not in self.anchors:
                hint = "define it before with `&name`, or put quotes around a text that begins with `*`"
                raise TreeError(f"`*{event.anchor}` refers to nothing", _span(event), hint)
            self._add(self.anchors[event.anchor], None)
        elif kind is yaml.DocumentStartEvent and self.root is not None:
            hint = "remove the line `---` and what follows, or put it into a file of its own"
            raise TreeError("the file holds more than one document", _span(event), hint)

    def _add(self, node: Node, anchor: str | None) -> None:
        self.count += 1
        if self.count > MAX_NODES:
            raise TooMuchError(f"the file holds more than {MAX_NODES:,} values", node.span)
        if anchor:
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        parent = self.open[-1]
        if parent.kind == "list":
            parent.items.append(node)
        elif (key := self.keys[-1]) is None:
            self.keys[-1] = node
        else:
            parent.pairs.append((key, node))
            self.keys[-1] = None


def _span(event: Any) -> Span:
    start, end = event.start_mark, event.end_mark
    length = end.column - start.column if end.line == start.line else 1
    return Span(start.line + 1, start.column + 1, max(1, length))
