"""Recorded readings of past releases: a CSV file as releases, read as a stream and judged on several processors.

Rows of a release may stand anywhere in the file, in any order. The file is scanned once for where the rows of each
release are; then every process reads the releases that it judges. One row is one line: no line breaks in quotes.
"""

from __future__ import annotations

import csv
import io
import math
import mmap
import multiprocessing
import os
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

import msgspec

from forge.core.judge.calibrate import SHORTEST_HISTORY, Calibration, calibrate
from forge.core.judge.evidence import Counts
from forge.core.judge.latency import LatencyCalibration, calibrate_latency
from forge.core.judge.windows import LARGEST
from forge.model.diagnostics import Diagnostic, did_you_mean
from forge.model.errors import InvalidConfiguration, UsageError
from forge.model.traffic import Sample

NEEDED = ("release", "t", "arm", "requests", "errors")
MOST_DIAGNOSTICS = 20
FEW_RELEASES = 8
"""So many are judged faster here than processes start."""
R = TypeVar("R")


class Header(msgspec.Struct, frozen=True):
    """Where the columns are; `bounds` are the upper bounds of the `le_` columns in seconds, ascending."""

    columns: dict[str, int]
    bounds: tuple[tuple[float, int], ...]
    width: int


class Recorded(msgspec.Struct, frozen=True):
    """One release: cumulative readings of stable and of each arm from its start (t >= 0), that never fall.

    The first reading of each is what counting starts from. `step`: seconds between readings.
    """

    release: str
    stable: tuple[Sample, ...]
    arms: dict[str, tuple[Sample, ...]]
    calibration: Calibration
    step: float
    latency: LatencyCalibration | None = None
    """What stable's own history says of its latency; None where it is too short, or has none."""


class Row(msgspec.Struct, frozen=True):
    """One reading of one series, as it was written."""

    t: float
    requests: int
    errors: int
    latency: tuple[int, ...]


class Index(msgspec.Struct, frozen=True):
    """Where each release is: (offset, end, number of its first line) for every run of its rows."""

    path: str
    header: Header
    places: dict[str, array[int]]


def read_index(path: Path) -> Index:
    """Scan the file. Raises UsageError when it cannot be read, InvalidConfiguration for a wrong header."""
    try:
        with path.open("rb") as file:
            first = file.readline()
            header = _header(path.name, first)
            return Index(str(path), header, _places(file, len(first), header))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def read_release(index: Index, name: str, stable: str) -> tuple[Recorded | None, list[Diagnostic]]:
    """Return one release; None, and what is wrong with its rows, when any is."""
    series: dict[str, dict[float, Row]] = {}
    problems: list[Diagnostic] = []
    for line, text in _lines(index, name):
        try:
            cells = next(csv.reader([text], strict=True))
        except csv.Error as error:
            problems.append(_problem(index, line, 1, text, f"this row cannot be read: {error}"))
            continue
        found = _row(index, line, text, cells)
        if isinstance(found, list):
            problems += found
        elif found is not None:
            # The same reading delivered twice is one reading; the later one stands.
            series.setdefault(cells[index.header.columns["arm"]].strip(), {})[found.t] = found
    if problems:
        return None, problems[: MOST_DIAGNOSTICS + 1]
    ordered = {group: [rows[t] for t in sorted(rows)] for group, rows in series.items()}
    return assemble(name, ordered, stable, index.header), []


def assemble(name: str, series: Mapping[str, list[Row]], stable: str, header: Header) -> Recorded:
    """Join the replica groups of each arm, and calibrate on stable's own history (t < 0)."""
    step = _step(series)
    groups: dict[str, dict[str, list[Row]]] = {}
    for label, rows in series.items():
        arm = stable if label.startswith(f"{stable}/") else label.partition("/")[0]
        groups.setdefault(arm if label != stable else stable, {})[label] = rows
    bounds = tuple(bound for bound, _ in header.bounds)
    reference = _joined(groups.get(stable, {}), bounds, ())
    times = tuple(sample.at for sample in reference)
    arms = {arm: _joined(parts, bounds, times) for arm, parts in groups.items() if arm != stable}
    own = {label: rows for label, rows in groups.get(stable, {}).items() if "/" in label[len(stable) :]}
    others = {arm: readings for arm, readings in sorted(arms.items()) if readings}
    return Recorded(name, reference, others, calibrate(_halves(own), step), step, _slow(own, bounds, step))


