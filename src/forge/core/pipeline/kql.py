r"""The Kibana query language, as far as logs need it: translated to Elasticsearch's query DSL.

Supported: `field: value`, `field: "a phrase"`, `field: (a or b)`, `field: *` (exists), `*` inside values,
`field >= 3`, words without a field, `and`, `or`, `not`, parentheses, and `\\` before a sign that stands for itself.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple, NoReturn

DEEPEST = 30
_TOKEN = re.compile(
    r'\s*(?:(?P<sign>[():{}]|<=|>=|<|>)|"(?P<phrase>(?:[^"\\]|\\.)*)"|(?P<word>(?:[^\s():{}<>"\\]|\\.)+))', re.DOTALL
)
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LUCENE = re.compile(r'([+\-=&|><!(){}\[\]^"~?:\\/ ])')


class KqlError(ValueError):
    """The query is not understood; `at` is the place of the first character that is not, counted from 1."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        super().__init__(message)
        self.at = at
        self.hint = hint


class _Token(NamedTuple):
    kind: str
    text: str
    at: int


def translate(query: str) -> dict[str, Any]:
    """Return the query DSL of a query. Raises KqlError."""
    parser = _Parser(_tokens(query), len(query) + 1)
    if not parser.tokens:
        return {"match_all": {}}
    found = parser.any_of(0)
    if parser.next is not None:
        parser.fail(f"`{parser.next.text}` is not expected here")
    return found


def _tokens(query: str) -> list[_Token]:
    tokens, at = [], 0
    end = len(query.rstrip())
    while at < end:
        found = _TOKEN.match(query, at)
        if found is None:
            start = at + len(query[at:]) - len(query[at:].lstrip())
            raise KqlError("a quote or a `\\` is not closed", start + 1, 'every `"` needs a second one')
        kind = str(found.lastgroup)
        tokens.append(_Token(kind, found[kind], found.start(kind) + (0 if kind == "phrase" else 1)))
        at = found.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[_Token], end: int) -> None:
        self.tokens = tokens
        self.end = end
        self.index = 0

    @property
    def next(self) -> _Token | None:
        return self.tokens[self.index] if self.index < len(self.tokens) else None

    def fail(self, message: str, hint: str = "") -> NoReturn:
        raise KqlError(message, self.next.at if self.next else self.end, hint)

    def is_word(self, word: str) -> bool:
        return self.next is not None and self.next.kind == "word" and self.next.text.lower() == word

    def is_sign(self, *signs: str) -> bool:
        return self.next is not None and self.next.kind == "sign" and self.next.text in signs

    def take(self) -> _Token:
        if self.next is None:
            self.fail("ends too early")
        self.index += 1
        return self.tokens[self.index - 1]

    def any_of(self, depth: int, field: str = "") -> dict[str, Any]:
        found = [self.all_of(depth, field)]
        while self.is_word("or"):
            self.take()
            found.append(self.all_of(depth, field))
        return found[0] if len(found) == 1 else {"bool": {"should": found, "minimum_should_match": 1}}

    def all_of(self, depth: int, field: str) -> dict[str, Any]:
        found = [self.one(depth, field)]
        while self.is_word("and"):
            self.take()
            found.append(self.one(depth, field))
        return found[0] if len(found) == 1 else {"bool": {"filter": found}}

    def one(self, depth: int, field: str) -> dict[str, Any]:
        if depth > DEEPEST:
            self.fail("is nested too deeply")
        if self.is_word("not"):
            self.take()
            return {"bool": {"must_not": [self.one(depth + 1, field)]}}
        if self.is_sign("("):
            self.take()
            inner = self.any_of(depth + 1, field)
            if not self.is_sign(")"):
                self.fail("`)` is missing")
            self.take()
            return inner
        return self.value(field) if field else self.clause(depth)

    def clause(self, depth: int) -> dict[str, Any]:
        first = self.operand()
        if self.is_sign(*_RANGES):
            operator = self.take().text
            return {"range": {self.field(first): {_RANGES[operator]: _plain(self.operand())}}}
        if not self.is_sign(":"):
            return _anywhere(first)
        self.take()
        name = self.field(first)
        if self.is_sign("{"):
            self.fail("nested fields (`{`) are not supported", "write the query DSL instead of a text")
        if self.is_sign("("):
            return self.one(depth, name)
        return self.value(name)

    def operand(self) -> _Token:
        if self.next is not None and self.next.kind == "sign":
            self.fail(f"`{self.next.text}` is not expected here")
        if any(self.is_word(word) for word in ("and", "or", "not")):
            self.fail(f"`{self.next.text if self.next else ''}` needs a condition on both sides")
        return self.take()

    def field(self, token: _Token) -> str:
        name = _plain(token)
        if "*" in name:
            raise KqlError("`*` in a field's name is not supported", token.at, "name the field")
        return name

    def value(self, field: str) -> dict[str, Any]:
        token = self.operand()
        if token.kind == "phrase":
            return {"match_phrase": {field: _plain(token)}}
        if token.text == "*":
            return {"exists": {"field": field}}
        if "*" in _ESCAPED.sub("", token.text):
            return {"query_string": {"fields": [field], "query": _lucene(token.text)}}
        return {"match": {field: _plain(token)}}


def _anywhere(token: _Token) -> dict[str, Any]:
    if token.kind == "word" and "*" in _ESCAPED.sub("", token.text):
        return {"query_string": {"query": _lucene(token.text)}}
    kind = "phrase" if token.kind == "phrase" else "best_fields"
    return {"multi_match": {"query": _plain(token), "type": kind, "lenient": True}}


def _plain(token: _Token) -> str:
    return _ESCAPED.sub(r"\1", token.text)


def _lucene(word: str) -> str:
    """Return a word whose `*` are wildcards, and nothing else of which means anything to Lucene."""
    parts = re.split(r"((?:\\.)|\*)", word, flags=re.DOTALL)
    shown = []
    for part in parts:
        if part == "*":
            shown.append("*")
        else:
            plain = _ESCAPED.sub(r"\1", part)
            # `<` and `>` cannot be escaped for Lucene.
            shown.append(_LUCENE.sub(r"\\\1", plain.replace("<", "").replace(">", "")).replace("*", "\\*"))
    return "".join(shown)
