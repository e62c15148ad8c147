"""Metric templates of other tools as values of Prometheus and checks of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

VERSION = "$version"
_PLACEHOLDER = re.compile(r"\{\{-?\s*(?:args\.)?([A-Za-z0-9_-]+)\s*-?\}\}")
_CONDITION = re.compile(r"\s*(?:!?\s*isNaN\([^)]*\)\s*\|\|\s*)?result(?:\[0\])?\s*(<=|<|>=|>)\s*(-?[0-9.]+)\s*")


class Limit(NamedTuple):
    """A query whose answer must not be above a number."""

    query: str
    above: float


def filled(query: str, values: Mapping[str, str]) -> str:
    """Return a query with its placeholders filled in; one that is not known stays."""
    return _PLACEHOLDER.sub(lambda found: values.get(found[1], found[0]), query).strip()


def unfilled(query: str) -> list[str]:
    """Return the placeholders that are left in a query."""
    return [found[1] for found in _PLACEHOLDER.finditer(query)]


def limit_of(query: str, success: str) -> Limit | None:
    """Return the limit that a condition of success sets: `result[0] <= 0.05`. None: it is another kind of condition."""
    found = _CONDITION.fullmatch(success)
    if found is None:
        return None
    number = float(found[2])
    if found[1] in {"<", "<="}:
        return Limit(query, number)
    return at_least(query, number)


def at_least(query: str, number: float) -> Limit:
    """Return the limit of what must not be below a number: a share is turned round, anything else gets a minus."""
    if 0 < number <= 1:
        return Limit(f"1 - ({query})", round(1 - number, 9))
    return Limit(f"0 - ({query})", -number)


def value_check(name: str, limit: Limit, over: str) -> dict[str, Any]:
    """Return the check of an own query's value."""
    return {"value": {"name": name, "above": limit.above, "over": over}}