def each_release(
    index: Index,
    work: Callable[[Recorded], R],
    *,
    stable: str = "stable",
    jobs: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[R]:
    """Return `work(release)` for every release, in the order of the file. `work` must be importable (a `partial` is).

    `jobs`: processes (0: one a processor). Raises InvalidConfiguration with what is wrong in any row, at most
    `MOST_DIAGNOSTICS` of it, once the whole file was looked at.
    """
    names = list(index.places)
    jobs = jobs or _processors()
    if jobs == 1 or len(names) < FEW_RELEASES:
        found = (_work(index, name, stable, work) for name in names)
        return _gathered(found, len(names), progress)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(index, stable, work)) as pool:
        try:
            return _gathered(_in_order(pool, names, jobs), len(names), progress)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_stable(index: Index, stable: str) -> None:
    """Raise UsageError when the first release has no arm of that name, with the nearest that it has."""
    if not index.places:
        raise UsageError(f"{Path(index.path).name} has no rows")
    column = index.header.columns["arm"]
    first = next(iter(index.places))
    labels: set[str] = set()
    for _, text in _lines(index, first):
        cells = text.split(",")
        if len(cells) > column:
            labels.add(cells[column].strip().strip('"'))
    if not any(label == stable or label.startswith(f"{stable}/") for label in labels):
        known = sorted({label.partition("/")[0] for label in labels})[:10]
        raise UsageError(f"release {first} has no arm `{stable}`", hint=did_you_mean(stable, known))


_here: list[tuple[Index, str, Callable[[Recorded], object]]] = []


def _begin(index: Index, stable: str, work: Callable[[Recorded], object]) -> None:
    _here[:] = [(index, stable, work)]


def _work_here(names: tuple[str, ...]) -> list[tuple[object, list[Diagnostic]]]:
    index, stable, work = _here[0]
    return [_work(index, name, stable, work) for name in names]


def _work(index: Index, name: str, stable: str, work: Callable[[Recorded], R]) -> tuple[R | None, list[Diagnostic]]:
    recorded, problems = read_release(index, name, stable)
    return (work(recorded), []) if recorded is not None else (None, problems)


