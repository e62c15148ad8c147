"""Garbage in a file of readings is told, every bit of it at once, and never becomes a verdict or a crash."""

from __future__ import annotations

import contextlib
import random
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forge.engine.analysing import judge_release
from forge.engine.recorded import check_stable, each_release, read_index
from forge.model.errors import ForgeError, InvalidConfiguration

HEADER = "release,t,arm,requests,errors,le_0.1,le_inf"
CELLS = st.one_of(
    st.sampled_from(
        ["", "a", "stable", "stable/1", "canary", "nan", "inf", "-inf", "1e400", "1e308", "-1", "0", "5.5"]
    ),
    st.integers(-5, 10**18).map(str),
    st.text(max_size=8),
)
ROWS = st.lists(st.lists(CELLS, max_size=9).map(",".join), max_size=12)


def judged(text: bytes) -> list[str]:
    """Return the verdicts of a file. Raises ForgeError for one that cannot be judged."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "readings.csv"
        path.write_bytes(text)
        index = read_index(path)
        check_stable(index, "stable")
        found = each_release(index, partial(judge_release, judge="sequential"), stable="stable", jobs=1)
        return [one.analysis.verdict for one in found]


def whole() -> list[str]:
    """A file of one release that goes wrong, as lines."""
    rng = random.Random(3)
    lines, counts = [HEADER], {"stable": [0, 0], "canary": [0, 0]}
    for t in range(-3, 40):
        for arm, rate in (("stable", 0.01), ("canary", 0.5)):
            if arm == "stable" or t >= 0:
                counts[arm][0] += 50
                counts[arm][1] += sum(rng.random() < rate for _ in range(50))
                requests, errors = counts[arm]
                lines.append(f"a,{t},{arm},{requests},{errors},{requests // 2},{requests}")
    return lines


WHOLE = whole()


def test_the_whole_file_has_a_verdict() -> None:
    assert judged("\n".join(WHOLE).encode()) == ["rollback"]


@given(st.one_of(st.binary(max_size=300), st.tuples(st.sampled_from([HEADER, "release,t,arm"]), ROWS).map(
    lambda made: "\n".join([made[0], *made[1]]).encode("utf-8", "surrogatepass")
)))  # fmt: skip
def test_whatever_stands_in_a_file_it_is_judged_or_refused_in_words(text: bytes) -> None:
    with contextlib.suppress(ForgeError):
        assert {"rollback", "promote", "hold", "inconclusive"}.issuperset(judged(text))


@settings(max_examples=60)
@given(st.data())
def test_a_damaged_cell_of_a_good_file_is_told_with_its_place(data: st.DataObject) -> None:
    """Also several at once, each with its own line."""
    places = data.draw(st.lists(st.tuples(st.integers(1, len(WHOLE) - 1), st.sampled_from([1, 3, 4])), min_size=1, max_size=4,
                                unique_by=lambda place: place[0]))  # fmt: skip
    lines = list(WHOLE)
    for line, column in places:
        cells = lines[line].split(",")
        cells[column] = data.draw(st.sampled_from(["x", "inf", "1,5", "--3"]))
        lines[line] = ",".join(cells)
    with pytest.raises(InvalidConfiguration) as raised:
        judged("\n".join(lines).encode())
    assert {problem.line for problem in raised.value.diagnostics} == {line + 1 for line, _ in places}


@settings(max_examples=60)
@given(st.integers(0, 4000), st.booleans())
def test_a_file_that_was_cut_off_is_judged_by_what_there_is_or_refused(at: int, windows: bool) -> None:
    text = ("\r\n" if windows else "\n").join(WHOLE).encode()[:at]
    with contextlib.suppress(ForgeError):
        assert len(judged(text)) <= 1
