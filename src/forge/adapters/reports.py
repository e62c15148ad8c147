"""Reads test reports (JUnit XML) and coverage reports (Cobertura XML) that nobody has to trust."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

LARGEST = 256 * 1024 * 1024
"""Bytes of one report; real ones of huge projects have tens of megabytes."""
_NAMED = 10
_DEEPEST = 100


class BadReport(ValueError):
    """The report cannot be read, or does not say what a report of its kind says."""


class Tests(msgspec.Struct, frozen=True):
    """What a JUnit report says. `failed` has the names of the first failed tests."""

    tests: int = 0
    failures: int = 0
    errors: int = 0
    skipped: int = 0
    seconds: float = 0.0
    failed: tuple[str, ...] = ()

    def plus(self, other: Tests) -> Tests:
        """Return both together."""
        return Tests(
            self.tests + other.tests,
            self.failures + other.failures,
            self.errors + other.errors,
            self.skipped + other.skipped,
            self.seconds + other.seconds,
            (self.failed + other.failed)[:_NAMED],
        )


class Coverage(msgspec.Struct, frozen=True):
    """What a Cobertura report says: covered and valid lines and branches."""

    lines_covered: int = 0
    lines: int = 0
    branches_covered: int = 0
    branches: int = 0

    def plus(self, other: Coverage) -> Coverage:
        """Return both together, for reports about different code."""
        return Coverage(
            self.lines_covered + other.lines_covered,
            self.lines + other.lines,
            self.branches_covered + other.branches_covered,
            self.branches + other.branches,
        )

    @property
    def line_coverage(self) -> float | None:
        """Fraction of the lines, or None where there are none."""
        return self.lines_covered / self.lines if self.lines else None

    @property
    def branch_coverage(self) -> float | None:
        """Fraction of the branches, or None where there are none."""
        return self.branches_covered / self.branches if self.branches else None


def read_junit(path: Path) -> Tests:
    """Count a report's test cases themselves: the totals that suites write of themselves are often wrong.

    Raises BadReport.
    """
    total = Tests()
    for event, element in _elements(path, ("testsuites", "testsuite"), whole="testcase"):
        if event == "end" and element.tag == "testcase":
            total = total.plus(_case(element))
    return total


def read_cobertura(path: Path) -> Coverage:
    """Count a report's `line` elements, once a file and line; trust its totals only where it has no lines.

    Raises BadReport.
    """
    lines: dict[tuple[str, int], tuple[bool, int, int]] = {}
    file = ""
    in_method = 0
    totals: Coverage | None = None
    for event, element in _elements(path, ("coverage",)):
        if event == "start":
            in_method += element.tag == "method"
            if element.tag == "class":
                file = element.get("filename", element.get("name", ""))
            elif element.tag == "coverage" and totals is None:
                totals = _totals(element)
            continue
        in_method -= element.tag == "method"
        if element.tag == "line" and not in_method:
            place = (file, _count(element, "number"))
            lines[place] = _merged(lines.get(place), _line(element))
    if lines:
        return Coverage(
            sum(hit for hit, _, _ in lines.values()),
            len(lines),
            sum(taken for _, taken, _ in lines.values()),
            sum(branches for _, _, branches in lines.values()),
        )
    if totals is None or not totals.lines:
        raise BadReport("it has no lines")
    return totals


def _elements(path: Path, roots: Iterable[str], whole: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the start and the end of each element, names without their namespace. Raises BadReport.

    Only elements called `whole` still have their children at their end: a report with a million cases
    shall not be in memory at once.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise BadReport(f"it is larger than {LARGEST >> 20} MiB")
        if not size:
            raise BadReport("it is empty")
        yield from _parsed(path, roots, whole)
    except ElementTree.ParseError as error:
        raise BadReport(f"it is not well-formed XML: {error}") from error
    except DefusedXmlException as error:
        raise BadReport(f"it uses XML that is refused: {type(error).__name__}") from error
    except (OSError, UnicodeError, LookupError) as error:
        raise BadReport(f"it cannot be read: {error}") from error


def _parsed(path: Path, roots: Iterable[str], whole: str) -> Iterator[tuple[str, Any]]:
    above: list[Any] = []
    # Cobertura reports name their DTD; naming is harmless, entities and fetching are refused.
    for event, element in ElementTree.iterparse(path, events=("start", "end"), forbid_dtd=False):
        if event == "start":
            element.tag = str(element.tag).rpartition("}")[2]
            if not above and element.tag not in roots:
                raise BadReport(f"it begins with <{element.tag}>, not with {' or '.join(f'<{r}>' for r in roots)}")
            above.append(element)
            if len(above) > _DEEPEST:
                raise BadReport(f"its elements are nested more than {_DEEPEST} deep")
        yield event, element
        if event == "end":
            above.pop()
            if above and not any(parent.tag == whole for parent in above):
                above[-1].remove(element)


def _case(element: Any) -> Tests:
    kinds = {child.tag for child in element}
    name = ".".join(filter(None, (element.get("classname"), element.get("name")))) or "?"
    return Tests(
        tests=1,
        errors=int("error" in kinds),
        failures=int("failure" in kinds and "error" not in kinds),
        skipped=int("skipped" in kinds and not kinds & {"failure", "error"}),
        seconds=_seconds(element.get("time", "0")),
        failed=(name,) if kinds & {"failure", "error"} else (),
    )


def _seconds(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and value >= 0 else 0.0


def _line(element: Any) -> tuple[bool, int, int]:
    """Return (hit, branches taken, branches) of a `<line hits="1" condition-coverage="50% (1/2)">`."""
    hit = _count(element, "hits") > 0
    told = element.get("condition-coverage", "").partition("(")[2].rstrip(") ")
    taken, slash, valid = told.partition("/")
    if not slash:
        return hit, 0, 0
    if not (taken.isdigit() and valid.isdigit() and int(taken) <= int(valid)):
        raise BadReport(f"`{element.get('condition-coverage')}` is not a condition coverage")
    return hit, int(taken), int(valid)


def _merged(one: tuple[bool, int, int] | None, other: tuple[bool, int, int]) -> tuple[bool, int, int]:
    if one is None:
        return other
    return one[0] or other[0], max(one[1], other[1]), max(one[2], other[2])


def _totals(element: Any) -> Coverage | None:
    if element.get("lines-valid") is None:
        return None
    covered, valid = _count(element, "lines-covered"), _count(element, "lines-valid")
    branches_covered = _count(element, "branches-covered") if element.get("branches-covered") else 0
    branches = _count(element, "branches-valid") if element.get("branches-valid") else 0
    if covered > valid or branches_covered > branches:
        raise BadReport("it says that more is covered than there is")
    return Coverage(covered, valid, branches_covered, branches)


def _count(element: Any, name: str) -> int:
    text = element.get(name, "")
    if not text.strip().isdigit():
        raise BadReport(f'<{element.tag} {name}="{text[:40]}"> is not a count')
    return int(text)