def _in_order(pool: ProcessPoolExecutor, names: list[str], jobs: int) -> Iterator[tuple[R | None, list[Diagnostic]]]:
    """Hand out the work a little ahead of what is done, and return it in order."""
    queue = iter(names)
    size = max(1, min(8, len(names) // (4 * jobs)))
    parts = iter(lambda: tuple(islice(queue, size)), ())
    waiting: list[Future[list[tuple[R | None, list[Diagnostic]]]]] = [
        pool.submit(_work_here, part)  # type: ignore[arg-type]
        for part in islice(parts, 2 * jobs)
    ]
    while waiting:
        wait(waiting[:1], return_when=FIRST_COMPLETED)
        done = waiting.pop(0)
        part = next(parts, None)
        if part is not None:
            waiting.append(pool.submit(_work_here, part))  # type: ignore[arg-type]
        yield from done.result()


def _gathered(
    found: Iterator[tuple[R | None, list[Diagnostic]]], total: int, progress: Callable[[int, int], None] | None
) -> list[R]:
    results: list[R] = []
    problems: list[Diagnostic] = []
    for done, (result, wrong) in enumerate(found, start=1):
        problems += wrong[: MOST_DIAGNOSTICS + 1 - len(problems)]
        if result is not None:
            results.append(result)
        if progress is not None:
            progress(done, total)
    if problems:
        raise WrongRows(tuple(problems[:MOST_DIAGNOSTICS]), more=len(problems) > MOST_DIAGNOSTICS)
    return results


class WrongRows(InvalidConfiguration):
    """Rows of a file of readings are wrong; nothing was judged. `more`: there are more than are told."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], *, more: bool = False) -> None:
        super().__init__(diagnostics)
        self.more = more
        count = len(diagnostics)
        told = f"more than {count} problems" if more else f"{count} problem{'s' if count != 1 else ''}"
        self.message = f"{told} in {diagnostics[0].file}"
        self.args = (self.message,)


def _header(file: str, first: bytes) -> Header:
    try:
        text = first.decode("utf-8-sig").rstrip("\r\n")
        names = [name.strip() for name in next(csv.reader([text], strict=True), [])]
    except (UnicodeDecodeError, csv.Error):
        raise WrongRows((Diagnostic("readings-header", "the header cannot be read as CSV", file, 1, 1),)) from None
    problems = [
        Diagnostic("readings-column", f"there is no column `{name}`", file, 1, 1, len(text), text, did_you_mean(name, names))
        for name in NEEDED
        if name not in names
    ]  # fmt: skip
    bounds = []
    for at, name in enumerate(names):
        if names.index(name) != at:
            problems.append(Diagnostic("readings-column", f"the column `{name}` is there twice", file, 1, 1, 1, text))
        elif name.startswith("le_"):
            bound = _number(name[3:].lstrip("+"))
            if bound is None or math.isnan(bound) or bound <= 0:
                words = f"`{name}` is no upper bound in seconds, such as le_0.25 or le_inf"
                problems.append(Diagnostic("readings-column", words, file, 1, text.find(name) + 1, len(name), text))
            else:
                bounds.append((bound, at))
    if problems:
        raise WrongRows(tuple(problems))
    return Header({name: at for at, name in enumerate(names)}, tuple(sorted(bounds)), len(names))


def _places(file: io.BufferedReader, offset: int, header: Header) -> dict[str, array[int]]:
    """Return where the rows of each release are; neighbours are one run."""
    column = header.columns["release"]
    places: dict[str, array[int]] = {}
    current, number = b"", 1
    for line in file:
        number += 1
        end = offset + len(line)
        if line.strip():
            cells = line.split(b",", column + 1)
            key = cells[min(column, len(cells) - 1)].strip() or b"?"
            name = key.strip(b'"').decode("utf-8", "replace")
            runs = places.setdefault(name, array("q"))
            if key == current and runs and runs[-2] == offset:
                runs[-2] = end
            else:
                runs.extend((offset, end, number))
            current = key
        offset = end
    return places


def _lines(index: Index, name: str) -> Iterator[tuple[int, str]]:
    runs = index.places[name]
    with Path(index.path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for at in range(0, len(runs), 3):
            start, end, number = runs[at : at + 3]
            for line in content[start:end].decode("utf-8", "replace").splitlines():
                if line.strip():
                    yield number, line
                number += 1


def _row(index: Index, line: int, text: str, cells: list[str]) -> Row | list[Diagnostic] | None:
    """Return the reading; None for one that says nothing (empty or NaN); or what is wrong with it."""
    header = index.header
    if len(cells) != header.width:
        return [_problem(index, line, 1, text, f"{len(cells)} columns, and the header has {header.width}")]
    problems = [
        _problem(index, line, _column(cells, header.columns[name]), text, f"`{name}` is empty")
        for name in ("release", "arm")
        if not cells[header.columns[name]].strip()
    ]
    values: list[float] = []
    columns = [
        header.columns["t"],
        header.columns["requests"],
        header.columns["errors"],
        *(at for _, at in header.bounds),
    ]
    for at in columns:
        word = cells[at].strip()
        value = _number(word) if word else math.nan
        if value is None or math.isinf(value) or (math.isnan(value) and at == columns[0]):
            problems.append(_problem(index, line, _column(cells, at), text, f"`{word}` is not a number", len(word)))
        elif value < 0 and at != columns[0]:
            problems.append(_problem(index, line, _column(cells, at), text, "a counter is never negative", len(word)))
        values.append(math.nan if value is None else value)
    if not problems and values[2] > values[1]:
        words = f"{cells[columns[2]].strip()} errors of {cells[columns[1]].strip()} requests"
        problems.append(_problem(index, line, _column(cells, columns[2]), text, words, len(cells[columns[2]])))
    if problems:
        return problems
    if math.isnan(values[1]) or math.isnan(values[2]):
        return None
    latency = values[3:]
    kept = () if any(math.isnan(value) for value in latency) else tuple(round(value) for value in latency)
    return Row(values[0], round(values[1]), round(values[2]), kept)


def _problem(index: Index, line: int, column: int, text: str, message: str, length: int = 1) -> Diagnostic:
    return Diagnostic("readings-row", message, Path(index.path).name, line, column, max(1, length), text[:200])


def _column(cells: list[str], at: int) -> int:
    return sum(len(cell) + 1 for cell in cells[:at]) + 1


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _step(series: Mapping[str, list[Row]]) -> float:
    """Return the usual time between readings."""
    longest = max(series.values(), key=len, default=[])
    gaps = sorted(after.t - before.t for before, after in pairwise(longest))
    return gaps[len(gaps) // 2] if gaps else 1.0


def _joined(parts: Mapping[str, list[Row]], bounds: tuple[float, ...], times: Sequence[float]) -> tuple[Sample, ...]:
    """Return one series of all groups, summed, from the last reading before the release on.

    `times`: when stable was read (empty: this is stable).
    """
    width = len(bounds)
    changes: dict[float, list[int]] = {}
    for rows in parts.values():
        for t, grown in _increments(rows, width, times):
            sums = changes.setdefault(t, [0] * (2 + width))
            for at, value in enumerate(grown):
                sums[at] += value
    found: list[Sample] = []
    total = [0] * (2 + width)
    for t in sorted(changes):
        if t >= 0:
            total = [old + new for old, new in zip(total, changes[t], strict=True)]
        elif found:
            found.clear()
        found.append(Sample(t, total[0], total[1], _buckets(bounds, total)))
    return tuple(found)


def _buckets(bounds: tuple[float, ...], total: list[int]) -> tuple[tuple[float, int], ...]:
    """Return the histogram; what is beyond the last bound is the rest of the requests."""
    if not bounds:
        return ()
    found = tuple(zip(bounds, total[2:], strict=True))
    return found if math.isinf(bounds[-1]) else (*found, (math.inf, max(total[0], total[-1])))


def _increments(
    rows: list[Row], width: int, times: Sequence[float] = ()
) -> Iterator[tuple[float, tuple[int, ...]]]:  # fmt: skip
    """Return what each reading added; a counter that fell was reset and counts from zero.

    The first reading is where counting starts, unless the counters were new then: they hold no more than a few
    intervals' worth. A new version had answered nothing when stable was read before.
    """
    if not rows:
        return
    first = rows[0]
    nothing = (0,) * (2 + width)
    if _is_new(rows) and (times or first.t >= 0):
        earlier = bisect_left(times, first.t - 1e-6)
        yield times[earlier - 1] if earlier else first.t - (rows[1].t - first.t), nothing
        yield first.t, (first.requests, first.errors, *(first.latency or (0,) * width))
    else:
        yield first.t, nothing
    buckets = first.latency
    before = first
    for row in rows[1:]:
        reset = row.requests < before.requests or row.errors < before.errors
        base = Row(row.t, 0, 0, ()) if reset else before
        old = (0,) * width if reset else (buckets or row.latency)
        grown = tuple(max(0, new - was) for new, was in zip(row.latency, old, strict=False)) or (0,) * width
        yield row.t, (row.requests - base.requests, row.errors - base.errors, *grown)
        before = row
        buckets = row.latency or (() if reset else buckets)


def _is_new(rows: list[Row]) -> bool:
    """Whether the first reading holds no more than three intervals of what the second one added."""
    if len(rows) < 2 or rows[1].requests < rows[0].requests:
        return False
    return 0 < rows[0].requests <= 3 * (rows[1].requests - rows[0].requests)


def _slow(own: Mapping[str, list[Row]], bounds: tuple[float, ...], step: float) -> LatencyCalibration | None:
    """Return what both halves of stable's groups say of slow requests before the release."""
    if len(own) < 2 or not bounds:
        return None
    every = tuple(min(bound, LARGEST) for bound in (*bounds, LARGEST))
    halves: dict[float, list[list[int]]] = {}
    for number, label in enumerate(sorted(own)):
        history = [row for row in own[label] if row.t < 0]
        for t, (requests, _, *below) in _increments(history, len(bounds)):
            pair = halves.setdefault(t, [[0] * len(every), [0] * len(every)])
            counts = [high - low for low, high in pairwise((0, *below, requests))] if any(below) else [0] * len(every)
            pair[number % 2] = [was + max(0, more) for was, more in zip(pair[number % 2], counts, strict=True)]
    if len(halves) * step < SHORTEST_HISTORY:
        return None
    rows = [tuple(tuple(zip(every, half, strict=True)) for half in halves[t]) for t in sorted(halves)]
    return calibrate_latency([(one, two) for one, two in rows], bounds, step)


def _halves(own: Mapping[str, list[Row]]) -> list[tuple[Counts, Counts]]:
    """Return what both halves of stable's groups counted in each interval before the release."""
    if len(own) < 2:
        return []
    halves: dict[float, list[Counts]] = {}
    for number, label in enumerate(sorted(own)):
        history = [row for row in own[label] if row.t < 0]
        for t, (requests, errors, *_) in _increments(history, 0):
            pair = halves.setdefault(t, [Counts(), Counts()])
            pair[number % 2] += Counts(requests, errors)
    times = sorted(halves)
    return [(halves[t][0], halves[t][1]) for t in times]


def _processors() -> int:
    try:
        return max(1, len(os.sched_getaffinity(0)))
    except AttributeError:  # not on every system
        return max(1, os.cpu_count() or 1)
