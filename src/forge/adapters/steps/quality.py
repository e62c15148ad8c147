"""`quality:` a gate that reads test and coverage reports and refuses to go on below a threshold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from forge.adapters.paths import near_names
from forge.adapters.reports import BadReport, Coverage, Tests, read_cobertura, read_junit
from forge.adapters.steps.base import StepContext, StepResult
from forge.model.configs import QualityConfig

MOST_FILES = 10_000

R = TypeVar("R", Tests, Coverage)


class QualityStep:
    """Fails for a missing or broken report as for a bad one: no evidence is no pass.

    Outputs: `tests`, `failures` (with errors), `skipped`, and `line_coverage`, `branch_coverage` as fractions
    where coverage reports were read.
    """

    kind = "quality"

    async def run(self, context: StepContext) -> StepResult:
        """Do it."""
        config = msgspec.convert(context.step.config, QualityConfig)
        if not (config.junit or config.coverage):
            return StepResult("failed", "the quality gate names no reports, so nothing can be judged")
        try:
            tests = await asyncio.to_thread(_read, context.cwd, config.junit, read_junit)
            coverage = await asyncio.to_thread(_read, context.cwd, config.coverage, read_cobertura)
        except BadReport as error:
            context.say(f"quality gate: {error}")
            return StepResult("failed", str(error))
        rows = list(_checks(config, tests, coverage))
        for line in _table(rows):
            context.say(line)
        if tests is not None and tests.failed:
            context.say("failed tests: " + ", ".join(tests.failed))
        refused = [row.refusal for row in rows if row.refusal]
        return StepResult("failed" if refused else "succeeded", "; ".join(refused), outputs=_outputs(tests, coverage))


class _Check(msgspec.Struct, frozen=True):
    """One row of the table; `refusal` tells why the gate is shut, or is empty."""

    what: str
    value: str
    limit: str = ""
    refusal: str = ""


def _read(cwd: Path, patterns: Iterable[str], read: Callable[[Path], R]) -> R | None:
    """Read every file of every pattern and add them up; None without patterns. Raises BadReport."""
    total: R | None = None
    for path in sorted(_files(cwd, patterns)):
        name = path.relative_to(cwd)
        try:
            report = read(path)
        except BadReport as error:
            raise BadReport(f"the report `{name}` cannot be used: {error}") from error
        total = report if total is None else total.plus(report)
    return total


def _files(cwd: Path, patterns: Iterable[str]) -> set[Path]:
    found: set[Path] = set()
    root = cwd.resolve()
    for pattern in patterns:
        if Path(pattern).is_absolute() or ".." in Path(pattern).parts:
            raise BadReport(f"`{pattern}` leads out of the workspace")
        matching = [path for path in cwd.glob(pattern) if path.is_file()]
        if not matching:
            hint = near_names(cwd, pattern)
            raise BadReport(f"no report matches `{pattern}`" + (f"; {hint}" if hint else ""))
        if not all(path.resolve().is_relative_to(root) for path in matching):
            raise BadReport(f"`{pattern}` leads out of the workspace by a link")
        found.update(matching)
    if len(found) > MOST_FILES:
        raise BadReport(f"more than {MOST_FILES} reports match")
    return found


def _checks(config: QualityConfig, tests: Tests | None, coverage: Coverage | None) -> Iterator[_Check]:
    if tests is not None:
        ran, bad = tests.tests - tests.skipped, tests.failures + tests.errors
        few = f"{ran} tests ran, fewer than {config.min_tests}" if ran < config.min_tests else ""
        yield _Check("tests that ran", str(ran), f"at least {config.min_tests}", few)
        many = f"{bad} tests failed, more than {config.max_failures}" if bad > config.max_failures else ""
        yield _Check("failed", str(bad), f"at most {config.max_failures}", many)
        limit = config.max_skipped
        over = limit is not None and tests.skipped > limit
        refusal = f"{tests.skipped} tests were skipped, more than {limit}" if over else ""
        yield _Check("skipped", str(tests.skipped), "" if limit is None else f"at most {limit}", refusal)
    lines = coverage.line_coverage if coverage is not None else None
    branches = coverage.branch_coverage if coverage is not None else None
    yield from _coverage("line coverage", lines, config.min_line_coverage, told=coverage is not None)
    yield from _coverage("branch coverage", branches, config.min_branch_coverage, told=False)


def _coverage(what: str, value: float | None, least: float | None, *, told: bool) -> Iterator[_Check]:
    limit = "" if least is None else f"at least {least:.1%}"
    if value is None:
        if least is not None:
            yield _Check(what, "unknown", limit, f"{what} was not measured, but {least:.1%} is asked for")
        elif told:
            yield _Check(what, "unknown")
        return
    low = least is not None and value < least
    # One digit more than the limit has, so that 79.96 % is not refused as "80.0 %".
    yield _Check(what, f"{value:.2%}", limit, f"{what} is {value:.2%}, below {least:.1%}" if low else "")


def _table(rows: list[_Check]) -> Iterator[str]:
    what = max((len(row.what) for row in rows), default=0)
    value = max((len(row.value) for row in rows), default=0)
    for row in rows:
        mark = "✖" if row.refusal else "✔" if row.limit else " "
        yield f"{mark} {row.what:<{what}}  {row.value:>{value}}  {row.limit}".rstrip()


def _outputs(tests: Tests | None, coverage: Coverage | None) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    if tests is not None:
        outputs |= {"tests": tests.tests, "failures": tests.failures + tests.errors, "skipped": tests.skipped}
    if coverage is not None:
        known = {"line_coverage": coverage.line_coverage, "branch_coverage": coverage.branch_coverage}
        outputs |= {name: round(value, 6) for name, value in known.items() if value is not None}
    return outputs
