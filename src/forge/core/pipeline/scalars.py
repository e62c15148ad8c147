"""Scalars by the YAML 1.2 core schema; numbers remember how they were written.

`1.10` where text is wanted is the text `1.10`, not `1.1`: a version number needs no quotes.
"""

from __future__ import annotations

import math
import re
from typing import Any

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_OCTAL_TRAP = re.compile(r"[-+]?0[0-9]+")
_STRING_TAGS = frozenset({"!", "tag:yaml.org,2002:str"})
_CORE_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null"))


class ScalarError(ValueError):
    """A scalar that would be misread; `hint` says how to write it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class WrittenInt(int):
    """A whole number and how it stands in the file."""

    text: str


class WrittenFloat(float):
    """A number and how it stands in the file."""

    text: str


def read_scalar(text: str, *, plain: bool, tag: str = "") -> Any:
    """Return str, WrittenInt, WrittenFloat, bool or None. Raises ScalarError for `022`, `.nan`, unknown tags."""
    if tag in _STRING_TAGS or (not plain and not tag):
        return text
    if tag and tag not in _CORE_TAGS:
        raise ScalarError(f"the tag `{tag}` means nothing here", "remove it; use quotes for text")
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _OCTAL_TRAP.fullmatch(text):
        bare = text.lstrip("+-0") or "0"
        raise ScalarError(
            f"`{text}` can be read as two numbers", f'write "{text}" for text, {bare} or 0o{bare} for a number'
        )
    if _INT.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        number = WrittenFloat(text)
        if not math.isfinite(number):
            raise ScalarError(f"`{text}` is too large a number", f'write "{text}" for text')
        number.text = text
        return number
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"`{text}` is not a number that Forge can use", f'write "{text}" for text')
    return text


def _integer(text: str) -> WrittenInt:
    if len(text) > 18:
        raise ScalarError("this number is too large", f'write "{text[:60]}" for text')
    number = WrittenInt(text, 0) if text[:2] in {"0o", "0x"} else WrittenInt(text)
    number.text = text
    return number


def written(value: Any) -> str:
    """Return a scalar as it was written, or as YAML writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(getattr(value, "text", value))
