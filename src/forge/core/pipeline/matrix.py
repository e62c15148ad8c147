"""A job's matrix: axes times each other, plus `include`, minus `exclude`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

from forge.core.pipeline.scalars import written
from forge.model.plan import Scalar

MAX_INSTANCES = 256
Combination = dict[str, Scalar]


@dataclass(frozen=True, slots=True)
class Expansion:
    """The combinations of a matrix; `problem` says why there are none, `unused` which excludes match nothing."""

    combinations: tuple[Combination, ...] = ()
    problem: str = ""
    hint: str = ""
    unused: tuple[int, ...] = ()


def expand(matrix: dict[str, list[Any]] | None) -> Expansion:
    """Return a job's combinations; a job without a matrix has one, which is empty."""
    if matrix is None:
        return Expansion(({},))
    axes = {name: values for name, values in matrix.items() if name not in {"include", "exclude"}}
    size = math.prod(len(values) for values in axes.values()) if axes else 0
    if size > MAX_INSTANCES * 16:
        return Expansion(problem=f"makes {size:,} jobs", hint=f"at most {MAX_INSTANCES} are allowed")
    combinations: list[Combination] = []
    if axes:
        combinations = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    excludes = matrix.get("exclude", [])
    unused = tuple(
        index for index, entry in enumerate(excludes) if not any(_matches(row, entry) for row in combinations)
    )
    combinations = [row for row in combinations if not any(_matches(row, entry) for entry in excludes)]
    combinations = _unique(_included(combinations, matrix.get("include", []), axes))
    if not combinations:
        return Expansion(problem="makes no job at all", hint="give each axis a value, or remove `exclude`")
    if len(combinations) > MAX_INSTANCES:
        count = len(combinations)
        return Expansion(problem=f"makes {count:,} jobs", hint=f"at most {MAX_INSTANCES} are allowed")
    return Expansion(tuple(combinations), unused=unused)


def _included(combinations: list[Combination], entries: list[Combination], axes: dict[str, Any]) -> list[Combination]:
    """An entry extends the combinations that it agrees with on their axes; one that agrees with none is a job more."""
    rows = [dict(row) for row in combinations]
    more: list[Combination] = []
    for entry in entries:
        shared = {name: value for name, value in entry.items() if name in axes}
        extra = {name: value for name, value in entry.items() if name not in axes}
        agreeing = [row for row in rows if _matches(row, shared)]
        if agreeing and extra:
            for row in agreeing:
                row.update(extra)
        elif not agreeing:
            more.append(dict(entry))
    return rows + more


def _matches(row: Combination, entry: Combination) -> bool:
    return all(name in row and written(row[name]) == written(value) for name, value in entry.items())


def _unique(rows: list[Combination]) -> list[Combination]:
    return list({instance_name("", row): row for row in rows}.values())


def instance_name(base: str, combination: Combination) -> str:
    """Return the job's unique name: `test (os=linux, py=3.11)`."""
    if not combination:
        return base
    return f"{base} ({', '.join(f'{name}={written(value)}' for name, value in combination.items())})"
