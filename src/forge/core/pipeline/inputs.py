"""Input fields of a gate: text or JSON from a person becomes checked values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from forge.model.diagnostics import did_you_mean
from forge.model.plan import Parameter, Scalar

_TRUE = {"true", "yes", "on", "1"}
_FALSE = {"false", "no", "off", "0"}


def check_inputs(
    fields: tuple[Parameter, ...], given: Mapping[str, Any], so_far: Mapping[str, Any]
) -> tuple[dict[str, Scalar], list[str]]:
    """Return the given values in their types, and everything that is wrong with them.

    `so_far`: what earlier approvers entered. A later one may repeat a value, not change it: nobody's
    approval may be used for other values than they saw.
    """
    known = {field.name: field for field in fields}
    values: dict[str, Scalar] = {}
    problems: list[str] = []
    for name, raw in given.items():
        field = known.get(name)
        if field is None:
            problems.append(f"unknown input `{name}`; {did_you_mean(name, tuple(known)) or 'this gate takes none'}")
            continue
        try:
            value = convert(field, raw)
        except ValueError as error:
            problems.append(f"input `{name}` {error}")
            continue
        if name in so_far and so_far[name] != value:
            problems.append(f"input `{name}` was already given as {so_far[name]!r} by an earlier approver")
            continue
        values[name] = value
    return values, problems


def missing(fields: tuple[Parameter, ...], values: Mapping[str, Any]) -> list[str]:
    """Return a problem for each required field that has neither a value nor a default."""
    return [
        f"input `{field.name}` is required"
        for field in fields
        if field.required and field.default is None and field.name not in values
    ]


def with_defaults(fields: tuple[Parameter, ...], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, completed by the fields' defaults."""
    defaults = {field.name: field.default for field in fields if field.default is not None}
    return {**defaults, **values}


def convert(field: Parameter, raw: object) -> Scalar:
    """Return a value in the field's type. Raises ValueError with words that follow the field's name."""
    if field.type == "number":
        return _number(raw)
    if field.type == "boolean":
        return _boolean(raw)
    if not isinstance(raw, (str, int, float)) or isinstance(raw, bool):
        raise ValueError(f"must be text, not {raw!r}")  # noqa: TRY004 - it is one of the wrong values
    text = str(raw)
    if (field.type == "choice" or field.options) and text not in field.options:
        raise ValueError(f"must be one of {', '.join(field.options)}, not {text!r}")
    return text


def _number(raw: object) -> int | float:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)):
        raise ValueError(f"must be a number, not {raw!r}")  # noqa: TRY004 - it is one of the wrong values
    try:
        value = float(raw)
    except ValueError:
        raise ValueError(f"must be a number, not {raw!r}") from None
    if not math.isfinite(value):
        raise ValueError(f"must be a finite number, not {raw!r}")
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _boolean(raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f"must be true or false, not {raw!r}")
