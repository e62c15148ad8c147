"""The words of a CEL expression: enough to know what it reads and to put values into it, without a parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_LENGTH = 1000
"""Letters of an expression: nobody reads more, and a text cannot double often in so few."""
MACROS = frozenset({"map", "filter", "all", "exists", "exists_one"})
_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*)
    |(?P<text>[rRbB]{0,2}(?:'''(?:\\.|[^\\])*?'''|\"\"\"(?:\\.|[^\\])*?\"\"\"|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"))
    |(?P<word>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>\d+(?:\.\d+)?(?:[eE][-+]?\d+)?u?)
    |(?P<sign>&&|\|\||[=!<>]=|.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Token:
    """One word: `kind` is text, word, number or sign; `start` and `end` are its place in the expression."""

    kind: str
    text: str
    start: int
    end: int


def tokens(expression: str) -> list[Token]:
    """Return the words of an expression, without blanks and comments."""
    return [
        Token(str(match.lastgroup), match[0], match.start(), match.end())
        for match in _TOKEN.finditer(expression)
        if match.lastgroup != "space"
    ]


@dataclass(frozen=True, slots=True)
class Reference:
    """A chain of names such as `jobs["build"].outputs.tag`, and where it stands."""

    path: tuple[str, ...]
    start: int
    end: int


def reference_list(expression: str) -> list[Reference]:
    """Return every chain of names that an expression reads; a loop's own variables are left out."""
    if len(expression) > MAX_LENGTH:
        return []  # refused as a whole when it is compiled
    words = tokens(expression)
    local = {
        words[index + 2].text
        for index, word in enumerate(words[:-2])
        if word.text in MACROS and words[index + 1].text == "(" and words[index + 2].kind == "word"
    }
    found: list[Reference] = []
    index = 0
    while index < len(words):
        word = words[index]
        before = words[index - 1].text if index else ""
        after = words[index + 1].text if index + 1 < len(words) else ""
        if word.kind != "word" or before == "." or after == "(" or word.text in local:
            index += 1
            continue
        chain, stop = _chain(words, index)
        found.append(Reference(tuple(chain), word.start, words[stop - 1].end))
        index = stop
    return found


def paths(expression: str) -> list[tuple[str, ...]]:
    """Return the chains of names alone."""
    return [reference.path for reference in reference_list(expression)]


def _chain(words: list[Token], index: int) -> tuple[list[str], int]:
    chain = [words[index].text]
    index += 1
    while index + 1 < len(words):
        sign, following = words[index].text, words[index + 1]
        after = words[index + 2].text if index + 2 < len(words) else ""
        if sign == "." and following.kind == "word" and after != "(":
            chain.append(following.text)
            index += 2
        elif sign == "[" and following.kind == "text" and after == "]" and following.text[0] in "'\"":
            chain.append(following.text.strip("'\""))
            index += 3
        else:
            break
    return chain, index
